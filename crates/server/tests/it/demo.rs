//! `waystation demo` as a process: what it says about itself, and what it refuses.

use std::process::{Command, Output};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_waystation"))
        .arg("demo")
        .args(args)
        .output()
        .expect("the binary starts")
}

#[test]
fn the_help_names_the_exit_codes() {
    let help = run(&["--help"]);
    let help = String::from_utf8_lossy(&help.stdout);
    assert!(help.contains("1: one was broken"), "{help}");
    assert!(help.contains("--keep"), "{help}");
}

#[test]
fn a_number_of_messages_out_of_bounds_ends_with_code_2() {
    for number in ["0", "599", "100001", "many"] {
        let ended = run(&["--messages", number]);
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(2), "{number}: {said}");
        assert!(said.contains("600 to 100000"), "{number}: {said}");
    }
}
