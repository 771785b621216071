//! Signs requests by Standard Webhooks: `v1,` and the HMAC-SHA256 of `id.timestamp.body`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::endpoint::{EndpointError, SecretValue};

/// The shortest secret, as the specification wants it.
const SECRET_BYTES_MIN: usize = 24;
/// The longest secret, as the specification wants it.
const SECRET_BYTES_MAX: usize = 64;

/// What an endpoint's requests are signed with: one secret, or several while they are rotated.
pub(super) struct Signer {
    keyed: Vec<Hmac<Sha256>>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({} secrets)", self.keyed.len())
    }
}

impl Signer {
    /// Takes secrets in the form `whsec_` and base64; none where there are none.
    pub(super) fn new(secrets: &[SecretValue]) -> Result<Option<Self>, EndpointError> {
        let keyed = secrets.iter().map(key).collect::<Result<Vec<_>, _>>()?;
        Ok((!keyed.is_empty()).then_some(Self { keyed }))
    }

    /// Gives the value of `webhook-signature`: one signature for each secret, divided by spaces.
    pub(super) fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut value = String::with_capacity(self.keyed.len() * 48);
        for keyed in &self.keyed {
            let mut mac = keyed.clone();
            for part in [
                id.as_bytes(),
                b".",
                timestamp.to_string().as_bytes(),
                b".",
                body,
            ] {
                mac.update(part);
            }
            if !value.is_empty() {
                value.push(' ');
            }
            value.push_str("v1,");
            STANDARD.encode_string(mac.finalize().into_bytes(), &mut value);
        }
        value
    }
}

fn key(secret: &SecretValue) -> Result<Hmac<Sha256>, EndpointError> {
    let bad = |why| EndpointError::Secret { why };
    let text = secret.expose().trim();
    let text = text
        .strip_prefix("whsec_")
        .ok_or_else(|| bad("does not begin with whsec_"))?;
    let bytes = STANDARD.decode(text).map_err(|_| bad("is not base64"))?;
    if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&bytes.len()) {
        return Err(bad("has the wrong length"));
    }
    Hmac::new_from_slice(&bytes).map_err(|_| bad("has the wrong length"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks specification's reference libraries; computed anew with
    /// `printf 'msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{"test": 2432232314}' | openssl dgst -sha256 -mac HMAC`.
    #[test]
    fn a_signature_is_the_one_of_the_specification() {
        let secret = SecretValue::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let signer = Signer::new(&[secret]).expect("good").expect("one");
        assert_eq!(
            signer.sign(
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                br#"{"test": 2432232314}"#
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn each_secret_of_a_rotation_signs() {
        let one = SecretValue::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let two = SecretValue::new("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
        let sign = |secrets: &[SecretValue]| {
            let signer = Signer::new(secrets).expect("good").expect("some");
            signer.sign("a", 1, b"body")
        };
        let both = sign(&[one.clone(), two.clone()]);
        assert_eq!(both, format!("{} {}", sign(&[one]), sign(&[two])));
    }

    #[test]
    fn a_secret_that_is_none_is_refused_and_not_shown() {
        assert!(Signer::new(&[]).expect("good").is_none());
        for text in [
            "whsec_",
            "whsec_c2hvcnQ=",
            "whsec_!!!",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        ] {
            let error = Signer::new(&[SecretValue::new(text)]).expect_err(text);
            assert!(!error.to_string().contains("MfKQ"), "{error}");
        }
    }
}
