//! The request of an attempt as it stands on the wire, and what must never get into it.

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use waystation::Handler;
use waystation::http::{Endpoint, SecretValue};
use waystation_core::name::Key;
use waystation_core::outcome::{Finding, Outcome};

use crate::http::{ID, code, delivery_of, handler, head_of, message, ok};
use waystation_testkit::evil::destination::{Behaviour, Evil};

#[tokio::test]
async fn a_request_carries_what_the_protocol_says_and_the_payload_as_sent() {
    let mut evil = Evil::start(vec![Behaviour::Answer(ok())]).await;
    let mut endpoint = Endpoint::at(evil.url("/send?x=1"));
    endpoint.headers = vec![("Authorization".into(), SecretValue::new("Bearer s3cret"))];
    let secrets = [
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    ];
    endpoint.secrets = secrets.map(SecretValue::new).to_vec();
    let mut message = message();
    message.key = Some(Key::new("order ä").expect("a key"));
    message.headers = [
        (
            "traceparent".into(),
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        ),
        ("x-tenant".into(), "acme".into()),
    ]
    .into();
    let delivery = delivery_of(message);
    let seen = handler(endpoint)
        .handle(&delivery, &CancellationToken::new())
        .await;
    assert_eq!(seen.outcome, Outcome::Completed);
    assert_eq!(seen.finding, Finding::SUCCESS);
    let (head, body) = head_of(&evil.heard().await);
    assert_eq!(body, "{\"to\" : 1}");
    // Computed with `openssl dgst -sha256 -mac HMAC` over id, time and body divided by dots.
    let signature = "webhook-signature: v1,8po/7ISbJjgYjZExCKRHsE9VSs2uS5kMkDgK+QoA4bA= v1,hbI7gjXx6gczbK7rCq5CV+zs12IS2xGhpixjjmiGqY8=";
    for line in [
        "POST /send?x=1 HTTP/1.1",
        &format!("host: {}", evil.address),
        "content-type: application/json",
        "content-length: 10",
        "authorization: Bearer s3cret",
        &format!("waystation-id: {ID}"),
        "waystation-queue: mail",
        "waystation-kind: email.send",
        "waystation-attempt: 3",
        "waystation-fence: 7",
        "waystation-key: order %C3%A4",
        "waystation-deadline: 2021-02-25T15:02:40.000Z",
        &format!("idempotency-key: {ID}"),
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "x-tenant: acme",
        &format!("webhook-id: {ID}"),
        "webhook-timestamp: 1614265330",
        signature,
    ] {
        let count = head.iter().filter(|other| *other == line).count();
        assert_eq!(count, 1, "{line} in {head:#?}");
    }
}

#[tokio::test]
async fn a_later_version_has_an_idempotency_key_and_a_webhook_id_of_its_own() {
    let mut evil = Evil::start(vec![Behaviour::Answer(ok())]).await;
    let mut endpoint = Endpoint::at(evil.url("/"));
    endpoint.secrets = vec![SecretValue::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")];
    let mut message = message();
    message.version = 2;
    let delivery = delivery_of(message);
    handler(endpoint)
        .handle(&delivery, &CancellationToken::new())
        .await;
    let (head, _) = head_of(&evil.heard().await);
    assert!(head.contains(&format!("waystation-id: {ID}")), "{head:#?}");
    assert!(
        head.contains(&format!("idempotency-key: {ID}-2")),
        "{head:#?}"
    );
    assert!(head.contains(&format!("webhook-id: {ID}-2")), "{head:#?}");
}

#[tokio::test]
async fn a_messages_own_headers_override_nothing() {
    let mut evil = Evil::start(vec![Behaviour::Answer(ok())]).await;
    let mut endpoint = Endpoint::at(evil.url("/"));
    endpoint.headers = vec![
        ("Authorization".into(), SecretValue::new("Bearer ours")),
        ("X-Api-Key".into(), SecretValue::new("ours")),
    ];
    let mut message = message();
    let names = [
        "host",
        "authorization",
        "x-api-key",
        "content-length",
        "content-type",
        "transfer-encoding",
        "connection",
        "te",
        "upgrade",
        "expect",
        "idempotency-key",
        "waystation-fence",
        "waystation-anything",
        "webhook-signature",
        "proxy-authorization",
    ];
    message.headers = names.map(|name| (name.into(), "evil".into())).into();
    let delivery = delivery_of(message);
    let seen = handler(endpoint)
        .handle(&delivery, &CancellationToken::new())
        .await;
    assert_eq!(seen.outcome, Outcome::Completed);
    let (head, _) = head_of(&evil.heard().await);
    assert!(!head.iter().any(|line| line.contains("evil")), "{head:#?}");
    assert!(head.contains(&"x-api-key: ours".to_owned()), "{head:#?}");
}

#[tokio::test]
async fn a_header_that_would_break_the_head_apart_is_refused_and_nothing_is_sent() {
    let evil = Evil::start(vec![Behaviour::Answer(ok())]).await;
    let handler = handler(Endpoint::at(evil.url("/")));
    for (name, value) in [
        ("x-a", "1\r\nwaystation-fence: 99"),
        ("x-a", "1\nx-b: 2"),
        ("x-a", "1\r\n\r\nGET / HTTP/1.1"),
        ("x-a", "1\0"),
        ("x-a: 1\r\nx-b", "2"),
        ("x a", "1"),
        ("", "1"),
    ] {
        let mut message = message();
        message.headers = [(name.into(), value.into())].into();
        let seen = handler
            .handle(&delivery_of(message), &CancellationToken::new())
            .await;
        assert_eq!(seen.outcome.as_str(), "refused", "{name:?}: {value:?}");
        assert_eq!(code(&seen), "invalid_header");
        assert_eq!(seen.finding, Finding::NOTHING);
    }
    let mut message = message();
    message.payload.content_type = "text/plain\r\nx-b: 2".into();
    let seen = handler
        .handle(&delivery_of(message), &CancellationToken::new())
        .await;
    assert_eq!(code(&seen), "invalid_header");
    assert_eq!(evil.connections(), 0);
}

#[tokio::test]
async fn a_payload_of_a_mebibyte_arrives_byte_for_byte_and_an_empty_one_too() {
    let mut evil = Evil::start(vec![Behaviour::Answer(ok())]).await;
    let handler = handler(Endpoint::at(evil.url("/")));
    let bytes = (0..1_u32 << 18).flat_map(u32::to_le_bytes).collect();
    for bytes in [bytes, Bytes::new()] {
        let mut message = message();
        message.payload.bytes = Bytes::clone(&bytes);
        let delivery = delivery_of(message);
        let seen = handler.handle(&delivery, &CancellationToken::new()).await;
        assert_eq!(seen.outcome, Outcome::Completed);
        assert!(evil.heard().await.ends_with(&bytes));
    }
    assert_eq!((evil.connections(), evil.requests()), (1, 2));
}
