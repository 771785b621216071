//! Every `select!` says in which order it looks, so that a run can be repeated.

use super::Finding;
use super::tree::Tree;

/// Finds a `select!` that does not begin with `biased;`.
pub(super) fn every_select_is_biased(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, rust) in tree.rust() {
        for at in rust.words("select!") {
            let behind = rust.code.get(at + "select!".len()..).unwrap_or_default();
            let inside = behind
                .trim_start()
                .trim_start_matches(['{', '(', '['])
                .trim_start();
            let biased = inside
                .strip_prefix("biased")
                .is_some_and(|rest| rest.trim_start().starts_with(';'));
            if !biased {
                let advice =
                    "begin this `select!` with `biased;` and order its branches by importance";
                findings.push(Finding::new("biased", &file.path, rust.line(at), advice));
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
    fn a_select_without_an_order_is_found() {
        for (text, expected) in [
            ("tokio::select! { a = b => {} }", 1),
            ("tokio::select! {\n    biased;\n    a = b => {} }", 0),
            ("select! { // biased;\n a = b => {} }", 1),
            (
                "select! { /* first things first */ biased; a = b => {} }",
                0,
            ),
            ("select!(biased_thing => {})", 1),
            ("// select! { a = b => {} }", 0),
        ] {
            assert_findings(
                every_select_is_biased,
                &[("crates/waystation/src/a.rs", text)],
                expected,
            );
        }
    }
}
