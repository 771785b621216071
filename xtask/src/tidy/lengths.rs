//! Nothing is longer than a reader can hold: files, functions and their parameters have a limit.

use super::Finding;
use super::source::{Source, closing_brace, is_word};
use super::tree::Tree;

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
/// Beside `self`, which clippy's own limit would count.
const PARAMETERS_MAX: usize = 5;

/// Finds Rust files of too many lines.
pub(super) fn files(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, _) in tree.rust() {
        let lines = file.text.as_deref().map_or(0, |text| text.lines().count());
        if lines > FILE_LINES_MAX {
            let advice = format!(
                "{lines} lines, at most {FILE_LINES_MAX} are allowed; move a part with a name of its own out"
            );
            findings.push(Finding::new(
                "lengths",
                &file.path,
                FILE_LINES_MAX + 1,
                advice,
            ));
        }
    }
    findings
}

/// Finds functions of too many lines, from `fn` to the closing brace.
pub(super) fn functions(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, rust) in tree.rust() {
        for at in rust.words("fn") {
            let lines = function_lines(rust, at);
            if lines > FUNCTION_LINES_MAX {
                let advice = format!(
                    "this function has {lines} lines, at most {FUNCTION_LINES_MAX} are allowed; \
                     let it decide and call others that do"
                );
                findings.push(Finding::new("lengths", &file.path, rust.line(at), advice));
            }
        }
    }
    findings
}

/// Finds functions of too many parameters.
pub(super) fn parameters(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, rust) in tree.rust() {
        for at in rust.words("fn") {
            let count = function_parameters(rust, at);
            if count > PARAMETERS_MAX {
                let advice = format!(
                    "this function has {count} parameters, at most {PARAMETERS_MAX} are allowed; \
                     make a struct of those that belong together"
                );
                findings.push(Finding::new("lengths", &file.path, rust.line(at), advice));
            }
        }
    }
    findings
}

/// Counts the parameters beside `self` of the function whose `fn` is at `at`; 0 where it is a type.
fn function_parameters(rust: &Source, at: usize) -> usize {
    let code = rust.code.as_bytes();
    let open = code
        .iter()
        .skip(at)
        .position(|byte| *byte == b'(' || *byte == b'<');
    let Some(open) = open
        .filter(|_| is_function(code, at))
        .map(|offset| at + offset)
    else {
        return 0;
    };
    let mut lists = Vec::new();
    let mut from = open;
    // The first list may be that of the generics; the parameters stand in parentheses.
    while let Some(opening) = code.get(from).filter(|_| lists.len() < 2) {
        let (items, end) = list(rust, from);
        lists.push((*opening, items));
        let next = code
            .iter()
            .skip(end)
            .position(|byte| !byte.is_ascii_whitespace());
        from = next.map_or(code.len(), |offset| end + offset);
    }
    let parameters = lists.into_iter().find(|(opening, _)| *opening == b'(');
    let parameters = parameters.map(|(_, items)| items).unwrap_or_default();
    parameters.iter().filter(|item| !is_self(item)).count()
}

fn is_self(parameter: &str) -> bool {
    let name = parameter.split(':').next().unwrap_or_default();
    name.split([' ', '&']).next_back() == Some("self")
}

/// Gives what the commas of the list at `open` separate, and where the list ends.
fn list(rust: &Source, open: usize) -> (Vec<String>, usize) {
    let code = rust.code.as_bytes();
    let mut items = vec![Vec::new()];
    let mut depth = 0_usize;
    let mut end = code.len();
    for (at, byte) in code.iter().enumerate().skip(open) {
        let is_arrow = *byte == b'>' && matches!(code[at - 1], b'-' | b'=');
        match byte {
            b'(' | b'[' | b'{' | b'<' => depth += 1,
            b')' | b']' | b'}' | b'>' if !is_arrow => depth -= 1,
            b',' if depth == 1 => {
                items.push(Vec::new());
                continue;
            }
            _ => {}
        }
        if depth == 0 {
            end = at + 1;
            break;
        }
        if at > open {
            items
                .last_mut()
                .into_iter()
                .for_each(|item| item.push(*byte));
        }
    }
    let items = items
        .iter()
        .map(|item| String::from_utf8_lossy(item).trim().to_owned());
    (items.filter(|item| !item.is_empty()).collect(), end)
}

/// Tells whether the `fn` at `at` has a name: `fn(u8) -> u8` is a type, `r#fn` a name.
fn is_function(code: &[u8], at: usize) -> bool {
    let behind = code
        .iter()
        .skip(at + 2)
        .find(|byte| !byte.is_ascii_whitespace());
    behind.copied().is_some_and(is_word) && (at == 0 || code[at - 1] != b'#')
}

/// Counts the lines of the function whose `fn` is at `at`; 0 where it has no body.
fn function_lines(rust: &Source, at: usize) -> usize {
    let code = rust.code.as_bytes();
    if !is_function(code, at) {
        return 0;
    }
    body(code, at).map_or(0, |open| {
        rust.line(closing_brace(code, open)) - rust.line(at) + 1
    })
}

/// Finds the brace that opens the body; none if the declaration ends in `;`.
fn body(code: &[u8], from: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in code.iter().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b'{' if depth == 0 => return Some(at),
            b';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::assert_findings;
    use super::*;

    #[test]
    fn a_file_of_too_many_lines_is_found() {
        for (lines, expected) in [(600, 0), (601, 1)] {
            assert_findings(files, &[("a.rs", &"\n".repeat(lines))], expected);
        }
    }

    #[test]
    fn a_function_of_too_many_lines_is_found() {
        let body = |lines: usize| "    x();\n".repeat(lines);
        for (text, expected) in [
            (format!("fn f() {{\n{}}}\n", body(68)), 0),
            (format!("fn f() {{\n{}}}\n", body(69)), 1),
            (format!("fn f(a: [u8; 2],\n) {{\n{}}}\n", body(68)), 1),
            (
                format!("trait T {{ fn f();\n{} }}", "// why\n".repeat(80)),
                0,
            ),
            (format!("fn f() {{ \"}}\";\n{}}}\n", body(80)), 1),
            (
                format!(
                    "fn f() {{ '{{'; }}\nstruct S {{\n{}}}",
                    "a: u8,\n".repeat(80)
                ),
                0,
            ),
            (
                format!("type F = fn(u8);\nmod m {{\n{}}}", "a!();\n".repeat(80)),
                0,
            ),
        ] {
            assert_findings(functions, &[("a.rs", &text)], expected);
        }
    }

    #[test]
    fn a_function_of_too_many_parameters_is_found() {
        for (text, expected) in [
            ("fn f(a: A, b: B, c: C, d: D, e: E) {}", 0),
            ("fn f(a: A, b: B, c: C, d: D, e: E, f: F) {}", 1),
            (
                "fn f(\n    &mut self,\n    a: A, b: B, c: C, d: D, e: E,\n) {}",
                0,
            ),
            ("fn f(self: Arc<Self>, a: A, b: B, c: C, d: D, e: E) {}", 0),
            ("fn f<'a, A, B, C, D, E, F>(a: A) {}", 0),
            (
                "fn f<F: Fn(A, B) -> C>(a: A, b: (B, B), c: Map<C, C>, d: [D; 2], e: F) {}",
                0,
            ),
            (
                "fn f<F: Fn(A, B) -> C>(a: A, b: B, c: C, d: D, e: E, f: F) {}",
                1,
            ),
            ("type F = fn(A, B, C, D, E, F);", 0),
            ("fn f() { g(a, b, c, d, e, f) }", 0),
        ] {
            assert_findings(parameters, &[("a.rs", text)], expected);
        }
    }
}
