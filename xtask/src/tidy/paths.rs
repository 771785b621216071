//! The repository stands alone: nothing in it names a folder of one machine.

use super::Finding;
use super::source::line_of;
use super::tree::Tree;

/// In two halves, so that this file does not find itself.
const FOLDERS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/")];

/// Finds absolute paths into folders that only one machine has.
pub(super) fn no_machine_paths(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        let text = file.text.as_deref().unwrap_or_default();
        for folder in FOLDERS {
            for (at, _) in text.match_indices(folder) {
                let before = text.as_bytes().get(at.wrapping_sub(1)).copied();
                // Behind a name it is the middle of another path.
                if before
                    .is_none_or(|byte| !byte.is_ascii_alphanumeric() && !b"._-~}".contains(&byte))
                {
                    let advice =
                        "a path of one machine; make it relative to the repository, or an argument";
                    findings.push(Finding::new("paths", &file.path, line_of(text, at), advice));
                }
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::assert_findings;
    use super::*;

    #[test]
    fn a_path_of_one_machine_is_found() {
        for (text, expected) in [
            (format!("see {}notes.md", FOLDERS[0]), 1),
            (format!("`{}x`", FOLDERS[1]), 1),
            (FOLDERS[0].to_owned(), 1),
            (format!("https://example.com{}", FOLDERS[0]), 0),
            ("docs/decisions/".to_owned(), 0),
        ] {
            assert_findings(no_machine_paths, &[("README.md", &text)], expected);
        }
    }
}
