//! Backends stay apart: the engine names none, and the dialects have the same files.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use super::source::line_of;
use super::tree::Tree;

const NAMES: &[&str] = &["sqlite", "postgres", "mysql", "mariadb", "redis"];
const DIALECTS: &[&str] = &["sqlite", "postgres", "mysql"];

/// Finds the name of a backend in the engine's code; its docs may show a URL.
pub(super) fn no_names_in_the_engine(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, rust) in tree.rust() {
        if !file.path.starts_with("crates/waystation/src/") {
            continue;
        }
        let text = rust.uncommented.to_lowercase();
        for name in NAMES {
            for (at, _) in text.match_indices(name) {
                if !rust.is_test(at) {
                    let advice = format!(
                        "the engine names {name}; use the store's traits and let `store` choose by URL"
                    );
                    findings.push(Finding::new(
                        "backends",
                        &file.path,
                        line_of(&text, at),
                        advice,
                    ));
                }
            }
        }
    }
    findings
}

/// Finds a file that one dialect has and another has not.
pub(super) fn same_file_names(tree: &Tree) -> Vec<Finding> {
    let mut dialects: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for file in &tree.files {
        let inside = file
            .path
            .strip_prefix("crates/store/src/")
            .and_then(|rest| rest.split_once('/'));
        if let Some((dialect, name)) = inside.filter(|(dialect, _)| DIALECTS.contains(dialect)) {
            dialects.entry(dialect).or_default().insert(name);
        }
    }
    let all: BTreeSet<&str> = dialects.values().flatten().copied().collect();
    let mut findings = Vec::new();
    for (dialect, names) in &dialects {
        for missing in all.difference(names) {
            let path = format!("crates/store/src/{dialect}/{missing}");
            let advice = "another dialect has this file; add it here too, or give both the same division into files";
            findings.push(Finding::new("backends", &path, 1, advice));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::assert_findings;
    use super::*;

    #[test]
    fn a_backend_named_by_the_engine_is_found() {
        let path = "crates/waystation/src/a.rs";
        for (path, text, expected) in [
            (path, "use waystation_store::sqlite::Store;", 1),
            (path, "fn f() { open(\"postgres://\") }", 1),
            (path, "struct MySqlThing;", 1),
            (
                path,
                "//! Opens `sqlite://waystation.db`.\n/// As `redis://`.\nfn f() {}",
                0,
            ),
            (
                path,
                "#[cfg(test)]\nmod tests { fn f() { open(\"sqlite://\") } }",
                0,
            ),
            ("crates/store/src/lib.rs", "mod sqlite;", 0),
        ] {
            assert_findings(no_names_in_the_engine, &[(path, text)], expected);
        }
    }

    #[test]
    fn a_file_that_only_one_dialect_has_is_found() {
        let sqlite = "crates/store/src/sqlite/claim.rs";
        let postgres = "crates/store/src/postgres/claim.rs";
        let other = "crates/store/src/postgres/settle.rs";
        assert_findings(same_file_names, &[(sqlite, "")], 0);
        assert_findings(same_file_names, &[(sqlite, ""), (postgres, "")], 0);
        assert_findings(same_file_names, &[(sqlite, ""), (other, "")], 2);
        assert_findings(
            same_file_names,
            &[(sqlite, ""), (postgres, ""), (other, "")],
            1,
        );
    }
}
