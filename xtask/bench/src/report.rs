//! What a bench prints: figures with their units, and ratios with the bound they must keep.

use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

/// One measured number.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// The number.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
}

/// What is asked of a figure beside its baseline.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// Nothing; it is told for comparison.
    Nothing,
    /// `measured / baseline` is at least this.
    RatioAtLeast(f64),
    /// `measured / baseline` is neither below the first nor above the second.
    RatioWithin(f64, f64),
    /// `measured` is at most this, in its own unit.
    AtMost(f64),
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.pad("-"),
            Self::RatioAtLeast(least) => f.pad(&format!("ratio >= {least:.2}")),
            Self::RatioWithin(least, most) => f.pad(&format!("ratio {least:.2}..{most:.2}")),
            Self::AtMost(most) => f.pad(&format!("<= {}", number(*most))),
        }
    }
}

/// A figure beside its baseline, taken in the same run.
#[derive(Clone, Debug)]
pub struct Ratio {
    /// What is compared.
    pub name: String,
    /// Ours.
    pub measured: f64,
    /// What it is divided by.
    pub baseline: f64,
    /// The unit of both.
    pub unit: &'static str,
    /// What is asked of it.
    pub wanted: Wanted,
}

impl Ratio {
    /// Gives `measured / baseline`.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.measured / self.baseline
    }

    /// Tells whether what is asked holds; what is no number keeps no bound.
    #[must_use]
    pub fn holds(&self) -> bool {
        match self.wanted {
            Wanted::Nothing => true,
            Wanted::RatioAtLeast(least) => self.value() >= least,
            Wanted::RatioWithin(least, most) => (least..=most).contains(&self.value()),
            Wanted::AtMost(most) => self.measured <= most,
        }
    }
}

/// With what follows from it, so that no reader of the JSON has to judge again.
impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Ratio", 7)?;
        object.serialize_field("name", &self.name)?;
        object.serialize_field("measured", &self.measured)?;
        object.serialize_field("baseline", &self.baseline)?;
        object.serialize_field("unit", self.unit)?;
        object.serialize_field("ratio", &self.value())?;
        object.serialize_field("wanted", &self.wanted)?;
        object.serialize_field("holds", &self.holds())?;
        object.end()
    }
}

/// Everything one run found out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The figures, in the order in which they were taken.
    pub figures: Vec<Figure>,
    /// The ratios, in the order in which they were taken.
    pub ratios: Vec<Ratio>,
    /// What a reader must know to read the figures.
    pub notes: Vec<String>,
}

impl Report {
    /// Adds a figure.
    pub fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        let name = name.into();
        self.figures.push(Figure { name, value, unit });
    }

    /// Adds a figure beside its baseline.
    pub fn ratio(
        &mut self,
        name: impl Into<String>,
        (measured, baseline, unit): (f64, f64, &'static str),
        wanted: Wanted,
    ) {
        let name = name.into();
        self.ratios.push(Ratio {
            name,
            measured,
            baseline,
            unit,
            wanted,
        });
    }

    /// Adds a remark.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Gives the value of the figure called `name`.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<f64> {
        let found = self.figures.iter().find(|figure| figure.name == name);
        found.map(|figure| figure.value)
    }

    /// Appends what another bench found out.
    pub fn extend(&mut self, other: Self) {
        self.figures.extend(other.figures);
        self.ratios.extend(other.ratios);
        self.notes.extend(other.notes);
    }

    /// Tells whether every ratio keeps its bound.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.ratios.iter().all(Ratio::holds)
    }
}

/// The table that a person reads.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for figure in &self.figures {
            let value = number(figure.value);
            writeln!(f, "{:<48} {value:>12} {}", figure.name, figure.unit)?;
        }
        if !self.ratios.is_empty() {
            writeln!(
                f,
                "\n{:<44} {:>10} {:>10} {:<14} {:>7}  {:<16}",
                "beside its baseline", "measured", "baseline", "unit", "ratio", "wanted"
            )?;
        }
        for ratio in &self.ratios {
            let (measured, baseline) = (number(ratio.measured), number(ratio.baseline));
            let verdict = match (ratio.wanted, ratio.holds()) {
                (Wanted::Nothing, _) => "",
                (_, true) => "ok",
                (_, false) => "MISSED",
            };
            let (name, unit, value, wanted) =
                (&ratio.name, ratio.unit, ratio.value(), ratio.wanted);
            writeln!(
                f,
                "{name:<44} {measured:>10} {baseline:>10} {unit:<14} {value:>7.2}  {wanted:<16} {verdict}"
            )?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

/// Writes a number with as many digits as mean something.
fn number(value: f64) -> String {
    if value.abs() >= 100.0 {
        format!("{value:.0}")
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    }
}

/// Gives the middle one of some numbers; none of none.
#[must_use]
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        for (values, expected) in [
            (vec![], None),
            (vec![3.0, 1.0, 2.0], Some(2.0)),
            (vec![1.0, 9.0], Some(9.0)),
        ] {
            assert_eq!(median(values), expected);
        }
    }

    #[test]
    fn what_misses_its_bound_is_told_and_fails_the_run() {
        for (measured, baseline, wanted, holds) in [
            (50.0, 100.0, Wanted::RatioAtLeast(0.5), true),
            (49.0, 100.0, Wanted::RatioAtLeast(0.5), false),
            (1.0, f64::NAN, Wanted::RatioAtLeast(0.5), false),
            (119.0, 100.0, Wanted::RatioWithin(0.8, 1.2), true),
            (121.0, 100.0, Wanted::RatioWithin(0.8, 1.2), false),
            (79.0, 100.0, Wanted::RatioWithin(0.8, 1.2), false),
            (5.0, 0.1, Wanted::AtMost(5.0), true),
            (5.1, 100.0, Wanted::AtMost(5.0), false),
            (f64::NAN, 100.0, Wanted::AtMost(5.0), false),
            (1e9, 1.0, Wanted::Nothing, true),
        ] {
            let mut report = Report::default();
            report.ratio("accept", (measured, baseline, "ms"), wanted);
            assert_eq!(report.holds(), holds, "{measured} of {baseline}, {wanted}");
            assert_eq!(report.to_string().contains("MISSED"), !holds);
            let json = serde_json::to_value(&report).unwrap();
            assert_eq!(json["ratios"][0]["holds"], holds);
        }
    }
}
