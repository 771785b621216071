//! Who may come in: the bearer token, and requests that name us by our own names.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::problem::{Code, Problem};

/// The path that is open to everybody.
const OPEN: &str = "/healthz";

/// Checks each request before it is routed.
#[derive(Debug)]
pub(crate) struct Door {
    token: Option<SecretString>,
    hosts: Vec<String>,
    listen: IpAddr,
}

impl Door {
    /// Lets in whoever knows the token, if there is one, and calls us by loopback, `listen` or `hosts`.
    pub(crate) fn new(token: Option<SecretString>, hosts: &[String], listen: IpAddr) -> Self {
        Self {
            token,
            hosts: hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            listen,
        }
    }

    /// Looks at one request.
    ///
    /// # Errors
    /// `forbidden` for a foreign `Host` or `Origin` (a page of a foreign name that resolves to us, or
    /// that posts to us), `unauthorized` without the token.
    pub(crate) fn check(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        local: SocketAddr,
    ) -> Result<(), Problem> {
        if uri.path() == OPEN {
            return Ok(());
        }
        self.check_host(uri, headers, local.ip())?;
        self.check_origin(headers, local.ip())?;
        self.check_token(headers)
    }

    fn check_host(&self, uri: &Uri, headers: &HeaderMap, local: IpAddr) -> Result<(), Problem> {
        let foreign = |name: &str| {
            let name: String = name.chars().take(253).collect();
            Problem::new(
                Code::Forbidden,
                format!(
                    "the Host {name:?} is not one of ours; add it to server.hosts if clients shall use it"
                ),
            )
        };
        let mut hosts = headers.get_all(HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().map_err(|_| foreign("?"))?,
            _ => {
                return Err(Problem::new(
                    Code::Forbidden,
                    "exactly one Host header is expected",
                ));
            }
        };
        // An absolute form of the request line names a host as well.
        for name in std::iter::once(host).chain(uri.authority().map(Authority::as_str)) {
            if !self.is_ours(name, local) {
                return Err(foreign(name));
            }
        }
        Ok(())
    }

    fn check_origin(&self, headers: &HeaderMap, local: IpAddr) -> Result<(), Problem> {
        for origin in headers.get_all(ORIGIN) {
            let name = origin.to_str().unwrap_or("?");
            let authority = name
                .strip_prefix("http://")
                .or_else(|| name.strip_prefix("https://"));
            if !authority.is_some_and(|authority| self.is_ours(authority, local)) {
                let name: String = name.chars().take(253).collect();
                return Err(Problem::new(
                    Code::Forbidden,
                    format!(
                        "the Origin {name:?} is not one of ours; a page of another site may not call this server"
                    ),
                ));
            }
        }
        Ok(())
    }

    fn is_ours(&self, authority: &str, local: IpAddr) -> bool {
        // What nearly every client of one machine or network says is read without a copy.
        if let Ok(plain) = authority.parse::<SocketAddrV4>() {
            return self.is_our_address(IpAddr::V4(*plain.ip()), local);
        }
        let Ok(authority) = authority.parse::<Authority>() else {
            return false;
        };
        if authority.as_str().contains('@') {
            return false;
        }
        let host = authority.host().to_ascii_lowercase();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            Ok(ip) => self.is_our_address(ip, local),
            Err(_) => host == "localhost" || self.hosts.contains(&host),
        }
    }

    fn is_our_address(&self, ip: IpAddr, local: IpAddr) -> bool {
        ip.is_loopback() || ip == self.listen || ip == local
    }

    fn check_token(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(token) = &self.token else {
            return Ok(());
        };
        let given = headers
            .get(AUTHORIZATION)
            .map(|value| value.as_bytes())
            .and_then(|value| value.split_at_checked(7))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "))
            .map(|(_, given)| given.trim_ascii());
        let right =
            given.is_some_and(|given| bool::from(given.ct_eq(token.expose_secret().as_bytes())));
        if right {
            return Ok(());
        }
        let detail = if given.is_some() {
            "the bearer token is wrong"
        } else {
            "send `Authorization: Bearer <token>`"
        };
        Err(Problem::new(Code::Unauthorized, detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(door: &Door, path: &str, given: &[(&str, &str)]) -> Option<Code> {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            let name: axum::http::HeaderName = name.parse().expect("a name");
            headers.append(name, value.parse().expect("a value"));
        }
        let local = SocketAddr::from(([10, 0, 0, 7], 3000));
        door.check(&path.parse().expect("a path"), &headers, local)
            .err()
            .map(|problem| problem.code)
    }

    #[test]
    fn only_our_own_names_are_let_in() {
        let door = Door::new(
            None,
            &["Waystation.Internal".to_owned()],
            IpAddr::from([0, 0, 0, 0]),
        );
        for host in [
            "localhost",
            "localhost:3000",
            "127.0.0.1:3000",
            "[::1]:3000",
            "waystation.internal:80",
            "10.0.0.7",
            "127.1.2.3",
        ] {
            assert_eq!(
                check(&door, "/v1/queues", &[("host", host)]),
                None,
                "{host}"
            );
            let origin = format!("http://{host}");
            assert_eq!(
                check(&door, "/", &[("host", host), ("origin", &origin)]),
                None,
                "{origin}"
            );
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "10.0.0.8",
            "x@localhost",
            "",
            "local host",
            "[::2]",
        ] {
            assert_eq!(
                check(&door, "/v1/queues", &[("host", host)]),
                Some(Code::Forbidden),
                "{host}"
            );
            assert_eq!(check(&door, "/healthz", &[("host", host)]), None, "{host}");
        }
        for origin in [
            "http://evil.example",
            "null",
            "ftp://localhost",
            "https://localhost.evil.example",
        ] {
            let given = [("host", "localhost"), ("origin", origin)];
            assert_eq!(
                check(&door, "/v1/queues", &given),
                Some(Code::Forbidden),
                "{origin}"
            );
        }
        assert_eq!(check(&door, "/", &[]), Some(Code::Forbidden));
        assert_eq!(
            check(
                &door,
                "/",
                &[("host", "localhost"), ("host", "evil.example")]
            ),
            Some(Code::Forbidden)
        );
        assert_eq!(
            check(&door, "http://evil.example/", &[("host", "localhost")]),
            Some(Code::Forbidden)
        );
    }

    #[test]
    fn with_a_token_every_route_but_one_wants_it() {
        let door = Door::new(
            Some(SecretString::from("swordfish")),
            &[],
            IpAddr::from([127, 0, 0, 1]),
        );
        for (value, expected) in [
            ("Bearer swordfish", None),
            ("bearer swordfish", None),
            ("Bearer  swordfish ", None),
            ("Bearer swordfis", Some(Code::Unauthorized)),
            ("Bearer swordfish2", Some(Code::Unauthorized)),
            ("Basic swordfish", Some(Code::Unauthorized)),
            ("swordfish", Some(Code::Unauthorized)),
            ("", Some(Code::Unauthorized)),
        ] {
            let given = [("host", "localhost"), ("authorization", value)];
            assert_eq!(check(&door, "/metrics", &given), expected, "{value}");
        }
        assert_eq!(
            check(&door, "/readyz", &[("host", "localhost")]),
            Some(Code::Unauthorized)
        );
        assert_eq!(check(&door, "/healthz", &[]), None);
    }
}
