//! `cargo xtask nightly [--record] [--budget N] [filter]`: every suite once more, each trying N times as much as in CI.
//!
//! One mechanism for all suites, by environment, which `waystation-testkit` reads for them:
//!
//! | variable | set to | what a suite does with it |
//! |---|---|---|
//! | `WAYSTATION_BUDGET` | `10`, or what `--budget` says | `testkit::budget()` is the factor for kills, cuts, crash images, seeds, bad inputs, … |
//! | `WAYSTATION_FIGURES` | a file under `target/` | `testkit::figure` and `testkit::slowest` append what was done to it |
//! | `WAYSTATION_REQUIRE` | `1` | what the machine lacks is a failure and not a skip |
//!
//! A suite of its own size is `WAYSTATION_BUDGET=10 cargo test -p CRATE NAME`. With `--record` the figures
//! are written to `docs/nightly.md` and committed, if everything passed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{shell, test};

/// The variable with the factor; `waystation-testkit` has the same name.
const BUDGET: &str = "WAYSTATION_BUDGET";
/// The variable with the file of figures; `waystation-testkit` has the same name.
const FIGURES: &str = "WAYSTATION_FIGURES";
/// How many times as much as CI a night tries.
const BUDGET_DEFAULT: u32 = 10;
/// Where the figures of the last night are.
const PAGE: &str = "docs/nightly.md";

/// What is asked of a night.
#[derive(Debug, PartialEq, Eq)]
struct Night {
    budget: u32,
    is_recorded: bool,
    filter: Vec<String>,
}

/// Runs the suites and prints their figures; records them where that is asked for and all passed.
///
/// # Errors
/// Says what cannot be run, read or committed; failed tests are an exit code.
pub(crate) fn run(root: &Path, args: &[String]) -> Result<ExitCode> {
    let night = parse(args)?;
    let file = root.join("target/nightly-figures.tsv");
    if file.exists() {
        std::fs::remove_file(&file).context("the figures of the night before cannot be removed")?;
    }
    let budget = night.budget.to_string();
    let figures = file.to_string_lossy();
    let environment = [
        (BUDGET, budget.as_str()),
        (FIGURES, &figures),
        (test::REQUIRE, "1"),
    ];
    let began = Instant::now();
    let code = test::run_in(root, &night.filter, &environment)?;
    let took = began.elapsed();
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let figures = merge(&text)?;
    for (name, figure) in &figures {
        println!("{name}: {}", figure.show());
    }
    if code != ExitCode::SUCCESS {
        println!("the night failed: nothing is recorded");
    } else if night.is_recorded {
        record(root, &night, took, &figures)?;
    }
    Ok(code)
}

fn parse(args: &[String]) -> Result<Night> {
    let mut night = Night {
        budget: BUDGET_DEFAULT,
        is_recorded: false,
        filter: Vec::new(),
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--record" => night.is_recorded = true,
            "--budget" => {
                let factor = args.next().context("--budget wants a number")?;
                night.budget = factor
                    .parse()
                    .with_context(|| format!("--budget wants a number, not `{factor}`"))?;
            }
            _ => night.filter.push(arg.clone()),
        }
    }
    if night.budget == 0 {
        bail!("a night with a budget of 0 tries nothing");
    }
    Ok(night)
}

/// What became of one figure over all suites that named it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figure {
    /// How often something was done, added up.
    Count(u64),
    /// How long something took in the worst case.
    Slowest(Duration),
}

impl Figure {
    fn show(self) -> String {
        match self {
            Self::Count(count) => thousands(count),
            Self::Slowest(took) => format!("{} ms at most", thousands(millis(took))),
        }
    }
}

fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// Reads `name TAB count|slowest_ms TAB number` lines and puts those of one name together.
fn merge(text: &str) -> Result<BTreeMap<String, Figure>> {
    let mut figures = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split('\t').collect();
        let &[name, kind, number] = words.as_slice() else {
            bail!("`{line}` is no figure");
        };
        let number: u64 = number
            .parse()
            .with_context(|| format!("`{line}` has no number"))?;
        let next = match kind {
            "count" => Figure::Count(number),
            "slowest_ms" => Figure::Slowest(Duration::from_millis(number)),
            other => bail!("`{other}` is no kind of figure"),
        };
        let both = match (figures.get(name), next) {
            (None, next) => next,
            (Some(Figure::Count(before)), Figure::Count(count)) => Figure::Count(before + count),
            (Some(Figure::Slowest(before)), Figure::Slowest(took)) => {
                Figure::Slowest(took.max(*before))
            }
            (Some(_), _) => bail!("{name} is a count here and a time there"),
        };
        figures.insert(name.to_owned(), both);
    }
    Ok(figures)
}

/// Writes the page and commits it, and nothing else.
fn record(
    root: &Path,
    night: &Night,
    took: Duration,
    figures: &BTreeMap<String, Figure>,
) -> Result<()> {
    let commit = shell::git(root, &["rev-parse", "--short", "HEAD"])?;
    let day = shell::output(shell::command(root, "date", &["-u", "+%Y-%m-%d"]))?;
    let of = Of {
        commit: commit.trim(),
        day: day.trim(),
    };
    std::fs::write(root.join(PAGE), page(night, took, figures, &of))
        .with_context(|| format!("{PAGE} cannot be written"))?;
    shell::git(root, &["add", PAGE])?;
    let subject = "docs: the figures of the last night";
    let body = format!(
        "Written by `cargo xtask nightly --record` after every suite had passed with a budget of {}.",
        night.budget
    );
    let staged = shell::git(root, &["diff", "--cached", "--name-only", "--", PAGE])?;
    if staged.trim().is_empty() {
        println!("{PAGE} says so already");
        return Ok(());
    }
    let commit = ["commit", "-m", subject, "-m", &body, "--only", "--", PAGE];
    shell::git(root, &commit).map(drop)
}

/// Which state of the code was tried, and when.
struct Of<'a> {
    commit: &'a str,
    day: &'a str,
}

fn page(night: &Night, took: Duration, figures: &BTreeMap<String, Figure>, of: &Of<'_>) -> String {
    let which = if night.filter.is_empty() {
        "every suite".to_owned()
    } else {
        format!("the tests named `{}` only", night.filter.join(" "))
    };
    let mut page = format!(
        "# The last night\n\n\
         Written by `cargo xtask nightly --record`: {which}, each trying {} times as much as in CI. All passed.\n\n\
         Commit {}, {}, {} minutes.\n\n\
         | what was done | how often, or how long |\n|---|---|\n",
        night.budget,
        of.commit,
        of.day,
        took.as_secs().div_ceil(60),
    );
    for (name, figure) in figures {
        page.push_str(&format!("| {name} | {} |\n", figure.show()));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn night(budget: u32, is_recorded: bool, filter: &[&str]) -> Night {
        Night {
            budget,
            is_recorded,
            filter: filter.iter().map(|word| (*word).to_owned()).collect(),
        }
    }

    #[test]
    fn what_is_asked_of_a_night_is_read_from_its_arguments() {
        for (args, expected) in [
            ("", Some(night(10, false, &[]))),
            ("--record", Some(night(10, true, &[]))),
            (
                "--budget 3 kills:: --record",
                Some(night(3, true, &["kills::"])),
            ),
            ("--budget 0", None),
            ("--budget", None),
            ("--budget many", None),
        ] {
            let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
            assert_eq!(parse(&args).ok(), expected, "{args:?}");
        }
    }

    #[test]
    fn counts_are_added_up_and_of_times_the_worst_is_kept() {
        let text =
            "kills\tcount\t12\nstart\tslowest_ms\t70\nkills\tcount\t1200\nstart\tslowest_ms\t31\n";
        let figures = merge(text).expect("figures");
        let shown: Vec<String> = figures.values().map(|figure| figure.show()).collect();
        assert_eq!(shown, ["1,212", "70 ms at most"]);
        let page = page(
            &night(10, true, &[]),
            Duration::from_secs(61),
            &figures,
            &Of {
                commit: "abc",
                day: "2026-11-21",
            },
        );
        assert!(page.contains("every suite, each trying 10 times"), "{page}");
        assert!(page.contains("| kills | 1,212 |\n"), "{page}");
        assert!(
            page.contains("Commit abc, 2026-11-21, 2 minutes."),
            "{page}"
        );
    }

    #[test]
    fn a_line_that_is_no_figure_is_refused() {
        for text in [
            "kills",
            "kills\tcount",
            "kills\tcount\tmany",
            "kills\tmean\t3",
            "kills\tcount\t3\nkills\tslowest_ms\t3",
        ] {
            assert!(merge(text).is_err(), "{text}");
        }
    }
}
