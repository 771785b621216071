//! `cargo xtask test`: every suite of the workspace, streamed as it runs, and one sum at the end.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::shell;

/// A test that wants a server it cannot reach fails where this is `1`, instead of passing untried.
pub(crate) const REQUIRE: &str = "WAYSTATION_REQUIRE";

/// What cargo says of suites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

/// Runs unit, integration and simulator tests, then the examples in the docs; `filter` goes to both.
/// The last line printed is `N passed, N failed`, summed over all suites.
///
/// # Errors
/// Says why cargo could not be run; failed tests are an exit code.
pub(crate) fn run(root: &Path, filter: &[String]) -> Result<ExitCode> {
    let is_ci = std::env::var_os("CI").is_some_and(|ci| !ci.is_empty() && ci != "false");
    let environment = is_ci.then_some((REQUIRE, "1"));
    run_in(root, filter, environment.as_slice())
}

/// The same, with more in the suites' environment.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_in(
    root: &Path,
    filter: &[String],
    environment: &[(&str, &str)],
) -> Result<ExitCode> {
    let mut sum = Sum::default();
    let mut broken = Vec::new();
    for kind in ["--all-targets", "--doc"] {
        let (part, complaint) = suites(root, kind, filter, environment)?;
        sum.add(part);
        broken.extend(complaint);
    }
    if sum.ignored > 0 {
        broken.push(format!(
            "{} tests are ignored; an ignored test proves nothing: run it or delete it",
            sum.ignored
        ));
    }
    if sum.passed + sum.failed == 0 && broken.is_empty() {
        broken.push("not one test ran; does the filter name one?".to_owned());
    }
    for complaint in &broken {
        println!("{complaint}");
    }
    // Whatever ended badly without a failed test of its own still counts as one.
    if !broken.is_empty() && sum.failed == 0 {
        sum.failed = 1;
    }
    println!("{} passed, {} failed", sum.passed, sum.failed);
    Ok(if sum.failed > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Runs the suites of one kind; gives their sum, and what went wrong beside failed tests.
fn suites(
    root: &Path,
    kind: &str,
    filter: &[String],
    environment: &[(&str, &str)],
) -> Result<(Sum, Option<String>)> {
    let mut args = vec!["test", "--workspace", kind, "--no-fail-fast"];
    args.extend(filter.iter().map(String::as_str));
    let mut command = shell::command(root, "cargo", &args);
    command.envs(environment.iter().copied());
    let shown = shell::show(&command);
    println!("$ {shown}");
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    let output = child.stdout.take().context("cargo has no output")?;
    let sum = stream(BufReader::new(output), &mut std::io::stdout().lock())?;
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for `{shown}`"))?;
    let complaint = (!status.success() && sum.failed == 0)
        .then(|| format!("`{shown}` ended with {status} before every suite had its result"));
    Ok((sum, complaint))
}

/// Passes each line on as it comes and adds up the results in them.
fn stream(mut lines: impl BufRead, out: &mut impl Write) -> Result<Sum> {
    let mut sum = Sum::default();
    let mut line = Vec::new();
    while lines
        .read_until(b'\n', &mut line)
        .context("cannot read what cargo prints")?
        > 0
    {
        out.write_all(&line).context("cannot print")?;
        out.flush().context("cannot print")?;
        if let Some(result) = parse(&String::from_utf8_lossy(&line)) {
            sum.add(result);
        }
        line.clear();
    }
    Ok(sum)
}

/// Reads `test result: ok. 5 passed; 0 failed; 0 ignored; …`.
fn parse(line: &str) -> Option<Sum> {
    let (_, figures) = line
        .trim()
        .strip_prefix("test result: ")?
        .split_once(". ")?;
    let mut sum = Sum::default();
    for figure in figures.split("; ") {
        let Some((count, what)) = figure.split_once(' ') else {
            continue;
        };
        let Ok(count) = count.parse() else { continue };
        match what {
            "passed" => sum.passed = count,
            "failed" => sum.failed = count,
            "ignored" => sum.ignored = count,
            _ => {}
        }
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_s_result_is_read_from_its_line() {
        let sum = |passed, failed, ignored| {
            Some(Sum {
                passed,
                failed,
                ignored,
            })
        };
        for (line, expected) in [
            (
                "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
                sum(5, 0, 0),
            ),
            (
                "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 2 filtered out; finished in 1.50s",
                sum(12, 3, 1),
            ),
            ("test name::of_a_test ... ok", None),
            ("running 5 tests", None),
        ] {
            assert_eq!(parse(line), expected, "{line}");
        }
    }

    #[test]
    fn results_are_summed_over_suites() {
        let output = "test result: ok. 5 passed; 0 failed; 0 ignored\nnoise \u{fffd}\ntest result: FAILED. 1 passed; 2 failed; 0 ignored";
        let mut shown = Vec::new();
        let sum = stream(output.as_bytes(), &mut shown).expect("memory takes and gives all");
        assert_eq!(shown, output.as_bytes());
        assert_eq!(
            sum,
            Sum {
                passed: 6,
                failed: 2,
                ignored: 0
            }
        );
    }
}
