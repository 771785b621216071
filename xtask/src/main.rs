//! The tasks of this repository: `cargo xtask ci | test | nightly | tidy | gen | bench`.

mod bench;
mod ci;
mod generate;
mod nightly;
mod shell;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;

const HELP: &str = "\
cargo xtask <task>

  ci               everything: format, clippy, tidy, docs, tests
  test [filter]    every test suite, with one sum at the end
  nightly [args]   every suite, trying ten times as much; --record keeps the figures
  tidy             the rules of STYLE.md that no compiler checks
  gen              write the documents that the code generates
  bench [args]     measure, each figure beside its baseline
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<ExitCode> {
    let root = shell::root()?;
    let rest = args.get(1..).unwrap_or_default();
    match args.first().map(String::as_str) {
        Some("ci") => Ok(ci::run(&root)),
        Some("test") => test::run(&root, rest),
        Some("nightly") => nightly::run(&root, rest),
        Some("tidy") => tidy::run(&root).map(|()| ExitCode::SUCCESS),
        Some("gen") => generate::run(&root).map(|()| ExitCode::SUCCESS),
        Some("bench") => bench::run(&root, rest).map(|()| ExitCode::SUCCESS),
        None | Some("help" | "--help" | "-h") => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        Some(other) => {
            anyhow::bail!("no task is called `{other}`; `cargo xtask help` lists them")
        }
    }
}
