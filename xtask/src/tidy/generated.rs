//! Generated files are what the code generates today.

use std::path::Path;

use anyhow::Result;

use super::Finding;
use super::tree::Tree;
use crate::generate;

/// Generates every file again and finds those that differ from what is on disk.
///
/// # Errors
/// Passes on what a generator says.
pub(super) fn check(root: &Path, tree: &Tree) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (path, text) in generate::all(root)? {
        findings.extend(compare(tree, path, &text));
    }
    Ok(findings)
}

fn compare(tree: &Tree, path: &str, generated: &str) -> Option<Finding> {
    let on_disk = tree.get(path).and_then(|file| file.text.as_deref());
    let advice = match on_disk {
        Some(text) if text == generated => return None,
        Some(_) => "the code generates another text; run `cargo xtask gen` and commit the result",
        None => "the file is missing; run `cargo xtask gen` and commit the result",
    };
    Some(Finding::new("generated", path, 1, advice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_or_missing_file_is_found() {
        let tree = Tree::of(&[("docs/reference/cli.md", "new\n")]);
        for (path, generated, stale) in [
            ("docs/reference/cli.md", "new\n", false),
            ("docs/reference/cli.md", "newer\n", true),
            ("docs/reference/errors.md", "new\n", true),
        ] {
            assert_eq!(compare(&tree, path, generated).is_some(), stale, "{path}");
        }
    }
}
