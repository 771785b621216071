//! Which crate may import which: the layers, as `cargo metadata` sees them.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Finding;
use crate::shell;

/// What one of our crates may import of ours, and why no more.
struct Layer {
    name: &'static str,
    may_import: &'static [&'static str],
    /// Which crates of others it may import; none means any.
    outside: Option<&'static [&'static str]>,
    why: &'static str,
}

const LAYERS: &[Layer] = &[
    Layer {
        name: "waystation-core",
        may_import: &[],
        outside: Some(&["bytes", "thiserror", "uuid"]),
        why: "the core decides and does nothing else: no I/O, no clock, no runtime, no serialisation",
    },
    Layer {
        name: "waystation-store",
        may_import: &["waystation-core"],
        outside: None,
        why: "a store keeps what the core decided and knows no engine and no transport",
    },
    Layer {
        name: "waystation-transport",
        may_import: &["waystation-core"],
        outside: None,
        why: "a transport moves messages and knows no store",
    },
    Layer {
        name: "waystation",
        may_import: &[
            "waystation-core",
            "waystation-store",
            "waystation-transport",
        ],
        outside: None,
        why: "the engine runs what the core decided on any store",
    },
    Layer {
        name: "waystation-sim",
        may_import: &["waystation-core", "waystation-store", "waystation"],
        outside: None,
        why: "the simulator drives the real decisions against the model store",
    },
    Layer {
        name: "waystation-server",
        may_import: &[
            "waystation-core",
            "waystation-store",
            "waystation-transport",
            "waystation",
            "waystation-sim",
        ],
        outside: None,
        why: "the server puts everything together; nothing imports it but the benches",
    },
    Layer {
        name: "waystation-testkit",
        may_import: &[],
        outside: None,
        why: "what breaks the product sees it from outside, and only tests use it",
    },
    Layer {
        name: "waystation-bench",
        may_import: &[
            "waystation-core",
            "waystation-store",
            "waystation",
            "waystation-server",
        ],
        outside: None,
        why: "the benches measure the product and are no part of it",
    },
    Layer {
        name: "xtask",
        may_import: &[],
        outside: None,
        why: "the tasks must build when the product does not",
    },
];

/// What an application under `examples/` may import.
const EXAMPLE: Layer = Layer {
    name: "",
    may_import: &[
        "waystation-core",
        "waystation-store",
        "waystation-transport",
        "waystation",
    ],
    outside: None,
    why: "an example shows what an application can do, so it imports what an application can",
};

/// The crate that every crate may import for its tests, and none for anything else.
const TESTKIT: &str = "waystation-testkit";

/// One of our crates and what it imports.
#[derive(Debug)]
pub(super) struct Package {
    name: String,
    manifest: String,
    imports: Vec<Import>,
}

#[derive(Debug)]
struct Import {
    name: String,
    for_tests: bool,
}

/// Asks cargo for our crates.
///
/// # Errors
/// Passes on what cargo says.
pub(super) fn read(root: &Path) -> Result<Vec<Package>> {
    let args = ["metadata", "--no-deps", "--format-version", "1"];
    let metadata = shell::output(shell::command(root, "cargo", &args))?;
    let metadata: Value =
        serde_json::from_str(&metadata).context("cargo metadata printed no JSON")?;
    let root = metadata["workspace_root"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?;
    Ok(packages
        .iter()
        .map(|package| parse(package, &root))
        .collect())
}

fn parse(package: &Value, root: &str) -> Package {
    let manifest = package["manifest_path"].as_str().unwrap_or_default();
    let dependencies = package["dependencies"].as_array();
    let imports = dependencies.into_iter().flatten().map(|dependency| Import {
        name: dependency["name"].as_str().unwrap_or_default().to_owned(),
        for_tests: dependency["kind"] == "dev",
    });
    Package {
        name: package["name"].as_str().unwrap_or_default().to_owned(),
        manifest: manifest
            .trim_start_matches(root)
            .trim_start_matches('/')
            .to_owned(),
        imports: imports.collect(),
    }
}

/// Finds imports against the layers. A crate may import itself, with other features, for its tests.
pub(super) fn check(packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        let is_example = package.manifest.starts_with("examples/");
        let layer = LAYERS.iter().find(|layer| layer.name == package.name);
        let Some(layer) = layer.or_else(|| is_example.then_some(&EXAMPLE)) else {
            let advice = "this crate has no layer; say in xtask/src/tidy/imports.rs what it may import, \
                          and in docs/decisions/ why it exists";
            findings.push(Finding::new("imports", &package.manifest, 1, advice));
            continue;
        };
        for import in &package.imports {
            if !may(layer, package, packages, import) {
                let advice = format!(
                    "{} may not import {}: {}; move the code down, or let the upper crate pass it in",
                    package.name, import.name, layer.why
                );
                findings.push(Finding::new("imports", &package.manifest, 1, advice));
            }
        }
    }
    findings
}

fn may(layer: &Layer, package: &Package, packages: &[Package], import: &Import) -> bool {
    let is_ours = packages.iter().any(|other| other.name == import.name);
    if is_ours {
        let is_for_tests = import.name == package.name || import.name == TESTKIT;
        layer.may_import.contains(&&*import.name) || import.for_tests && is_for_tests
    } else {
        import.for_tests
            || layer
                .outside
                .is_none_or(|allowed| allowed.contains(&&*import.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, imports: &[(&str, bool)]) -> Package {
        let imports = imports.iter().map(|(name, for_tests)| Import {
            name: (*name).to_owned(),
            for_tests: *for_tests,
        });
        Package {
            name: name.to_owned(),
            manifest: format!("crates/{name}/Cargo.toml"),
            imports: imports.collect(),
        }
    }

    #[test]
    fn an_import_against_the_layers_is_found() {
        for (name, import, for_tests, expected) in [
            ("waystation-core", "bytes", false, 0),
            ("waystation-core", "tokio", false, 1),
            ("waystation-core", "proptest", true, 0),
            ("waystation-core", "waystation-store", false, 1),
            ("waystation-core", "waystation-store", true, 1),
            ("waystation-store", "waystation-core", false, 0),
            ("waystation-store", "waystation-store", true, 0),
            ("waystation-store", "waystation", false, 1),
            ("waystation-transport", "waystation-store", false, 1),
            ("waystation", "waystation-sim", false, 1),
            ("waystation", "waystation-sim", true, 1),
            ("waystation-sim", "waystation", false, 0),
            ("waystation-server", "waystation-sim", false, 0),
            ("waystation-bench", "waystation-server", false, 0),
            ("waystation-sim", "waystation-server", false, 1),
            ("waystation-store", "waystation-testkit", true, 0),
            ("waystation-store", "waystation-testkit", false, 1),
            ("waystation-testkit", "waystation-core", false, 1),
            ("xtask", "waystation-core", false, 1),
            ("xtask", "anyhow", false, 0),
        ] {
            let mut packages: Vec<Package> = LAYERS
                .iter()
                .filter(|layer| layer.name != name)
                .map(|layer| package(layer.name, &[]))
                .collect();
            packages.push(package(name, &[(import, for_tests)]));
            assert_eq!(check(&packages).len(), expected, "{name} imports {import}");
        }
    }

    #[test]
    fn a_crate_without_a_layer_is_found_and_an_example_has_one() {
        assert_eq!(check(&[package("waystation-utils", &[])]).len(), 1);
        let mut example = package("shop", &[("waystation", false)]);
        example.manifest = "examples/shop/Cargo.toml".to_owned();
        assert_eq!(check(&[package("waystation", &[]), example]).len(), 0);
    }

    #[test]
    fn the_metadata_of_cargo_is_understood() {
        let json = serde_json::json!({
            "name": "waystation-core", "manifest_path": "/a/crates/core/Cargo.toml",
            "dependencies": [{"name": "tokio", "kind": null}, {"name": "proptest", "kind": "dev"}],
        });
        let parsed = parse(&json, "/a");
        assert_eq!(parsed.manifest, "crates/core/Cargo.toml");
        assert_eq!(check(&[parsed]).len(), 1);
    }
}
