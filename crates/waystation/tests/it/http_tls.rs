//! `https` destinations with certificates of our own making.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use waystation::http::{Endpoint, HttpHandler};
use waystation_core::outcome::{Finding, Outcome};

use crate::evil::{Behaviour, Evil, answer};
use crate::http::{code, handle, handler};
use crate::http_names::Stub;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn serves(host: &str, by: &Authority) -> TlsAcceptor {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![host.to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, by).expect("signed");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a certificate");
    TlsAcceptor::from(Arc::new(config))
}

fn trusts(authority: &Authority) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).expect("a root");
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

fn to_pay_example(evil: &Evil, trusted: &Authority) -> HttpHandler {
    let endpoint = Endpoint {
        allow_private: true,
        tls: Some(trusts(trusted)),
        ..Endpoint::at("https://pay.example/")
    };
    handler(endpoint).with_resolver(Stub::of(&[evil.address]))
}

fn ok() -> Behaviour {
    Behaviour::Answer(answer("200 OK", "", ""))
}

#[tokio::test]
async fn a_trusted_destination_is_posted_to_and_its_connection_kept() {
    let authority = authority("ours");
    let evil = Evil::start_with(vec![ok()], Some(serves("pay.example", &authority))).await;
    let handler = to_pay_example(&evil, &authority);
    for _ in 0..5 {
        let seen = handle(&handler).await;
        assert_eq!(seen.outcome, Outcome::Completed, "{seen:?}");
    }
    assert_eq!((evil.connections(), evil.requests()), (1, 5));
}

#[tokio::test]
async fn an_unknown_issuer_and_a_wrong_host_are_tls_and_nothing_is_posted() {
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    for (host, issuer, hint) in [
        ("pay.example", &theirs, "UnknownIssuer"),
        ("other.example", &ours, "not valid for name"),
    ] {
        let evil = Evil::start_with(vec![ok()], Some(serves(host, issuer))).await;
        let seen = handle(&to_pay_example(&evil, &ours)).await;
        assert_eq!((seen.outcome.as_str(), code(&seen)), ("unreachable", "tls"));
        assert_eq!(seen.finding, Finding::UNREACHABLE);
        let message = &seen.outcome.failure().expect("one").message;
        assert!(message.contains(hint), "{message}");
        assert_eq!(evil.requests(), 0);
    }
}

#[tokio::test]
async fn plain_http_behind_https_and_a_silent_handshake_are_tls() {
    let authority = authority("ours");
    for behaviour in [
        Behaviour::Banner(answer("400 Bad", "", "")),
        Behaviour::HangAtOnce,
    ] {
        let evil = Evil::start(vec![behaviour]).await;
        let seen = handle(&to_pay_example(&evil, &authority)).await;
        assert_eq!((seen.outcome.as_str(), code(&seen)), ("unreachable", "tls"));
    }
}

#[tokio::test]
async fn a_reset_within_the_handshake_is_a_reset() {
    let authority = authority("ours");
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
    let authority = authority("ours");
    let first = Behaviour::AnswerAndClose(answer("200 OK", "", ""));
    let tls = Some(serves("pay.example", &authority));
    let evil = Evil::start_with(vec![first, ok()], tls).await;
    let handler = to_pay_example(&evil, &authority);
    assert_eq!(handle(&handler).await.outcome, Outcome::Completed);
    evil.closed().await;
    assert_eq!(handle(&handler).await.outcome, Outcome::Completed);
    assert_eq!((evil.connections(), evil.requests()), (2, 2));
}

#[tokio::test]
async fn the_systems_authorities_do_not_vouch_for_a_certificate_of_our_own_making() {
    let tls = Some(serves("pay.example", &authority("ours")));
    let evil = Evil::start_with(vec![ok()], tls).await;
    let endpoint = Endpoint {
        allow_private: true,
        ..Endpoint::at("https://pay.example/")
    };
    let seen = handle(&handler(endpoint).with_resolver(Stub::of(&[evil.address]))).await;
    assert_eq!((seen.outcome.as_str(), code(&seen)), ("unreachable", "tls"));
    assert_eq!(evil.requests(), 0);
}
