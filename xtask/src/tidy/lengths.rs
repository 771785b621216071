//! Nothing is longer than a reader can hold: files and functions have a limit.

use super::Finding;
use super::source::{Source, closing_brace, is_word};
use super::tree::Tree;

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

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

/// Counts the lines of the function whose `fn` is at `at`; 0 where it has no body.
fn function_lines(rust: &Source, at: usize) -> usize {
    let code = rust.code.as_bytes();
    // `fn(u8) -> u8` is a type, `r#fn` a name.
    let named = code
        .iter()
        .skip(at + 2)
        .find(|byte| !byte.is_ascii_whitespace());
    if !named.copied().is_some_and(is_word) || at > 0 && code[at - 1] == b'#' {
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
}
