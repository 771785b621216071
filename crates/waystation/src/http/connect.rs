//! Opens connections: resolves the name ourselves, checks every address, connects to exactly what was
//! checked, so that a name that changes its mind in between (DNS rebinding) wins nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::address::{Spelling, permit};
use super::endpoint::{EndpointError, Target, Whom};
use super::fault::Fault;
use super::limits::{ADDRESSES_MAX, Watch, within};
use super::resolve::Shared;
use super::wire::{Link, Stream};

/// How connections to an endpoint are opened.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) resolver: Shared,
    pub(super) tls: Option<Arc<rustls::ClientConfig>>,
    pub(super) allow_private: bool,
    pub(super) timeout: Duration,
}

impl Connector {
    /// Opens a connection within the connect time-out, which name, TCP and TLS share.
    pub(super) async fn open(&self, target: &Target) -> Result<Link, Fault> {
        self.open_by(target, TcpStream::connect).await
    }

    /// Opens a connection by a way of connecting, and believes only where that has led.
    async fn open_by<F>(
        &self,
        target: &Target,
        dial: impl Fn(SocketAddr) -> F + Sync,
    ) -> Result<Link, Fault>
    where
        F: Future<Output = io::Result<TcpStream>> + Send,
    {
        let watch = Watch::start();
        let (addresses, spelling) = self.addresses(target, watch).await?;
        let socket = self.connect(&addresses, watch, dial).await?;
        // Not always what was asked for: 0.0.0.0 connects to 127.0.0.1.
        let peer = socket
            .peer_addr()
            .map_err(|error| Fault::Reset(error.to_string()))?;
        self.check(peer.ip(), spelling)?;
        let stream = match &self.tls {
            Some(tls) if target.secure => self.encrypt(tls, socket, target, watch).await?,
            Some(_) | None => Stream::Plain(socket),
        };
        Link::open(stream).await
    }

    async fn addresses(
        &self,
        target: &Target,
        watch: Watch,
    ) -> Result<(Vec<SocketAddr>, Spelling), Fault> {
        let (found, spelling) = match &target.whom {
            Whom::Literal(address) => (
                vec![SocketAddr::new(*address, target.port)],
                Spelling::Literal,
            ),
            Whom::Name(name) => {
                let asked = self.resolver.resolve(name, target.port);
                let found = match within(watch.left(self.timeout), asked).await {
                    Some(Ok(found)) => found,
                    Some(Err(error)) => return Err(Fault::Dns(error.to_string())),
                    None => return Err(Fault::Dns(format!("no answer within {:?}", self.timeout))),
                };
                (found, Spelling::Name)
            }
        };
        if found.is_empty() {
            return Err(Fault::Dns("it has no address".to_owned()));
        }
        // One bad address among good ones refuses them all: whoever put it there chooses the order.
        for address in &found {
            self.check(address.ip(), spelling)?;
        }
        let tried = found.into_iter().take(ADDRESSES_MAX).collect();
        Ok((tried, spelling))
    }

    fn check(&self, address: IpAddr, spelling: Spelling) -> Result<(), Fault> {
        permit(address, spelling, self.allow_private)
            .map_err(|why| Fault::Private(format!("{address} is a {why} address")))
    }

    /// Tries one address after the other; each gets its share of the time that is left.
    async fn connect<F>(
        &self,
        addresses: &[SocketAddr],
        watch: Watch,
        dial: impl Fn(SocketAddr) -> F,
    ) -> Result<TcpStream, Fault>
    where
        F: Future<Output = io::Result<TcpStream>>,
    {
        let mut fault = Fault::ConnectTimeout(self.timeout);
        let mut shares = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        for address in addresses {
            let share = watch.left(self.timeout) / shares.max(1);
            shares = shares.saturating_sub(1);
            match within(share, dial(*address)).await {
                Some(Ok(socket)) => {
                    // Answers are small and latency is what an attempt costs; a failure to set it
                    // costs only that.
                    drop(socket.set_nodelay(true));
                    return Ok(socket);
                }
                Some(Err(error)) => fault = self.connect_fault(&error),
                None => fault = Fault::ConnectTimeout(self.timeout),
            }
        }
        Err(fault)
    }

    fn connect_fault(&self, error: &io::Error) -> Fault {
        const RESET: [io::ErrorKind; 2] = [
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::ConnectionAborted,
        ];
        const NO_WAY: [io::ErrorKind; 3] = [
            io::ErrorKind::HostUnreachable,
            io::ErrorKind::NetworkUnreachable,
            io::ErrorKind::NetworkDown,
        ];
        let kind = error.kind();
        if kind == io::ErrorKind::ConnectionRefused {
            Fault::ConnectRefused
        } else if kind == io::ErrorKind::TimedOut {
            Fault::ConnectTimeout(self.timeout)
        } else if RESET.contains(&kind) {
            Fault::Reset(error.to_string())
        } else if NO_WAY.contains(&kind) {
            Fault::HostUnreachable(error.to_string())
        } else {
            // Out of descriptors, ports or memory, or forbidden by a firewall of ours: nothing that
            // the destination has done.
            Fault::Local(error.to_string())
        }
    }

    async fn encrypt(
        &self,
        tls: &Arc<rustls::ClientConfig>,
        socket: TcpStream,
        target: &Target,
        watch: Watch,
    ) -> Result<Stream, Fault> {
        let name = match &target.whom {
            Whom::Literal(address) => ServerName::from(*address),
            Whom::Name(name) => ServerName::try_from(name.clone())
                .map_err(|error| Fault::Tls(format!("{name}: {error}")))?,
        };
        let shake = TlsConnector::from(Arc::clone(tls)).connect(name, socket);
        match within(watch.left(self.timeout), shake).await {
            Some(Ok(stream)) => Ok(Stream::Tls(Box::new(stream))),
            Some(Err(error)) => Err(tls_fault(&error)),
            None => Err(Fault::Tls(format!(
                "no handshake within {:?}",
                self.timeout
            ))),
        }
    }
}

/// A handshake that rustls gave up is TLS; one that the peer left is a reset.
fn tls_fault(error: &io::Error) -> Fault {
    let cause = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match cause {
        Some(cause) => Fault::Tls(cause.to_string()),
        None => Fault::Reset(format!("during the TLS handshake: {error}")),
    }
}

/// Gives what `https` needs: the system's certificate authorities, HTTP/1.1 alone. Read once in a
/// process and shared by its endpoints, TLS sessions included.
pub(super) fn system_trust() -> Result<Arc<rustls::ClientConfig>, EndpointError> {
    use rustls_platform_verifier::BuilderVerifierExt as _;
    static SHARED: OnceLock<Arc<rustls::ClientConfig>> = OnceLock::new();
    if let Some(config) = SHARED.get() {
        return Ok(Arc::clone(config));
    }
    let no_trust = |error: rustls::Error| EndpointError::Trust {
        why: error.to_string(),
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(rustls::ConfigBuilder::with_platform_verifier)
        .map_err(no_trust)?
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::clone(SHARED.get_or_init(|| Arc::new(config))))
}

#[cfg(test)]
mod tests {
    use super::super::resolve::Resolve;
    use super::*;

    /// Answers with an address that anybody may have.
    #[derive(Debug)]
    struct Public;

    #[async_trait::async_trait]
    impl Resolve for Public {
        async fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
            Ok(vec![SocketAddr::from(([93, 184, 216, 34], 80))])
        }
    }

    fn connector(allow_private: bool) -> Connector {
        Connector {
            resolver: Shared::new(Arc::new(Public)),
            tls: None,
            allow_private,
            timeout: Duration::from_secs(2),
        }
    }

    #[tokio::test]
    async fn a_connection_that_leads_elsewhere_than_was_checked_is_refused() {
        let here = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let here = here.expect("loopback");
        let address = here.local_addr().expect("bound");
        let target = Target::parse("http://pay.example/", false).expect("a url");
        let led_here = |_| TcpStream::connect(address);
        let refused = connector(false).open_by(&target, led_here).await;
        let Err(Fault::Private(why)) = refused else {
            panic!("{refused:?}");
        };
        assert!(why.contains("127.0.0.1"), "{why}");
        // Nothing was sent: all that came is the end.
        let (mut socket, _) = here.accept().await.expect("a connection");
        let mut said = Vec::new();
        let read = tokio::io::AsyncReadExt::read_to_end(&mut socket, &mut said).await;
        assert_eq!((read.expect("an end"), said.len()), (0, 0));
        let meant = connector(true).open_by(&target, led_here).await;
        assert!(meant.is_ok(), "{meant:?}");
    }
}
