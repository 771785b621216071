//! Planted bugs that the gates' own tests find; `docs/concepts/planted-bugs.md` lists all of them.

use std::panic::{UnwindSafe, catch_unwind};

use super::*;

fn check(flaw: Flaw, test: impl Fn(Scene) + UnwindSafe + Copy) {
    test(Scene::new());
    let found = catch_unwind(move || test(Scene::flawed(flaw)));
    assert!(found.is_err(), "{flaw:?} is not found");
}

#[test]
fn a_ramp_that_never_halves_is_found() {
    check(Flaw::RampNeverHalves, ramps::halves);
}

#[test]
fn operations_that_probe_a_dead_destination_are_found() {
    check(Flaw::ProbePerOperation, destination::operations_wait);
}
