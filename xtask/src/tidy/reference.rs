//! What a client or an operator can meet has its place in the reference: error codes and events.

use super::Finding;
use super::source::{Source, closing_brace, is_word, words};
use super::tree::Tree;

const PROBLEM: &str = "crates/server/src/http/problem.rs";
const EVENT: &str = "crates/core/src/event.rs";

/// Finds error codes of the API and variants of `Event` that `docs/reference/` does not mention.
pub(super) fn every_code_and_event_is_documented(tree: &Tree) -> Vec<Finding> {
    let mut findings = missing(tree, PROBLEM, "error code", error_codes);
    findings.extend(missing(tree, EVENT, "event", events));
    findings
}

type Names = fn(&Source) -> Vec<(usize, String)>;

fn missing(tree: &Tree, path: &str, what: &str, names: Names) -> Vec<Finding> {
    let Some(rust) = tree.get(path).and_then(|file| file.rust.as_ref()) else {
        return Vec::new();
    };
    let found = names(rust);
    if found.is_empty() {
        let advice =
            format!("no {what} found here; if they moved, tell xtask/src/tidy/reference.rs where");
        return vec![Finding::new("reference", path, 1, advice)];
    }
    let pages = tree.files.iter();
    let pages =
        pages.filter(|file| file.path.starts_with("docs/reference/") && file.path.ends_with(".md"));
    let reference: String = pages.filter_map(|file| file.text.as_deref()).collect();
    found
        .into_iter()
        .filter(|(_, name)| words(&reference, name).is_empty())
        .map(|(at, name)| {
            let advice = format!("the {what} `{name}` is on no page of docs/reference/; say there what it means and what to do");
            Finding::new("reference", path, rust.line(at), advice)
        })
        .collect()
}

/// Gives the codes of lines like `Code::NotFound => "not_found"`.
fn error_codes(rust: &Source) -> Vec<(usize, String)> {
    let mut codes = Vec::new();
    for (at, literal) in &rust.literals {
        let before = rust.code.get(..at - 1).unwrap_or_default().trim_end();
        let is_code = !literal.is_empty()
            && literal
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if before.ends_with("=>") && is_code && !rust.is_test(*at) {
            codes.push((*at, literal.clone()));
        }
    }
    codes
}

/// Gives the variants of `enum Event`.
fn events(rust: &Source) -> Vec<(usize, String)> {
    let code = rust.code.as_bytes();
    let Some(open) = rust.words("enum Event").first().and_then(|at| {
        let behind = code.iter().skip(*at).position(|byte| *byte == b'{');
        behind.map(|offset| at + offset)
    }) else {
        return Vec::new();
    };
    let end = closing_brace(code, open);
    let mut variants = Vec::new();
    let mut depth = 0_usize;
    let mut at = open;
    while at < end {
        match code[at] {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => depth = depth.saturating_sub(1),
            byte if depth == 1 && byte.is_ascii_uppercase() && !is_word(code[at - 1]) => {
                let name: Vec<u8> = code[at..end]
                    .iter()
                    .copied()
                    .take_while(|byte| is_word(*byte))
                    .collect();
                variants.push((at, String::from_utf8_lossy(&name).into_owned()));
                at += name.len();
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    variants
}

#[cfg(test)]
mod tests {
    use super::super::assert_findings;
    use super::*;

    const CODES: &str = "match self { Self::NotFound => \"not_found\", Self::Gone => \"gone\" }";
    const EVENTS: &str = "/// What.\npub enum Event {\n    /// One.\n    #[doc(hidden)]\n    CircuitOpened { gate: Gate, at: Time },\n    Drained(Vec<Lease>),\n    Idle,\n}\n";

    #[test]
    fn a_code_or_event_without_its_place_is_found() {
        let page = "docs/reference/errors.md";
        let all = "`CircuitOpened` `Drained` `Idle`";
        for (files, expected) in [
            (&[(PROBLEM, CODES)][..], 2),
            (&[(PROBLEM, CODES), (page, "`not_found`: …")], 1),
            (&[(PROBLEM, CODES), (page, "`not_found` and `gone`")], 0),
            (
                &[
                    (PROBLEM, CODES),
                    ("docs/errors.md", "`not_found` and `gone`"),
                ],
                2,
            ),
            (&[(PROBLEM, "fn f() {}")], 1),
            (&[(EVENT, EVENTS), (page, all)], 0),
            (
                &[
                    (EVENT, EVENTS),
                    (page, "`Drained` `Idle` `CircuitOpenedAgain`"),
                ],
                1,
            ),
            (&[(EVENT, "struct Event;")], 1),
            (&[(page, "")], 0),
        ] {
            assert_findings(every_code_and_event_is_documented, files, expected);
        }
    }

    #[test]
    fn variants_are_read_and_their_fields_are_not() {
        let names: Vec<String> = events(&Source::read(EVENTS))
            .into_iter()
            .map(|(_, name)| name)
            .collect();
        assert_eq!(names, ["CircuitOpened", "Drained", "Idle"]);
    }
}
