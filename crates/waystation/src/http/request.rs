//! Builds the one request of an attempt out of a delivery.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request};
use waystation_core::exchange::Delivery;
use waystation_core::message::CAUSE_HEADER;
use waystation_core::time::Timestamp;

use super::endpoint::Target;
use super::fault::Fault;
use super::sign::Signer;

/// Says who we are.
const USER_AGENT: &str = concat!("waystation/", env!("CARGO_PKG_VERSION"));

/// Headers of the connection, of the protocol and of ours: a message's own never override them.
const RESERVED: &[&str] = &[
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "idempotency-key",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// Tells whether a header (in lower case) is not for messages to set.
pub(super) fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || name.starts_with("waystation-") || name.starts_with("webhook-")
}

/// What is the same for all requests of an endpoint.
#[derive(Debug)]
pub(super) struct Letterhead {
    /// Where it goes.
    pub(super) target: Target,
    /// The destination's credentials.
    pub(super) headers: HeaderMap,
    /// What it is signed with.
    pub(super) signer: Option<Signer>,
    /// The longest one attempt may take.
    pub(super) attempt_timeout: Duration,
}

impl Letterhead {
    /// Builds the request of an attempt. Nothing has left when it fails: a text that would break the
    /// head apart is refused.
    pub(super) fn request(
        &self,
        delivery: &Delivery,
        now: Timestamp,
    ) -> Result<Request<Full<Bytes>>, Fault> {
        let message = &delivery.message;
        let mut headers = self.headers.clone();
        headers.reserve(20 + message.headers.len());
        let mut put = |name: &'static str, value: &str| {
            let value = HeaderValue::try_from(value).map_err(|_| Fault::header(name))?;
            headers.insert(HeaderName::from_static(name), value);
            Ok(())
        };
        let mut id = message.id.to_string();
        put("waystation-id", &id)?;
        put("waystation-queue", message.lane.queue().as_str())?;
        put("waystation-kind", message.lane.kind().as_str())?;
        put(
            "waystation-attempt",
            &delivery.record.ledger.attempts.to_string(),
        )?;
        put("waystation-fence", &delivery.record.fence.0.to_string())?;
        put(
            "waystation-deadline",
            &rfc3339(delivery.started_at + self.attempt_timeout),
        )?;
        if let Some(key) = &message.key {
            put("waystation-key", &escape(key.as_str()))?;
        }
        if let Some(cause) = message.cause {
            put(CAUSE_HEADER, &cause.to_string())?;
        }
        if message.version >= 2 {
            id = format!("{id}-{}", message.version);
        }
        put("idempotency-key", &id)?;
        put("content-type", &message.payload.content_type)?;
        put("content-length", &message.payload.bytes.len().to_string())?;
        put("user-agent", USER_AGENT)?;
        if let Some(signer) = &self.signer {
            // Receivers drop a webhook-id they have seen, so it must change where the idempotency
            // key does: an edited payload is another webhook.
            let timestamp = now.as_millis().div_euclid(1_000);
            put("webhook-id", &id)?;
            put("webhook-timestamp", &timestamp.to_string())?;
            let signature = signer.sign(&id, timestamp, &message.payload.bytes);
            put("webhook-signature", &signature)?;
        }
        headers.insert(header::HOST, self.target.authority.clone());
        add_own(&mut headers, &message.headers)?;
        let mut request = Request::new(Full::new(message.payload.bytes.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.path.clone();
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// Adds the message's own headers where nobody else has spoken.
fn add_own(headers: &mut HeaderMap, own: &waystation_core::message::Headers) -> Result<(), Fault> {
    for (name, value) in own.iter() {
        let known = HeaderName::try_from(&**name).map_err(|_| Fault::header(name))?;
        if is_reserved(known.as_str()) || headers.contains_key(&known) {
            continue;
        }
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| Fault::header(name))?;
        headers.insert(known, value);
    }
    Ok(())
}

/// Builds the request of a health check. The credentials go along only to the endpoint's own server.
pub(super) fn health(target: &Target, headers: Option<&HeaderMap>) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.method_mut() = Method::GET;
    *request.uri_mut() = target.path.clone();
    let map = request.headers_mut();
    if let Some(headers) = headers {
        map.clone_from(headers);
    }
    map.insert(header::HOST, target.authority.clone());
    map.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    map.insert(header::CONNECTION, HeaderValue::from_static("close"));
    request
}

/// Percent-encodes what a header cannot carry unharmed: everything but visible ASCII and inner
/// spaces, and the percent sign itself.
fn escape(text: &str) -> String {
    let last = text.len().saturating_sub(1);
    let mut out = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        let is_inner_space = byte == b' ' && at != 0 && at != last;
        if (byte.is_ascii_graphic() && byte != b'%') || is_inner_space {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a String takes everything");
        }
    }
    out
}

/// Writes a moment as RFC 3339 in UTC with milliseconds.
fn rfc3339(moment: Timestamp) -> String {
    let millis = moment.as_millis();
    let (days, rest) = (millis.div_euclid(86_400_000), millis.rem_euclid(86_400_000));
    // Days to a civil date: Howard Hinnant's algorithm, eras of 400 years that begin in March.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (secs, millis) = (rest / 1_000, rest % 1_000);
    let (hour, minute, second) = (secs / 3_600, secs / 60 % 60, secs % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_in_utc_with_milliseconds() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_614_265_330_007, "2021-02-25T15:02:10.007Z"),
            (1_704_067_199_999, "2023-12-31T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(Timestamp::from_millis(millis)), text);
        }
    }

    #[test]
    fn a_key_passes_through_a_header_unharmed() {
        for (key, value) in [
            ("order-17", "order-17"),
            ("order 17", "order 17"),
            (" a ", "%20a%20"),
            ("50%", "50%25"),
            ("a\r\nX: y", "a%0D%0AX: y"),
            ("ä", "%C3%A4"),
        ] {
            assert_eq!(escape(key), value);
        }
    }

    #[test]
    fn what_is_ours_is_not_for_messages_to_set() {
        for name in [
            "host",
            "authorization",
            "te",
            "waystation-fence",
            "webhook-id",
            "expect",
        ] {
            assert!(is_reserved(name), "{name}");
        }
        for name in [
            "traceparent",
            "tracestate",
            "ce-id",
            "x-tenant",
            "accept",
            "cookie",
        ] {
            assert!(!is_reserved(name), "{name}");
        }
    }
}
