//! `waystation fsck`: checks a store's file, beside running servers or without any.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use waystation_store::sqlite::fsck::{FINDINGS_MAX, Finding, Law, Report, Tally, check};

use super::{Failure, paper};

/// The file that `serve` makes unless told otherwise.
const FILE: &str = "waystation.db";
/// A terminal's width.
const COLUMNS: usize = 80;

/// What to check.
#[derive(Debug, Args)]
pub(super) struct Fsck {
    /// A store's file, the folder it is in, or its sqlite:// URL
    #[arg(value_name = "FILE|FOLDER")]
    path: PathBuf,
    /// How to print what was found
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Findings to print at most; all are counted
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    limit: usize,
}

/// How a report is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Output {
    /// For people, at most 80 columns.
    Table,
    /// For programs.
    Json,
}

/// Checks each file: exit code 0 if all are clean, 1 if something was found, 2 if one could not be
/// checked.
pub(super) fn run(fsck: &Fsck) -> Result<ExitCode, Failure> {
    let files = files(&fsck.path).map_err(Failure::Wrong)?;
    let mut reports = Vec::new();
    for file in &files {
        let report = check(file, fsck.limit.min(FINDINGS_MAX));
        reports.push(report.map_err(|why| Failure::Wrong(why.to_string()))?);
    }
    let text = match fsck.output {
        Output::Table => reports.iter().map(table).collect::<Vec<_>>().join("\n\n"),
        Output::Json => {
            let all = Value::Array(reports.iter().map(object).collect());
            // Of one file the report itself: that is what a script asks for.
            let shown = if reports.len() == 1 { &all[0] } else { &all };
            serde_json::to_string_pretty(shown)
                .map_err(|error| Failure::Failed(error.to_string()))?
        }
    };
    paper::out(&text);
    Ok(if reports.iter().all(Report::is_clean) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The files that are meant: the one that is named, or those of a folder.
fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    let path = path
        .to_str()
        .and_then(|text| text.strip_prefix("sqlite://"))
        .map_or(path, Path::new);
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let usual = path.join(FILE);
    if usual.is_file() {
        return Ok(vec![usual]);
    }
    let cannot = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(cannot)? {
        let file = entry.map_err(cannot)?.path();
        if file.is_file() && file.extension().is_some_and(|extension| extension == "db") {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(format!(
            "{}: no {FILE} and no other .db file in this folder; name the file",
            path.display()
        ));
    }
    Ok(files)
}

fn object(report: &Report) -> Value {
    let law = |(law, tally): (&Law, &Tally)| {
        json!({
            "law": law.name(),
            "says": law.says(),
            "looked_at": tally.looked_at,
            "findings": tally.findings,
        })
    };
    let finding = |finding: &Finding| {
        json!({
            "law": finding.law.name(),
            "of": finding.place.sort(),
            "name": finding.place.name(),
            "found": finding.found,
            "advice": finding.law.advice(),
        })
    };
    json!({
        "file": report.path.display().to_string(),
        "clean": report.is_clean(),
        "messages": report.messages,
        "total": report.total(),
        "laws": report.laws.iter().map(law).collect::<Vec<_>>(),
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

fn table(report: &Report) -> String {
    let mut lines = vec![
        format!("{}: {} messages", report.path.display(), report.messages),
        String::new(),
    ];
    for (law, tally) in &report.laws {
        let mark = match tally.findings {
            0 => "ok".to_owned(),
            count => format!("{count} !"),
        };
        lines.push(format!("  {:<12} {:<55} {mark:>8}", law.name(), law.says()));
    }
    lines.push(String::new());
    let mut told = None;
    for finding in &report.findings {
        let text = format!("{}: {}", finding.place, finding.found);
        lines.extend(wrapped(&format!("{:<12} ", finding.law.name()), &text));
        // What to do is said once for each run of findings of one law.
        if told != Some(finding.law) {
            told = Some(finding.law);
            lines.extend(wrapped("          -> ", finding.law.advice()));
        }
    }
    let hidden = report.total() - report.findings.len() as u64;
    if hidden > 0 {
        lines.push(format!("… and {hidden} more: see --limit"));
    }
    lines.push(match report.total() {
        0 => "clean: every law holds".to_owned(),
        1 => "1 finding".to_owned(),
        total => format!("{total} findings"),
    });
    lines.join("\n")
}

/// Breaks a text into lines of at most 80 columns behind a margin; the first begins with `first`.
fn wrapped(first: &str, text: &str) -> Vec<String> {
    let margin = first.chars().count();
    let mut lines = Vec::new();
    let mut line = first.to_owned();
    let mut width = margin;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if width > margin && width + 1 + length > COLUMNS {
            lines.push(std::mem::replace(&mut line, " ".repeat(margin)));
            width = margin;
        }
        if width > margin {
            line.push(' ');
            width += 1;
        }
        line.push_str(word);
        width += length;
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use waystation_store::sqlite::fsck::Place;

    use super::*;

    fn report(findings: Vec<Finding>) -> Report {
        let mut laws: BTreeMap<Law, Tally> = Law::ALL
            .into_iter()
            .map(|law| (law, Tally::default()))
            .collect();
        for finding in &findings {
            laws.entry(finding.law).or_default().findings += 1;
        }
        Report {
            path: "waystation.db".into(),
            messages: 3,
            laws,
            findings,
        }
    }

    #[test]
    fn a_table_fits_80_columns_whatever_was_found() {
        let all = Law::ALL.into_iter().map(|law| Finding {
            law,
            place: Place::Lane("default:a.destination:a.kind".to_owned()),
            found: "counts 17 messages waiting, 18 are there, and so on ".repeat(4),
        });
        for shown in [table(&report(all.collect())), table(&report(Vec::new()))] {
            for line in shown.lines() {
                assert!(line.chars().count() <= COLUMNS, "{line}");
            }
        }
    }

    #[test]
    fn what_is_not_printed_is_counted() {
        let finding = Finding {
            law: Law::Counts,
            place: Place::File,
            found: "something".to_owned(),
        };
        let mut some = report(vec![finding.clone(), finding]);
        some.findings.truncate(1);
        let shown = table(&some);
        assert!(
            shown.contains("… and 1 more") && shown.ends_with("2 findings"),
            "{shown}"
        );
        assert!(table(&report(Vec::new())).ends_with("clean: every law holds"));
    }
}
