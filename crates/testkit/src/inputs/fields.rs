//! Fields of a JSON body: how a good value of each shape is made, and a wrong one.

use super::chance::Chance;

/// What a field takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// `[A-Za-z0-9._-]{1,128}`.
    Name,
    /// A text of at most so many bytes, at least one if it must not be empty, one line if it says so.
    Text {
        most: usize,
        empty: bool,
        line: bool,
    },
    /// Visible ASCII, 1 to 255.
    Token,
    /// A whole number.
    Whole { least: u64, most: u64 },
    /// A duration as text; none may be longer than so many seconds.
    Length { least: u64, most: u64 },
    /// A time from 2030 on.
    Time,
    /// One of these words.
    Word(&'static [&'static str]),
    /// An object of texts that become headers.
    Headers,
    /// A list of names, 1 to 100 or none, with `*` at the end or without.
    Names { required: bool },
    /// Anything.
    Json,
}

/// One field of a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) required: bool,
    /// The field that may not stand beside it.
    pub(super) rival: Option<&'static str>,
}

impl Field {
    pub(super) const fn new(name: &'static str, shape: Shape) -> Self {
        Self {
            name,
            shape,
            required: false,
            rival: None,
        }
    }

    pub(super) const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    pub(super) const fn against(mut self, rival: &'static str) -> Self {
        self.rival = Some(rival);
        self
    }
}

/// Writes a text as a JSON value.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Makes a good value.
pub(super) fn good(shape: Shape, chance: &mut Chance) -> String {
    match shape {
        Shape::Name => quoted(&chance.name()),
        Shape::Text { most, .. } => {
            let length = chance.between(1, most.min(40));
            quoted(&chance.text(length, "abc XYZ-0\"\\/~"))
        }
        Shape::Token => {
            let length = chance.between(8, 64);
            quoted(&chance.text(length, "abcdefXYZ0123456789!#~"))
        }
        Shape::Whole { least, most } => {
            let room = usize::try_from(most - least).unwrap_or(usize::MAX - 1);
            let more = u64::try_from(chance.between(0, room.min(9))).unwrap_or(0);
            (least + more).to_string()
        }
        Shape::Length { least, most } => {
            let room = usize::try_from(most - least).unwrap_or(0);
            let more = u64::try_from(chance.between(0, room.min(25))).unwrap_or(0);
            quoted(&format!("{}s", least + more))
        }
        Shape::Time => quoted(&format!(
            "20{}-0{}-1{}T0{}:30:00Z",
            chance.between(30, 98),
            chance.between(1, 9),
            chance.below(10),
            chance.below(10)
        )),
        Shape::Word(words) => quoted(chance.word(words)),
        Shape::Headers => {
            let count = chance.below(4);
            let pairs: Vec<String> = (0..count)
                .map(|n| format!("\"x-{n}\":{}", quoted(&chance.name())))
                .collect();
            format!("{{{}}}", pairs.join(","))
        }
        Shape::Names { .. } => format!("[{}]", quoted(&chance.name())),
        Shape::Json => json(chance, 3),
    }
}

/// Makes some JSON, at most so deep.
fn json(chance: &mut Chance, depth: usize) -> String {
    let scalars = [
        "null",
        "true",
        "0",
        "-1.5e3",
        "1.00",
        "\"\"",
        "\"ä\\u00e4\"",
    ];
    match chance.below(if depth == 0 { 1 } else { 3 }) {
        0 => (*chance.pick(&scalars)).to_owned(),
        1 => format!("[{}, {}]", json(chance, depth - 1), json(chance, depth - 1)),
        _ => format!("{{\"a\":{},\"b\" :1}}", json(chance, depth - 1)),
    }
}

/// Makes a value that the shape cannot take, and says below which pointer that is told; none where it
/// takes everything.
pub(super) fn wrong(shape: Shape, chance: &mut Chance) -> Option<(String, String)> {
    let here = |value: String| Some((value, String::new()));
    if !matches!(shape, Shape::Json) && chance.one_in(4) {
        return here(of_another_type(shape, chance));
    }
    match shape {
        Shape::Json => None,
        Shape::Name => here(quoted_or_lone(no_name(chance), chance)),
        Shape::Text { most, empty, line } => here(no_text(chance, most, empty, line)),
        Shape::Token => {
            let far = "x".repeat(chance.between(256, 2_000));
            let bad = ["", " ", "a b", "ä", "a\tb", "\u{7f}", "a\0", far.as_str()];
            here(quoted(chance.word(&bad)))
        }
        Shape::Whole { least, most } => here(no_whole(chance, least, most)),
        Shape::Length { least, most } => here(quoted(&no_length(chance, least, most))),
        Shape::Time => here(quoted(no_time(chance))),
        Shape::Word(words) => {
            let word = chance.pick(words);
            let near = [
                word.to_uppercase(),
                format!("{word} "),
                String::new(),
                format!("{word}s"),
            ];
            here(quoted(&near[chance.below(near.len())]))
        }
        Shape::Headers => Some(no_headers(chance)),
        Shape::Names { required } => Some(no_names(chance, required)),
    }
}

/// A text with half of a pair is no text at all; some of the time it takes the place of another wrong one.
fn quoted_or_lone(text: String, chance: &mut Chance) -> String {
    if chance.one_in(6) {
        let half = ["d800", "dfff", "DBFF"];
        format!("\"a\\u{}\"", chance.pick(&half))
    } else {
        quoted(&text)
    }
}

fn of_another_type(shape: Shape, chance: &mut Chance) -> String {
    let texts = ["\"\"", "\"1\"", "\"true\"", "\"[]\""];
    let numbers = ["0", "7", "-1", "1.5", "1e400", "18446744073709551616"];
    let objects = ["{}", "{\"a\":1}", "{\"\":{\"\":[]}}"];
    let lists = ["[]", "[1]", "[null,[\"x\"]]"];
    let others = ["true", "false"];
    let (is_text, is_object, is_list) = match shape {
        Shape::Name
        | Shape::Text { .. }
        | Shape::Token
        | Shape::Length { .. }
        | Shape::Time
        | Shape::Word(_) => (true, false, false),
        Shape::Whole { .. } | Shape::Json => (false, false, false),
        Shape::Headers => (false, true, false),
        Shape::Names { .. } => (false, false, true),
    };
    let is_number = matches!(shape, Shape::Whole { .. });
    loop {
        let (own, from): (bool, &[&str]) = match chance.below(5) {
            0 => (is_text, &texts),
            1 => (is_number, &numbers),
            2 => (is_object, &objects),
            3 => (is_list, &lists),
            _ => (false, &others),
        };
        if !own {
            return (*chance.pick(from)).to_owned();
        }
    }
}

/// A text that is no name.
pub(super) fn no_name(chance: &mut Chance) -> String {
    let strange = [
        " ", "/", ":", "*a", "ä", "😀", "\0", "\n", "\"", "\\", "\u{202e}", "%", "a b", "\u{7f}",
        "é", "|", "{}",
    ];
    match chance.below(4) {
        0 => String::new(),
        1 => "x".repeat(chance.between(129, 3_000)),
        _ => {
            let (before, after) = (chance.name(), chance.name());
            format!("{before}{}{after}", chance.pick(&strange))
        }
    }
}

fn no_text(chance: &mut Chance, most: usize, empty: bool, line: bool) -> String {
    match chance.below(3) {
        0 if !empty => quoted(""),
        1 if line => {
            let control = ["\0", "\n", "\r", "\t", "\u{1b}[31m", "\u{7f}", "\u{85}"];
            quoted(&format!("a{}b", chance.pick(&control)))
        }
        // Bytes count, and not characters.
        _ if most < 10_000 => {
            let letter = if chance.one_in(2) { "x" } else { "ä" };
            quoted(&letter.repeat(chance.between(most + 1, most + 900)))
        }
        _ => quoted_or_lone_only(chance),
    }
}

fn quoted_or_lone_only(chance: &mut Chance) -> String {
    let half = ["\"\\ud800\"", "\"x\\udfffy\"", "\"\\ud800\\u0041\""];
    (*chance.pick(&half)).to_owned()
}

fn no_whole(chance: &mut Chance, least: u64, most: u64) -> String {
    let mut bad = vec![
        "-1".to_owned(),
        format!("{least}.0"),
        format!("{least}e0"),
        "1E+2".to_owned(),
        "18446744073709551616".to_owned(),
        "9".repeat(chance.between(21, 400)),
        "-99999999999999999999".to_owned(),
        "0.5".to_owned(),
        "1e-7".to_owned(),
        "-0.0".to_owned(),
    ];
    bad.extend(least.checked_sub(1).map(|below| below.to_string()));
    bad.extend(most.checked_add(1).map(|above| above.to_string()));
    chance.pick(&bad).clone()
}

/// A text that is no duration, or none within the bounds in seconds.
pub(super) fn no_length(chance: &mut Chance, least: u64, most: u64) -> String {
    let mut bad: Vec<String> = [
        "",
        "1",
        "s",
        "1.5s",
        "-1s",
        "1 s",
        " 1s",
        "1s ",
        "1s1s",
        "1m1h",
        "1w",
        "１s",
        "1S",
        "PT1S",
        "99999999999999999999s",
        "1e3s",
        "0x1s",
        "3651d",
        "1h30",
        "1s\0",
        "infinity",
        "∞",
        "+1s",
    ]
    .into_iter()
    .map(str::to_owned)
    .collect();
    bad.extend(least.checked_sub(1).map(|below| format!("{below}s")));
    bad.push(format!("{}s", most + 1));
    chance.pick(&bad).clone()
}

/// A text that is no time, or none within the years that are taken.
pub(super) fn no_time(chance: &mut Chance) -> &'static str {
    chance.word(&[
        "",
        "now",
        "2026-11-21",
        "2026-11-21T09:30:00",
        "2026-13-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-11-21T24:30:00Z",
        "2026-11-21T25:00:00Z",
        "1999-12-31T23:59:59Z",
        "2200-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "-2026-11-21T09:30:00Z",
        "1763717400",
        "2026-11-21T09:30:00+01:00[Europe/Berlin]",
        "20261121T093000Z",
        "Sat, 21 Nov 2026 09:30:00 GMT",
        "2026-11-21T09:30:00Z\0",
        "2026-W47-6T09:30:00Z",
        "２026-11-21T09:30:00Z",
        "2026-11-21T09:30:00.000000000000000000000000Z",
    ])
}

/// Names of headers that belong to the protocol.
pub(super) const RESERVED: &[&str] = &[
    "host",
    "Content-Length",
    "content-type",
    "transfer-encoding",
    "Connection",
    "waystation-id",
    "Waystation-Fence",
    "webhook-signature",
    "idempotency-key",
    "te",
    "upgrade",
    "trailer",
];

fn no_headers(chance: &mut Chance) -> (String, String) {
    let one = |name: &str, value: &str| {
        let below = name.replace('~', "~0").replace('/', "~1");
        (format!("{{{}:{value}}}", quoted(name)), format!("/{below}"))
    };
    match chance.below(7) {
        0 => one(chance.word(RESERVED), "\"x\""),
        1 => {
            let names = ["a b", "", "ä", "a:b", "a/b", "(x)", "a\tb", "[", "\u{1}"];
            one(chance.word(&names), "\"x\"")
        }
        2 => {
            let values = ["1", "null", "true", "[]", "{}"];
            one("x-a", chance.word(&values))
        }
        3 => {
            let values = ["\"a\\nb\"", "\"a\\u0000b\"", "\"\\u007f\"", "\"\\r\""];
            one("x-a", chance.word(&values))
        }
        4 => one("x-a", &quoted(&"v".repeat(chance.between(4_097, 6_000)))),
        5 => {
            let many = chance.between(33, 60);
            let pairs: Vec<String> = (0..many).map(|n| format!("\"h{n}\":\"x\"")).collect();
            (format!("{{{}}}", pairs.join(",")), String::new())
        }
        _ => (
            "{\"x-a\":\"1\",\"X-A\":\"2\"}".to_owned(),
            "/x-a".to_owned(),
        ),
    }
}

fn no_names(chance: &mut Chance, required: bool) -> (String, String) {
    match chance.below(4) {
        0 if required => ("[]".to_owned(), String::new()),
        1 => {
            let many = chance.between(101, 300);
            let list = vec!["\"a\""; many].join(",");
            (format!("[{list}]"), String::new())
        }
        2 => {
            let others = ["5", "null", "true", "{}", "[\"a\"]"];
            (format!("[\"a\",{}]", chance.pick(&others)), "/1".to_owned())
        }
        _ => {
            let bad = no_name(chance);
            (format!("[{},\"b\"]", quoted(&bad)), "/0".to_owned())
        }
    }
}
