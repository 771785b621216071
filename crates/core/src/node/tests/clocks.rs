//! A node whose clock is not the store's, one that has stood still, and struck messages.

use super::*;

fn asked_lost(desk: &mut Desk) -> Ticket {
    let asked = desk.take(|command| match command {
        Command::Claim { ticket, request } if matches!(request.what, ClaimWhat::Lost) => {
            Some(*ticket)
        }
        _ => None,
    });
    asked.expect("it looks for lost leases")
}

/// The outcome with which a lost lease of this message is settled.
fn settled_as(desk: &mut Desk, mut lost: Delivery) -> &'static str {
    lost.record.fence = Fence(lost.record.fence.0 + 1);
    let ticket = asked_lost(desk);
    let answer = Ok(Claimed {
        deliveries: vec![lost],
        ..Claimed::default()
    });
    desk.tell([Input::Claimed { ticket, answer }]);
    let (_, request) = desk.asked_settle().expect("it settles what is lost");
    let ended = request.settlements[0].ended.as_ref();
    ended.expect("an attempt ended").outcome
}

#[test]
fn a_lease_lost_while_its_own_process_stood_still_is_no_strike() {
    let mut desk = Desk::new(4);
    desk.now = desk.now + Duration::from_secs(5);
    desk.tell([Input::Wake]);
    assert_eq!(settled_as(&mut desk, delivery(1)), "lost");

    // Its handler runs here: whoever was taken down, it was not this worker.
    let mut desk = Desk::new(4);
    desk.give(vec![delivery(1)]);
    let lease = desk.ran().expect("it runs");
    desk.now = desk.now + Duration::from_secs(5);
    desk.tell([Input::Wake]);
    assert_eq!(settled_as(&mut desk, delivery(1)), "handed_back");
    let cancelled = desk.take(|command| match command {
        Command::Cancel(lease) => Some(*lease),
        _ => None,
    });
    assert_eq!(cancelled, Some(lease));

    // It was to be woken long ago: what others have lost since then, they may have lost as it did.
    let mut desk = Desk::new(4);
    desk.now = desk.now + 3 * LEASE;
    desk.tell([Input::Wake]);
    assert_eq!(settled_as(&mut desk, delivery(1)), "handed_back");
}

#[test]
fn a_lease_is_renewed_by_our_own_clock_however_far_ahead_the_stores_is() {
    let mut desk = Desk::new(4);
    let mut ahead = delivery(1);
    ahead.started_at = ahead.started_at + 100 * LEASE;
    ahead.lease_until = ahead.started_at + LEASE;
    desk.give(vec![ahead]);
    for _ in 0..3 {
        desk.now = desk.now + LEASE / 3;
        desk.tell([Input::Wake]);
        let extend = desk.take(|command| match command {
            Command::Extend { ticket, until, .. } => Some((*ticket, *until)),
            _ => None,
        });
        let (ticket, until) = extend.expect("it renews at a third of the lease");
        assert_eq!(until, desk.now + LEASE);
        let answer = Ok(vec![Extended::Until(until + 100 * LEASE)]);
        desk.tell([Input::Extended { ticket, answer }]);
    }
}

#[test]
fn a_wait_begins_at_the_stores_time_where_our_clock_is_behind() {
    let mut desk = Desk::new(4);
    let mut ahead = delivery(1);
    ahead.started_at = ahead.started_at + 100 * LEASE;
    let started_at = ahead.started_at;
    desk.give(vec![ahead.clone()]);
    desk.finish(ahead.lease(), refused_connection());
    let (_, request) = desk.asked_settle().expect("it settles");
    let disposition = &request.settlements[0].decision.disposition;
    assert!(
        matches!(disposition, crate::decide::Disposition::Retry { due_at, .. } if *due_at >= started_at),
        "{disposition:?}"
    );
}

#[test]
fn of_a_workers_claims_under_way_only_one_may_bring_a_struck_message() {
    let mut desk = Desk::new(0);
    let wish = |worker: &str| Wish {
        kinds: Arc::from([KindPattern::new("work").expect("a pattern")]),
        queues: Arc::from([]),
        room: 1,
        lease: LEASE,
        until: desk.now + LEASE,
        worker: worker.into(),
    };
    let pulls = [wish("one"), wish("one"), wish("other")];
    let pulls = (1..).zip(pulls).map(|(n, wish)| Input::Pull {
        ticket: Ticket::of_asker(n),
        wish,
    });
    desk.tell(pulls.collect::<Vec<_>>());
    let claims: Vec<(String, bool)> = desk
        .said
        .iter()
        .filter_map(|command| match command {
            Command::Claim { request, .. } => match request.what {
                ClaimWhat::Due { struck, .. } => Some((request.worker.to_string(), struck)),
                _ => None,
            },
            _ => None,
        })
        .collect();
    let expected = [("one", true), ("one", false), ("other", true)];
    assert_eq!(
        claims,
        expected.map(|(worker, struck)| (worker.to_owned(), struck))
    );
}

#[test]
fn when_a_struck_message_ends_the_next_one_is_looked_for() {
    let mut desk = Desk::new(4);
    let mut struck = delivery(1);
    struck.record.standing = Standing::Struck;
    desk.give(vec![struck.clone()]);
    // This claim may not bring another, so that it says nothing of when one is due.
    desk.tell([Input::Rung]);
    let (ticket, request) = desk.asked_claim().expect("it looks for more");
    assert!(matches!(request.what, ClaimWhat::Due { struck: false, .. }));
    let answer = Ok(Claimed::default());
    desk.tell([Input::Claimed { ticket, answer }]);
    desk.finish(struck.lease(), Outcome::Completed);
    let (_, request) = desk.asked_claim().expect("it looks again");
    assert!(matches!(request.what, ClaimWhat::Due { struck: true, .. }));
}
