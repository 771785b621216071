//! Configuration: `default.toml`, a file, the environment, the command line, in this order; the later wins.
//!
//! ```text
//!   file ──▶ sections ◀── environment ◀── command line
//!               │ check (everything that is wrong at once, with its place)
//!               ▼
//!            Settings: Policies for the engine, endpoints for the handlers, limits for the API
//! ```

mod check;
mod convert;
mod environment;
mod secret;
mod sections;
mod source;
mod values;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::text::nearest;

pub(crate) use check::check_header;
pub(crate) use check::check_header_value;
pub(crate) use convert::Settings;
pub(crate) use convert::StoreChoice;
pub(crate) use sections::Config;
pub(crate) use sections::LogFormat;
pub(crate) use sections::LogLevel;
pub(crate) use source::Surroundings;
pub(crate) use source::System;

/// The commented default configuration.
pub(crate) const DEFAULT_TOML: &str = include_str!("default.toml");

/// Why a configuration cannot be used; its text names each place and the way out.
#[derive(Debug)]
pub(crate) struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// What the command line says about configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    /// The file.
    pub(crate) file: Option<PathBuf>,
    /// Where files go.
    pub(crate) data: Option<PathBuf>,
    /// Short forms of endpoints: `email.*=http://127.0.0.1:9000/email`.
    pub(crate) handlers: Vec<String>,
    /// Where to listen, before everything else.
    pub(crate) listen: Option<String>,
}

/// How many places that are no TOML are told at once.
const SYNTAX_ERRORS_MAX: usize = 20;

/// Reads, merges and checks the configuration.
///
/// # Errors
/// Names everything that is wrong, each with its place and the way out.
pub(crate) fn load(
    overrides: &Overrides,
    from: &dyn Surroundings,
) -> Result<(Config, Settings), ConfigError> {
    let (name, text) = match &overrides.file {
        Some(path) => (path.display().to_string(), read(path, from)?),
        None => ("the defaults".to_owned(), String::new()),
    };
    // Parsed as a whole first, for only so does an error know its line.
    check_syntax(&name, &text)?;
    let parsed: Config = toml::from_str(&text).map_err(|error| of_toml(&name, &error))?;
    let mut config = environment::overlay(&text, parsed, from)?;
    if let Some(listen) = &overrides.listen {
        config.server.listen = Deserialize::deserialize(serde::de::value::StrDeserializer::<
            serde::de::value::Error,
        >::new(listen))
        .map_err(|error| ConfigError(format!("--listen: {error}")))?;
    }
    for handler in &overrides.handlers {
        convert::add_handler(&mut config, handler)
            .map_err(|error| ConfigError(format!("--handler: {error}")))?;
    }
    let problems = check::check(&config);
    if !problems.is_empty() {
        let lines: Vec<String> = problems
            .iter()
            .map(|problem| problem.render(&name, &text))
            .collect();
        return Err(ConfigError(lines.join("\n")));
    }
    let settings =
        convert::settings(&config, overrides.data.as_deref(), from).map_err(|problems| {
            let lines: Vec<String> = problems
                .iter()
                .map(|problem| problem.render(&name, &text))
                .collect();
            ConfigError(lines.join("\n"))
        })?;
    Ok((config, settings))
}

/// Writes the configuration as it is in force, without its secrets.
///
/// # Errors
/// None that a checked configuration could cause.
pub(crate) fn show(config: &Config) -> Result<String, ConfigError> {
    toml::to_string_pretty(config).map_err(|error| ConfigError(error.to_string()))
}

fn read(path: &Path, from: &dyn Surroundings) -> Result<String, ConfigError> {
    from.file(path).map_err(|error| {
        ConfigError(format!(
            "cannot read the configuration {}: {error}; `waystation config default` prints one to begin with",
            path.display()
        ))
    })
}

/// Tells every place where the text is no TOML, and not the first one alone.
fn check_syntax(name: &str, text: &str) -> Result<(), ConfigError> {
    let (_, mut errors) = toml::de::DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(());
    }
    let found = errors.len();
    errors.truncate(SYNTAX_ERRORS_MAX);
    let mut lines: Vec<String> = errors
        .iter_mut()
        .map(|error| {
            error.set_input(Some(text));
            format!("{name}: {}", error.to_string().trim_end())
        })
        .collect();
    if found > SYNTAX_ERRORS_MAX {
        lines.push(format!("{name}: {} more", found - SYNTAX_ERRORS_MAX));
    }
    Err(ConfigError(lines.join("\n")))
}

/// Gives what is allowed and yet hardly meant.
pub(crate) fn warnings(config: &Config) -> Vec<String> {
    let names = || config.destinations.keys().map(String::as_str);
    let undeclared = |(kind, section): (&String, &sections::Kind)| {
        let name = section.destination.as_ref()?;
        if config.destinations.contains_key(name) {
            return None;
        }
        let meant = nearest(name, names())
            .map_or_else(String::new, |known| format!("; did you mean {known:?}?"));
        Some(format!(
            "kinds.{kind:?}.destination is {name:?}, and there is no [destinations.{name}]: its messages wait for pull workers, under the default limits{meant}"
        ))
    };
    config.kinds.iter().filter_map(undeclared).collect()
}

fn of_toml(name: &str, error: &toml::de::Error) -> ConfigError {
    let hint = hint(error.message()).map_or_else(String::new, |hint| format!("{hint}\n"));
    ConfigError(format!("{name}: {error}{hint}"))
}

/// Finds the key that was meant. Serde tells the unknown and the known keys in its text only; since
/// this is a hint for people and nothing hangs on it, the text is taken apart.
fn hint(message: &str) -> Option<String> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if !message.starts_with("unknown ") {
        return None;
    }
    let typed = quoted.next()?;
    nearest(typed, quoted).map(|known| format!("did you mean `{known}`?"))
}

#[cfg(test)]
mod input_tests;
#[cfg(test)]
mod tests;
