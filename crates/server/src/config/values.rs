//! Configuration values that are written as text: durations, rates, sizes, retentions, addresses.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use waystation_core::policy::Rate;

use crate::text;

macro_rules! text_value {
    ($name:ident($inner:ty), $expecting:literal, $parse:expr, $write:expr) => {
        #[doc = concat!("A value written as ", $expecting, ".")]
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub(crate) struct $name(pub(crate) $inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Reader;

                impl de::Visitor<'_> for Reader {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        let parse: fn(&str) -> Result<$inner, String> = $parse;
                        parse(text).map($name).map_err(E::custom)
                    }
                }

                deserializer.deserialize_str(Reader)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let write: fn($inner) -> String = $write;
                serializer.serialize_str(&write(self.0))
            }
        }
    };
}

text_value!(
    Length(Duration),
    "a duration such as \"30s\"",
    text::parse_duration,
    text::duration_text
);
text_value!(
    PerTime(Rate),
    "a rate such as \"200/s\"",
    text::parse_rate,
    text::rate_text
);
text_value!(
    Size(usize),
    "a size such as \"1MiB\"",
    text::parse_size,
    text::size_text
);
text_value!(
    Keep(Option<Duration>),
    "a duration such as \"24h\", or \"never\"",
    |text| match text {
        "never" => Ok(None),
        _ => text::parse_duration(text).map(Some),
    },
    |kept| kept.map_or_else(|| "never".to_owned(), text::duration_text)
);
text_value!(
    Listen(SocketAddr),
    "an address with a port such as \"127.0.0.1:3000\"",
    |text| {
        text
        .parse()
        .map_err(|_| format!("is no address with a port: {text:?}; write one such as \"127.0.0.1:3000\" or \"[::1]:3000\""))
    },
    |address| address.to_string()
);
