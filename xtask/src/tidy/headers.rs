//! Every Rust file opens with its purpose.

use super::Finding;
use super::tree::Tree;

/// Finds a Rust file that does not begin with `//!` and a sentence.
pub(super) fn every_file_has_a_purpose(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, _) in tree.rust() {
        let first = file.text.as_deref().and_then(|text| text.lines().next());
        let purpose = first
            .and_then(|line| line.strip_prefix("//!"))
            .map(str::trim);
        if purpose.is_none_or(str::is_empty) {
            let advice = "open the file with `//!` and one sentence that says what it is for";
            findings.push(Finding::new("headers", &file.path, 1, advice));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::assert_findings;
    use super::*;

    #[test]
    fn a_file_without_a_purpose_is_found() {
        for (path, text, expected) in [
            ("a.rs", "//! Settles deliveries.\nfn f() {}", 0),
            ("a.rs", "fn f() {}\n//! Too late.", 1),
            ("a.rs", "// Not a doc comment.\n", 1),
            ("a.rs", "//!\n//! Not in the first line.\n", 1),
            ("a.rs", "", 1),
            ("a.md", "no Rust", 0),
        ] {
            assert_findings(every_file_has_a_purpose, &[(path, text)], expected);
        }
    }
}
