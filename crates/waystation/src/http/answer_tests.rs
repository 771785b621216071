//! The answer table without a network: every status, every override, every form of a wait.

use super::*;

/// 2021-02-25 15:02:10 UTC.
const NOW: Timestamp = Timestamp::from_secs(1_614_265_330);

fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> Answer {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, value.parse().expect("a value"));
    }
    Answer {
        status: StatusCode::from_u16(status).expect("a status"),
        headers: map,
        body: body.into(),
    }
}

fn rules(outcomes: &[(u16, Override)]) -> Rules {
    Rules {
        outcomes: outcomes.iter().copied().collect(),
        retry_after_max: Duration::from_secs(3_600),
    }
}

fn wait_of(status: u16, headers: &[(&'static str, &str)]) -> Option<Option<Duration>> {
    match rules(&[]).read(&answer(status, headers, ""), NOW).outcome {
        Outcome::Throttled { retry_after, .. } => Some(retry_after),
        Outcome::Completed
        | Outcome::Failed(_)
        | Outcome::Unreachable(_)
        | Outcome::Refused(_)
        | Outcome::Panicked(_)
        | Outcome::Lost
        | Outcome::Snoozed { .. }
        | Outcome::Parked { .. }
        | Outcome::HandedBack
        | Outcome::GraceOver => None,
    }
}

#[test]
fn every_status_has_its_row() {
    for status in 200..=599 {
        let seen = rules(&[]).read(&answer(status, &[], ""), NOW);
        let code = seen
            .outcome
            .failure()
            .map(|failure| failure.code.to_string());
        let http = Some(format!("http_{status}"));
        let (word, finding, expected) = match status {
            200..=299 => ("completed", Finding::SUCCESS, None),
            429 => ("throttled", Finding::ANSWERED, http),
            502 | 504 => ("failed", Finding::BOTH, http),
            401 | 403 | 407 => ("failed", Finding::OPERATION, Some("credentials".into())),
            408 | 425 | 500..=599 => ("failed", Finding::OPERATION, http),
            300..=399 => ("refused", Finding::SUCCESS, Some("redirect".into())),
            _ => ("refused", Finding::SUCCESS, http),
        };
        assert_eq!(seen.outcome.as_str(), word, "{status}");
        assert_eq!(seen.finding, finding, "{status}");
        assert_eq!(code, expected, "{status}");
    }
}

#[test]
fn a_wait_is_seconds_or_a_date_and_garbage_is_absent() {
    for (value, secs) in [
        ("1", Some(1)),
        (" 120 ", Some(120)),
        ("3600", Some(3_600)),
        ("3601", Some(3_600)),
        ("999999999999999999", Some(3_600)),
        ("99999999999999999999999999", Some(3_600)),
        ("0", None),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("1e3", None),
        ("0x10", None),
        ("soon", None),
        ("１２", None),
        ("30s", None),
        ("Thu, 25 Feb 2021 15:02:40 GMT", Some(30)),
        ("Thursday, 25-Feb-21 15:02:40 GMT", Some(30)),
        ("Thu Feb 25 15:02:40 2021", Some(30)),
        ("Fri, 26 Feb 2021 15:02:10 GMT", Some(3_600)),
        ("Thu, 25 Feb 2021 15:02:10 GMT", None),
        ("Thu, 25 Feb 2021 15:02:09 GMT", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", None),
        ("Thu, 25 Feb 2021 25:02:40 GMT", None),
        ("2021-02-25T15:02:40Z", None),
    ] {
        let expected = secs.map(Duration::from_secs);
        assert_eq!(
            wait_of(429, &[("retry-after", value)]),
            Some(expected),
            "{value:?}"
        );
        // A 503 is throttling only where the wait can be understood.
        let on_503 = wait_of(503, &[("retry-after", value)]);
        assert_eq!(on_503, expected.map(Some), "{value:?}");
    }
}

#[test]
fn our_own_delay_goes_before_retry_after() {
    for (delay, secs) in [
        ("30s", 30),
        ("1m30s", 90),
        ("9h", 3_600),
        ("soon", 7),
        ("0s", 7),
    ] {
        let headers = [("waystation-delay", delay), ("retry-after", "7")];
        assert_eq!(
            wait_of(429, &headers),
            Some(Some(Duration::from_secs(secs))),
            "{delay}"
        );
    }
}

#[test]
fn the_response_header_goes_before_the_outcomes_and_these_before_the_table() {
    let rules = rules(&[(409, Override::Complete), (200, Override::Terminal)]);
    let read = |status, headers: &[(&'static str, &str)]| {
        let seen = rules.read(&answer(status, headers, ""), NOW);
        (seen.outcome.as_str(), seen.finding)
    };
    assert_eq!(read(409, &[]), ("completed", Finding::SUCCESS));
    assert_eq!(read(200, &[]), ("refused", Finding::SUCCESS));
    assert_eq!(read(201, &[]), ("completed", Finding::SUCCESS));
    for (word, outcome, finding) in [
        ("complete", "completed", Finding::SUCCESS),
        ("retry", "failed", Finding::OPERATION),
        ("throttled", "throttled", Finding::ANSWERED),
        ("terminal", "refused", Finding::SUCCESS),
        ("snooze", "snoozed", Finding::ANSWERED),
        ("Park", "parked", Finding::ANSWERED),
    ] {
        for status in [200, 409, 500, 404, 302] {
            let seen = read(status, &[("waystation-outcome", word)]);
            assert_eq!(seen, (outcome, finding), "{status} {word}");
        }
    }
    let seen = read(409, &[("waystation-outcome", "dance")]);
    assert_eq!(seen, ("completed", Finding::SUCCESS));
    let seen = read(502, &[("waystation-outcome", "retry")]);
    assert_eq!(seen, ("failed", Finding::BOTH));
}

#[test]
fn a_failure_says_what_the_handler_said() {
    let headers = [("waystation-error-code", "CARD_DECLINED")];
    let seen = rules(&[]).read(&answer(422, &headers, "no\r\nfunds\u{7}"), NOW);
    let failure = seen.outcome.failure().expect("one");
    assert_eq!(&*failure.code, "CARD_DECLINED");
    assert_eq!(&*failure.message, "no  funds ");
    assert_eq!(failure.status, Some(422));
    let seen = rules(&[]).read(&answer(500, &[], ""), NOW);
    let failure = seen.outcome.failure().expect("one");
    assert_eq!(&*failure.message, "answered 500 Internal Server Error");
    let seen = rules(&[]).read(
        &answer(302, &[("location", "http://169.254.169.254/")], ""),
        NOW,
    );
    let failure = seen.outcome.failure().expect("one");
    assert!(
        failure.message.contains("http://169.254.169.254/"),
        "{}",
        failure.message
    );
    let broken = Answer {
        body: vec![0xff, b'a', 0, 0xc3],
        ..answer(500, &[], "")
    };
    let seen = rules(&[]).read(&broken, NOW);
    assert_eq!(
        &*seen.outcome.failure().expect("one").message,
        "\u{fffd}a \u{fffd}"
    );
}

#[test]
fn a_retry_may_name_its_wait() {
    let headers = [("waystation-outcome", "retry"), ("waystation-delay", "90s")];
    let seen = rules(&[]).read(&answer(200, &headers, ""), NOW).outcome;
    let wait = seen.failure().expect("one").retry_after;
    assert_eq!(wait, Some(Duration::from_secs(90)));
}

#[test]
fn a_snooze_has_a_length_and_a_park_a_reason() {
    let snooze = |headers: &[(&'static str, &str)]| {
        let mut all = vec![("waystation-outcome", "snooze")];
        all.extend(headers);
        rules(&[]).read(&answer(200, &all, ""), NOW).outcome
    };
    let of = |delay| Outcome::Snoozed { delay };
    assert_eq!(snooze(&[]), of(SNOOZE_DEFAULT));
    assert_eq!(
        snooze(&[("waystation-delay", "2h")]),
        of(Duration::from_secs(7_200))
    );
    assert_eq!(snooze(&[("waystation-delay", "9999d")]), of(SNOOZE_MAX));
    assert_eq!(snooze(&[("retry-after", "5")]), of(Duration::from_secs(5)));
    let parked = answer(200, &[("waystation-outcome", "park")], "limit reached");
    assert_eq!(
        rules(&[]).read(&parked, NOW).outcome,
        Outcome::Parked {
            reason: "limit reached".into()
        }
    );
}

#[test]
fn a_duration_is_numbers_with_units() {
    for (text, millis) in [
        ("250ms", Some(250)),
        ("30s", Some(30_000)),
        ("1h30m", Some(5_400_000)),
        ("1d", Some(86_400_000)),
        ("", None),
        ("30", None),
        ("s", None),
        ("30 s", None),
        ("-1s", None),
        ("1.5s", None),
        ("99999999999s", None),
        ("1y", None),
        ("ä", None),
        ("1ä", None),
    ] {
        assert_eq!(
            duration(text),
            millis.map(Duration::from_millis),
            "{text:?}"
        );
    }
}
