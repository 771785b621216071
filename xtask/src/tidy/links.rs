//! Documents lead somewhere: a relative link names a file, and every page can be found from the summary.

use super::Finding;
use super::source::line_of;
use super::tree::Tree;

const SUMMARY: &str = "docs/SUMMARY.md";

/// Finds relative links in Markdown whose file does not exist.
pub(super) fn every_link_leads_somewhere(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in pages(tree) {
        for (at, target) in links(text) {
            let file = resolve(path, target);
            let is_there = tree.get(&file).is_some();
            // A link may lead to a folder, which is there if something is in it.
            let folder = format!("{}/", file.trim_end_matches('/'));
            if !is_there
                && !tree
                    .files
                    .iter()
                    .any(|other| other.path.starts_with(&folder))
            {
                let advice = format!(
                    "the link leads to {file}, which is not there; mend it or write the page"
                );
                findings.push(Finding::new("links", path, line_of(text, at), advice));
            }
        }
    }
    findings
}

/// Finds pages under `docs/` that `docs/SUMMARY.md` does not list.
pub(super) fn every_page_is_in_the_summary(tree: &Tree) -> Vec<Finding> {
    let summary = tree.get(SUMMARY).and_then(|file| file.text.as_deref());
    let listed: Vec<String> = links(summary.unwrap_or_default())
        .into_iter()
        .map(|(_, target)| resolve(SUMMARY, target))
        .collect();
    pages(tree)
        .filter(|(path, _)| path.starts_with("docs/") && *path != SUMMARY)
        .filter(|(path, _)| !listed.iter().any(|page| page == path))
        .map(|(path, _)| {
            let advice = "nobody finds this page; list it in docs/SUMMARY.md";
            Finding::new("links", path, 1, advice)
        })
        .collect()
}

fn pages(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    let pages = tree.files.iter().filter(|file| file.path.ends_with(".md"));
    pages.filter_map(|file| Some((file.path.as_str(), file.text.as_deref()?)))
}

/// Gives the targets of `](…)` that are files of ours: no other site, no place in the same page, no code.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("](") {
        let target = text
            .get(at + 2..)
            .and_then(|rest| rest.split([')', ' ', '\n']).next());
        let target = target
            .and_then(|target| target.split('#').next())
            .unwrap_or_default();
        let is_file = !target.is_empty() && !target.contains(':') && !target.starts_with('/');
        if is_file && !is_code(text, at) {
            found.push((at, target));
        }
    }
    found
}

/// Tells whether the place is inside a fenced block or between backticks.
fn is_code(text: &str, at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default();
    let fences = before
        .lines()
        .filter(|line| line.trim_start().starts_with("```"))
        .count();
    let line = before.rsplit('\n').next().unwrap_or_default();
    fences % 2 == 1 || line.matches('`').count() % 2 == 1
}

/// Gives the path from the root of what `page` calls `target`.
fn resolve(page: &str, target: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::super::assert_findings;
    use super::*;

    #[test]
    fn a_link_into_nothing_is_found() {
        for (text, expected) in [
            ("[a](b.md)", 1),
            ("[a](here.md)", 0),
            ("[a](here.md#part), [b](#part)", 0),
            ("[a](../STYLE.md)", 0),
            ("[a](../crates/core/)", 0),
            ("[a](../crates/code/)", 1),
            ("[a](https://example.com/b.md)", 0),
            ("`[a](b.md)`", 0),
            ("```\n[a](b.md)\n```\n[c](d.md)", 1),
        ] {
            let files = [
                ("docs/here.md", text),
                ("STYLE.md", ""),
                ("crates/core/Cargo.toml", ""),
            ];
            assert_findings(every_link_leads_somewhere, &files, expected);
        }
    }

    #[test]
    fn a_page_that_the_summary_does_not_list_is_found() {
        let page = "docs/decisions/0001.md";
        for (summary, expected) in [
            ("- [One](decisions/0001.md)", 0),
            ("- [One](0001.md)", 1),
            ("", 1),
        ] {
            assert_findings(
                every_page_is_in_the_summary,
                &[(SUMMARY, summary), (page, "")],
                expected,
            );
        }
        assert_findings(every_page_is_in_the_summary, &[("README.md", "")], 0);
    }
}
