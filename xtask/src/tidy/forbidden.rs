//! What must not stay behind: unfinished marks, blanks at the end of a line, big files.

use super::Finding;
use super::source::{line_of, words};
use super::tree::Tree;

const FILE_BYTES_MAX: usize = 500 * 1024;
/// In two halves, so that this file does not find itself.
const FIX_MARK: &str = concat!("FIX", "ME");
const MARKED_FILES: &[&str] = &[
    ".rs", ".toml", ".sh", ".sql", ".yml", ".html", ".js", ".css",
];

/// Finds unfinished marks, debugging macros and tests that do not run.
pub(super) fn no_leftovers(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        let text = file.text.as_deref().unwrap_or_default();
        if MARKED_FILES.iter().any(|end| file.path.ends_with(end)) {
            for at in words(text, FIX_MARK) {
                let advice = "do it now, or open an issue and leave it out openly";
                findings.push(Finding::new(
                    "leftovers",
                    &file.path,
                    line_of(text, at),
                    advice,
                ));
            }
        }
        let Some(rust) = &file.rust else { continue };
        for (word, advice) in [
            (
                "dbg!",
                "remove `dbg!`; emit an `Event` if somebody needs to know",
            ),
            ("todo!", "write it, or leave the feature out openly"),
            (
                "unimplemented!",
                "write it, or leave the feature out openly",
            ),
            (
                "#[ignore",
                "an ignored test proves nothing: assert today's answer with a reason, or delete the test",
            ),
        ] {
            for at in rust.words(word) {
                findings.push(Finding::new("leftovers", &file.path, rust.line(at), advice));
            }
        }
    }
    findings
}

/// Finds blanks at the end of a line.
pub(super) fn no_trailing_blanks(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        let text = file.text.as_deref().unwrap_or_default();
        for (index, line) in text.split('\n').enumerate() {
            if line.ends_with([' ', '\t', '\r']) {
                let advice = "remove the blanks at the end of the line";
                findings.push(Finding::new("blanks", &file.path, index + 1, advice));
            }
        }
    }
    findings
}

/// Finds files that make every clone heavier.
pub(super) fn no_big_files(tree: &Tree) -> Vec<Finding> {
    let big = tree.files.iter().filter(|file| file.bytes > FILE_BYTES_MAX);
    big.map(|file| {
        let advice = format!(
            "{} KiB, at most {} are allowed; generate it, or take it from a package",
            file.bytes / 1024,
            FILE_BYTES_MAX / 1024
        );
        Finding::new("size", &file.path, 1, advice)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::super::assert_findings;
    use super::*;

    #[test]
    fn what_is_left_behind_is_found() {
        let mark = format!("// {FIX_MARK}: later\n");
        for (path, text, expected) in [
            ("a.rs", mark.as_str(), 1),
            ("a.toml", &mark, 1),
            ("STYLE.md", &mark, 0),
            ("a.rs", "fn f() { dbg!(x); }", 1),
            ("a.rs", "fn f() { todo!() }", 1),
            ("a.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}", 1),
            ("a.rs", "#[test]\n#[ignore]\nfn f() {}", 1),
            ("a.rs", "fn f() { let a = \"dbg!(x)\"; } // todo!()", 0),
        ] {
            assert_findings(no_leftovers, &[(path, text)], expected);
        }
    }

    #[test]
    fn a_blank_at_the_end_of_a_line_is_found() {
        for (text, expected) in [
            ("a\nb\n", 0),
            ("a \nb\t\n", 2),
            ("a\r\n", 1),
            ("", 0),
            ("\u{a0}\n", 0),
        ] {
            assert_findings(no_trailing_blanks, &[("README.md", text)], expected);
        }
    }

    #[test]
    fn a_big_file_is_found() {
        for (bytes, expected) in [(500 * 1024, 0), (500 * 1024 + 1, 1)] {
            assert_findings(no_big_files, &[("a.bin", &"x".repeat(bytes))], expected);
        }
    }
}
