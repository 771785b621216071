//! Command lines that are wrong on purpose.

use super::chance::Chance;

/// A flag and values that it cannot take.
type Flag = (
    &'static [&'static str],
    &'static str,
    &'static [&'static str],
);

const SHARES: &[&str] = &["2", "-0.1", "101%", "x", "", "NaN", "inf"];
const LENGTHS: &[&str] = &["x", "-1s", "1w", "1.5.5s", "∞", "99999999999999999999999s"];
const ADDRESSES: &[&str] = &[
    "x",
    "127.0.0.1",
    "127.0.0.1:99999",
    ":",
    "http://127.0.0.1:1",
    "",
    "[::1",
];
const NUMBERS: &[&str] = &["x", "-1", "1.5", "99999999999999999999999999", "", "0x10"];

const FLAGS: &[Flag] = &[
    (
        &["serve"],
        "--grace",
        &["x", "", "2h", "-1s", "1", "tomorrow", "3601s"],
    ),
    (&["flaky"], "--fail", SHARES),
    (
        &["flaky"],
        "--fail-status",
        &["x", "99", "1000", "-1", "", "200.5"],
    ),
    (&["flaky"], "--latency", LENGTHS),
    (&["flaky"], "--latency-jitter", LENGTHS),
    (&["flaky"], "--recover", LENGTHS),
    (&["flaky"], "--retry-after", LENGTHS),
    (&["flaky"], "--control", ADDRESSES),
    (
        &["flaky"],
        "--listen",
        &["x", "a b=127.0.0.1:1", "a=127.0.0.1", "=127.0.0.1:1", ""],
    ),
    (
        &["flaky"],
        "--outage",
        &["x", "9s..5s", "1s", "1s..2s:dance", "..", "", "1s..2s:9999"],
    ),
    (&["flaky"], "--capacity", &["x", "-1/s", "/s", "200/y", ""]),
    (&["flaky"], "--on", &["x", "", "a=b=c=d", "a=fail=2"]),
    (&["flaky"], "--seed", NUMBERS),
    (&["flaky"], "--log-max", NUMBERS),
    (&["demo"], "--messages", NUMBERS),
];
const COMMANDS: &[&[&str]] = &[
    &["serve"],
    &["config", "check"],
    &["config", "default"],
    &["config", "show"],
    &["demo"],
    &["flaky"],
];

/// Makes a command line, without the program's name, that must be refused with exit code 2.
#[must_use]
pub fn spoilt(chance: &mut Chance) -> Vec<Vec<u8>> {
    let line = |words: &[&str], more: &[&str]| -> Vec<Vec<u8>> {
        words
            .iter()
            .chain(more)
            .map(|word| word.as_bytes().to_vec())
            .collect()
    };
    let unknown = format!("--{}", chance.text(9, "qxzjkw-"));
    let command = *chance.pick(COMMANDS);
    match chance.below(8) {
        0 => {
            let words = [
                "",
                "sreve",
                "Serve",
                "config-check",
                "start",
                "\u{e4}",
                "--serve",
                "-x",
                "messages",
                "help me",
                "ser",
                "\t",
            ];
            line(&[], &[chance.word(&words)])
        }
        1 => line(command, &[&unknown]),
        2 => line(command, &["surplus"]),
        3 => {
            let (command, flag, _) = *chance.pick(FLAGS);
            line(command, &[flag])
        }
        4 => {
            // Bytes that are no UTF-8, where a text is expected.
            let mut words = line(command, &[]);
            words.push(b"--li\xff\xfe".to_vec());
            words
        }
        5 => {
            let (command, flag, values) = *chance.pick(FLAGS);
            let value = chance.pick(values);
            line(command, &[flag, value, flag, value])
        }
        _ => {
            let (command, flag, values) = *chance.pick(FLAGS);
            let value = chance.pick(values);
            if chance.one_in(2) {
                line(command, &[&format!("{flag}={value}")])
            } else {
                line(command, &[flag, value])
            }
        }
    }
}
