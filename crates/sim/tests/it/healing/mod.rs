//! Self-healing in figures: each is asserted and printed, on virtual time, against the real decisions.

mod outages;
mod rig;
mod warming;

use std::time::Duration;

use waystation_core::backoff::{Backoff, Curve, Jitter};
use waystation_core::name::{Destination, GateKey, Kind, KindPattern};
use waystation_core::policy::{KindPolicy, Policies};

/// Says a figure in a line that `cargo test -- --nocapture` shows and the docs quote.
#[expect(
    clippy::disallowed_macros,
    reason = "a figure is there to be read, and cargo keeps it back unless asked"
)]
fn figure(what: &str, value: impl std::fmt::Display) {
    println!("figure: {what}: {value}");
}

/// Policies in which `kind` calls `destination`, if it is given one, and is tried `max_attempts` times,
/// a second apart.
fn policies(kind: &str, destination: Option<&str>, max_attempts: u32) -> Policies {
    let mut policies = Policies::default();
    let name = Kind::new(kind).expect("a name");
    let policy = KindPolicy {
        destination: destination.map(|name| Destination::new(name).expect("a name")),
        max_attempts: Some(max_attempts),
        backoff: Backoff {
            curve: Curve::Fixed(Duration::from_secs(1)),
            jitter: Jitter::Equal,
            immediate: 0,
        },
        ..KindPolicy::default()
    };
    policies.kinds.push((KindPattern::exactly(&name), policy));
    policies
}

fn destination_gate(name: &str) -> GateKey {
    GateKey::Destination(Destination::new(name).expect("a name"))
}
