//! How much a suite tries, where it says what it did, and what it does where the machine lacks something.
//!
//! `cargo xtask nightly` sets all three by environment; without them a suite runs at the size it has in CI.

use std::env;
use std::fs::File;
use std::io::Write;
use std::time::Duration;

/// The variable with the factor by which suites try more than in CI.
pub const BUDGET: &str = "WAYSTATION_BUDGET";
/// The variable with the file to which suites append what they did, a line for each figure.
pub const FIGURES: &str = "WAYSTATION_FIGURES";
/// The variable that turns a skip into a failure where it is `1`.
pub const REQUIRE: &str = "WAYSTATION_REQUIRE";
/// The largest factor: beyond it a run outlasts a day.
const BUDGET_MAX: u32 = 1_000;

/// Gives the factor by which to try more than in CI: 1 unless `WAYSTATION_BUDGET` says otherwise.
///
/// # Panics
/// When the variable is no number from 1 to 1,000: a run of another size than was asked for proves nothing.
#[must_use]
pub fn budget() -> u32 {
    let Ok(text) = env::var(BUDGET) else { return 1 };
    parse(&text)
        .unwrap_or_else(|| panic!("{BUDGET} is `{text}`; write a number from 1 to {BUDGET_MAX}"))
}

fn parse(text: &str) -> Option<u32> {
    let factor = text.trim().parse().ok()?;
    (1..=BUDGET_MAX).contains(&factor).then_some(factor)
}

/// Tells how often a suite did something, past the test harness's capture and, where
/// `WAYSTATION_FIGURES` names a file, in it. What is told under one name is added up.
///
/// # Panics
/// When that file cannot be written to.
pub fn figure(name: &str, count: u64) {
    tell(name, "count", count);
}

/// Tells how long something took. Of what is told under one name the longest is kept.
///
/// # Panics
/// As [`figure`].
pub fn slowest(name: &str, took: Duration) {
    tell(
        name,
        "slowest_ms",
        u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    );
}

fn tell(name: &str, kind: &str, number: u64) {
    say(&format!("figure: {name}: {kind} {number}"));
    let Some(path) = env::var_os(FIGURES) else {
        return;
    };
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .expect("the file of figures opens");
    // One write a line, so that suites that run side by side do not mix theirs.
    let line = format!("{name}\t{kind}\t{number}\n");
    file.write_all(line.as_bytes()).expect("it takes a line");
}

/// Tells whether a test can have what it wants of the machine; prints a skip where it cannot.
///
/// # Panics
/// Where it is not there and `WAYSTATION_REQUIRE` is `1`, as in CI: a test that was left out proves nothing.
#[must_use]
pub fn can_have(what: &str, found: Result<(), String>) -> bool {
    let Err(why) = found else { return true };
    let is_required = env::var(REQUIRE).is_ok_and(|value| value == "1");
    assert!(!is_required, "{what} is needed and not there: {why}");
    say(&format!("skipped: {what} is not there: {why}"));
    false
}

/// Prints a line that the harness does not keep to itself.
fn say(line: &str) {
    // What cannot be printed is not worth a failure.
    drop(std::io::stderr().write_all(format!("{line}\n").as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_number_from_one_to_its_limit() {
        for (text, expected) in [
            ("1", Some(1)),
            (" 10 ", Some(10)),
            ("1000", Some(1_000)),
            ("1001", None),
            ("0", None),
            ("-1", None),
            ("ten", None),
            ("", None),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }
}
