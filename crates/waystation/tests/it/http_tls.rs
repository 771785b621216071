//! `https` destinations with certificates of our own making.

use waystation::http::{Endpoint, HttpHandler};
use waystation_core::outcome::{Finding, Outcome};

use waystation_testkit::evil::destination::{Behaviour, Evil, answer};
use waystation_testkit::evil::tls::{Authority, self_signed};

use crate::http::{code, handle, handler};
use crate::http_names::Stub;

fn to_pay_example(evil: &Evil, trusted: &Authority) -> HttpHandler {
    let endpoint = Endpoint {
        allow_private: true,
        tls: Some(trusted.trusted()),
        ..Endpoint::at("https://pay.example/")
    };
    handler(endpoint).with_resolver(Stub::of(&[evil.address]))
}

fn ok() -> Behaviour {
    Behaviour::Answer(answer("200 OK", "", ""))
}

#[tokio::test]
async fn a_trusted_destination_is_posted_to_and_its_connection_kept() {
    let authority = Authority::new("ours");
    let evil = Evil::start_with(vec![ok()], Some(authority.serves("pay.example"))).await;
    let handler = to_pay_example(&evil, &authority);
    for _ in 0..5 {
        let seen = handle(&handler).await;
        assert_eq!(seen.outcome, Outcome::Completed, "{seen:?}");
    }
    assert_eq!((evil.connections(), evil.requests()), (1, 5));
}

#[tokio::test]
async fn an_unknown_issuer_and_a_wrong_host_are_tls_and_nothing_is_posted() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    for (host, issuer, hint) in [
        ("pay.example", &theirs, "UnknownIssuer"),
        ("other.example", &ours, "not valid for name"),
    ] {
        let evil = Evil::start_with(vec![ok()], Some(issuer.serves(host))).await;
        let seen = handle(&to_pay_example(&evil, &ours)).await;
        assert_eq!((seen.outcome.as_str(), code(&seen)), ("unreachable", "tls"));
        assert_eq!(seen.finding, Finding::UNREACHABLE);
        let message = &seen.outcome.failure().expect("one").message;
        assert!(message.contains(hint), "{message}");
        assert_eq!(evil.requests(), 0);
    }
}

#[tokio::test]
async fn an_expired_and_a_self_signed_certificate_are_tls_and_nothing_is_posted() {
    let authority = Authority::new("ours");
    for (tls, hint) in [
        (authority.serves_expired("pay.example"), "expired"),
        (self_signed("pay.example"), "UnknownIssuer"),
    ] {
        let evil = Evil::start_with(vec![ok()], Some(tls)).await;
        let seen = handle(&to_pay_example(&evil, &authority)).await;
        assert_eq!((seen.outcome.as_str(), code(&seen)), ("unreachable", "tls"));
        assert_eq!(seen.finding, Finding::UNREACHABLE);
        let message = &seen.outcome.failure().expect("one").message;
        assert!(message.contains(hint), "{message}");
        assert_eq!(evil.requests(), 0);
    }
}

#[tokio::test]
async fn plain_http_behind_https_and_a_silent_handshake_are_tls() {
    let authority = Authority::new("ours");
    for behaviour in [
        Behaviour::Banner(answer("400 Bad", "", "")),
        Behaviour::HangAtOnce,
        Behaviour::HangInHandshake,
    ] {
        let evil = Evil::start(vec![behaviour]).await;
        let seen = handle(&to_pay_example(&evil, &authority)).await;
        assert_eq!((seen.outcome.as_str(), code(&seen)), ("unreachable", "tls"));
    }
}

#[tokio::test]
async fn a_reset_within_the_handshake_is_a_reset() {
    let authority = Authority::new("ours");
    for behaviour in [Behaviour::ResetAtOnce, Behaviour::CloseAtOnce] {
        let evil = Evil::start(vec![behaviour]).await;
        let seen = handle(&to_pay_example(&evil, &authority)).await;
        assert_eq!(
            (seen.outcome.as_str(), code(&seen)),
            ("unreachable", "reset")
        );
    }
}

#[tokio::test]
async fn a_tls_connection_that_died_while_it_waited_burns_no_attempt() {
    let authority = Authority::new("ours");
    let first = Behaviour::AnswerAndClose(answer("200 OK", "", ""));
    let tls = Some(authority.serves("pay.example"));
    let evil = Evil::start_with(vec![first, ok()], tls).await;
    let handler = to_pay_example(&evil, &authority);
    assert_eq!(handle(&handler).await.outcome, Outcome::Completed);
    evil.closed().await;
    assert_eq!(handle(&handler).await.outcome, Outcome::Completed);
    assert_eq!((evil.connections(), evil.requests()), (2, 2));
}

#[tokio::test]
async fn the_systems_authorities_do_not_vouch_for_a_certificate_of_our_own_making() {
    let tls = Some(Authority::new("ours").serves("pay.example"));
    let evil = Evil::start_with(vec![ok()], tls).await;
    let endpoint = Endpoint {
        allow_private: true,
        ..Endpoint::at("https://pay.example/")
    };
    let seen = handle(&handler(endpoint).with_resolver(Stub::of(&[evil.address]))).await;
    assert_eq!((seen.outcome.as_str(), code(&seen)), ("unreachable", "tls"));
    assert_eq!(evil.requests(), 0);
}
