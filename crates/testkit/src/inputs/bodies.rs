//! JSON bodies: a good one by its fields, and the mistakes that can be made in it.

use super::chance::Chance;
use super::fields::{Field, good, quoted, wrong};

/// A body as it will be written: names and raw values, in order.
#[derive(Clone, Debug)]
pub(super) struct Body {
    pub(super) entries: Vec<(String, String)>,
}

/// A body with mistakes, and what must be said of them.
#[derive(Clone, Debug)]
pub(super) struct Spoilt {
    pub(super) bytes: Vec<u8>,
    pub(super) wrong: String,
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) pointers: Vec<String>,
}

impl Spoilt {
    /// Bytes that are not JSON.
    fn malformed(bytes: Vec<u8>, wrong: &str) -> Self {
        Self {
            bytes,
            wrong: wrong.to_owned(),
            status: 400,
            code: "malformed_json",
            pointers: Vec::new(),
        }
    }

    /// JSON with wrong fields.
    pub(super) fn invalid(body: &Body, wrong: String, pointers: Vec<String>) -> Self {
        Self {
            bytes: body.write().into_bytes(),
            wrong,
            status: 422,
            code: "invalid_field",
            pointers,
        }
    }
}

impl Body {
    /// Makes a good body: what is required, and some of the rest.
    pub(super) fn good(fields: &[Field], chance: &mut Chance) -> Self {
        let mut body = Self {
            entries: Vec::new(),
        };
        for field in fields {
            let has_rival = field.rival.is_some_and(|rival| body.has(rival));
            if field.required || (!has_rival && chance.one_in(3)) {
                body.set(field.name, good(field.shape, chance));
            }
        }
        body
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(known, _)| known == name)
    }

    /// Sets a field, in its place where it is there.
    pub(super) fn set(&mut self, name: &str, value: String) {
        match self.entries.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.entries.push((name.to_owned(), value)),
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.entries.retain(|(known, _)| known != name);
    }

    /// Writes the body.
    pub(super) fn write(&self) -> String {
        let pairs: Vec<String> = self
            .entries
            .iter()
            .map(|(name, value)| format!("{}: {value}", quoted(name)))
            .collect();
        format!("{{{}}}", pairs.join(","))
    }
}

/// Makes a body with mistakes. `at` is where it stands in the whole: its own mistakes are told below it.
pub(super) fn spoilt(fields: &[Field], chance: &mut Chance, at: &str) -> (Body, Spoilt) {
    let mut body = Body::good(fields, chance);
    let told = if chance.one_in(8) {
        doubled(fields, &mut body, chance, at)
    } else {
        None
    };
    let told = told.unwrap_or_else(|| mistaken(fields, &mut body, chance, at));
    (body, told)
}

/// Gives one of its fields twice.
fn doubled(fields: &[Field], body: &mut Body, chance: &mut Chance, at: &str) -> Option<Spoilt> {
    let field = fields.iter().find(|field| body.has(field.name))?;
    body.entries
        .push((field.name.to_owned(), good(field.shape, chance)));
    let wrong = format!("{} is given twice", field.name);
    let pointers = vec![format!("{at}/{}", field.name)];
    Some(Spoilt::invalid(body, wrong, pointers))
}

/// Makes one to three mistakes in different fields.
fn mistaken(fields: &[Field], body: &mut Body, chance: &mut Chance, at: &str) -> Spoilt {
    let mut words = Vec::new();
    let mut pointers = Vec::new();
    let mut is_invalid = false;
    let count = chance.between(1, 3);
    for _ in 0..count {
        let told = |name: &str| {
            let (own, below) = (format!("{at}/{name}"), format!("{at}/{name}/"));
            let is_it = |pointer: &String| *pointer == own || pointer.starts_with(&below);
            pointers.iter().any(is_it)
        };
        let field = chance.below(fields.len() + 2);
        match fields.get(field) {
            // Of two rivals one is taken away, and its mistake with it.
            Some(field) if !told(field.name) && !field.rival.is_some_and(told) => {
                if let Some((word, pointer)) = mistake(field, body, chance) {
                    words.push(format!("{}: {word}", field.name));
                    pointers.push(format!("{at}/{}{pointer}", field.name));
                    is_invalid = true;
                }
            }
            Some(_) => {}
            None => {
                let name = unknown_name(fields, body, chance);
                pointers.push(format!("{at}/{}", pointer_part(&name)));
                words.push(format!("{name:.40?} is unknown"));
                body.entries.push((name, "1".to_owned()));
            }
        }
    }
    if pointers.is_empty() {
        let name = unknown_name(fields, body, chance);
        pointers.push(format!("{at}/{}", pointer_part(&name)));
        words.push(format!("{name:.40?} is unknown"));
        body.entries.push((name, "null".to_owned()));
    }
    let mut told = Spoilt::invalid(body, words.join("; "), pointers);
    if !is_invalid {
        told.code = "unknown_field";
    }
    told
}

/// Makes one mistake in one field; says it, and below which pointer it is told. None where there is no
/// mistake to be made.
fn mistake(field: &Field, body: &mut Body, chance: &mut Chance) -> Option<(String, String)> {
    if let Some(rival) = field.rival {
        body.remove(rival);
    }
    if field.required && chance.one_in(5) {
        if chance.one_in(2) {
            body.remove(field.name);
        } else {
            body.set(field.name, "null".to_owned());
        }
        return Some(("is missing".to_owned(), String::new()));
    }
    let (value, below) = wrong(field.shape, chance)?;
    let word = format!("{value:.60}");
    body.set(field.name, value);
    Some((word, below))
}

/// A name that is none of the fields, and not in the body.
fn unknown_name(fields: &[Field], body: &Body, chance: &mut Chance) -> String {
    loop {
        let known = fields.get(chance.below(fields.len())).map(|it| it.name);
        let known = known.unwrap_or("kind");
        let name = match chance.below(7) {
            0 => known.to_uppercase(),
            1 => format!("{known} "),
            2 => known.chars().skip(1).collect(),
            3 => (*chance.pick(&[
                "__proto__",
                "constructor",
                "$ref",
                "a/b~c",
                "~1",
                "\0",
                "ä",
                "😀",
            ]))
            .to_owned(),
            4 => "n".repeat(chance.between(120, 4_000)),
            5 => chance.text(12, "kindpayo/~\"\\ äß"),
            _ => chance.name(),
        };
        if !body.has(&name) && fields.iter().all(|field| field.name != name) {
            return name;
        }
    }
}

/// A name as part of a pointer: escaped, and no longer than a refusal repeats it.
fn pointer_part(name: &str) -> String {
    let short: String = name.chars().take(128).collect();
    short.replace('~', "~0").replace('/', "~1")
}

const NO_UTF8: &[&[u8]] = &[
    b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf5\x80\x80\x80",
    b"\xe2\x82",
    b"\x80",
];
const NO_NUMBERS: &[&str] = &[
    "01", "1e", "+1", ".5", "1.", "NaN", "Infinity", "-", "0x1", "1_000", "--1", "1e+", "0b1",
];
const NO_JSON: &[&str] = &[
    "{'kind':'a'}",
    "{kind:\"a\"}",
    "{\"kind\":\"a\",}",
    "{,}",
    "{\"a\" 1}",
    "{\"a\":,}",
    "{\"a\":1 \"b\":2}",
    "\u{feff}{}",
    "// {}\n{}",
    "{\"a\":undefined}",
    "{\"a\":True}",
    "{\"a\":\"\\x\"}",
    "{\"a\":\"\\u12g4\"}",
    "{\"a\":\"\\ud8\"}",
    "{1:2}",
    "{null:1}",
    "{\"a\":[1,]}",
    "tru",
    "\"",
    "\\",
    "<xml/>",
    "a=1&b=2",
    "{\"a\":tru}",
    "\0",
    "{}\0",
];

/// Makes bytes that are no JSON object out of a good body; `known` are its fields.
pub(super) fn broken(fields: &[Field], chance: &mut Chance) -> Spoilt {
    let good = Body::good(fields, chance).write();
    let inside = |what: &str| format!("{{\"{what}\":1,{}", good.trim_start_matches('{'));
    let bytes = good.clone().into_bytes();
    let malformed = |text: String, wrong| Spoilt::malformed(text.into_bytes(), wrong);
    match chance.below(12) {
        0 => {
            // A prefix of an object is never a whole one; an empty body would be.
            let end = chance.between(1, bytes.len().max(2) - 1);
            Spoilt::malformed(bytes.into_iter().take(end).collect(), "cut short")
        }
        1 => {
            let rest = ["x", "{}", "]", ",", "\0", "1", "\"", "/**/", "}"];
            malformed(format!("{good}{}", chance.pick(&rest)), "goes on")
        }
        2 => {
            let bytes = [b"{\"a\":\"", *chance.pick(NO_UTF8), b"\"}"].concat();
            Spoilt::malformed(bytes, "is no UTF-8")
        }
        3 => {
            let control = char::from(u8::try_from(chance.below(32)).unwrap_or(1));
            malformed(inside(&format!("a{control}b")), "a bare control character")
        }
        4 => malformed(
            format!("{{\"payload\":{}}}", chance.pick(NO_NUMBERS)),
            "no number",
        ),
        5 => malformed((*chance.pick(NO_JSON)).to_owned(), "is no JSON"),
        6 => {
            let deep = chance.between(65, 4_000);
            let (open, close) = *chance.pick(&[("[", "]"), ("{\"a\":", "}")]);
            let (open, close) = (open.repeat(deep), close.repeat(deep));
            let text = match chance.below(3) {
                0 => open,
                1 => format!("{open}1{close}"),
                _ => format!("{{\"payload\":{open}1{close}}}"),
            };
            malformed(text, "is too deep")
        }
        7 => malformed(inside("\\ud800"), "half a character as a name"),
        _ => {
            let texts = [
                "[]", "1", "\"x\"", "null", "true", " [ {} ] ", "-0.5e9", "[[[]]]",
            ];
            Spoilt {
                bytes: chance.pick(&texts).as_bytes().to_vec(),
                wrong: "is no object".to_owned(),
                status: 422,
                code: "invalid_field",
                pointers: vec![String::new()],
            }
        }
    }
}
