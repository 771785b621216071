//! Opaque cursors: where a list goes on, tied to the filters it was begun with.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use waystation_core::message::MessageId;
use waystation_store::Filter;

use super::problem::{Code, Problem};

/// Written in front, so that a later form can be told apart.
const FORM: u8 = 1;

/// Writes the cursor that goes on after a message.
pub(crate) fn encode(after: MessageId, filter: &Filter) -> String {
    let mut bytes = Vec::with_capacity(21);
    bytes.push(FORM);
    bytes.extend(after.bits().to_be_bytes());
    bytes.extend(check_sum(after, filter));
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads a cursor.
///
/// # Errors
/// `invalid_cursor` if it was not written by [`encode`] for the same filters.
pub(crate) fn decode(text: &str, filter: &Filter) -> Result<MessageId, Problem> {
    let wrong = || {
        Problem::new(
            Code::InvalidCursor,
            "the cursor is not one that this list gave for these filters; leave it out to begin anew",
        )
    };
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong())?;
    let (&[FORM, ..], 21) = (bytes.as_slice(), bytes.len()) else {
        return Err(wrong());
    };
    let id = bytes
        .get(1..17)
        .and_then(|id| id.try_into().ok())
        .map(u128::from_be_bytes)
        .ok_or_else(wrong)?;
    let id = MessageId::from_bits(id);
    if bytes.get(17..) == Some(check_sum(id, filter).as_slice()) {
        Ok(id)
    } else {
        Err(wrong())
    }
}

fn check_sum(after: MessageId, filter: &Filter) -> [u8; 4] {
    let mut sha = Sha256::new();
    sha.update(after.bits().to_be_bytes());
    // Debug of plain names and numbers: stable within a build, and a cursor need not outlive one.
    sha.update(format!("{filter:?}"));
    let sum: [u8; 32] = sha.finalize().into();
    [sum[0], sum[1], sum[2], sum[3]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use waystation_core::message::State;

    #[test]
    fn a_cursor_reads_back_with_the_same_filters_only() {
        let id = MessageId::from_bits(77);
        let filter = Filter::default();
        let cursor = encode(id, &filter);
        assert_eq!(decode(&cursor, &filter).expect("ours"), id);
        let other = Filter {
            state: Some(State::Dead),
            ..Filter::default()
        };
        assert!(decode(&cursor, &other).is_err());
        let flipped: String = cursor.chars().rev().collect();
        for bad in ["", "x", "AQ", flipped.as_str(), &format!("{cursor}A"), "ä"] {
            assert!(decode(bad, &filter).is_err(), "{bad}");
        }
    }
}
