//! Seeds that once failed: each is kept with the commit that mended what it found.

use waystation_sim::{Scenario, run};

use crate::run::failure;

/// Gives seed and scenario of a line: `seed | scenario | commit | what it found`.
fn parse(line: &str) -> (u64, Scenario) {
    let columns: Vec<&str> = line.split('|').map(str::trim).collect();
    let [seed, scenario, commit, what] = columns[..] else {
        panic!("four columns: {line}");
    };
    assert!(!commit.is_empty() && !what.is_empty(), "{line}");
    (
        seed.parse().expect("a seed"),
        scenario.parse().expect("a scenario"),
    )
}

#[test]
fn seeds_that_once_failed_keep_the_promises() {
    let lines = include_str!("../../seeds/regressions.txt").lines();
    let mut lines = lines
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .peekable();
    assert!(lines.peek().is_some());
    for line in lines {
        let (seed, scenario) = parse(line);
        let report = run(seed, &scenario);
        let told = || failure(seed, &scenario).unwrap_or_default();
        assert!(report.violations.is_empty(), "{line}\n{}", told());
    }
}
