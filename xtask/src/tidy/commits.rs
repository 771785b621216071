//! Every commit says why: it has a body, unless it touches only documents.

use std::path::Path;

use anyhow::Result;

use super::Finding;
use crate::shell;

/// How far back to look where the base is not known.
const COMMITS_MAX: &str = "50";
const BASE: &str = "origin/main";

/// One commit.
#[derive(Debug)]
pub(super) struct Commit {
    id: String,
    is_merge: bool,
    body: String,
    files: Vec<String>,
}

/// Reads the commits since the merge base with `origin/main`, or the last 50.
///
/// # Errors
/// Passes on what git says.
pub(super) fn read(root: &Path) -> Result<Vec<Commit>> {
    let format = "--format=%x1e%h%x1f%p%x1f%b%x1f";
    let base = shell::git(root, &["merge-base", "HEAD", BASE]).ok();
    let head = shell::git(root, &["rev-parse", "HEAD"]).unwrap_or_default();
    let log = match base
        .as_deref()
        .map(str::trim)
        .filter(|base| *base != head.trim())
    {
        Some(base) => shell::git(
            root,
            &["log", "--name-only", format, &format!("{base}..HEAD")],
        )?,
        // On the base itself everything is history: look at the last ones again.
        None => shell::git(root, &["log", "--name-only", format, "-n", COMMITS_MAX])?,
    };
    Ok(parse(&log))
}

fn parse(log: &str) -> Vec<Commit> {
    let mut commits = Vec::new();
    for record in log
        .split('\u{1e}')
        .filter(|record| !record.trim().is_empty())
    {
        let mut fields = record.split('\u{1f}');
        let mut next = || fields.next().unwrap_or_default();
        commits.push(Commit {
            id: next().to_owned(),
            is_merge: next().split_whitespace().count() > 1,
            body: next().to_owned(),
            files: next()
                .lines()
                .filter(|line| !line.is_empty())
                .map(str::to_owned)
                .collect(),
        });
    }
    commits
}

/// Finds commits of code that do not say why.
pub(super) fn check(commits: &[Commit]) -> Vec<Finding> {
    let silent = commits.iter().filter(|commit| {
        let only_docs = commit.files.iter().all(|path| is_document(path));
        !commit.is_merge && !only_docs && !says_something(&commit.body)
    });
    silent
        .map(|commit| {
            let advice = "the commit has no body; amend it to say what was wrong or missing, why this way, what was refused";
            Finding::new("commits", &commit.id, 1, advice)
        })
        .collect()
}

fn is_document(path: &str) -> bool {
    path.ends_with(".md") || path.starts_with("docs/") || path == "LICENSE"
}

/// Tells whether a body has a line that is no trailer.
fn says_something(body: &str) -> bool {
    let lines = body.lines().map(str::trim);
    let mut said = lines.filter(|line| !line.is_empty() && !is_trailer(line));
    said.next().is_some()
}

fn is_trailer(line: &str) -> bool {
    line.split_once(": ")
        .is_some_and(|(name, _)| name.ends_with("-by") && !name.contains(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_without_a_reason_is_found() {
        let one = |parents: &str, body: &str, files: &str| {
            format!("\u{1e}abc\u{1f}{parents}\u{1f}{body}\u{1f}\n\n{files}\n")
        };
        for (log, expected) in [
            (one("p", "", "crates/core/src/lib.rs"), 1),
            (
                one("p", "Because it was wrong.\n", "crates/core/src/lib.rs"),
                0,
            ),
            (
                one("p", "Signed-off-by: A <a@b>\n", "crates/core/src/lib.rs"),
                1,
            ),
            (one("p", "", "README.md\ndocs/concepts.md"), 0),
            (one("p", "", "README.md\nCargo.toml"), 1),
            (one("p q", "", "Cargo.toml"), 0),
            (one("", "", "Cargo.toml"), 1),
            (
                one("p", "", "a.rs") + &one("p", "Why.", "b.rs") + &one("p", "", "c.rs"),
                2,
            ),
        ] {
            assert_eq!(check(&parse(&log)).len(), expected, "{log}");
        }
    }
}
