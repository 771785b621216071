//! Reads JSON bodies field by field, so that each mistake is told with its name, limit and way out.
//!
//! A body is parsed once into its top fields, each still raw; a payload among them is never parsed
//! further and goes on byte for byte.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::problem::{Code, FieldError, Problem};
use crate::text::nearest;

/// The deepest nesting of a body.
pub(crate) const DEPTH_MAX: usize = 64;

/// The fields of one JSON object and what was found wrong with them so far.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    at: String,
    entries: Vec<(Cow<'a, str>, Option<&'a RawValue>)>,
    invalid: Vec<FieldError>,
}

impl<'a> Object<'a> {
    /// Takes a whole body.
    ///
    /// # Errors
    /// `malformed_json` unless it is JSON within the depth, `invalid_field` unless it is an object.
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, Problem> {
        check_depth(body)?;
        let entries = read_object(&mut serde_json::Deserializer::from_slice(body), true)?;
        Ok(Self::new(String::new(), entries))
    }

    /// Takes one object of a list, at its place in the body.
    ///
    /// # Errors
    /// `invalid_field` unless it is an object.
    pub(crate) fn nested(raw: &'a RawValue, at: String) -> Result<Self, Problem> {
        if !raw.get().starts_with('{') {
            return Err(Problem::field(
                at,
                format!("must be an object, not {}", type_of(raw)),
            ));
        }
        let entries = read_object(&mut serde_json::Deserializer::from_str(raw.get()), false);
        let entries = entries.map_err(|problem| problem.below(&at))?;
        Ok(Self::new(at, entries))
    }

    fn new(at: String, entries: Vec<(Cow<'a, str>, &'a RawValue)>) -> Self {
        let entries = entries
            .into_iter()
            .map(|(name, raw)| (name, Some(raw)))
            .collect();
        Self {
            at,
            entries,
            invalid: Vec::new(),
        }
    }

    /// Takes a field as it stands, `null` included.
    pub(crate) fn raw(&mut self, name: &str) -> Option<&'a RawValue> {
        self.entries
            .iter_mut()
            .find(|(known, _)| known == name)
            .and_then(|(_, raw)| raw.take())
    }

    /// Takes a field that is there and not `null`.
    fn given(&mut self, name: &str) -> Option<&'a RawValue> {
        self.raw(name).filter(|raw| raw.get() != "null")
    }

    /// Writes down that a field is wrong; `name` is escaped already where it comes from the sender.
    pub(crate) fn wrong(&mut self, name: &str, detail: impl Into<String>) {
        self.invalid.push(FieldError {
            pointer: format!("{}/{name}", self.at),
            detail: detail.into(),
        });
    }

    /// Takes a text.
    pub(crate) fn text(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let raw = self.given(name)?;
        match text_of(raw) {
            Ok(text) => Some(text),
            Err(error) => {
                self.wrong(name, error);
                None
            }
        }
    }

    /// Takes a text and reads it.
    pub(crate) fn parsed<T, E: fmt::Display>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(name)?;
        match read(&text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.wrong(name, error.to_string());
                None
            }
        }
    }

    /// Takes a whole number within bounds.
    pub(crate) fn integer(&mut self, name: &str, bounds: RangeInclusive<u64>) -> Option<u64> {
        let raw = self.given(name)?;
        match raw.get().parse::<u64>() {
            Ok(number) if bounds.contains(&number) => Some(number),
            Ok(_) | Err(_) => {
                let shown = if raw.get().len() <= 32 && type_of(raw) == "a number" {
                    raw.get()
                } else {
                    type_of(raw)
                };
                self.wrong(
                    name,
                    format!(
                        "must be a whole number from {} to {}, not {shown}",
                        bounds.start(),
                        bounds.end()
                    ),
                );
                None
            }
        }
    }

    /// Takes a list of raw values, at most `limit`.
    pub(crate) fn list(&mut self, name: &str, limit: usize) -> Option<Vec<&'a RawValue>> {
        let raw = self.given(name)?;
        match read_list(raw) {
            Ok(list) if list.len() <= limit => Some(list),
            Ok(list) => {
                self.wrong(
                    name,
                    format!("has {} entries, at most {limit} are allowed", list.len()),
                );
                None
            }
            Err(error) => {
                self.wrong(name, error);
                None
            }
        }
    }

    /// Takes an object of texts, at most `limit` of them.
    pub(crate) fn texts(
        &mut self,
        name: &str,
        limit: usize,
    ) -> Option<Vec<(Cow<'a, str>, Cow<'a, str>)>> {
        let raw = self.given(name)?;
        let object = if raw.get().starts_with('{') {
            read_object(&mut serde_json::Deserializer::from_str(raw.get()), false).ok()
        } else {
            None
        };
        let Some(object) = object else {
            self.wrong(
                name,
                format!(
                    "must be an object of texts, each given once, not {}",
                    type_of(raw)
                ),
            );
            return None;
        };
        if object.len() > limit {
            self.wrong(
                name,
                format!("has {} entries, at most {limit} are allowed", object.len()),
            );
            return None;
        }
        let mut texts = Vec::with_capacity(object.len());
        for (key, raw) in object {
            match text_of(raw) {
                Ok(text) => texts.push((key, text)),
                Err(error) => self.wrong(&format!("{name}/{}", escape(&key)), error),
            }
        }
        Some(texts)
    }

    /// Writes down that a field is missing, where it is and nothing else was found wrong with it.
    pub(crate) fn require<T>(&mut self, name: &str, value: Option<T>) -> Option<T> {
        let own = format!("{}/{name}", self.at);
        let told = |error: &FieldError| {
            let below = error.pointer.strip_prefix(&own);
            below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
        };
        if value.is_none() && !self.invalid.iter().any(told) {
            self.wrong(name, "is required");
        }
        value
    }

    /// Takes all that was not taken yet.
    pub(crate) fn take_rest(&mut self) -> Vec<(Cow<'a, str>, &'a RawValue)> {
        self.entries
            .iter_mut()
            .filter_map(|(name, raw)| Some((name.clone(), raw.take()?)))
            .collect()
    }

    /// Ends the reading: whatever was not taken is unknown.
    ///
    /// # Errors
    /// Names every field that is wrong.
    pub(crate) fn finish(self, known: &[&str]) -> Result<(), Problem> {
        let unknown: Vec<FieldError> = self
            .entries
            .iter()
            .filter(|(name, raw)| raw.is_some() && !known.contains(&&**name))
            .map(|(name, _)| FieldError {
                pointer: format!("{}/{}", self.at, escape(name)),
                detail: match nearest(name, known.iter().copied()) {
                    Some(meant) => format!("is not known; did you mean `{meant}`?"),
                    None => format!("is not known; known are {}", known.join(", ")),
                },
            })
            .collect();
        if unknown.is_empty() && self.invalid.is_empty() {
            return Ok(());
        }
        Err(Problem::fields(self.invalid, unknown))
    }
}

/// A name as part of a JSON pointer; bounded, for it comes back to the sender.
pub(crate) fn escape(name: &str) -> String {
    name.chars()
        .take(128)
        .collect::<String>()
        .replace('~', "~0")
        .replace('/', "~1")
}

/// What a raw value is, for people.
pub(crate) fn type_of(raw: &RawValue) -> &'static str {
    match raw.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b'"') => "a text",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') | None => "null",
        Some(_) => "a number",
    }
}

/// Reads a raw value as a text; borrows it where nothing is escaped.
pub(crate) fn text_of(raw: &RawValue) -> Result<Cow<'_, str>, String> {
    let inner = raw
        .get()
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    match inner {
        None => Err(format!("must be a text, not {}", type_of(raw))),
        Some(plain) if !plain.contains('\\') => Ok(Cow::Borrowed(plain)),
        Some(_) => serde_json::from_str::<String>(raw.get())
            .map(Cow::Owned)
            .map_err(|_| "has an escape that is no character".to_owned()),
    }
}

fn read_list(raw: &RawValue) -> Result<Vec<&RawValue>, String> {
    struct List;

    impl<'a> Visitor<'a> for List {
        type Value = Vec<&'a RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(raw) = seq.next_element()? {
                list.push(raw);
            }
            Ok(list)
        }
    }

    if !raw.get().starts_with('[') {
        return Err(format!("must be a list, not {}", type_of(raw)));
    }
    serde_json::Deserializer::from_str(raw.get())
        .deserialize_seq(List)
        .map_err(|error| error.to_string())
}

type Entries<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

fn read_object<'a, R: serde_json::de::Read<'a>>(
    from: &mut serde_json::Deserializer<R>,
    whole: bool,
) -> Result<Entries<'a>, Problem> {
    let (entries, twice) = from
        .deserialize_map(Fields)
        .and_then(|fields| {
            if whole {
                from.end().map(|()| fields)
            } else {
                Ok(fields)
            }
        })
        .map_err(|error| {
            if error.is_data() {
                Problem::field("", "must be a JSON object")
            } else {
                Problem::new(
                    Code::MalformedJson,
                    format!("the body is not JSON: {error}"),
                )
            }
        })?;
    match twice {
        Some(name) => Err(Problem::field(
            format!("/{}", escape(&name)),
            "is given twice; give it once",
        )),
        None => Ok(entries),
    }
}

struct Fields;

impl<'a> Visitor<'a> for Fields {
    type Value = (Entries<'a>, Option<Cow<'a, str>>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries: Entries<'a> = Vec::with_capacity(8);
        let mut twice = None;
        while let Some(name) = map.next_key_seed(FieldName)? {
            let raw = map.next_value()?;
            if entries.iter().any(|(known, _)| *known == name) {
                twice = Some(name);
            // Far more than any body has fields; keeps the search for doubles short.
            } else if entries.len() < 256 {
                entries.push((name, raw));
            }
        }
        Ok((entries, twice))
    }
}

struct FieldName;

impl<'a> DeserializeSeed<'a> for FieldName {
    type Value = Cow<'a, str>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for FieldName {
    type Value = Cow<'a, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'a str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// Refuses a body nested deeper than [`DEPTH_MAX`] before anything looks into it.
pub(crate) fn check_depth(body: &[u8]) -> Result<(), Problem> {
    if openings(body) <= DEPTH_MAX {
        return Ok(());
    }
    let mut depth = 0_usize;
    let mut in_text = false;
    let mut escaped = false;
    for &byte in body {
        if in_text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    let detail = format!(
                        "the body is nested deeper than {DEPTH_MAX}; flatten it, or send it as a text"
                    );
                    return Err(Problem::new(Code::MalformedJson, detail));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Counts braces and brackets, in texts or not: nothing is nested deeper than that, and counting them is
/// quick.
fn openings(body: &[u8]) -> usize {
    // The two differ in one bit. Counts of a byte each are what the processor adds up side by side.
    let is_opening = |byte: &u8| u8::from(byte | 0x20 == b'{');
    let of_piece = |piece: &[u8]| usize::from(piece.iter().map(is_opening).sum::<u8>());
    body.chunks(usize::from(u8::MAX)).map(of_piece).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_carried_byte_for_byte() {
        let body = br#"{"kind":"a\u0062","payload": {"b": 1.00, "a" :[ ]} ,"x":1}"#;
        let mut object = Object::parse(body).expect("good");
        assert_eq!(object.text("kind").as_deref(), Some("ab"));
        assert_eq!(
            object.raw("payload").expect("there").get(),
            r#"{"b": 1.00, "a" :[ ]}"#
        );
        let problem = object
            .finish(&["kind", "payload", "y"])
            .expect_err("x is unknown");
        assert_eq!(
            (problem.code, problem.errors[0].pointer.as_str()),
            (Code::UnknownField, "/x")
        );
        assert!(
            problem.errors[0].detail.contains("`y`"),
            "{:?}",
            problem.errors
        );
    }

    #[test]
    fn depth_is_counted_outside_of_texts_only() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert_eq!(openings(deep(300).as_bytes()), 300);
        assert_eq!(openings("{".repeat(1_000).as_bytes()), 1_000);
        assert_eq!(openings(b"x;]}\x1b\xfb\xdb"), 0);
        assert!(check_depth(deep(64).as_bytes()).is_ok());
        assert_eq!(
            check_depth(deep(65).as_bytes()).expect_err("deep").code,
            Code::MalformedJson
        );
        assert!(check_depth(format!(r#"["{}\"["]"#, "[".repeat(99)).as_bytes()).is_ok());
    }

    #[test]
    fn what_is_no_json_and_what_is_no_object_are_told_apart() {
        for body in [
            "",
            "{",
            "{\"a\":}",
            "{} x",
            "nul",
            "{\"a\":1,}",
            "{'a':1}",
            "{\"a\":01}",
            "\u{feff}{}",
        ] {
            assert_eq!(
                Object::parse(body.as_bytes()).expect_err(body).code,
                Code::MalformedJson,
                "{body}"
            );
        }
        assert_eq!(
            Object::parse(b"{\"a\":\"\xff\"}").expect_err("bytes").code,
            Code::MalformedJson
        );
        for body in ["[]", "1", "\"x\"", "null", "true", r#"{"a":1,"a":2}"#] {
            assert_eq!(
                Object::parse(body.as_bytes()).expect_err(body).code,
                Code::InvalidField,
                "{body}"
            );
        }
    }
}
