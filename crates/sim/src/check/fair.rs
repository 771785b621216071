//! Promise 11, what attempts are spent on: only what a handler failed at counts; a message's last failure
//! waits for the outage that may explain it; no message is refunded in more outages than it may.

use std::collections::{BTreeMap, BTreeSet};

use waystation_core::gate::CircuitState;
use waystation_core::message::{DeathReason, Epoch, MessageId, OUTAGES_MAX};
use waystation_core::name::GateKey;
use waystation_core::time::Timestamp;

use super::{Findings, Promise, Violation};
use crate::history::{History, Order, What};

#[derive(Default)]
struct Outages {
    /// The epoch of the latest of each circuit.
    latest: BTreeMap<GateKey, Epoch>,
    /// Those that have given something back to each message.
    refunds: BTreeMap<MessageId, BTreeSet<(GateKey, Epoch)>>,
    /// Circuits that people have ever held open, disabled or reset. A disabled one explains nothing, and
    /// each of their writes raises the epoch, so that which outage it was cannot be told from outside.
    ordered: BTreeSet<GateKey>,
}

pub(super) fn check(history: &History) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::Fair);
    let mut outages = Outages::default();
    for record in &history.records {
        let at = record.at;
        if let What::Gate {
            gate,
            to: CircuitState::Open,
            epoch,
            ..
        } = &record.what
        {
            outages.latest.insert(gate.clone(), *epoch);
        } else if let What::Ordered {
            gate,
            order: Order::ForceOpen | Order::Disable | Order::Reset,
        } = &record.what
        {
            outages.ordered.insert(gate.clone());
        } else if let What::Operated { id, .. } = &record.what {
            // It may be a replay, which begins anew.
            outages.refunds.remove(id);
        } else if let What::Settled {
            id,
            outcome,
            death,
            refunded_by,
            counted,
            against,
            ..
        } = &record.what
        {
            let failed = matches!(outcome, Some("failed" | "unreachable" | "refused"));
            findings.expect(!counted || failed, at, || {
                format!("an attempt of {id} counts that ended as {outcome:?}")
            });
            if *death == Some(DeathReason::AttemptsExhausted) {
                let may_yet = outages.may_explain(against);
                findings.expect(!may_yet, at, || {
                    format!("{id} is given up before an outage of {against:?} can explain it")
                });
            }
            if let Some(gate) = refunded_by {
                outages.refunded(*id, gate, (at, &mut findings));
            }
        }
    }
    findings.found
}

impl Outages {
    fn may_explain(&self, against: &[GateKey]) -> bool {
        against.iter().any(|gate| !self.ordered.contains(gate))
    }

    fn refunded(
        &mut self,
        id: MessageId,
        gate: &GateKey,
        (at, findings): (Timestamp, &mut Findings),
    ) {
        if self.ordered.contains(gate) {
            return;
        }
        let epoch = self.latest.get(gate).copied().unwrap_or_default();
        let outages = self.refunds.entry(id).or_default();
        outages.insert((gate.clone(), epoch));
        let count = outages.len();
        findings.expect(count <= OUTAGES_MAX, at, || {
            format!("{id} is refunded in {count} outages")
        });
    }
}

#[cfg(test)]
mod tests {
    use waystation_core::message::State;

    use super::super::scribe::{self, ONE, Scribe, Settled, bank, run};
    use super::*;

    #[test]
    fn an_attempt_that_counts_although_it_did_not_fail_is_found() {
        let counted = |outcome: &'static str| {
            Scribe::default().settled_as(Settled {
                outcome,
                counted: true,
                ..Settled::of(run(ONE, 1, 1))
            })
        };
        scribe::check(check, &counted("failed"), "");
        for word in ["handed_back", "throttled", "lost", "snoozed", "panicked"] {
            scribe::check(check, &counted(word), "counts that ended as");
        }
    }

    #[test]
    fn a_death_without_its_grace_is_found() {
        let dead = |against| {
            Scribe::default().settled_as(Settled {
                state: State::Dead,
                death: Some(DeathReason::AttemptsExhausted),
                counted: true,
                against,
                ..Settled::of(run(ONE, 1, 1))
            })
        };
        scribe::check(check, &dead(Vec::new()), "");
        scribe::check(check, &dead(vec![bank()]), "before an outage");
    }

    #[test]
    fn one_refund_too_many_is_found() {
        let refunded = |outages: u64| {
            (1..=outages).fold(Scribe::default(), |scribe, outage| {
                let mut scribe = scribe.gate(CircuitState::Closed, CircuitState::Open);
                if let Some(What::Gate { epoch, .. }) =
                    scribe.0.records.last_mut().map(|record| &mut record.what)
                {
                    *epoch = Epoch(outage);
                }
                scribe.settled_as(Settled {
                    refunded_by: Some(bank()),
                    ..Settled::of(run(ONE, outage, 1))
                })
            })
        };
        scribe::check(check, &refunded(3), "");
        scribe::check(check, &refunded(4), "refunded in 4 outages");
    }
}
