//! The environment over the file: `WAYSTATION_SERVER__LISTEN` is `server.listen`.

use serde::Deserialize;
use toml::{Table, Value};

use super::{Config, ConfigError, Surroundings, hint};

/// What every configuring variable begins with.
const PREFIX: &str = "WAYSTATION_";
/// What stands between a table and its key. Variables without it are not ours: container platforms
/// set `WAYSTATION_PORT` and its like for a service of that name.
const SEPARATOR: &str = "__";

/// Lays the variables over a file's text, one after the other in order of their names.
///
/// # Errors
/// Names the variable that does not fit.
pub(super) fn overlay(
    text: &str,
    parsed: Config,
    from: &dyn Surroundings,
) -> Result<Config, ConfigError> {
    let mut config = parsed;
    let mut table: Table = toml::from_str(text).map_err(|error| ConfigError(error.to_string()))?;
    for (name, value) in from.variables(PREFIX) {
        let Some(rest) = name
            .strip_prefix(PREFIX)
            .filter(|rest| rest.contains(SEPARATOR))
        else {
            continue;
        };
        let path = path_of(&table, rest);
        (table, config) = try_set(&table, &path, &value).map_err(|error| {
            let hint = hint(&error).map_or_else(String::new, |hint| format!("; {hint}"));
            ConfigError(format!("environment variable {name}: {error}{hint}"))
        })?;
    }
    Ok(config)
}

/// Sets one value: as TOML where that fits (`64`, `true`, a list), else as text.
fn try_set(table: &Table, path: &[String], text: &str) -> Result<(Table, Config), String> {
    let as_toml = toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"));
    let mut first_error = None;
    for value in as_toml.into_iter().chain([Value::String(text.to_owned())]) {
        let mut trial = table.clone();
        set(&mut trial, path, value);
        match Config::deserialize(Value::Table(trial.clone())) {
            Ok(config) => return Ok((trial, config)),
            Err(error) => first_error = first_error.or_else(|| Some(error.message().to_owned())),
        }
    }
    Err(first_error.unwrap_or_default())
}

fn set(table: &mut Table, path: &[String], value: Value) {
    let Some((last, tables)) = path.split_last() else {
        return;
    };
    let mut at = table;
    for key in tables {
        let next = at
            .entry(key.clone())
            .or_insert_with(|| Value::Table(Table::new()));
        if !next.is_table() {
            *next = Value::Table(Table::new());
        }
        let Some(inner) = next.as_table_mut() else {
            return;
        };
        at = inner;
    }
    at.insert(last.clone(), value);
}

/// Finds the keys that a variable's name means: those of the file where their upper-case form fits
/// (the longest first), else the name's own parts in lower case.
fn path_of(table: &Table, name: &str) -> Vec<String> {
    let mut path = Vec::new();
    let mut at = Some(table);
    let mut rest = name;
    loop {
        let known = at.and_then(|table| {
            table
                .keys()
                .filter_map(|key| tail_after(rest, &mangled(key)).map(|tail| (key, tail)))
                .max_by_key(|(key, _)| key.len())
        });
        let (key, tail) = match known {
            Some((key, tail)) => (key.clone(), tail),
            None => match rest.split_once(SEPARATOR) {
                Some((head, tail)) => (head.to_lowercase(), Some(tail)),
                None => (rest.to_lowercase(), None),
            },
        };
        let in_headers = path.len() == 3 && path.last().is_some_and(|last| last == "headers");
        at = at
            .and_then(|table| table.get(&key))
            .and_then(Value::as_table);
        path.push(if in_headers && at.is_none() {
            key.replace('_', "-")
        } else {
            key
        });
        match tail {
            Some(tail) => rest = tail,
            None => return path,
        }
    }
}

/// What follows `head` in a variable's name: nothing more, or the name's next part.
fn tail_after<'a>(name: &'a str, head: &str) -> Option<Option<&'a str>> {
    let rest = name.strip_prefix(head)?;
    if rest.is_empty() {
        return Some(None);
    }
    rest.strip_prefix(SEPARATOR).map(Some)
}

fn mangled(key: &str) -> String {
    key.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect()
}
