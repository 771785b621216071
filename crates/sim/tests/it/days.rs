//! Long runs: days of little traffic, in which everything happens that time alone brings about.

use waystation_sim::Scenario;

use crate::run::{check, reached};

const DAYS: u32 = 10;
const RUNS: u64 = 15;

#[test]
fn days_of_little_traffic_keep_the_promises() {
    let seeds: Vec<u64> = (0..RUNS).collect();
    let reports = check(&seeds, &Scenario::days(DAYS), 1);
    let hours: u64 = reports
        .iter()
        .map(|report| report.lasted.as_secs() / 3600)
        .sum();
    assert!(hours >= RUNS * u64::from(DAYS) * 24, "{hours} hours");
    // A step must stand for ten minutes before anybody believes it.
    assert!(reached(&reports).contains_key("clock step adopted"));
    let accepted: u64 = reports.iter().map(|report| report.accepted).sum();
    assert!(
        accepted >= RUNS * u64::from(DAYS) * 500,
        "{accepted} accepted"
    );
}
