//! Certificates of our own making, good and bad.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

/// Somebody who signs certificates.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// Makes one of this name.
    ///
    /// # Panics
    /// When no key can be made.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    /// Serves under a certificate for a host that is good today.
    ///
    /// # Panics
    /// When the name is none.
    #[must_use]
    pub fn serves(&self, host: &str) -> TlsAcceptor {
        let key = KeyPair::generate().expect("a key");
        let certificate = named(host).signed_by(&key, &self.0).expect("signed");
        acceptor(certificate.der().clone(), &key)
    }

    /// Serves under a certificate for a host that was good once.
    ///
    /// # Panics
    /// When the name is none.
    #[must_use]
    pub fn serves_expired(&self, host: &str) -> TlsAcceptor {
        let key = KeyPair::generate().expect("a key");
        let mut params = named(host);
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        let certificate = params.signed_by(&key, &self.0).expect("signed");
        acceptor(certificate.der().clone(), &key)
    }

    /// What a client that trusts this authority alone has.
    ///
    /// # Panics
    /// When its certificate is none.
    #[must_use]
    pub fn trusted(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a root");
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }
}

/// Serves under a certificate for a host that nobody but itself has signed.
///
/// # Panics
/// When the name is none.
#[must_use]
pub fn self_signed(host: &str) -> TlsAcceptor {
    let key = KeyPair::generate().expect("a key");
    let certificate = named(host).self_signed(&key).expect("signed");
    acceptor(certificate.der().clone(), &key)
}

fn named(host: &str) -> CertificateParams {
    CertificateParams::new(vec![host.to_owned()]).expect("a name")
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn acceptor(certificate: CertificateDer<'static>, key: &KeyPair) -> TlsAcceptor {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate");
    TlsAcceptor::from(Arc::new(config))
}
