//! Every integration test runs: one binary a crate, and every file of it is listed.

use super::Finding;
use super::tree::Tree;

/// Finds test files that cargo would not run, or would link as one more binary.
pub(super) fn every_test_file_is_listed(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, _) in tree.rust() {
        // A module called `tests` inside `src/` is none of cargo's.
        let split = file.path.split_once("/tests/");
        let Some((package, name)) = split.filter(|(package, _)| !package.contains("/src")) else {
            continue;
        };
        if !name.contains('/') {
            let advice = "a binary of its own costs a link; move it to tests/it/ and list it in tests/it/main.rs";
            findings.push(Finding::new("integration", &file.path, 1, advice));
        } else if let Some(module) = name.strip_prefix("it/").filter(|name| *name != "main.rs") {
            let parents = parents(&format!("{package}/tests/it"), module);
            if !parents
                .iter()
                .any(|(parent, name)| lists(tree, parent, name))
            {
                let (parent, name) = &parents[0];
                let advice = format!("this file never runs; add `mod {name};` to {parent}");
                findings.push(Finding::new("integration", &file.path, 1, advice));
            }
        }
    }
    findings
}

/// Gives the files that may list `module` (a path below `folder`), and the name they list.
fn parents(folder: &str, module: &str) -> Vec<(String, String)> {
    let stem = module.trim_end_matches(".rs");
    let stem = stem.strip_suffix("/mod").unwrap_or(stem);
    match stem.rsplit_once('/') {
        None => vec![(format!("{folder}/main.rs"), stem.to_owned())],
        Some((above, name)) => vec![
            (format!("{folder}/{above}/mod.rs"), name.to_owned()),
            (format!("{folder}/{above}.rs"), name.to_owned()),
        ],
    }
}

fn lists(tree: &Tree, parent: &str, name: &str) -> bool {
    let rust = tree.get(parent).and_then(|file| file.rust.as_ref());
    rust.is_some_and(|rust| !rust.words(&format!("mod {name};")).is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::assert_findings;
    use super::*;

    #[test]
    fn a_test_file_that_nobody_lists_is_found() {
        let main = "crates/core/tests/it/main.rs";
        let file = "crates/core/tests/it/order.rs";
        let deep = "crates/core/tests/it/order/keys.rs";
        for (files, expected) in [
            (&[(main, "mod order;"), (file, "")][..], 0),
            (&[(main, "// mod order;"), (file, "")], 1),
            (&[(main, "mod ordering;"), (file, "")], 1),
            (&[(file, "")], 1),
            (&[(main, "mod order;"), (file, "mod keys;"), (deep, "")], 0),
            (&[(main, "mod order;"), (file, ""), (deep, "")], 1),
            (&[("crates/core/tests/order.rs", "")], 1),
            (&[("crates/core/src/decide/tests/order.rs", "")], 0),
        ] {
            assert_findings(every_test_file_is_listed, files, expected);
        }
    }
}
