//! What an outage gives back: failures that a circuit's trip explains do not count.
//!
//! In [`Ledger::outages`] an entry without refunds is an outage whose refunds were taken back: the
//! message failed again while others of its operation succeeded, so it is the message that is ill,
//! and that outage gives it nothing any more.

use std::time::Duration;

use crate::decide::Case;
use crate::gate::{CircuitState, GateView, Mode, RefundDue};
use crate::message::{BLAMES_MAX, Blame, Epoch, Ledger, OUTAGES_MAX, OutageRefunds};
use crate::name::GateKey;
use crate::outcome::Verdict;
use crate::policy::Policies;
use crate::time::Timestamp;

/// Decides what becomes of a message whose earlier failures a trip gives back, while it waits: the
/// numbers after the refund and how many failures were given back, or none if none of them is the
/// trip's or the message was refunded in as many outages as it may.
#[must_use]
pub fn refund(ledger: &Ledger, due: &RefundDue) -> Option<(Ledger, u32)> {
    let is_due = |blame: &Blame| {
        let blamed = match due.gate {
            GateKey::Queue(_) => None,
            GateKey::Destination(_) => blame.destination,
            GateKey::Operation(..) => blame.operation,
        };
        blamed == Some(due.epoch) && blame.at >= due.since
    };
    let failures = ledger.blames.iter().filter(|blame| is_due(blame)).count();
    let failures = u32::try_from(failures).unwrap_or(u32::MAX);
    if failures == 0 || !may_give_back(ledger, &due.gate, due.outage) {
        return None;
    }
    let mut ledger = ledger.clone();
    ledger.blames.retain(|blame| !is_due(blame));
    give_back(&mut ledger, &due.gate, due.outage, failures);
    ledger.counted = ledger.counted.saturating_sub(failures);
    Some((ledger, failures))
}

/// One circuit that a message passes through.
#[derive(Debug)]
struct Circuit {
    view: GateView,
    verdict: Verdict,
    window: Duration,
}

impl Circuit {
    fn is_down(&self) -> bool {
        match self.view.mode {
            Mode::Disabled => false,
            Mode::ForcedOpen => true,
            Mode::Auto => self.view.state != CircuitState::Closed,
        }
    }

    fn is_blamed(&self) -> bool {
        self.verdict == Verdict::Failure && self.view.mode != Mode::Disabled
    }

    fn epoch_blamed_by(&self, blame: &Blame) -> Option<Epoch> {
        match self.view.key {
            GateKey::Queue(_) => None,
            GateKey::Destination(_) => blame.destination,
            GateKey::Operation(..) => blame.operation,
        }
    }

    /// Tells whether it tripped within its window after a failure that blames it. The moment of the
    /// trip is not known, but the circuit has been in its present state since then or later; after
    /// a grace that is proof enough, for a grace is one window long.
    fn explains(&self, blame: &Blame, now: Timestamp, grace_over: bool) -> bool {
        let end = blame.at + self.window;
        self.view.mode != Mode::Disabled
            && self.epoch_blamed_by(blame).is_some_and(|epoch| epoch < self.view.epoch)
            // In its state since before the failure: a person's write has raised the epoch, no trip.
            && (self.is_down() || self.view.since >= blame.at)
            && (grace_over || now <= end || self.view.since <= end)
    }

    /// Tells whether a failure that blames it may still be explained by a trip to come.
    fn may_yet_explain(&self, blame: &Blame, now: Timestamp) -> bool {
        self.epoch_blamed_by(blame) == Some(self.view.epoch) && now <= blame.at + self.window
    }
}

/// What a failure is held to be.
#[derive(Debug)]
pub(super) enum Judgement {
    /// An outage explains it.
    Refunded {
        /// Whose.
        by: GateKey,
        /// The failures given back in this outage, this one included.
        failures: u32,
    },
    /// A probe while nothing of the operation succeeds, beyond what may be refunded: it neither
    /// counts nor is it refunded.
    ProbedInVain,
    /// It counts.
    Counted {
        /// The window of the circuits it blames, if it blames any: an outage may explain it yet.
        grace: Option<Duration>,
    },
}

/// The circuits that a message passes through: its destination's, and its operation's where the two
/// differ.
#[derive(Debug)]
pub(super) struct Circuits(Vec<Circuit>);

impl Circuits {
    pub(super) fn of(case: &Case<'_>, policies: &Policies) -> Self {
        let lane = &case.message.lane;
        let operation = lane.operation_gate();
        let of_destination = if operation.is_some() {
            case.finding.destination
        } else {
            case.finding.merged()
        };
        let circuit = |key: GateKey, verdict: Verdict| {
            let policy = policies.gate(&key).circuit.unwrap_or_default();
            let known = case.gates.iter().find(|view| view.key == key);
            Circuit {
                view: known.cloned().unwrap_or_else(|| unknown(key)),
                verdict,
                window: policy.window,
            }
        };
        let mut circuits = vec![circuit(lane.destination_gate(), of_destination)];
        circuits.extend(operation.map(|key| circuit(key, case.finding.operation)));
        Self(circuits)
    }

    /// Takes earlier failures off that a trip explains, and forgets those that no trip can explain
    /// any more. Gives the circuit that gave the latest of them back.
    pub(super) fn return_earlier(
        &self,
        ledger: &mut Ledger,
        now: Timestamp,
        grace_over: bool,
    ) -> Option<GateKey> {
        let mut last = None;
        for blame in std::mem::take(&mut ledger.blames) {
            let explained = self
                .by_preference(ledger)
                .find(|circuit| {
                    circuit.explains(&blame, now, grace_over)
                        && may_give_back(ledger, &circuit.view.key, circuit.view.epoch)
                })
                .map(|circuit| &circuit.view);
            if let Some(view) = explained {
                give_back(ledger, &view.key, view.epoch, 1);
                ledger.counted = ledger.counted.saturating_sub(1);
                last = Some(view.key.clone());
            } else if self
                .0
                .iter()
                .any(|circuit| circuit.may_yet_explain(&blame, now))
            {
                ledger.blames.push(blame);
            }
        }
        last
    }

    /// Judges a failure of now: writes down its refund, or whom it blames if it counts. Does not
    /// count it.
    pub(super) fn judge_failure(
        &self,
        case: &Case<'_>,
        ledger: &mut Ledger,
        now: Timestamp,
        attempts_max: u32,
    ) -> Judgement {
        let mut ill_of = Vec::new();
        let mut is_known = false;
        for circuit in self.by_preference(ledger) {
            if !circuit.is_blamed() || !circuit.is_down() {
                continue;
            }
            let (key, epoch) = (&circuit.view.key, circuit.view.epoch);
            let failed_before = entry(ledger, key, epoch).is_some();
            if failed_before && self.others_succeed_while_down(circuit) {
                ill_of.push((key, epoch));
            } else if may_give_back(ledger, key, epoch) {
                give_back(ledger, key, epoch, 1);
                let failures = entry(ledger, key, epoch).map_or(1, |outage| outage.refunds);
                let by = key.clone();
                return Judgement::Refunded { by, failures };
            }
            is_known |= failed_before;
        }
        let nothing_succeeds = ledger
            .first_failed_at
            .is_some_and(|first| self.operation_succeeded_at().is_none_or(|at| at < first));
        if case.probe && !is_known && nothing_succeeds && self.is_outage() {
            return Judgement::ProbedInVain;
        }
        for (key, epoch) in ill_of {
            take_back(ledger, key, epoch, attempts_max);
        }
        self.blame(ledger, now);
        let windows = self.0.iter().filter(|circuit| circuit.is_blamed());
        Judgement::Counted {
            grace: windows.map(|circuit| circuit.window).max(),
        }
    }

    fn is_outage(&self) -> bool {
        self.0
            .iter()
            .any(|circuit| circuit.is_blamed() && circuit.is_down())
    }

    pub(super) fn is_ramping(&self, key: &GateKey) -> bool {
        self.0.iter().any(|circuit| {
            circuit.view.key == *key
                && circuit.view.mode == Mode::Auto
                && circuit.view.state == CircuitState::Ramping
        })
    }

    pub(super) fn operation_succeeded_at(&self) -> Option<Timestamp> {
        self.operation().and_then(|view| view.last_success_at)
    }

    /// The narrower of the two; where they are one, that one.
    fn operation(&self) -> Option<&GateView> {
        self.0.last().map(|circuit| &circuit.view)
    }

    /// Others of the message's operation, for a success of its own would have ended it. A
    /// destination's successes may be those of other operations, so there the operation's own clock
    /// tells: a success since the ramp began is one within the outage.
    fn others_succeed_while_down(&self, circuit: &Circuit) -> bool {
        let Some(operation) = self.operation() else {
            return false;
        };
        if operation.key == circuit.view.key {
            return operation.outage_successes > 0;
        }
        let since = circuit.view.since;
        operation.outage_successes > 0 || operation.last_success_at.is_some_and(|at| at >= since)
    }

    /// Circuits whose present outage has refunded this message already come first, so that one
    /// outage seen by two circuits uses up one of the message's few.
    fn by_preference(&self, ledger: &Ledger) -> impl Iterator<Item = &Circuit> + use<'_> {
        let known =
            |circuit: &&Circuit| entry(ledger, &circuit.view.key, circuit.view.epoch).is_some();
        let (first, then): (Vec<_>, Vec<_>) = self.0.iter().partition(known);
        first.into_iter().chain(then)
    }

    fn blame(&self, ledger: &mut Ledger, now: Timestamp) {
        let mut blame = Blame {
            at: now,
            destination: None,
            operation: None,
        };
        for circuit in self.0.iter().filter(|circuit| circuit.is_blamed()) {
            match circuit.view.key {
                GateKey::Queue(_) => {}
                GateKey::Destination(_) => blame.destination = Some(circuit.view.epoch),
                GateKey::Operation(..) => blame.operation = Some(circuit.view.epoch),
            }
        }
        if blame.destination.is_none() && blame.operation.is_none() {
            return;
        }
        if ledger.blames.len() >= BLAMES_MAX {
            ledger.blames.remove(0);
        }
        ledger.blames.push(blame);
    }
}

/// A gate without a row: nothing has ever happened at it.
const fn unknown(key: GateKey) -> GateView {
    GateView {
        key,
        state: CircuitState::Closed,
        mode: Mode::Auto,
        epoch: Epoch(0),
        since: Timestamp::EPOCH,
        outage_successes: 0,
        last_success_at: None,
        not_before: None,
    }
}

fn entry<'a>(ledger: &'a Ledger, gate: &GateKey, epoch: Epoch) -> Option<&'a OutageRefunds> {
    let is_it = |outage: &&OutageRefunds| outage.gate == *gate && outage.epoch == epoch;
    ledger.outages.iter().find(is_it)
}

fn may_give_back(ledger: &Ledger, gate: &GateKey, epoch: Epoch) -> bool {
    match entry(ledger, gate, epoch) {
        Some(outage) => outage.refunds > 0,
        None => ledger.outages.len() < OUTAGES_MAX,
    }
}

fn give_back(ledger: &mut Ledger, gate: &GateKey, epoch: Epoch, failures: u32) {
    ledger.refunded = ledger.refunded.saturating_add(failures);
    let is_it = |outage: &&mut OutageRefunds| outage.gate == *gate && outage.epoch == epoch;
    match ledger.outages.iter_mut().find(is_it) {
        Some(outage) => outage.refunds = outage.refunds.saturating_add(failures),
        None => ledger.outages.push(OutageRefunds {
            gate: gate.clone(),
            epoch,
            refunds: failures,
        }),
    }
}

/// Makes the refunds of an outage count after all: as many as the failure of now leaves room for, for
/// nothing counts more than `attempts_max`.
fn take_back(ledger: &mut Ledger, gate: &GateKey, epoch: Epoch, attempts_max: u32) {
    let is_it = |outage: &&mut OutageRefunds| outage.gate == *gate && outage.epoch == epoch;
    if let Some(outage) = ledger.outages.iter_mut().find(is_it) {
        let room = attempts_max
            .saturating_sub(1)
            .saturating_sub(ledger.counted);
        let failures = std::mem::take(&mut outage.refunds).min(room);
        ledger.counted = ledger.counted.saturating_add(failures);
        ledger.refunded = ledger.refunded.saturating_sub(failures);
    }
}
