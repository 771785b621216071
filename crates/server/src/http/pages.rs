//! The pages that problems point to.

use std::fmt::Write as _;

use axum::body::Body;
use axum::http::Response;

use super::problem::{Code, Problem};
use super::reply::{Path, text};

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem}\
                     td{padding:.2rem 1rem .2rem 0;vertical-align:top}code{background:#eee;padding:0 .2rem}</style>";

/// Lists all codes.
pub(crate) async fn list() -> Response<Body> {
    let rows = Code::ALL.iter().fold(String::new(), |mut rows, code| {
        let word = code.as_str();
        let written = writeln!(
            rows,
            "<tr><td><a href=\"/errors/{word}\"><code>{word}</code></a></td><td>{}</td><td>{}</td></tr>",
            code.status().as_u16(),
            code.title(),
        );
        debug_assert!(written.is_ok(), "a String takes everything");
        rows
    });
    text(
        HTML,
        format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Waystation: errors</title>{STYLE}\
             <h1>Errors</h1><p>Every refusal is an <code>application/problem+json</code> with one of these codes.</p>\
             <table>{rows}</table>"
        ),
    )
}

/// Explains one code.
pub(crate) async fn one(Path(word): Path<String>) -> Result<Response<Body>, Problem> {
    let code = Code::ALL
        .iter()
        .find(|code| code.as_str() == word)
        .ok_or_else(|| {
            Problem::new(
                Code::NotFound,
                "there is no such error code; /errors lists them",
            )
        })?;
    Ok(text(
        HTML,
        format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{word}</title>{STYLE}<h1><code>{word}</code></h1>\
             <p>Status {}: {}.</p><p>{}</p><p><a href=\"/errors\">All errors</a></p>",
            code.status().as_u16(),
            code.title(),
            code.way_out(),
        ),
    ))
}

/// Writes all codes as Markdown, for the reference.
pub(crate) fn markdown() -> String {
    let mut page = String::from(
        "# Errors\n\nEvery refusal is an `application/problem+json` (RFC 9457) with `type`, `title`, `status`, `detail`, `code`, \
         `request_id`, and `errors` where fields are wrong. Codes are stable. `pointer` is a JSON pointer into the body, `?name` for a \
         query parameter, or a header's name. `429` and `503` carry a `Retry-After`.\n\n| code | status | means | what to do |\n|---|---|---|---|\n",
    );
    for code in Code::ALL {
        let row = format!(
            "| `{}` | {} | {} | {} |\n",
            code.as_str(),
            code.status().as_u16(),
            code.title(),
            code.way_out()
        );
        page.push_str(&row);
    }
    page
}
