//! What an operator writes down about an endpoint, checked once when the handler is made.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use url::{Host, Url};

use super::address::{Spelling, permit};
use super::request::is_reserved;

/// A text that is shown nowhere: its `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Arc<str>);

impl SecretValue {
    /// Takes the text.
    #[must_use]
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// Gives the text to whoever has to send it or compute with it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What an answer is taken for, whatever the table says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Override {
    /// The handler did it.
    Complete,
    /// The handler failed; trying again may help.
    Retry,
    /// The destination asked to slow down.
    Throttled,
    /// Refused for good.
    Terminal,
    /// The handler asked to run again later.
    Snooze,
    /// The handler asked to hold the message for a person.
    Park,
}

impl Override {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Complete,
        Self::Retry,
        Self::Throttled,
        Self::Terminal,
        Self::Snooze,
        Self::Park,
    ];

    /// The word for it, in configuration and in the header `Waystation-Outcome`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Retry => "retry",
            Self::Throttled => "throttled",
            Self::Terminal => "terminal",
            Self::Snooze => "snooze",
            Self::Park => "park",
        }
    }

    /// Reads the word; none if it is none of them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_it = |one: &Self| one.as_str().eq_ignore_ascii_case(text.trim());
        Self::ALL.into_iter().find(is_it)
    }
}

/// Where and how messages of a kind are posted.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The `http` or `https` URL.
    pub url: String,
    /// The destination's credentials and whatever else it wants with each request.
    pub headers: Vec<(String, SecretValue)>,
    /// Standard Webhooks secrets, `whsec_` and base64; during a rotation several sign. Empty: unsigned.
    pub secrets: Vec<SecretValue>,
    /// The longest that name, connection and TLS may take together.
    pub connect_timeout: Duration,
    /// The longest that sending the request and reading its answer may take.
    pub request_timeout: Duration,
    /// The longest that one attempt may take.
    pub attempt_timeout: Duration,
    /// What answers of a status are taken for.
    pub outcomes: BTreeMap<u16, Override>,
    /// Lets names stand for private addresses, and anything for link-local and metadata addresses.
    pub allow_private: bool,
    /// The URL or the path of a health check, which a GET answers with 2xx while the destination is well.
    pub health: Option<String>,
    /// The longest `Retry-After` that is believed.
    pub retry_after_max: Duration,
    /// Whom to trust behind `https`, and a client certificate if there is one; none means the system's
    /// certificate authorities.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

impl Endpoint {
    /// An endpoint at a URL with the defaults of the configuration: no credentials, unsigned.
    #[must_use]
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            headers: Vec::new(),
            secrets: Vec::new(),
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(30),
            outcomes: BTreeMap::new(),
            allow_private: false,
            health: None,
            retry_after_max: Duration::from_secs(3600),
            tls: None,
        }
    }
}

/// What is wrong with an [`Endpoint`]; nothing is sent before it is mended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EndpointError {
    /// The URL cannot be used. Not shown whole, for it may carry a password.
    #[error("the url of an endpoint {why}")]
    Url {
        /// What is wrong.
        why: String,
    },
    /// The host is an address that needs a permission.
    #[error("{host} is a {why} address; set allow_private = true if it is meant")]
    PrivateAddress {
        /// The host as understood.
        host: String,
        /// What kind of address it is.
        why: String,
    },
    /// A header cannot be sent.
    #[error("the header {name:?} {why}")]
    Header {
        /// Which.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A signing secret cannot be used.
    #[error("a signing secret {why}; write it as whsec_ and the base64 of 24 to 64 bytes")]
    Secret {
        /// What is wrong.
        why: &'static str,
    },
    /// `outcomes` names a status that no answer has.
    #[error("outcomes: {status} is no status of an answer; use 200 to 599")]
    Status {
        /// Which.
        status: u16,
    },
    /// A time-out is zero.
    #[error("{name} is zero; nothing could be done in that time")]
    Timeout {
        /// Which.
        name: &'static str,
    },
    /// The system's certificate authorities cannot be read.
    #[error("no certificate authority to trust: {why}; install ca-certificates")]
    Trust {
        /// What went wrong.
        why: String,
    },
}

/// The host of a URL, in the one form that both the guard and the connector use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Whom {
    /// A name to resolve, without a dot at its end.
    Name(String),
    /// An address.
    Literal(IpAddr),
}

/// A URL taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Target {
    /// Whether TLS is spoken.
    pub(super) secure: bool,
    /// Whom to connect to.
    pub(super) whom: Whom,
    /// On which port.
    pub(super) port: u16,
    /// What the header `Host` says.
    pub(super) authority: HeaderValue,
    /// Path and query.
    pub(super) path: hyper::Uri,
}

impl Target {
    /// Reads a URL in the way of browsers (WHATWG), so that `0x7f.1`, `2130706433` and `0177.0.0.1`
    /// are the address that they stand for before anything is decided about them.
    pub(super) fn parse(text: &str, allow_private: bool) -> Result<Self, EndpointError> {
        let url = Url::parse(text.trim()).map_err(|error| bad_url(format!("is none: {error}")))?;
        Self::of_url(&url, allow_private)
    }

    /// Reads the health check's URL, which may be a path at `base`.
    pub(super) fn parse_at(
        base: &str,
        text: &str,
        allow_private: bool,
    ) -> Result<Self, EndpointError> {
        let url = Url::parse(base.trim())
            .and_then(|base| base.join(text.trim()))
            .map_err(|error| bad_url(format!("for health is none: {error}")))?;
        Self::of_url(&url, allow_private)
    }

    /// Tells whether two targets are the same server, to which the same credentials go.
    pub(super) fn is_origin_of(&self, other: &Self) -> bool {
        (self.secure, &self.whom, self.port) == (other.secure, &other.whom, other.port)
    }

    fn of_url(url: &Url, allow_private: bool) -> Result<Self, EndpointError> {
        let secure = match url.scheme() {
            "http" => false,
            "https" => true,
            other => return Err(bad_url(format!("begins with {other}: use http or https"))),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad_url(
                "carries a user or password: put credentials into headers".into(),
            ));
        }
        if url.fragment().is_some() {
            return Err(bad_url("has a #fragment, which no server sees".into()));
        }
        let whom = match url.host() {
            Some(Host::Ipv4(address)) => Whom::Literal(address.into()),
            Some(Host::Ipv6(address)) => Whom::Literal(address.into()),
            Some(Host::Domain(name)) => Whom::Name(name.trim_end_matches('.').to_owned()),
            None => return Err(bad_url("has no host".into())),
        };
        check_host(&whom, allow_private)?;
        let port = url.port_or_known_default().filter(|port| *port != 0);
        let port = port.ok_or_else(|| bad_url("has the port 0".into()))?;
        let host = url.host_str().unwrap_or_default();
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        Ok(Self {
            secure,
            whom,
            port,
            authority: HeaderValue::try_from(authority)
                .map_err(|error| bad_url(format!("has a bad host: {error}")))?,
            path: path
                .parse()
                .map_err(|error| bad_url(format!("has a bad path: {error}")))?,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.whom {
            Whom::Name(name) => write!(f, "{name}:{}", self.port),
            Whom::Literal(IpAddr::V4(address)) => write!(f, "{address}:{}", self.port),
            Whom::Literal(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
        }
    }
}

/// Refuses at once what every attempt would be refused for: a guarded literal, and `localhost`, which
/// is loopback by definition (RFC 6761). Otherwise the first message would be dead of a typo.
fn check_host(whom: &Whom, allow_private: bool) -> Result<(), EndpointError> {
    let refuse = |host: String, why: &str| {
        Err(EndpointError::PrivateAddress {
            host,
            why: why.to_owned(),
        })
    };
    match whom {
        Whom::Literal(address) => match permit(*address, Spelling::Literal, allow_private) {
            Ok(()) => Ok(()),
            Err(why) => refuse(address.to_string(), why),
        },
        Whom::Name(name) if name.is_empty() => Err(bad_url("has no host".into())),
        Whom::Name(name) => {
            let is_local = name == "localhost" || name.ends_with(".localhost");
            if is_local && !allow_private {
                return refuse(name.clone(), "loopback name, not a literal");
            }
            Ok(())
        }
    }
}

fn bad_url(why: String) -> EndpointError {
    EndpointError::Url { why }
}

/// Makes the headers that go with each request, credentials among them.
pub(super) fn headers(of: &[(String, SecretValue)]) -> Result<HeaderMap, EndpointError> {
    let mut headers = HeaderMap::with_capacity(of.len());
    for (name, value) in of {
        let bad = |why| EndpointError::Header {
            name: name.clone(),
            why,
        };
        let known = HeaderName::try_from(name.as_str()).map_err(|_| bad("has a bad name"))?;
        if is_reserved(known.as_str()) && known != hyper::header::AUTHORIZATION {
            return Err(bad("is set by the protocol and cannot be configured"));
        }
        let mut value = HeaderValue::try_from(value.expose())
            .map_err(|_| bad("has a value with a line break or another control character"))?;
        value.set_sensitive(true);
        headers.append(known, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> EndpointError {
        Target::parse(url, false).expect_err(url)
    }

    #[test]
    fn a_host_has_one_form_however_it_is_written() {
        for (url, host) in [
            ("http://2130706433/", "127.0.0.1:80"),
            ("http://0x7f000001/", "127.0.0.1:80"),
            ("http://0x7f.1/", "127.0.0.1:80"),
            ("http://0177.0.0.1/", "127.0.0.1:80"),
            ("http://017700000001/", "127.0.0.1:80"),
            ("http://127.1/", "127.0.0.1:80"),
            ("http://127.0.0.1./", "127.0.0.1:80"),
            ("http://%31%32%37.0.0.1/", "127.0.0.1:80"),
            ("http://①②⑦.⓪.⓪.①/", "127.0.0.1:80"),
            ("http://[::ffff:127.0.0.1]/", "[::ffff:127.0.0.1]:80"),
            ("http://[::1]:8080/x", "[::1]:8080"),
            ("https://EXAMPLE.com./x?y=1", "example.com:443"),
            ("https://bücher.example/", "xn--bcher-kva.example:443"),
        ] {
            let target = Target::parse(url, false).expect(url);
            assert_eq!(target.to_string(), host, "{url}");
        }
    }

    #[test]
    fn an_address_that_hands_out_credentials_is_refused_at_once_however_it_is_written() {
        for url in [
            "http://169.254.169.254/latest/meta-data/",
            "http://2852039166/",
            "http://0xa9fea9fe/",
            "http://0251.0376.0251.0376/",
            "http://169.254.43518/",
            "http://[fe80::1]/",
            "http://[::ffff:169.254.169.254]/",
            "http://[::169.254.169.254]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[2002:a9fe:a9fe::]/",
            "http://[fd00:ec2::254]/",
            "http://100.100.100.200/",
            "http://localhost:9000/",
            "http://LOCALHOST./",
            "http://a.localhost/",
        ] {
            let error = refused(url);
            assert!(
                matches!(error, EndpointError::PrivateAddress { .. }),
                "{url}: {error}"
            );
            assert!(error.to_string().contains("allow_private"), "{error}");
            Target::parse(url, true).expect(url);
        }
    }

    #[test]
    fn a_url_that_cannot_be_used_is_refused_without_showing_its_password() {
        for url in [
            "ftp://example.com/",
            "file:///etc/passwd",
            "http://user:hunter2@example.com/",
            "http://user@example.com/",
            "http://example.com/#part",
            "http://example.com:0/",
            "http:///",
            "http://[fe80::1%25eth0]/",
            "http://256.256.256.256/",
            "http://exa mple.com/",
            "/send",
            "",
        ] {
            let error = refused(url);
            assert!(matches!(error, EndpointError::Url { .. }), "{url}: {error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn configured_headers_break_no_line_and_override_no_protocol() {
        let with = |name: &str, value: &str| headers(&[(name.into(), SecretValue::new(value))]);
        assert!(with("Authorization", "Bearer x").is_ok());
        for (name, value) in [
            ("X-A", "a\r\nX-B: b"),
            ("X-A", "a\nb"),
            ("X-A\r\nX-B", "a"),
            ("X A", "a"),
            ("", "a"),
            ("Content-Length", "0"),
            ("Transfer-Encoding", "chunked"),
            ("Host", "internal"),
            ("Waystation-Id", "1"),
            ("Idempotency-Key", "1"),
            ("webhook-signature", "v1,x"),
        ] {
            let error = with(name, value).expect_err(name);
            assert!(
                matches!(error, EndpointError::Header { .. }),
                "{name}: {error}"
            );
        }
    }

    #[test]
    fn a_secret_does_not_show() {
        let mut endpoint = Endpoint::at("http://127.0.0.1/");
        endpoint.headers = vec![("Authorization".into(), SecretValue::new("hunter2"))];
        endpoint.secrets = vec![SecretValue::new("hunter2")];
        assert!(!format!("{endpoint:?}").contains("hunter2"));
        let headers = headers(&endpoint.headers).expect("good");
        assert!(!format!("{headers:?}").contains("hunter2"));
    }
}
