//! Figures of a run: rates, percentiles, medians, and how they are written down.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

/// The named figures of one run, in the order in which they are printed.
pub(super) type Fields = Map<String, Value>;

/// What is the same in every run of a table's row, and so tells nothing there.
const SETTINGS: [&str; 10] = [
    "run",
    "n",
    "producers",
    "concurrency",
    "backlog",
    "pairs",
    "max_attempts",
    "down_s",
    "open_for_s",
    "load_before",
];

/// Gives how many a second.
pub(super) fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64().max(1e-9)
}

/// Gives a number with three decimals.
pub(super) fn rounded(number: f64) -> Value {
    json!((number * 1_000.0).round() / 1_000.0)
}

/// Gives the time below which so many of a thousand are, in milliseconds.
pub(super) fn per_mille_ms(times: &[Duration], per_mille: usize) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = sorted.len().saturating_sub(1) * per_mille / 1_000;
    sorted.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

/// Gives the middle one, the least and the most of some figures; of an even number of them the upper
/// of the middle two, as the peers' programs do.
pub(super) fn median_least_most(figures: &[f64]) -> (f64, f64, f64) {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let at = |place: usize| sorted.get(place).copied().unwrap_or(0.0);
    (
        at(sorted.len() / 2),
        at(0),
        at(sorted.len().saturating_sub(1)),
    )
}

/// Writes runs for people: a block for each scenario and mode, a line for each figure.
pub(super) fn table(runs: &[Fields]) -> String {
    let mut text = String::new();
    let mut shown: Vec<String> = Vec::new();
    for first in runs {
        let name = name(first);
        if shown.contains(&name) {
            continue;
        }
        let alike: Vec<&Fields> = runs.iter().filter(|run| self::name(run) == name).collect();
        let word = |field: &str| first.get(field).and_then(Value::as_str).unwrap_or_default();
        let number = |field: &str| first.get(field).map(Value::to_string).unwrap_or_default();
        text.push_str(&format!(
            "{name}: {} runs of {}, concurrency {}, {}, {}\n",
            alike.len(),
            number("n"),
            number("concurrency"),
            word("store"),
            word("options"),
        ));
        text.push_str(&lines(first, &alike));
        shown.push(name);
    }
    text
}

fn name(run: &Fields) -> String {
    let word = |field: &str| run.get(field).and_then(Value::as_str).map(str::to_owned);
    let scenario = word("scenario").unwrap_or_default();
    word("mode").map_or_else(|| scenario.clone(), |mode| format!("{scenario}, {mode}"))
}

fn lines(first: &Fields, alike: &[&Fields]) -> String {
    let mut text = String::new();
    let mut line = |field: &str, figures: &[f64]| {
        let (median, least, most) = median_least_most(figures);
        let spread = if figures.len() > 1 {
            format!("  ({} to {})", readable(least), readable(most))
        } else {
            String::new()
        };
        text.push_str(&format!("  {field:<24}{:>14}{spread}\n", readable(median)));
    };
    let numbers = first.iter().filter(|(_, value)| value.is_number());
    for (field, _) in numbers.filter(|(field, _)| !SETTINGS.contains(&field.as_str())) {
        let values = alike.iter().filter_map(|run| run.get(field)?.as_f64());
        line(field, &values.collect::<Vec<f64>>());
    }
    let mut bare: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for run in alike {
        let calibration = run.get("calibration").and_then(Value::as_object);
        for (field, value) in calibration.into_iter().flatten() {
            bare.entry(field).or_default().extend(value.as_f64());
        }
    }
    for (field, figures) in bare {
        line(&format!("[{field}]"), &figures);
    }
    text
}

/// Writes large numbers whole and in groups of three digits, small ones with two decimals.
fn readable(number: f64) -> String {
    if number.abs() < 100.0 && number.fract() != 0.0 {
        return format!("{number:.2}");
    }
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0.0 {
        text.insert(0, '-');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_peers_programs() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        for (per_mille, expected) in [(0, 1.0), (500, 100.0), (990, 198.0), (1_000, 200.0)] {
            assert_eq!(per_mille_ms(&times, per_mille), expected, "{per_mille}");
        }
        assert_eq!(per_mille_ms(&[], 500), 0.0);
    }

    #[test]
    fn the_median_is_one_of_the_figures() {
        for (figures, expected) in [
            (vec![3.0, 1.0, 2.0], (2.0, 1.0, 3.0)),
            (vec![4.0, 1.0, 2.0, 3.0], (3.0, 1.0, 4.0)),
            (vec![7.0], (7.0, 7.0, 7.0)),
        ] {
            assert_eq!(median_least_most(&figures), expected);
        }
    }

    #[test]
    fn numbers_are_written_so_that_people_can_read_them() {
        for (number, expected) in [
            (0.0, "0"),
            (0.915, "0.92"),
            (7.0, "7"),
            (999.4, "999"),
            (1_234_567.8, "1,234,568"),
            (-1_000.0, "-1,000"),
        ] {
            assert_eq!(readable(number), expected);
        }
    }

    #[test]
    fn a_table_has_a_block_for_each_mode_and_the_median_of_its_runs() {
        let run = |mode: &str, ratio: f64| {
            let value = json!({"scenario": "backlog", "store": "memory", "options": "none", "mode": mode, "n": 5,
                "concurrency": 3, "ratio": ratio, "calibration": {"sqlite_commits_s": 9_000}});
            value.as_object().cloned().unwrap_or_default()
        };
        let runs = [
            run("scheduled", 0.9),
            run("scheduled", 1.1),
            run("priority", 0.5),
        ];
        let text = table(&runs);
        assert!(
            text.contains("backlog, scheduled: 2 runs of 5, concurrency 3, memory, none"),
            "{text}"
        );
        assert!(text.contains("1.10  (0.90 to 1.10)"), "{text}");
        assert!(text.contains("backlog, priority: 1 runs of 5"), "{text}");
        assert!(text.contains("[sqlite_commits_s]"), "{text}");
    }
}
