//! What no compiler checks: the rules at the end of STYLE.md, each with a sentence that says what to do instead.
//!
//! ```text
//! tree (files as they are on disk) ──► one function a rule ──► findings ──► printed, sorted
//! ```

mod backends;
mod biased;
mod commits;
mod doors;
mod forbidden;
mod generated;
mod headers;
mod imports;
mod integration;
mod lengths;
mod links;
mod paths;
mod reference;
mod source;
mod tree;

use std::fmt;
use std::path::Path;

use anyhow::Result;

use tree::Tree;

/// One broken rule at one place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    rule: &'static str,
    advice: String,
}

impl Finding {
    fn new(rule: &'static str, path: &str, line: usize, advice: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            rule,
            advice: advice.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}: {}",
            self.path, self.line, self.rule, self.advice
        )
    }
}

type Check = fn(&Tree) -> Vec<Finding>;

/// The rules that need nothing but the files.
const CHECKS: &[Check] = &[
    doors::expects,
    doors::words,
    doors::sql,
    backends::no_names_in_the_engine,
    backends::same_file_names,
    biased::every_select_is_biased,
    headers::every_file_has_a_purpose,
    lengths::files,
    lengths::functions,
    lengths::parameters,
    integration::every_test_file_is_listed,
    reference::every_code_and_event_is_documented,
    forbidden::no_leftovers,
    forbidden::no_trailing_blanks,
    forbidden::no_big_files,
    paths::no_machine_paths,
    links::every_link_leads_somewhere,
    links::every_page_is_in_the_summary,
];

/// Checks every rule and prints what breaks one, a line each.
///
/// # Errors
/// Says how many places break a rule, or what could not be read.
pub(crate) fn run(root: &Path) -> Result<()> {
    let tree = Tree::read(root)?;
    let mut findings: Vec<Finding> = CHECKS.iter().flat_map(|check| check(&tree)).collect();
    findings.extend(imports::check(&imports::read(root)?));
    findings.extend(commits::check(&commits::read(root)?));
    findings.extend(generated::check(root, &tree)?);
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("tidy: {} files keep the rules", tree.files.len());
        return Ok(());
    }
    anyhow::bail!("tidy: {} places break a rule", findings.len())
}

/// Shows that a check has teeth: it finds `expected` places in these files.
#[cfg(test)]
fn assert_findings(check: Check, files: &[(&str, &str)], expected: usize) {
    let findings = check(&Tree::of(files));
    assert_eq!(findings.len(), expected, "{files:?}: {findings:?}");
}
