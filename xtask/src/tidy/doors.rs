//! Single doors: each dangerous thing is done in one file only, so that one file can be read, faked and blamed.
//!
//! The `clippy.toml` of each crate forbids the calls themselves; here the exceptions from it are
//! counted, and what clippy cannot see (a word, a literal) is looked for in the text.

use super::Finding;
use super::source::Source;
use super::tree::{File, Tree};

const RULE: &str = "doors";

/// One thing that is done in one place.
struct Door {
    what: &'static str,
    /// Where it is done: a file, a folder (`…/`), or names that begin alike (`…*`).
    places: &'static [&'static str],
    /// How it looks in the code.
    words: &'static [&'static str],
    /// Where else it must not be.
    scope: &'static [&'static str],
    instead: &'static str,
}

const DOORS: &[Door] = &[
    Door {
        what: "the clock",
        places: &[
            "crates/waystation/src/http/limits.rs",
            "crates/waystation/src/world.rs",
            "crates/store/src/clock.rs",
        ],
        words: &["SystemTime::now", "Instant::now"],
        scope: &[
            "crates/core/",
            "crates/store/",
            "crates/waystation/",
            "crates/sim/",
        ],
        instead: "take `now` as an argument, or ask the `World`",
    },
    Door {
        what: "sleeping",
        places: &[
            "crates/waystation/src/http/limits.rs",
            "crates/waystation/src/world.rs",
        ],
        words: &[
            "thread::sleep",
            "time::sleep",
            "time::sleep_until",
            "time::interval",
            "time::timeout",
        ],
        scope: &["crates/core/", "crates/waystation/", "crates/sim/"],
        instead: "sleep through the `World`, or give the core a `Wake`",
    },
    Door {
        what: "chance",
        places: &["crates/waystation/src/world.rs"],
        words: &["getrandom::fill", "getrandom::u64"],
        scope: &["crates/core/", "crates/waystation/", "crates/sim/"],
        instead: "take a `Roll` as an argument, or ask the `World`",
    },
    Door {
        what: "starting tasks",
        places: &[
            "crates/waystation/src/http/limits.rs",
            "crates/server/src/flaky/mod.rs",
            "crates/waystation/src/supervise.rs",
            "crates/server/src/supervise.rs",
            "crates/store/src/sqlite/threads.rs",
            // A destination is another process: it has tasks and a runtime of its own.
            "crates/testkit/src/evil/destination.rs",
            "crates/testkit/src/machine/witness.rs",
        ],
        words: &[
            "tokio::spawn",
            "task::spawn",
            "task::spawn_blocking",
            "thread::spawn",
            "thread::Builder",
            "JoinSet::new",
        ],
        scope: &["crates/"],
        instead: "start it in `supervise.rs`, which sees it end and says so",
    },
    Door {
        what: "choosing a fate",
        places: &[
            "crates/waystation/src/settle.rs",
            "crates/core/src/node*",
            "crates/core/src/decide*",
            // The suite plays the node to a store.
            "crates/store/src/conformance/scene.rs",
        ],
        words: &["decide("],
        scope: &["crates/"],
        instead: "hand the outcome to the settle path; `decide` is called nowhere else",
    },
    Door {
        what: "environment and configuration files",
        places: &[
            "crates/server/src/config/",
            // What a suite is told of its size: nothing of the product's.
            "crates/testkit/src/budget.rs",
        ],
        words: &[
            "env::var",
            "env::var_os",
            "env::vars",
            "env::vars_os",
            "env::set_var",
            "toml::from_str",
        ],
        scope: &["crates/"],
        instead: "read it in `server/src/config/` and pass the value down",
    },
    Door {
        what: "logging and counting",
        places: &[
            "crates/server/src/telemetry.rs",
            "crates/server/src/telemetry/",
        ],
        words: &["tracing::", "tracing_subscriber::", "prometheus::"],
        scope: &["crates/"],
        instead: "emit an `Event`; `telemetry.rs` chooses the level and the metric",
    },
    Door {
        what: "printing and exiting",
        places: &[
            "crates/server/src/demo/",
            "crates/server/src/flaky/",
            "crates/server/src/telemetry/logs.rs",
            "crates/server/src/main.rs",
            "crates/server/src/cli/",
            "crates/server/src/cli.rs",
            "crates/testkit/src/budget.rs",
        ],
        words: &[
            "println!",
            "eprintln!",
            "print!",
            "eprint!",
            "process::exit",
            "io::stdout",
            "io::stderr",
        ],
        scope: &["crates/"],
        instead: "return the value or the error; `main.rs` and `cli/` print and exit",
    },
    Door {
        what: "planting flaws",
        // They are planted in what decides and what keeps, by whoever drives the two in a test.
        places: &[],
        words: &["flaw::", "Flaws", "with_flaws"],
        scope: &["crates/waystation/", "crates/server/", "crates/transport/"],
        instead: "nothing that runs in production can have one: set it in the simulator or a suite",
    },
];

/// How many `#[expect(clippy::disallowed_…)]` a door may have: one for each thing it is the door of.
/// A new line here is a new door: its commit says why the thing cannot go through an old one.
const EXPECTS: &[(&str, usize)] = &[
    ("crates/waystation/src/world.rs", 4),
    ("crates/waystation/src/supervise.rs", 2),
    // The budget of one attempt is real time, measured where the socket is.
    ("crates/waystation/src/http/limits.rs", 1),
    ("crates/store/src/clock.rs", 2),
    // SQLite and file locks block, so the embedded store has threads of its own.
    ("crates/store/src/sqlite/threads.rs", 1),
    ("crates/server/src/supervise.rs", 2),
    ("crates/server/src/config/*", 1),
    ("crates/server/src/telemetry*", 1),
    ("crates/server/src/main.rs", 1),
    ("crates/server/src/cli*", 1),
    ("crates/server/src/demo*", 1),
    // A destination to try things on: a small program of its own.
    ("crates/server/src/flaky/mod.rs", 2),
];

/// Where SQL text may be.
const SQL_PLACES: &[&str] = &[
    "crates/store/src/sqlite/",
    "crates/store/src/postgres/",
    "crates/store/src/mysql/",
];

/// Finds exceptions from `disallowed_*` outside of the doors, or more of them than a door has reasons.
pub(super) fn expects(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, rust) in product_code(tree, &["crates/"]) {
        let lines = exceptions(rust);
        let allowed = EXPECTS.iter().find(|(place, _)| is_at(&file.path, place));
        let allowed = allowed.map_or(0, |(_, most)| *most);
        for line in lines.into_iter().skip(allowed) {
            let advice = format!(
                "this file may open {allowed} doors; go through the door (the table is in xtask/src/tidy/doors.rs) \
                 instead of expecting `clippy::disallowed_*`"
            );
            findings.push(Finding::new(RULE, &file.path, line, advice));
        }
    }
    findings
}

/// Finds what belongs behind a door outside of it.
pub(super) fn words(tree: &Tree) -> Vec<Finding> {
    DOORS.iter().flat_map(|door| outside(tree, door)).collect()
}

/// Finds SQL text outside of the dialects' folders.
pub(super) fn sql(tree: &Tree) -> Vec<Finding> {
    let advice =
        "move SQL text to store/src/{sqlite,postgres,mysql}/ and call the store's trait here";
    let mut findings = Vec::new();
    for (file, rust) in product_code(tree, &["crates/"]) {
        if SQL_PLACES.iter().any(|place| is_at(&file.path, place)) {
            continue;
        }
        for (at, literal) in &rust.literals {
            if !rust.is_test(*at) && is_sql(literal) {
                findings.push(Finding::new(RULE, &file.path, rust.line(*at), advice));
            }
        }
    }
    for file in &tree.files {
        if file.path.ends_with(".sql") && !SQL_PLACES.iter().any(|place| is_at(&file.path, place)) {
            findings.push(Finding::new(RULE, &file.path, 1, advice));
        }
    }
    findings
}

fn outside(tree: &Tree, door: &Door) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, rust) in product_code(tree, door.scope) {
        if door.places.iter().any(|place| is_at(&file.path, place)) {
            continue;
        }
        for word in door.words {
            for at in rust.words(word) {
                if !rust.is_test(at) && !is_definition(&rust.code, at) {
                    let advice = format!(
                        "`{word}` here is a second door for {}: {}",
                        door.what, door.instead
                    );
                    findings.push(Finding::new(RULE, &file.path, rust.line(at), advice));
                }
            }
        }
    }
    findings
}

/// Gives the Rust files in `scope` that are part of the product.
fn product_code<'a>(
    tree: &'a Tree,
    scope: &'a [&str],
) -> impl Iterator<Item = (&'a File, &'a Source)> {
    tree.rust().filter(|(file, _)| {
        scope.iter().any(|place| is_at(&file.path, place))
            && !file.is_test()
            && !file.path.ends_with("/build.rs")
    })
}

/// Gives the lines on which `disallowed_*` is expected or allowed.
fn exceptions(rust: &Source) -> Vec<usize> {
    let mut lines = Vec::new();
    for lint in [
        "disallowed_methods",
        "disallowed_types",
        "disallowed_macros",
    ] {
        let found = rust.words(lint).into_iter();
        lines.extend(
            found
                .filter(|at| !rust.is_test(*at))
                .map(|at| rust.line(at)),
        );
    }
    lines.sort_unstable();
    lines
}

/// Tells whether the word at `at` is being defined, or is another type's method.
fn is_definition(code: &str, at: usize) -> bool {
    let before = code.get(..at).unwrap_or_default();
    before.ends_with('.') || before.trim_end().ends_with("fn") && before.ends_with(' ')
}

fn is_at(path: &str, place: &str) -> bool {
    match (place.strip_suffix('*'), place.ends_with('/')) {
        (Some(stem), _) => path.starts_with(stem),
        (None, true) => path.starts_with(place),
        (None, false) => path == place,
    }
}

/// Tells whether a literal reads like SQL: keywords in capitals, where a statement has them.
fn is_sql(literal: &str) -> bool {
    let words: Vec<&str> = literal.split_whitespace().collect();
    let begins = |start: &[&str]| words.starts_with(start);
    let has = |word: &str| words.contains(&word);
    begins(&["SELECT"]) && has("FROM")
        || begins(&["INSERT"]) && has("INTO")
        || begins(&["UPDATE"]) && has("SET")
        || begins(&["DELETE", "FROM"])
        || begins(&["CREATE"]) && (has("TABLE") || has("INDEX") || has("TRIGGER") || has("VIEW"))
        || begins(&["ALTER", "TABLE"])
        || begins(&["BEGIN", "IMMEDIATE"])
        || begins(&["WITH"]) && has("AS") && has("SELECT")
        || begins(&["PRAGMA"])
}

#[cfg(test)]
mod tests {
    use super::super::assert_findings;
    use super::*;

    #[test]
    fn an_exception_outside_of_its_door_is_found() {
        let expect = "#[expect(clippy::disallowed_methods, reason = \"the door\")]\nfn now() {}\n";
        let in_tests = format!("#[cfg(test)]\nmod tests {{ {expect} }}\n");
        for (path, text, expected) in [
            ("crates/waystation/src/ingest.rs", expect, 1),
            ("crates/waystation/src/world.rs", expect, 0),
            ("crates/waystation/src/world.rs", &expect.repeat(5), 1),
            ("crates/waystation/src/ingest.rs", &in_tests, 0),
            ("crates/waystation/tests/it/main.rs", expect, 0),
            ("crates/server/src/config/read.rs", expect, 0),
            ("crates/server/src/config/read.rs", &expect.repeat(2), 1),
        ] {
            assert_findings(expects, &[(path, text)], expected);
        }
    }

    #[test]
    fn what_has_a_door_is_found_elsewhere() {
        for (path, text, expected) in [
            ("crates/core/src/a.rs", "fn f() { Instant::now(); }", 1),
            (
                "crates/waystation/src/world.rs",
                "fn f() { Instant::now(); }",
                0,
            ),
            ("crates/server/src/a.rs", "fn f() { Instant::now(); }", 0),
            (
                "crates/waystation/src/a.rs",
                "fn f() { tokio::spawn(x); }",
                1,
            ),
            (
                "crates/waystation/src/supervise.rs",
                "fn f() { tokio::spawn(x); }",
                0,
            ),
            ("crates/waystation/src/a.rs", "fn f() { decide(&case); }", 1),
            ("crates/core/src/a.rs", "pub fn decide(case: &Case) {}", 0),
            ("crates/core/src/a.rs", "fn f() { self.decide(case) }", 0),
            (
                "crates/waystation/src/settle.rs",
                "fn f() { decide(&case); }",
                0,
            ),
            (
                "crates/core/src/node/step.rs",
                "fn f() { decide(&case); }",
                0,
            ),
            (
                "crates/server/src/http/a.rs",
                "fn f() { std::env::var(\"A\"); }",
                1,
            ),
            (
                "crates/server/src/config/a.rs",
                "fn f() { std::env::var(\"A\"); }",
                0,
            ),
            (
                "crates/server/src/http/a.rs",
                "fn f() { tracing::info!(\"a\"); }",
                1,
            ),
            (
                "crates/server/src/telemetry.rs",
                "fn f() { tracing::info!(\"a\"); }",
                0,
            ),
            ("crates/store/src/a.rs", "fn f() { println!(\"a\"); }", 1),
            (
                "crates/server/src/cli/a.rs",
                "fn f() { println!(\"a\"); }",
                0,
            ),
            (
                "crates/store/src/a.rs",
                "/// Never calls println!(\"a\").\nfn f() {}",
                0,
            ),
        ] {
            assert_findings(words, &[(path, text)], expected);
        }
    }

    #[test]
    fn a_flaw_in_production_is_found() {
        let import = "use waystation_core::flaw::Flaws;";
        let opened = "fn f() { Memory::with_flaws(x); }";
        for (path, text, expected) in [
            ("crates/waystation/src/a.rs", import, 2),
            ("crates/server/src/config/a.rs", opened, 1),
            ("crates/sim/src/a.rs", opened, 0),
            ("crates/waystation/tests/it/a.rs", opened, 0),
        ] {
            assert_findings(words, &[(path, text)], expected);
        }
    }

    #[test]
    fn sql_outside_of_the_dialects_is_found() {
        for (path, text, expected) in [
            (
                "crates/server/src/a.rs",
                "const A: &str = \"SELECT 1 FROM message\";",
                1,
            ),
            (
                "crates/store/src/sqlite/a.rs",
                "const A: &str = \"SELECT 1 FROM message\";",
                0,
            ),
            (
                "crates/store/src/a.rs",
                "f(\"UPDATE gate SET epoch = 1\")",
                1,
            ),
            ("crates/store/src/a.rs", "f(\"PRAGMA user_version\")", 1),
            (
                "crates/store/src/a.rs",
                "f(\"Update the gate, then set the epoch\")",
                0,
            ),
            ("crates/store/src/schema.sql", "", 1),
        ] {
            assert_findings(sql, &[(path, text)], expected);
        }
    }
}
