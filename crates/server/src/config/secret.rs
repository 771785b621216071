//! Texts that must not be shown: given literally, by environment variable, or by file.

use std::fmt;
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::source::Surroundings;

/// What stands where a secret was.
const REDACTED: &str = "[redacted]";
/// The longest secret, in bytes; a larger file is none.
const SECRET_BYTES_MAX: usize = 16 * 1024;

/// Where a secret comes from. Neither `Debug` nor `Serialize` shows a literal one.
#[derive(Clone)]
pub(crate) enum Secret {
    /// It stands in the configuration itself.
    Literal(SecretString),
    /// It stands in this environment variable.
    Env(String),
    /// It stands in this file; blanks around it do not count.
    File(PathBuf),
}

impl Secret {
    /// Fetches the secret.
    ///
    /// # Errors
    /// Says which variable or file is missing, empty or too large; never what is in it.
    pub(crate) fn read(&self, from: &dyn Surroundings) -> Result<SecretString, String> {
        let (text, place) = match self {
            Self::Literal(secret) => (
                secret.expose_secret().to_owned(),
                "the configuration".to_owned(),
            ),
            Self::Env(name) => match from.variable(name) {
                Some(text) => (text, format!("the environment variable {name}")),
                None => {
                    return Err(format!(
                        "the environment variable {name} is not set; set it or name another"
                    ));
                }
            },
            Self::File(path) => match from.file(path) {
                Ok(text) => (text, format!("the file {}", path.display())),
                Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
            },
        };
        let text = text.trim();
        if text.is_empty() {
            return Err(format!("{place} holds no secret: it is empty"));
        }
        if text.len() > SECRET_BYTES_MAX || text.chars().any(char::is_control) {
            return Err(format!(
                "{place} holds no secret: one line of at most {SECRET_BYTES_MAX} bytes is expected"
            ));
        }
        Ok(SecretString::from(text))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Literal(one), Self::Literal(two)) => one.expose_secret() == two.expose_secret(),
            (Self::Env(one), Self::Env(two)) => one == two,
            (Self::File(one), Self::File(two)) => one == two,
            (Self::Literal(_) | Self::Env(_) | Self::File(_), _) => false,
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(_) => f.write_str(REDACTED),
            Self::Env(name) => write!(f, "env {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Literal(_) => serializer.serialize_str(REDACTED),
            Self::Env(name) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("env", name)?;
                map.end()
            }
            Self::File(path) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("file", path)?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, { env = \"NAME\" } or { file = \"path\" }")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
                Ok(Secret::Literal(SecretString::from(text)))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
                const FIELDS: &[&str] = &["env", "file"];
                let Some(field) = map.next_key::<String>()? else {
                    return Err(de::Error::invalid_length(0, &self));
                };
                let secret = match field.as_str() {
                    "env" => Secret::Env(map.next_value()?),
                    "file" => Secret::File(map.next_value()?),
                    other => return Err(de::Error::unknown_field(other, FIELDS)),
                };
                match map.next_key::<String>()? {
                    Some(_) => Err(de::Error::invalid_length(2, &self)),
                    None => Ok(secret),
                }
            }
        }

        deserializer.deserialize_any(Reader)
    }
}
