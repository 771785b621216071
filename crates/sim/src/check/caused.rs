//! Promise 6, what goes with an end: the message that it is to set off is written in the same
//! transaction, and once.

use std::collections::BTreeMap;

use waystation_core::message::{MessageId, State};
use waystation_core::time::Timestamp;

use super::{Findings, Promise, Violation};
use crate::history::{History, What};

/// What became of one message, as far as it matters here.
#[derive(Default)]
struct Ends {
    /// Ends that were to set off a message; it may end once in each generation.
    wanted: u32,
    /// Ends that may have been: what expires while it waits says nothing of it.
    perhaps: u32,
    caused: u32,
    last_at: Timestamp,
}

pub(super) fn check(history: &History) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::Caused);
    let mut ends: BTreeMap<MessageId, Ends> = BTreeMap::new();
    for record in &history.records {
        if let What::Stored {
            cause: Some(cause), ..
        } = &record.what
        {
            ends.entry(*cause).or_default().caused += 1;
        } else if let What::Expired { id } = &record.what {
            ends.entry(*id).or_default().perhaps += 1;
        } else if let What::Settled {
            id,
            state: State::Dead | State::Cancelled,
            follow_up: true,
            ..
        } = &record.what
        {
            let ends = ends.entry(*id).or_default();
            ends.wanted += 1;
            ends.last_at = record.at;
        }
    }
    for (id, ends) in ends {
        let fits = (ends.wanted..=ends.wanted + ends.perhaps).contains(&ends.caused);
        findings.expect(fits, ends.last_at, || {
            let (wanted, caused) = (ends.wanted, ends.caused);
            format!("{wanted} ends of {id} were to set off a message, and set off {caused}")
        });
    }
    findings.found
}

#[cfg(test)]
mod tests {
    use super::super::scribe::{self, ONE, Scribe, Settled, TWO, run};
    use super::*;

    fn dead() -> Scribe {
        Scribe::default().stored(ONE).settled_as(Settled {
            state: State::Dead,
            follow_up: true,
            ..Settled::of(run(ONE, 1, 1))
        })
    }

    fn and_then(scribe: Scribe) -> Scribe {
        let mut scribe = scribe.stored(TWO);
        if let Some(What::Stored { cause, .. }) =
            scribe.0.records.last_mut().map(|record| &mut record.what)
        {
            *cause = Some(ONE);
        }
        scribe
    }

    #[test]
    fn an_end_that_sets_off_nothing_or_too_much_is_found() {
        scribe::check(check, &and_then(dead()), "");
        scribe::check(check, &dead(), "and set off 0");
        scribe::check(check, &and_then(and_then(dead())), "and set off 2");
    }
}
