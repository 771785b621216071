//! Promise 9, the other side of it: nothing is given to a handler after it has expired.

use std::collections::BTreeMap;

use waystation_core::message::MessageId;
use waystation_core::time::Timestamp;

use super::{Findings, Promise, Violation};
use crate::history::{History, Purpose, What};

pub(super) fn check(history: &History) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::Expiry);
    let mut expiries: BTreeMap<MessageId, Timestamp> = BTreeMap::new();
    for record in &history.records {
        if let What::Stored {
            id,
            expires_at: Some(at),
            ..
        } = &record.what
        {
            expiries.insert(*id, *at);
        } else if let What::Leased {
            run,
            begun,
            purpose: Purpose::Run,
            ..
        } = &record.what
        {
            let expired = expiries.get(&run.id).filter(|at| **at <= *begun);
            findings.expect(expired.is_none(), record.at, || {
                format!("{} is given although it expired at {expired:?}", run.id)
            });
        }
    }
    findings.found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::scribe::{self, NODE, ONE, Scribe, run};
    use super::*;
    use crate::plan::BEGIN;

    #[test]
    fn a_message_given_after_its_expiry_is_found() {
        let expiring = |after: u64| {
            let mut scribe = Scribe::default().stored(ONE);
            if let Some(What::Stored { expires_at, .. }) =
                scribe.0.records.last_mut().map(|record| &mut record.what)
            {
                *expires_at = Some(BEGIN + Duration::from_secs(after));
            }
            scribe.leased(run(ONE, 1, 1), NODE, Purpose::Run)
        };
        scribe::check(check, &expiring(2), "");
        scribe::check(check, &expiring(1), "although it expired");
    }
}
