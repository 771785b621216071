//! What a bench prints: figures with their units, and ratios with the bound they must keep.

use std::fmt;

use serde::Serialize;

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

/// A figure beside its baseline, taken in the same run.
#[derive(Clone, Debug, Serialize)]
pub struct Ratio {
    /// What is compared.
    pub name: String,
    /// Ours.
    pub measured: f64,
    /// What it is divided by.
    pub baseline: f64,
    /// The least that is wanted of `measured / baseline`.
    pub wanted: f64,
}

impl Ratio {
    /// Gives `measured / baseline`.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.measured / self.baseline
    }

    /// Tells whether the bound is kept; a baseline of nothing keeps none.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.value() >= self.wanted
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
                "\n{:<40} {:>10} {:>10} {:>7} {:>7}",
                "ratio", "measured", "baseline", "ratio", "wanted"
            )?;
        }
        for ratio in &self.ratios {
            let (measured, baseline) = (number(ratio.measured), number(ratio.baseline));
            let verdict = if ratio.holds() { "ok" } else { "MISSED" };
            let (value, wanted) = (ratio.value(), ratio.wanted);
            writeln!(
                f,
                "{:<40} {measured:>10} {baseline:>10} {value:>7.2} {wanted:>7.2} {verdict}",
                ratio.name
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
    fn a_ratio_below_its_bound_is_missed() {
        for (measured, baseline, holds) in [
            (50.0, 100.0, true),
            (49.0, 100.0, false),
            (1.0, f64::NAN, false),
        ] {
            let name = "accept".to_owned();
            let ratio = Ratio {
                name,
                measured,
                baseline,
                wanted: 0.5,
            };
            let report = Report {
                ratios: vec![ratio],
                ..Report::default()
            };
            assert_eq!(report.holds(), holds, "{measured} of {baseline}");
            assert_eq!(report.to_string().contains("MISSED"), !holds);
        }
    }
}
