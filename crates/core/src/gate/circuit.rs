//! The circuit of one gate: how evidence, probes, time and people move it.
//!
//! ```text
//!            trip                  begin_probe              success
//!  closed ─────────▶ open ──────────────────────▶ half open ─────────▶ ramping ──▶ closed
//!                     ▲  ◀── failure, nothing, lease over ──┘              │
//!                     └──────────────── trip (same outage) ────────────────┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use super::evidence::Call;
use super::ramp::Climb;
use super::{CircuitState, Gate, GateChange, GateOrder, Mode, ProbeResult, RefundDue};
use crate::exchange::{Evidence, ProbeToken};
use crate::flaw::{Flaw, Flaws};
use crate::message::Epoch;
use crate::name::GateKey;
use crate::outcome::Verdict;
use crate::policy::{CircuitPolicy, GatePolicy};
use crate::time::{Roll, Timestamp};

/// The most refunds that a gate remembers to owe; of more, the oldest is left to `decide`.
pub(super) const REFUNDS_MAX: usize = 4;

/// The circuit's state with what belongs to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Circuit {
    #[default]
    Closed,
    Open {
        /// When a probe is due; never while people hold it open.
        probe_at: Timestamp,
    },
    HalfOpen {
        /// When the probe's lease ends.
        until: Timestamp,
    },
    /// The gate's climb is its limit.
    Ramping,
}

/// What the circuit says to a start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    /// It may pass.
    Passes,
    /// Only a probe may, and not before that.
    Probe(Timestamp),
    /// Not before that; a probe is out.
    Probing(Timestamp),
    /// Not before a person says so.
    Held,
}

/// What folding one piece of evidence did to a gate.
#[derive(Debug, Default)]
pub(super) struct Folded {
    /// Whether the row is to be written.
    pub(super) touched: bool,
    /// Whether ten minutes of nothing but throttling are to be reported.
    pub(super) throttled_long: bool,
    /// How the state changed.
    pub(super) change: Option<GateChange>,
}

/// What a fold needs that is the same for all evidence of one gate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Folding<'a> {
    pub(super) circuit: &'a CircuitPolicy,
    pub(super) retry_after_max: Duration,
    pub(super) now: Timestamp,
    pub(super) roll: Roll,
    pub(super) population: &'a dyn super::Population,
    /// Whether the attempt failed, though it may say nothing of this gate.
    pub(super) failed: bool,
    pub(super) flaws: Flaws,
}

/// `open_for`, give or take a tenth.
fn jittered(open_for: Duration, roll: Roll) -> Duration {
    open_for.mul_f64(0.9 + 0.2 * roll.get())
}

impl Gate {
    /// The circuit's state; a half-open one whose lease ended is shown so until time moves it on.
    pub(super) const fn state(&self) -> CircuitState {
        match self.circuit {
            Circuit::Closed => CircuitState::Closed,
            Circuit::Open { .. } => CircuitState::Open,
            Circuit::HalfOpen { .. } => CircuitState::HalfOpen,
            Circuit::Ramping => CircuitState::Ramping,
        }
    }

    /// Whether the circuit is open or half open.
    pub(super) const fn is_down(&self) -> bool {
        match self.circuit {
            Circuit::Open { .. } | Circuit::HalfOpen { .. } => true,
            Circuit::Closed | Circuit::Ramping => false,
        }
    }

    /// What the circuit says to a start now.
    pub(super) fn asked(&self, now: Timestamp) -> Asked {
        match (self.mode, self.circuit) {
            (Mode::ForcedOpen, _) => Asked::Held,
            (Mode::Disabled, _) | (Mode::Auto, Circuit::Closed | Circuit::Ramping) => Asked::Passes,
            (Mode::Auto, Circuit::Open { probe_at }) => Asked::Probe(probe_at),
            (Mode::Auto, Circuit::HalfOpen { until }) if until > now => Asked::Probing(until),
            (Mode::Auto, Circuit::HalfOpen { until }) => Asked::Probe(until),
        }
    }

    fn turn(&mut self, to: Circuit, why: String, now: Timestamp) -> GateChange {
        let from = self.state();
        self.circuit = to;
        self.since = now;
        self.reason = match to {
            Circuit::Closed => None,
            Circuit::Open { .. } | Circuit::HalfOpen { .. } | Circuit::Ramping => {
                Some(Arc::from(why.as_str()))
            }
        };
        GateChange {
            key: self.key.clone(),
            from,
            to: self.state(),
            epoch: self.epoch,
            at: now,
            why,
            probe: None,
        }
    }

    /// Opens the circuit. Out of `closed` it is a trip: a new epoch, an outage, a refund that is due.
    pub(super) fn trip(
        &mut self,
        why: String,
        policy: &CircuitPolicy,
        now: Timestamp,
        roll: Roll,
    ) -> GateChange {
        if self.circuit == Circuit::Closed {
            let before = self.epoch;
            self.epoch = Epoch(before.0.saturating_add(1));
            self.outage_successes = 0;
            self.traffic.freeze(now);
            if self.refunds.len() >= REFUNDS_MAX {
                self.refunds.remove(0);
            }
            self.refunds.push(RefundDue {
                gate: self.key.clone(),
                epoch: before,
                outage: self.epoch,
                since: now.before(policy.window),
            });
        }
        self.climb = None;
        self.strain.restart();
        let probe_at = now + jittered(policy.open_for, roll);
        self.turn(Circuit::Open { probe_at }, why, now)
    }

    /// Lets traffic climb again, from the end of a silence if one lasts.
    fn ramp(&mut self, why: &str, now: Timestamp) -> GateChange {
        let at = self.clock.ahead(now).unwrap_or(now);
        self.climb = Some(Climb::after_outage(self.traffic.closed_rate, at));
        self.tally.clear();
        self.strain.restart();
        self.turn(Circuit::Ramping, why.to_owned(), now)
    }

    /// Makes a probe due at once: the destination answers again.
    pub(super) fn probe_now(&mut self, now: Timestamp) -> bool {
        match &mut self.circuit {
            Circuit::Open { probe_at } if self.mode == Mode::Auto && *probe_at > now => {
                *probe_at = now;
                true
            }
            Circuit::Open { .. }
            | Circuit::HalfOpen { .. }
            | Circuit::Closed
            | Circuit::Ramping => false,
        }
    }

    /// Begins a probe; the token of any earlier one is worth nothing from now on.
    pub(super) fn begin_probe(
        &mut self,
        until: Timestamp,
        now: Timestamp,
    ) -> (ProbeToken, GateChange) {
        self.probe = ProbeToken(self.probe.0.saturating_add(1));
        // What tripped it stays the reason for people; and a lost probe's circuit is open again,
        // whether or not a tick has written that down.
        let reason = self.reason.take();
        let is_lost = self.state() == CircuitState::HalfOpen;
        let mut change = self.turn(
            Circuit::HalfOpen { until },
            "a probe is out".to_owned(),
            now,
        );
        change.from = CircuitState::Open;
        change.probe = is_lost.then_some(ProbeResult::Lost);
        self.reason = reason;
        (self.probe, change)
    }

    /// Whether a token is that of the latest probe, and that one has told nothing yet.
    pub(super) fn is_probe(&self, token: ProbeToken) -> bool {
        self.mode == Mode::Auto && self.is_down() && token == self.probe
    }

    /// Takes what a probe found; its token is used up.
    pub(super) fn probed(&mut self, verdict: Verdict, cx: &Folding<'_>) -> GateChange {
        let now = cx.now;
        self.probe = ProbeToken(self.probe.0.saturating_add(1));
        let (change, result) = match verdict {
            Verdict::Success => (
                self.ramp("the probe succeeded", now),
                ProbeResult::Succeeded,
            ),
            Verdict::Failure => {
                self.tally.run_on();
                let why = "the probe failed".to_owned();
                let change = self.trip(why, cx.circuit, now, cx.roll);
                (change, ProbeResult::Failed)
            }
            Verdict::Nothing => {
                // Repeated at once only if nothing failed: what fails of another cause would go round
                // without a pause, for behind a gate that is shut it is due at once.
                let wait = if cx.failed {
                    jittered(cx.circuit.open_for, cx.roll)
                } else {
                    Duration::ZERO
                };
                let probe_at = self.clock.ahead(now).unwrap_or(now + wait);
                let why = "the probe proved nothing".to_owned();
                let change = self.turn(Circuit::Open { probe_at }, why, now);
                (change, ProbeResult::Undecided)
            }
        };
        GateChange {
            probe: Some(result),
            ..change
        }
    }

    /// Folds one piece of evidence.
    pub(super) fn fold(&mut self, evidence: &Evidence, cx: &Folding<'_>) -> Folded {
        let is_late = evidence.epoch < self.epoch
            || evidence.probe.is_some_and(|token| !self.is_probe(token));
        if is_late {
            return Folded::default();
        }
        let mut folded = self.fold_clock(evidence, cx);
        if evidence.verdict != Verdict::Nothing {
            folded.touched = true;
            self.tally.last_call_at = Some(cx.now);
        }
        if evidence.verdict == Verdict::Success {
            self.last_success_at = Some(cx.now);
            if self.circuit != Circuit::Closed {
                self.outage_successes = self.outage_successes.saturating_add(1);
            }
        }
        if self.circuit == Circuit::Closed
            && (evidence.verdict != Verdict::Nothing || evidence.throttled.is_some())
        {
            folded.touched = true;
            self.traffic.add(cx.now);
        }
        if evidence.probe.is_some() {
            folded.touched = true;
            folded.change = Some(self.probed(evidence.verdict, cx));
        } else if !self.is_down() && evidence.verdict != Verdict::Nothing {
            self.bear(cx.now);
            let slows = !cx.flaws.has(Flaw::RampNeverHalves);
            if evidence.verdict == Verdict::Failure && slows {
                self.suffer(cx.circuit.ramp, cx.now);
            }
            folded.change = self.fold_call(evidence, cx);
        }
        folded
    }

    fn fold_call(&mut self, evidence: &Evidence, cx: &Folding<'_>) -> Option<GateChange> {
        let call = Call {
            id: evidence.id,
            failed: evidence.verdict == Verdict::Failure,
            code: evidence.code.as_ref(),
            took: evidence.took,
        };
        self.tally.add(&call, cx.circuit, cx.now);
        if self.mode != Mode::Auto {
            return None;
        }
        let trip = self.tally.trip(&call, cx.circuit, cx.now, || {
            cx.population.unfinished(&self.key)
        })?;
        Some(self.trip(trip.why(), cx.circuit, cx.now, cx.roll))
    }

    /// Counts a call for the strain.
    fn bear(&mut self, now: Timestamp) {
        if self.climb.is_some() {
            self.strain.climb(now);
        } else {
            self.strain.flow(now);
        }
    }

    /// Takes a failure that the present rate may be to blame for: of this circuit's own calls, or of
    /// one of a destination's operations. Slows a climb down if there are more of them than usual.
    fn suffer(&mut self, ramp: Duration, now: Timestamp) {
        match &mut self.climb {
            Some(climb) if self.strain.climb_failed(now) => climb.fail(ramp, now),
            Some(_) => {}
            None => self.strain.flow_failed(now),
        }
    }

    /// Takes failures of one of its operations. They prove nothing against the destination, but while
    /// it climbs they are how it says that it cannot bear more: without this only a second trip, of
    /// the operation, would end the overload.
    pub(super) fn suffer_with(&mut self, failures: usize, ramp: Duration, now: Timestamp) -> bool {
        if self.is_down() {
            return false;
        }
        for _ in 0..failures {
            self.suffer(ramp, now);
        }
        failures > 0
    }

    /// Sets a destination's clock, or notes that it answered otherwise.
    fn fold_clock(&mut self, evidence: &Evidence, cx: &Folding<'_>) -> Folded {
        let mut folded = Folded::default();
        if !matches!(self.key, GateKey::Destination(_)) {
            return folded;
        }
        match evidence.throttled {
            Some(ask) => {
                let throttle = self.clock.throttle(ask, cx.retry_after_max, cx.now);
                folded.touched = true;
                folded.throttled_long = throttle.long;
                self.climb_after(throttle.until, throttle.begins, cx);
            }
            None if evidence.verdict != Verdict::Nothing => {
                folded.touched = self.clock.answered(evidence.verdict == Verdict::Success);
            }
            None => {}
        }
        folded
    }

    /// Lets traffic climb from half the last rate after a silence; the circuit stays as it is.
    fn climb_after(&mut self, until: Timestamp, begins: bool, cx: &Folding<'_>) {
        if self.is_down() {
            return;
        }
        let ramp = cx.circuit.ramp;
        match &mut self.climb {
            Some(climb) => {
                let rate = climb.rate(ramp, cx.now);
                climb.hold(if begins { rate / 2.0 } else { rate }, until);
            }
            None => {
                let last = self.traffic.rate(cx.now);
                self.climb = Some(Climb::from_rate(last / 2.0, last, until));
                self.strain.restart();
            }
        }
    }

    /// Moves on what time alone moves.
    pub(super) fn tick(
        &mut self,
        policy: &CircuitPolicy,
        waits: impl FnOnce() -> bool,
        now: Timestamp,
    ) -> (bool, Option<GateChange>) {
        if let Circuit::HalfOpen { until } = self.circuit
            && until <= now
        {
            let why = "the probe's lease ended".to_owned();
            let change = self.turn(Circuit::Open { probe_at: until }, why, now);
            let lost = GateChange {
                probe: Some(ProbeResult::Lost),
                ..change
            };
            return (true, Some(lost));
        }
        let may_end = self
            .climb
            .is_some_and(|climb| climb.is_over(policy.ramp, false, now));
        let is_over = may_end
            && self
                .climb
                .is_some_and(|climb| climb.is_over(policy.ramp, waits(), now));
        if !is_over {
            return (false, None);
        }
        self.climb = None;
        self.strain.restart();
        if self.circuit != Circuit::Ramping {
            return (true, None);
        }
        self.traffic.resume(now);
        self.outage_successes = 0;
        let why = "the ramp is over".to_owned();
        (true, Some(self.turn(Circuit::Closed, why, now)))
    }

    /// Carries out what a person asked; none if that changes nothing.
    pub(super) fn order(
        &mut self,
        order: GateOrder,
        policy: &GatePolicy,
        now: Timestamp,
    ) -> Option<GateChange> {
        let epoch = self.epoch;
        self.epoch = Epoch(epoch.0.saturating_add(1));
        let change = match order {
            GateOrder::Pause(until) => self.pause(until, now),
            GateOrder::Resume => self.resume(now),
            GateOrder::ForceOpen | GateOrder::Disable | GateOrder::Reset => policy
                .circuit
                .as_ref()
                .and_then(|_| self.set_mode(order, now)),
        };
        if change.is_none() {
            self.epoch = epoch;
        }
        change
    }

    fn set_mode(&mut self, order: GateOrder, now: Timestamp) -> Option<GateChange> {
        match order {
            GateOrder::ForceOpen if self.mode != Mode::ForcedOpen => {
                if self.circuit == Circuit::Closed {
                    self.traffic.freeze(now);
                    self.outage_successes = 0;
                }
                self.mode = Mode::ForcedOpen;
                self.climb = None;
                let never = Circuit::Open {
                    probe_at: Timestamp::NEVER,
                };
                Some(self.turn(never, "held open by a person".to_owned(), now))
            }
            GateOrder::Disable if self.mode != Mode::Disabled => {
                if self.circuit != Circuit::Closed {
                    self.climb = None;
                    self.strain.restart();
                    self.traffic.resume(now);
                    self.outage_successes = 0;
                }
                self.mode = Mode::Disabled;
                let why = "disabled by a person".to_owned();
                let change = self.turn(Circuit::Closed, why, now);
                self.reason = Some(Arc::from(change.why.as_str()));
                Some(change)
            }
            GateOrder::Reset if self.mode != Mode::Auto || self.is_down() => {
                self.mode = Mode::Auto;
                if self.circuit == Circuit::Closed {
                    self.tally.clear();
                    let why = "reset by a person".to_owned();
                    return Some(self.turn(Circuit::Closed, why, now));
                }
                Some(self.ramp("reset by a person", now))
            }
            GateOrder::ForceOpen
            | GateOrder::Disable
            | GateOrder::Reset
            | GateOrder::Pause(_)
            | GateOrder::Resume => None,
        }
    }

    fn pause(&mut self, until: Timestamp, now: Timestamp) -> Option<GateChange> {
        if until <= now || self.paused_until == Some(until) {
            return None;
        }
        self.paused_until = Some(until);
        Some(self.unmoved("paused by a person", now))
    }

    fn resume(&mut self, now: Timestamp) -> Option<GateChange> {
        self.paused_until.take().filter(|&until| until > now)?;
        Some(self.unmoved("resumed by a person", now))
    }

    fn unmoved(&self, why: &str, now: Timestamp) -> GateChange {
        GateChange {
            key: self.key.clone(),
            from: self.state(),
            to: self.state(),
            epoch: self.epoch,
            at: now,
            why: why.to_owned(),
            probe: None,
        }
    }
}
