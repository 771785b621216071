//! The arithmetic and the verdicts, also of runs in which a promise was broken.

use serde_json::json;

use super::*;

fn date(at: Moment) -> String {
    let date = jiff::Timestamp::from_millisecond(at).expect("it is in range");
    date.to_string()
}

fn call(listener: &str, id: &str, attempt: u64, at: Moment, status: Option<u16>) -> Call {
    Call {
        seq: 1,
        at: date(at),
        listener: listener.to_owned(),
        id: Some(id.to_owned()),
        attempt: Some(attempt),
        status,
    }
}

fn accepted(id: &str, destination: &'static str, at: Moment) -> Accepted {
    Accepted {
        id: id.to_owned(),
        destination,
        at,
    }
}

fn attempt(number: u64, outcome: &str, counted: bool, refunded: bool) -> Attempt {
    let class = (outcome == "unreachable").then_some("unavailable");
    serde_json::from_value(json!({
        "attempt": number,
        "outcome": outcome,
        "class": class,
        "counted": counted,
        "refunded": refunded,
        "started_at": date(1_000),
    }))
    .expect("it is well formed")
}

const OUTAGE: Span = Span {
    from: 1_000,
    to: 5_000,
};

fn healed() -> Figures {
    Figures {
        total: 20_000,
        accepted: 20_000,
        in_states: 20_000,
        delivered: 20_000,
        attempts: 20_400,
        refunded: 37,
        sampled: 120,
        open_ms: 9_500,
        in_flight: 3,
        detect_ms: Some(40),
        drain_ms: Some(9_800),
        close_ms: Some(8_000),
        ramped: true,
        others_sent: 7_000,
        others_delivered: 6_990,
        ..Figures::default()
    }
}

fn check(change: impl FnOnce(&mut Figures), expected: &[&str]) {
    let mut figures = healed();
    change(&mut figures);
    let verdicts = judge(&figures);
    let broken: Vec<&str> = verdicts
        .iter()
        .filter(|verdict| !verdict.kept)
        .map(|verdict| verdict.promise)
        .collect();
    assert_eq!(broken, expected);
    for verdict in &verdicts {
        let line = verdict.line();
        assert!(line.chars().count() <= 80, "{line}");
        assert!(line.ends_with(&verdict.because), "{line} was cut");
        assert_eq!(line.starts_with("BROKEN"), !verdict.kept);
    }
}

#[test]
fn a_run_that_healed_keeps_every_promise() {
    check(|_| {}, &[]);
}

#[test]
fn explained_duplicates_and_calls_under_way_break_nothing() {
    check(
        |figures| {
            figures.duplicates = 4;
            figures.in_flight = 30;
        },
        &[],
    );
}

#[test]
fn each_broken_promise_is_named() {
    check(
        |figures| {
            figures.delivered -= 1;
            figures.lost = 1;
        },
        &["nothing is lost"],
    );
    check(|figures| figures.unfinished = 1, &["nothing is lost"]);
    check(|figures| figures.in_states -= 1, &["accepted means kept"]);
    check(
        |figures| {
            figures.duplicates = 1;
            figures.duplicates_without_cause = 1;
        },
        &["a duplicate has a cause"],
    );
    check(
        |figures| {
            figures.dead = 1;
            figures.delivered -= 1;
        },
        &["an outage kills nothing"],
    );
    check(|figures| figures.parked = 1, &["an outage kills nothing"]);
    check(
        |figures| figures.calls_while_open = 1,
        &["open means no calls"],
    );
    check(|figures| figures.burned = 1, &["waiting costs no attempts"]);
    check(
        |figures| figures.others_delivered = 100,
        &["the others flow on"],
    );
    check(|figures| figures.close_ms = None, &["it heals by itself"]);
    check(|figures| figures.ramped = false, &["it heals by itself"]);
}

#[test]
fn what_was_not_seen_is_not_called_kept() {
    check(|figures| figures.open_ms = 0, &["open means no calls"]);
    check(
        |figures| figures.sampled = 0,
        &["waiting costs no attempts"],
    );
    check(
        |figures| {
            figures.others_sent = 0;
            figures.others_delivered = 0;
        },
        &["the others flow on"],
    );
}

#[test]
fn the_table_fits_80_columns_and_has_every_figure() {
    let table = table(&healed());
    assert!(table.iter().all(|line| line.chars().count() <= 80));
    let text = table.join("\n");
    for name in [
        "accepted",
        "delivered",
        "lost",
        "duplicates",
        "dead",
        "attempts made",
        "refunded",
        "while open",
        "to detect",
        "to drain",
    ] {
        assert!(text.contains(name), "{name} in {text}");
    }
}

#[test]
fn deliveries_are_read_off_the_destinations_log() {
    let calls = [
        call("smtp", "a", 1, 1_000, Some(500)),
        call("smtp", "a", 2, 1_100, Some(200)),
        call("smtp", "b", 1, 1_200, None),
        call("sms", "c", 1, 1_300, Some(200)),
        call("sms", "c", 2, 1_400, Some(204)),
    ];
    let deliveries = Deliveries::read(&calls);
    let sent = [
        accepted("a", "smtp", 900),
        accepted("b", "smtp", 900),
        accepted("c", "sms", 900),
    ];
    assert_eq!(deliveries.delivered(&sent), 2);
    let missing: Vec<&str> = deliveries
        .missing(&sent)
        .iter()
        .map(|m| m.id.as_str())
        .collect();
    assert_eq!(missing, ["b"]);
    assert_eq!(deliveries.repeated(), BTreeMap::from([("c", 2)]));
}

#[test]
fn only_calls_to_the_open_destination_inside_its_open_times_count() {
    let calls = [
        call("smtp", "before", 1, 999, None),
        call("smtp", "at the trip", 1, 1_000, None),
        call("smtp", "inside", 1, 2_000, None),
        call("sms", "neighbour", 1, 2_000, Some(200)),
        call("smtp", "the probe", 1, 5_000, Some(200)),
    ];
    let inside = calls_in(&calls, "smtp", &[OUTAGE]);
    let inside: Vec<_> = inside.iter().map(|(call, _)| call.id.as_deref()).collect();
    assert_eq!(inside, [Some("inside")]);
}

#[test]
fn a_call_whose_attempt_began_before_the_trip_was_under_way() {
    let late = call("smtp", "a", 2, 1_050, None);
    let began_before = [attempt(2, "unreachable", false, false)];
    assert!(was_in_flight(&late, OUTAGE, &began_before));
    let another_attempt = [attempt(1, "unreachable", false, false)];
    assert!(!was_in_flight(&late, OUTAGE, &another_attempt));
    let mut began_after = began_before;
    began_after[0].started_at = Some(date(1_001));
    assert!(!was_in_flight(&late, OUTAGE, &began_after));
}

#[test]
fn a_duplicate_is_explained_by_attempts_that_ended_without_success() {
    let lost_then_done = [
        attempt(1, "lost", false, false),
        attempt(2, "completed", true, false),
    ];
    assert!(has_cause(2, &lost_then_done));
    assert!(!has_cause(3, &lost_then_done));
    assert!(!has_cause(2, &[attempt(1, "completed", true, false)]));
    assert!(!has_cause(2, &[]));
}

#[test]
fn an_attempt_is_burned_when_the_outage_took_it_for_good() {
    for (outcome, counted, refunded, expected) in [
        ("unreachable", true, false, 1),
        ("unreachable", true, true, 0),
        ("unreachable", false, false, 0),
        ("failed", true, false, 0),
        ("completed", true, false, 0),
    ] {
        let attempts = [attempt(1, outcome, counted, refunded)];
        assert_eq!(
            burned(&attempts),
            expected,
            "{outcome} {counted} {refunded}"
        );
    }
}

#[test]
fn the_sample_has_unanswered_messages_first_and_spreads_over_the_outage() {
    let calls = [call("smtp", "hit", 1, 1_000, None)];
    let mut sent = vec![accepted("hit", "smtp", 900)];
    let waited: Vec<String> = (0..100).map(|number| format!("w{number}")).collect();
    for id in &waited {
        sent.push(accepted(id, "smtp", 2_000));
        sent.push(accepted(&format!("late {id}"), "smtp", 9_000));
        sent.push(accepted(&format!("sms {id}"), "sms", 2_000));
    }
    let chosen = sample(&calls, &sent, "smtp", OUTAGE, 20);
    assert_eq!(
        chosen,
        [
            "hit", "w0", "w10", "w20", "w30", "w40", "w50", "w60", "w70", "w80", "w90"
        ]
    );
}

#[test]
fn what_the_others_got_meanwhile_counts_only_inside_the_outage() {
    let sent = [
        accepted("a", "sms", 2_000),
        accepted("b", "sms", 2_000),
        accepted("early", "sms", 100),
        accepted("mail", "smtp", 2_000),
    ];
    let calls = [
        call("sms", "a", 1, 2_100, Some(200)),
        call("sms", "a", 2, 2_200, Some(200)),
        call("sms", "b", 1, 9_000, Some(200)),
        call("sms", "early", 1, 2_100, Some(200)),
    ];
    assert_eq!(meanwhile(&calls, &sent, "smtp", OUTAGE), (2, 1));
}
