//! Who is claimed next: how many of each lane, and in which order within a lane.

use std::collections::BTreeMap;

use waystation_core::exchange::{Claimed, HealthCheck};
use waystation_core::gate::{Gate, GateSet, GateStatus, PROBE_LEASE, Permit};
use waystation_core::name::{GateKey, Lane, Queue};
use waystation_core::plan::{Offer, share};
use waystation_core::policy::Policies;
use waystation_core::time::Timestamp;

use super::gates_of;

/// Begins a probe by health check: the circuits are half open from now on, and whoever claims is
/// asked to run the check of their destination.
pub(crate) fn begin_check(
    gates: &mut GateSet,
    keys: &[GateKey],
    now: Timestamp,
    claimed: &mut Claimed,
) {
    let until = now + PROBE_LEASE;
    let (tokens, changes) = gates.begin_probe(keys, until, now);
    claimed.changes.extend(changes);
    let of_destination = tokens
        .into_iter()
        .find(|(gate, _)| matches!(gate, GateKey::Destination(_)));
    if let Some((gate, token)) = of_destination {
        claimed.checks.push(HealthCheck { gate, token, until });
    }
}

/// Shows a gate to people; one without a row as the closed gate that it is.
pub(crate) fn gate_status(
    gates: &GateSet,
    key: &GateKey,
    policies: &Policies,
    now: Timestamp,
) -> GateStatus {
    let policy = policies.gate(key);
    match gates.get(key) {
        Some(gate) => gate.status(&policy, now),
        None => Gate::new(key.clone(), Timestamp::EPOCH).status(&policy, now),
    }
}

/// Until when people paused a queue; none while it is not paused.
pub(crate) fn paused_until(gates: &GateSet, queue: &Queue, now: Timestamp) -> Option<Timestamp> {
    let gate = gates.get(&GateKey::Queue(queue.clone()))?;
    // A pause is the same under every policy.
    let policy = Policies::default().gate(gate.key());
    gate.status(&policy, now).paused_until
}

/// What a lane has to offer: its due messages in the ready order, counted as far as room goes.
#[derive(Clone, Debug)]
pub(crate) struct Offered {
    /// Which.
    pub(crate) lane: Lane,
    /// How many are due.
    pub(crate) due: u32,
    /// How many are leased.
    pub(crate) held: u32,
}

/// What a lane gets.
#[derive(Clone, Debug)]
pub(crate) struct Allotment {
    /// Which.
    pub(crate) lane: Lane,
    /// How many start.
    pub(crate) count: u32,
    /// While ramping: messages due since then are fresh.
    pub(crate) fresh_since: Option<Timestamp>,
}

/// What an allotment looks at beside the gates.
#[derive(Clone, Copy)]
pub(crate) struct Room<'a> {
    /// The most to give.
    pub(crate) room: u32,
    /// The number of this claim, for the rotation.
    pub(crate) turn: u64,
    /// What is configured.
    pub(crate) policies: &'a Policies,
    /// The leases through a gate, those given earlier in this claim included.
    pub(crate) leased: &'a dyn Fn(&GateKey) -> u32,
    /// Store time.
    pub(crate) now: Timestamp,
}

/// Shares room among lanes and spends the gates' starts. `offers` are in the order of the lanes'
/// names. Each lane's share is worked out as if it were alone behind its gates; then the starts are
/// handed out one by one, round about, for several lanes may pass through one gate.
pub(crate) fn allot(gates: &mut GateSet, offers: &[Offered], room: Room<'_>) -> Vec<Allotment> {
    let permit = |gates: &GateSet, lane: &Lane, given: &BTreeMap<GateKey, u32>| {
        let leased = |gate: &GateKey| {
            (room.leased)(gate).saturating_add(given.get(gate).copied().unwrap_or(0))
        };
        match gates.permit(lane, room.policies, &leased, room.now) {
            Permit::Pass {
                starts,
                fresh_since,
                ..
            } => (starts, fresh_since),
            Permit::Shut { .. } | Permit::Probe { .. } => (0, None),
        }
    };
    let mut given = BTreeMap::new();
    let wishes: Vec<Offer> = offers
        .iter()
        .map(|offer| Offer {
            starts: permit(gates, &offer.lane, &given).0.min(offer.due),
            held: offer.held,
        })
        .collect();
    let mut shares = share(&wishes, room.room, room.turn);
    let mut allotments: Vec<Allotment> = offers
        .iter()
        .map(|offer| Allotment {
            lane: offer.lane.clone(),
            count: 0,
            fresh_since: None,
        })
        .collect();
    if has_plenty(gates, offers, &shares, &permit) {
        for (allotment, share) in allotments.iter_mut().zip(&shares) {
            if *share > 0 {
                gates.start(&allotment.lane, *share, room.policies, room.now);
                allotment.count = *share;
            }
        }
        allotments.retain(|allotment| allotment.count > 0);
        return allotments;
    }
    let first = usize::try_from(room.turn % (offers.len().max(1) as u64)).unwrap_or(0);
    while shares.iter().any(|&left| left > 0) {
        for step in 0..offers.len() {
            let at = (first + step) % offers.len();
            if shares[at] == 0 {
                continue;
            }
            let lane = &offers[at].lane;
            let (starts, fresh_since) = permit(gates, lane, &given);
            if starts == 0 {
                shares[at] = 0;
                continue;
            }
            shares[at] -= 1;
            gates.start(lane, 1, room.policies, room.now);
            for gate in gates_of(lane) {
                *given.entry(gate).or_insert(0) += 1;
            }
            allotments[at].count += 1;
            allotments[at].fresh_since = fresh_since;
        }
    }
    allotments.retain(|allotment| allotment.count > 0);
    allotments
}

/// Asks a lane's gates, beside so many starts given through each: how many may start, and while
/// climbing since when messages are fresh.
type Ask<'a> = dyn Fn(&GateSet, &Lane, &BTreeMap<GateKey, u32>) -> (u32, Option<Timestamp>) + 'a;

/// Whether each lane could start all that is shared out, and none climbs: then the order in which
/// they start makes no difference.
fn has_plenty(gates: &GateSet, offers: &[Offered], shares: &[u32], permit: &Ask<'_>) -> bool {
    let all = shares
        .iter()
        .fold(0_u32, |all, share| all.saturating_add(*share));
    let none = BTreeMap::new();
    offers
        .iter()
        .zip(shares)
        .filter(|(_, share)| **share > 0)
        .all(|(offer, _)| {
            let (starts, fresh_since) = permit(gates, &offer.lane, &none);
            starts >= all && fresh_since.is_none()
        })
}

/// Of so many slots of a lane the last goes to its longest-due message of any level: often enough that
/// no level starves, and seldom enough that a backlog of low ones costs the urgent ones a sixteenth.
pub(crate) const LONGEST_DUE_EVERY: u64 = 16;

/// Which half of a ramp a slot belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    /// No ramp: any.
    Any,
    /// Due before the ramp began.
    Waiting,
    /// Due since then.
    Fresh,
}

/// What the `number`-th slot of a lane (from 0, counted since the store was opened) is for: whether
/// it goes to the longest-due message of any level, and during a ramp to which half. Where that half
/// has nothing due, the slot goes to the other.
pub(crate) const fn slot(number: u64, is_ramping: bool) -> (bool, Class) {
    let longest_due = number % LONGEST_DUE_EVERY == LONGEST_DUE_EVERY - 1;
    let class = match (is_ramping, number.is_multiple_of(2)) {
        (false, _) => Class::Any,
        (true, true) => Class::Waiting,
        (true, false) => Class::Fresh,
    };
    (longest_due, class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sixteenth_slot_goes_to_the_longest_due_and_a_ramp_is_shared_by_half() {
        let slots: Vec<_> = (0..32).map(|number| slot(number, true)).collect();
        assert_eq!(slots.iter().filter(|(longest, _)| *longest).count(), 2);
        let waiting = slots
            .iter()
            .filter(|(_, class)| *class == Class::Waiting)
            .count();
        assert_eq!(waiting, 16);
        assert_eq!(slot(0, false), (false, Class::Any));
    }
}
