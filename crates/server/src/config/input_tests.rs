//! Thousands of configurations that are wrong, from a generator: each is refused with what is wrong.

use std::path::PathBuf;

use waystation_testkit::inputs::{Chance, settings};

use super::source::Given;
use super::*;

const SPOILT: u64 = 4_000;
const GOOD: u64 = 300;
const SEED: u64 = 1;

fn load_given(
    file: String,
    variables: Vec<(String, String)>,
    handlers: Vec<String>,
) -> Result<(Config, Settings), String> {
    let path = PathBuf::from("waystation.toml");
    let mut from = Given::default();
    from.files.insert(path.clone(), file);
    from.variables = variables.into_iter().collect();
    let overrides = Overrides {
        file: Some(path),
        handlers,
        ..Overrides::default()
    };
    load(&overrides, &from).map_err(|error| error.to_string())
}

#[test]
fn every_bad_configuration_is_refused_with_what_is_wrong() {
    let mut wrong = Vec::new();
    for number in 0..SPOILT {
        let bad = settings::spoilt(&mut Chance::new(SEED, number));
        let shown = format!("seed {SEED} number {number}: {bad:?}");
        match load_given(bad.file, bad.variables, bad.handlers) {
            Ok(_) => wrong.push(format!("it was taken: {shown}")),
            Err(error) if !bad.names.iter().any(|name| error.contains(name)) => {
                wrong.push(format!(
                    "{error}\n--- names none of {:?}\n{shown}",
                    bad.names
                ));
            }
            Err(_) => {}
        }
    }
    let found = wrong.len();
    wrong.truncate(10);
    assert!(found == 0, "{found}: {}", wrong.join("\n\n"));
}

#[test]
fn what_the_generator_of_configurations_spoils_was_good_before() {
    for number in 0..GOOD {
        let file = settings::good(&mut Chance::new(SEED, number));
        if let Err(error) = load_given(file.clone(), Vec::new(), Vec::new()) {
            panic!("seed {SEED} number {number}: {error}\n{file}");
        }
    }
}
