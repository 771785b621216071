//! Promise 11, the clock of a destination: while the silence lasts that it asked for by `Retry-After`,
//! nothing is given to any of its handlers in the whole fleet.

use std::collections::BTreeMap;
use std::time::Duration;

use waystation_core::message::{Fence, MessageId};
use waystation_core::name::{Destination, Lane};
use waystation_core::time::Timestamp;

use super::{Findings, Promise, Violation};
use crate::history::{History, Purpose, What};

/// Silences, by store time: it is never behind the clock of whoever asks.
#[derive(Default)]
struct Silences {
    lanes: BTreeMap<MessageId, Lane>,
    asked: BTreeMap<(MessageId, Fence), Duration>,
    until: BTreeMap<Destination, Timestamp>,
}

pub(super) fn check(history: &History) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::Silence);
    let mut silences = Silences::default();
    for record in &history.records {
        if let What::Stored { id, lane, .. } | What::Operated { id, lane, .. } = &record.what {
            silences.lanes.insert(*id, lane.clone());
        } else if let What::Ended {
            run,
            silence: Some(silence),
            ..
        } = &record.what
        {
            silences.asked.insert((run.id, run.fence), *silence);
        } else if let What::Settled {
            id,
            fence,
            asked_at,
            ..
        } = &record.what
        {
            // It is a settlement that the fleet learns it by.
            silences.settled((*id, *fence), *asked_at);
        } else if let What::Leased {
            run,
            begun,
            purpose: Purpose::Run,
            ..
        } = &record.what
        {
            let until = silences.of(run.id);
            findings.expect(*begun >= until, record.at, || {
                format!("{} is given within the silence until {until:?}", run.id)
            });
        }
    }
    findings.found
}

impl Silences {
    fn settled(&mut self, (id, fence): (MessageId, Fence), at: Timestamp) {
        let silence = self.asked.remove(&(id, fence));
        if let Some((silence, lane)) = silence.zip(self.lanes.get(&id)) {
            let until = self.until.entry(lane.destination().clone()).or_default();
            *until = (*until).max(at + silence);
        }
    }

    fn of(&self, id: MessageId) -> Timestamp {
        let destination = self.lanes.get(&id).map(Lane::destination);
        let until = destination.and_then(|destination| self.until.get(destination));
        until.copied().unwrap_or(Timestamp::EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use waystation_core::message::State;

    use super::super::scribe::{self, NODE, ONE, Scribe, TWO, run};
    use super::*;

    #[test]
    fn a_call_within_the_silence_is_found() {
        let called_after = |secs| {
            let mut scribe = Scribe::default()
                .stored(ONE)
                .stored(TWO)
                .ended(run(ONE, 1, 1), "throttled");
            if let Some(What::Ended { silence, .. }) =
                scribe.0.records.last_mut().map(|record| &mut record.what)
            {
                *silence = Some(Duration::from_secs(secs));
            }
            scribe.settled(run(ONE, 1, 1), State::Waiting).leased(
                run(TWO, 1, 1),
                NODE,
                Purpose::Run,
            )
        };
        scribe::check(check, &called_after(1), "");
        scribe::check(check, &called_after(2), "within the silence");
    }
}
