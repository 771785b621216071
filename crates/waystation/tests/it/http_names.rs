//! Names: who resolves them, how often, and what they may stand for.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use waystation::http::{Endpoint, Resolve};
use waystation_core::outcome::{Finding, Outcome};

use crate::http::{code, handle, handler, hasty, head_of, ok};
use waystation_testkit::evil::destination::{Behaviour, Evil};

/// Resolves every name to the same addresses and counts how often it was asked; none: never answers.
#[derive(Debug)]
pub(crate) struct Stub {
    addresses: Option<io::Result<Vec<SocketAddr>>>,
    asked: AtomicUsize,
}

impl Stub {
    pub(crate) fn of(addresses: &[SocketAddr]) -> Arc<Self> {
        Self::with(Some(Ok(addresses.to_vec())))
    }

    fn with(addresses: Option<io::Result<Vec<SocketAddr>>>) -> Arc<Self> {
        Arc::new(Self {
            addresses,
            asked: AtomicUsize::new(0),
        })
    }
}

#[async_trait]
impl Resolve for Stub {
    async fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match &self.addresses {
            Some(Ok(addresses)) => Ok(addresses.clone()),
            Some(Err(error)) => Err(error.kind().into()),
            None => std::future::pending().await,
        }
    }
}

#[tokio::test]
async fn a_literal_that_means_this_host_is_its_own_permission() {
    let evil = Evil::start(vec![Behaviour::Answer(ok())]).await;
    let port = evil.address.port();
    for host in [
        "127.0.0.1",
        "0.0.0.0",
        "2130706433",
        "0x7f.1",
        "[::ffff:127.0.0.1]",
    ] {
        let seen = handle(&handler(Endpoint::at(format!("http://{host}:{port}/")))).await;
        assert_eq!(seen.outcome, Outcome::Completed, "{host}: {seen:?}");
    }
}

#[tokio::test]
async fn a_name_that_stands_for_a_private_address_is_refused_before_a_connection() {
    let evil = Evil::start(vec![Behaviour::Answer(ok())]).await;
    let public: SocketAddr = "93.184.216.34:80".parse().expect("an address");
    let metadata: SocketAddr = "169.254.169.254:80".parse().expect("an address");
    for addresses in [
        vec![evil.address],
        vec![public, evil.address],
        vec![metadata],
    ] {
        let handler = handler(Endpoint::at("http://pay.example/"));
        let seen = handle(&handler.with_resolver(Stub::of(&addresses))).await;
        assert_eq!(
            (seen.outcome.as_str(), code(&seen)),
            ("refused", "private_address")
        );
        assert_eq!(seen.finding, Finding::NOTHING);
        let message = &seen.outcome.failure().expect("one").message;
        assert!(message.contains("allow_private"), "{message}");
    }
    assert_eq!(evil.connections(), 0);
}

#[tokio::test]
async fn a_name_is_asked_once_and_what_was_checked_is_what_is_connected_to() {
    let mut evil = Evil::start(vec![Behaviour::Answer(ok())]).await;
    let mut endpoint = Endpoint::at("http://pay.example:1/");
    endpoint.allow_private = true;
    let stub = Stub::of(&[evil.address]);
    let handler = handler(endpoint).with_resolver(Arc::clone(&stub) as Arc<dyn Resolve>);
    assert_eq!(handle(&handler).await.outcome, Outcome::Completed);
    assert_eq!(stub.asked.load(Ordering::SeqCst), 1);
    let (head, _) = head_of(&evil.heard().await);
    assert!(
        head.contains(&"host: pay.example:1".to_owned()),
        "{head:#?}"
    );
}

#[tokio::test]
async fn a_burst_of_attempts_asks_for_a_name_once() {
    let evil = Evil::start(vec![Behaviour::Answer(ok())]).await;
    let mut endpoint = Endpoint::at("http://pay.example/");
    endpoint.allow_private = true;
    let stub = Stub::of(&[evil.address]);
    let handler = handler(endpoint).with_resolver(Arc::clone(&stub) as Arc<dyn Resolve>);
    let all = futures_util::future::join_all((0..50).map(|_| handle(&handler))).await;
    assert!(all.iter().all(|seen| seen.outcome == Outcome::Completed));
    assert!(evil.connections() > 1);
    assert_eq!(stub.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_in_time_is_dns() {
    for found in [
        None,
        Some(Err(io::ErrorKind::NotFound.into())),
        Some(Ok(Vec::new())),
    ] {
        let handler = handler(hasty("http://pay.example/".into()));
        let seen = handle(&handler.with_resolver(Stub::with(found))).await;
        assert_eq!((seen.outcome.as_str(), code(&seen)), ("unreachable", "dns"));
        assert_eq!(seen.finding, Finding::UNREACHABLE);
    }
}

#[tokio::test]
async fn the_next_address_of_a_name_is_tried_before_a_byte_has_left() {
    let evil = Evil::start(vec![Behaviour::Answer(ok())]).await;
    let gone = Evil::start(vec![Behaviour::CloseAtOnce]).await.address;
    let mut endpoint = Endpoint::at("http://pay.example/");
    endpoint.allow_private = true;
    let handler = handler(endpoint).with_resolver(Stub::of(&[gone, evil.address]));
    assert_eq!(handle(&handler).await.outcome, Outcome::Completed);
    assert_eq!(evil.requests(), 1);
}
