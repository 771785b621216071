//! Configuration files, environment variables and short forms of endpoints that are wrong on purpose.

use super::chance::Chance;

/// A configuration that is wrong.
#[derive(Clone, Debug)]
pub struct BadSettings {
    /// The file.
    pub file: String,
    /// Environment variables.
    pub variables: Vec<(String, String)>,
    /// What `--handler` is given.
    pub handlers: Vec<String>,
    /// Of these the refusal must name one.
    pub names: Vec<String>,
}

/// A key: its table, its name, good values, wrong ones.
type Key = (
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const WRONG_LENGTHS: &[&str] = &[
    "\"\"",
    "\"1\"",
    "\"1.5s\"",
    "\"-1s\"",
    "\"1 s\"",
    "\"1w\"",
    "\"soon\"",
    "5",
    "5.0",
    "true",
    "[]",
    "{}",
    "\"99999999999999999999s\"",
    "\"4000d\"",
    "\"１s\"",
    "2026-11-21",
];
const WRONG_WHOLES: &[&str] = &[
    "-1",
    "1.0",
    "\"1\"",
    "true",
    "[]",
    "{}",
    "4294967296",
    "9223372036854775807",
    "1e3",
    "inf",
    "nan",
    "70000000",
];
const WRONG_RATES: &[&str] = &[
    "\"\"",
    "\"0/s\"",
    "\"200\"",
    "200",
    "\"200/d\"",
    "\"-1/s\"",
    "\"1.5/s\"",
    "\"/s\"",
    "[]",
    "\"2000000/s\"",
];
const WRONG_NAMES: &[&str] = &[
    "\"a b\"",
    "\"\"",
    "\"a/b\"",
    "5",
    "[]",
    "\"ä\"",
    "\"a:b\"",
    "\"\\u0000\"",
];
const WRONG_BOOLS: &[&str] = &["1", "\"true\"", "\"yes\"", "[]", "{}"];

const KEYS: &[Key] = &[
    (
        "server",
        "listen",
        &["\"127.0.0.1:0\"", "\"[::1]:3000\""],
        &[
            "3000",
            "\"localhost\"",
            "\"127.0.0.1\"",
            "\"127.0.0.1:99999\"",
            "\"0.0.0.0:3000\"",
            "\"http://127.0.0.1:1\"",
            "[]",
            "\"\"",
        ],
    ),
    ("server", "insecure", &["false"], WRONG_BOOLS),
    (
        "server",
        "hosts",
        &["[]", "[\"a.b\"]"],
        &[
            "\"a\"",
            "[1]",
            "[\"http://a\"]",
            "[\"\"]",
            "[\"a b\"]",
            "{}",
        ],
    ),
    ("server", "slots", &["1", "256"], WRONG_WHOLES),
    ("server", "connections_max", &["16"], WRONG_WHOLES),
    (
        "server",
        "payload_max",
        &["\"1KiB\"", "\"64MiB\""],
        &[
            "1024",
            "\"1MB\"",
            "\"\"",
            "\"0B\"",
            "\"65MiB\"",
            "\"-1B\"",
            "\"1.5MiB\"",
            "[]",
        ],
    ),
    ("server", "submit_rate", &["\"5/s\""], WRONG_RATES),
    ("server", "header_timeout", &["\"5s\""], WRONG_LENGTHS),
    ("server", "body_timeout", &["\"5s\""], WRONG_LENGTHS),
    (
        "log",
        "level",
        &["\"warn\""],
        &["\"WARN\"", "\"trace\"", "3", "\"\"", "[]"],
    ),
    (
        "log",
        "format",
        &["\"json\""],
        &["\"JSON\"", "\"text\"", "1", "{}"],
    ),
    (
        "store",
        "url",
        &["\"memory:\""],
        &[
            "\"\"",
            "\"postgres://a\"",
            "\"mysql://a\"",
            "\"redis://a\"",
            "5",
            "\"sqlite:\"",
            "\"sqlite://\"",
            "\"sqlite://a?x\"",
            "\"file.db\"",
            "[]",
        ],
    ),
    (
        "store.retention",
        "completed",
        &["\"1h\"", "\"never\""],
        &["\"always\"", "0", "\"\"", "\"-1h\"", "[]"],
    ),
    (
        "store.retention",
        "idempotency",
        &["\"1h\""],
        &["\"never\"", "0", "\"\"", "true"],
    ),
    ("queues.default", "concurrency", &["1"], WRONG_WHOLES),
    ("queues.default", "rate", &["\"9/m\""], WRONG_RATES),
    (
        "queues.default",
        "on_dead_head",
        &["\"skip\""],
        &["\"Skip\"", "\"\"", "1", "\"wait\""],
    ),
    ("queues.q1", "dead_budget", &["7"], WRONG_WHOLES),
    ("destinations.d", "concurrency", &["7"], WRONG_WHOLES),
    ("destinations.d", "rate", &["\"7/s\""], WRONG_RATES),
    ("destinations.d", "allow_private", &["true"], WRONG_BOOLS),
    (
        "destinations.d",
        "retry_after_max",
        &["\"1h\""],
        WRONG_LENGTHS,
    ),
    (
        "destinations.d.timeout",
        "connect",
        &["\"1s\""],
        WRONG_LENGTHS,
    ),
    (
        "destinations.d.timeout",
        "request",
        &["\"1s\""],
        WRONG_LENGTHS,
    ),
    (
        "destinations.d.circuit",
        "consecutive",
        &["0", "5"],
        WRONG_WHOLES,
    ),
    (
        "destinations.d.circuit",
        "failure_rate",
        &["0.5", "0.0"],
        &["1.5", "-0.1", "nan", "inf", "\"0.5\"", "[]", "true"],
    ),
    (
        "destinations.d.circuit",
        "window",
        &["\"30s\""],
        WRONG_LENGTHS,
    ),
    (
        "destinations.d.circuit",
        "open_for",
        &["\"30s\""],
        WRONG_LENGTHS,
    ),
    (
        "destinations.d.circuit",
        "ramp",
        &["\"30s\""],
        WRONG_LENGTHS,
    ),
    ("kinds.k", "destination", &["\"d\""], WRONG_NAMES),
    ("kinds.k", "on_dead", &["\"k2\""], WRONG_NAMES),
    ("kinds.k", "max_attempts", &["3"], WRONG_WHOLES),
    ("kinds.k", "terminal_retries", &["3"], WRONG_WHOLES),
    ("kinds.k", "attempt_timeout", &["\"1s\""], WRONG_LENGTHS),
    ("kinds.k", "give_up_after", &["\"1d\""], WRONG_LENGTHS),
    ("kinds.k.backoff", "fixed", &["\"1s\""], WRONG_LENGTHS),
    ("kinds.k.backoff", "immediate", &["0"], WRONG_WHOLES),
    (
        "kinds.k.backoff",
        "jitter",
        &["\"full\""],
        &["\"half\"", "1", "\"\"", "[]"],
    ),
];

/// Writes a file of some good keys, with one of them as given.
fn file(chance: &mut Chance, with: Option<(&Key, &str)>) -> String {
    let mut tables: Vec<(&str, Vec<String>)> = vec![(
        "destinations.d",
        vec!["url = \"http://127.0.0.1:9\"".to_owned()],
    )];
    for key in KEYS {
        let (table, name, good, _) = key;
        let value = match with {
            Some((wrong, value)) if (wrong.0, wrong.1) == (*table, *name) => value,
            _ if chance.one_in(4) => chance.pick(good),
            _ => continue,
        };
        let line = format!("{name} = {value}");
        match tables.iter_mut().find(|(known, _)| known == table) {
            Some((_, lines)) => lines.push(line),
            None => tables.push((table, vec![line])),
        }
    }
    tables
        .iter()
        .map(|(table, lines)| format!("[{table}]\n{}\n", lines.join("\n")))
        .collect()
}

/// Makes a configuration that must be taken.
#[must_use]
pub fn good(chance: &mut Chance) -> String {
    file(chance, None)
}

/// Makes one that must be refused, and what its refusal must name.
#[must_use]
pub fn spoilt(chance: &mut Chance) -> BadSettings {
    match chance.below(10) {
        0..=4 => {
            let key = chance.pick(KEYS);
            let value = *chance.pick(key.3);
            plain(file(chance, Some((key, value))), key.1)
        }
        5 => {
            let tables = [
                "server",
                "log",
                "store",
                "queues.q1",
                "destinations.d",
                "kinds.k",
            ];
            let (table, name) = (*chance.pick(&tables), format!("zz{}", chance.below(1_000)));
            // Its own document, for a table may stand only once.
            plain(format!("[{table}]\n{name} = 1\n"), &name)
        }
        6 => broken(chance),
        7 => wrong_variable(chance),
        8 => wrong_handler(chance),
        _ => wrong_whole(chance),
    }
}

fn plain(file: String, names: &str) -> BadSettings {
    BadSettings {
        file,
        variables: Vec::new(),
        handlers: Vec::new(),
        names: vec![names.to_owned()],
    }
}

fn wrong_variable(chance: &mut Chance) -> BadSettings {
    let key = chance.pick(KEYS);
    let name = format!("{}.{}", key.0, key.1)
        .to_uppercase()
        .replace('.', "__");
    let name = format!("WAYSTATION_{name}");
    // What is a text for TOML is a text here without its quotes.
    let value = chance.pick(key.3).trim_matches('"').to_owned();
    let value = if is_good_bare(key, &value) {
        "[1]".to_owned()
    } else {
        value
    };
    BadSettings {
        variables: vec![(name.clone(), value)],
        // A value of the right type that is out of bounds is told by its key.
        names: vec![name, format!("{}.{}", key.0, key.1)],
        ..plain(file(chance, None), "")
    }
}

fn wrong_handler(chance: &mut Chance) -> BadSettings {
    let handlers = [
        "",
        "=",
        "=http://x",
        "a",
        "a=",
        "a=x",
        "a b=http://x",
        "a=ftp://x",
        "a=http://",
        "a=http://u:p@x",
        "a=http://x?q",
        "a=http://x#f",
        "ä=http://x",
        "a**=http://x",
        "a=http://[::",
        "a=http://x:99999999",
        "\0=http://x",
        "a=http:// x",
    ];
    BadSettings {
        handlers: vec![(*chance.pick(&handlers)).to_owned()],
        ..plain(file(chance, None), "--handler")
    }
}

/// Makes a file each of whose values is good by itself, and that is wrong as a whole.
fn wrong_whole(chance: &mut Chance) -> BadSettings {
    let (text, names) = *chance.pick(&[
        ("[kinds.k]\npath = \"/x\"\n", "path"),
        ("[kinds.\"a b\"]\n", "a b"),
        ("[kinds.\"a**\"]\n", "a**"),
        ("[queues.\"a/b\"]\n", "a/b"),
        ("[destinations.\"ä\"]\nurl = \"http://x\"\n", "ä"),
        ("[destinations.d]\nurl = \"x\"\n", "url"),
        ("[destinations.d]\nhealth = \"/h\"\n", "health"),
        (
            "[destinations.d]\nurl = \"http://x\"\nhealth = \"h\"\n",
            "health",
        ),
        (
            "[kinds.k.backoff]\nfixed = \"1s\"\nlinear = \"1s\"\n",
            "backoff",
        ),
        ("[kinds.k.backoff]\nrandom = [\"2s\", \"1s\"]\n", "random"),
        ("[kinds.k.backoff]\nschedule = []\n", "schedule"),
        ("[kinds.k.backoff]\nfactor = 2.0\n", "factor"),
        ("[kinds.k.outcomes]\n700 = \"complete\"\n", "700"),
        ("[kinds.k.outcomes]\n409 = \"done\"\n", "done"),
        ("[server]\ntoken = { env = \"NOWHERE\" }\n", "NOWHERE"),
        ("[server]\ntoken = {}\n", "token"),
        ("[server]\ntoken = \"\"\n", "token"),
        ("[server]\ntoken_file = \"/nowhere\"\n", "token_file"),
    ]);
    plain(text.to_owned(), names)
}

/// Tells whether what is wrong in a file, for it lacks quotes, is right in a variable, which has none.
fn is_good_bare(key: &Key, value: &str) -> bool {
    key.2.iter().any(|good| good.trim_matches('"') == value)
        || value.is_empty()
        || matches!(value, "1" | "5" | "0" | "true" | "3000" | "200")
}

/// Makes a text that is no TOML at all.
fn broken(chance: &mut Chance) -> BadSettings {
    let good = file(chance, None);
    let garbage = [
        "[server",
        "server]",
        "listen = ",
        "= 3",
        "a = = 1",
        "[a]\n[a]\n",
        "a = 1\na = 2\n",
        "a = \"x",
        "a = 'x",
        "a = \"\\q\"",
        "a = [1, 2",
        "a = {b = 1",
        "a.b = 1\na = 2\n",
        "\0",
        "a = 01",
        "a = 1__0",
        "a = @",
        "[[a]\n",
        "a = \"\"\"x",
        "a = 2026-13-01",
        "a = \u{1}",
        "{}",
        "a : 1",
        "<a/>",
        "a = tru",
        "[a.]\n",
        "\"\" \"\"",
        "a = \"\\ud800\"",
    ];
    let text = match chance.below(3) {
        0 => format!("{good}{}\n", chance.pick(&garbage)),
        1 => format!("{}\n{good}", chance.pick(&garbage)),
        _ => format!("a = {}\n", "[".repeat(chance.between(1, 3_000))),
    };
    BadSettings {
        file: text,
        variables: Vec::new(),
        handlers: Vec::new(),
        names: vec!["line".to_owned()],
    }
}
