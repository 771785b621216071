//! `cargo xtask ci`: everything that must hold before a change is taken, on a fresh clone.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{shell, tidy};

type Step<'a> = (&'static str, Box<dyn Fn() -> Result<()> + 'a>);

/// Runs every step, also behind one that failed, so that one run shows all there is to mend.
/// The last lines printed are one summary.
///
/// Failed steps are an exit code.
pub(crate) fn run(root: &Path) -> ExitCode {
    let began = Instant::now();
    let results: Vec<_> = steps(root).into_iter().map(|step| timed(&step)).collect();
    println!("\nci summary");
    for (name, took, error) in &results {
        let verdict = if error.is_some() { "FAILED" } else { "ok" };
        println!("  {name:<8} {verdict:<6} {:>7.1} s", took.as_secs_f64());
    }
    let failed: Vec<&str> = results
        .iter()
        .filter(|result| result.2.is_some())
        .map(|result| result.0)
        .collect();
    let took = began.elapsed().as_secs_f64();
    if failed.is_empty() {
        println!("ci passed: {} steps in {took:.1} s", results.len());
        return ExitCode::SUCCESS;
    }
    println!(
        "ci FAILED: {} of {} steps ({}) in {took:.1} s",
        failed.len(),
        results.len(),
        failed.join(", ")
    );
    ExitCode::FAILURE
}

fn steps(root: &Path) -> Vec<Step<'_>> {
    let cargo = |args: &'static [&'static str]| shell::command(root, "cargo", args);
    vec![
        ("tools", Box::new(|| tools(root))),
        (
            "format",
            Box::new(move || shell::run(cargo(&["fmt", "--all", "--check"]))),
        ),
        (
            "clippy",
            Box::new(move || {
                shell::run(cargo(&[
                    "clippy",
                    "--workspace",
                    "--all-targets",
                    "--",
                    "-D",
                    "warnings",
                ]))
            }),
        ),
        ("tidy", Box::new(|| tidy::run(root))),
        (
            "docs",
            Box::new(move || {
                let mut command = cargo(&["doc", "--workspace", "--no-deps"]);
                command.env("RUSTDOCFLAGS", "-D warnings");
                shell::run(command)
            }),
        ),
        ("test", Box::new(|| shell::run(readme_test(root)?))),
    ]
}

fn timed((name, step): &Step<'_>) -> (&'static str, Duration, Option<anyhow::Error>) {
    println!("\n==> {name}");
    let began = Instant::now();
    let error = step().err();
    let took = began.elapsed();
    match &error {
        None => println!("==> {name}: ok in {:.1} s", took.as_secs_f64()),
        Some(error) => println!(
            "==> {name}: FAILED in {:.1} s: {error:#}",
            took.as_secs_f64()
        ),
    }
    (name, took, error)
}

/// Sees to it that rustfmt, clippy, git, a C compiler and what suites break machines with are there.
fn tools(root: &Path) -> Result<()> {
    for (component, args) in [
        ("rustfmt", ["fmt", "--version"]),
        ("clippy", ["clippy", "--version"]),
    ] {
        if !shell::works(root, "cargo", &args) {
            shell::run(shell::command(
                root,
                "rustup",
                &["component", "add", component],
            ))
            .with_context(|| {
                format!("{component} is missing; `rustup component add {component}` installs it")
            })?;
        }
    }
    install(root, &missing(root))?;
    let missing = missing(root);
    if let Some((program, package)) = missing.first() {
        bail!("`{program}` is missing; `apt-get install {package}` installs it");
    }
    Ok(())
}

/// What is run beside cargo, and the packages of Debian that have it: the compiler, and what suites
/// break machines with.
const PROGRAMS: [(&str, &str); 8] = [
    ("cc", "gcc libc6-dev"),
    ("git", "git"),
    ("strace", "strace"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mount", "mount"),
    ("losetup", "mount"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
];

fn missing(root: &Path) -> Vec<(&'static str, &'static str)> {
    let is_missing = |program: &str| {
        let version = if program == "cc" || program == "git" {
            "--version"
        } else {
            "-V"
        };
        !shell::works(root, program, &[version])
    };
    let programs = PROGRAMS.into_iter();
    programs
        .filter(|(program, _)| is_missing(program))
        .collect()
}

/// Installs what is missing, where that is allowed; what cannot be installed is still missing afterwards.
fn install(root: &Path, missing: &[(&str, &str)]) -> Result<()> {
    let may = shell::output(shell::command(root, "id", &["-u"]))?.trim() == "0"
        && shell::works(root, "apt-get", &["--version"]);
    if missing.is_empty() || !may {
        return Ok(());
    }
    let mut install = vec!["install", "-q", "-y", "--no-install-recommends"];
    install.extend(missing.iter().flat_map(|(_, package)| package.split(' ')));
    for args in [&["update", "-q"][..], &install] {
        let mut command = shell::command(root, "apt-get", args);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        shell::run(command)?;
    }
    Ok(())
}

/// Prepares the very command that the README tells people to test with, under the rules of CI.
fn readme_test(root: &Path) -> Result<Command> {
    let readme = std::fs::read_to_string(root.join("README.md"))
        .context("README.md is missing; it must show the test command")?;
    let line = test_command(&readme)?;
    println!("README.md says: {line}");
    let mut words = line.split_whitespace();
    let program = words.next().context("the test command is empty")?;
    let mut command = shell::command(root, program, &words.collect::<Vec<_>>());
    command.env("CI", "true");
    Ok(command)
}

/// Finds the one line in the README's code blocks that runs the tests.
fn test_command(readme: &str) -> Result<String> {
    let mut commands = Vec::new();
    let mut in_block = false;
    for line in readme.lines() {
        let line = line.trim();
        if line.starts_with("```") {
            in_block = !in_block;
            continue;
        }
        let line = line.strip_prefix("$ ").unwrap_or(line);
        let line = line.split(" #").next().unwrap_or_default().trim();
        let is_test =
            line.starts_with("cargo ") && line.split_whitespace().any(|word| word == "test");
        if in_block && is_test && !commands.iter().any(|known| known == line) {
            commands.push(line.to_owned());
        }
    }
    match commands.as_slice() {
        [one] => Ok(one.clone()),
        [] => bail!("README.md shows no test command; put `cargo xtask test` in a code block"),
        _ => bail!(
            "README.md shows {} test commands ({}); leave one",
            commands.len(),
            commands.join(" | ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_command_is_the_one_that_the_readme_shows() {
        for (readme, expected) in [
            ("```\ncargo xtask test\n```", Some("cargo xtask test")),
            (
                "```sh\ncargo run --release -- demo\n$ cargo xtask test   # a minute\n```",
                Some("cargo xtask test"),
            ),
            (
                "```\ncargo xtask test\n```\n\n```\ncargo xtask test\n```",
                Some("cargo xtask test"),
            ),
            ("Run cargo xtask test now.", None),
            ("cargo xtask test", None),
            ("```\ncargo xtask test\ncargo test --workspace\n```", None),
            ("", None),
        ] {
            assert_eq!(test_command(readme).ok().as_deref(), expected, "{readme}");
        }
    }
}
