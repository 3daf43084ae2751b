//! Protocol versions between agents and control, and the choice of the one that two peers settle on.
//!
//! Within one protocol, messages only gain fields and kinds; who does not know them leaves them out, and the other
//! side must do without. Whatever cannot be said so is a new number. Both sides name the range that they speak.

use std::ops::RangeInclusive;

/// The newest protocol that this version speaks.
pub const PROTOCOL: u32 = 1;
/// The oldest.
pub const OLDEST_PROTOCOL: u32 = 1;

const OWN: RangeInclusive<u32> = OLDEST_PROTOCOL..=PROTOCOL;

/// A peer that speaks none of our protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it speaks protocol {}, this one speaks protocol {}", span(*.oldest, *.newest), span(OLDEST_PROTOCOL, PROTOCOL))]
pub struct ProtocolError {
    oldest: u32,
    newest: u32,
}

/// The newest protocol that both speak. Peers that name no oldest one (0) speak the newest alone.
///
/// # Errors
/// When there is none.
pub fn agree(oldest: u32, newest: u32) -> Result<u32, ProtocolError> {
    settle(OWN, oldest, newest)
}

fn settle(own: RangeInclusive<u32>, oldest: u32, newest: u32) -> Result<u32, ProtocolError> {
    let oldest = if oldest == 0 { newest } else { oldest };
    let common = newest.min(*own.end());
    if common >= oldest && own.contains(&common) { Ok(common) } else { Err(ProtocolError { oldest, newest }) }
}

fn span(oldest: u32, newest: u32) -> String {
    if oldest == newest { newest.to_string() } else { format!("{oldest} to {newest}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_speak_the_newest_protocol_that_both_know_or_none() {
        let table = [
            (1..=1, (0, 1), Ok(1)),
            (1..=1, (1, 1), Ok(1)),
            (1..=1, (1, 2), Ok(1)),
            (1..=1, (0, 2), Err((2, 2))),
            (1..=1, (0, 0), Err((0, 0))),
            (2..=4, (1, 3), Ok(3)),
            (2..=4, (4, 9), Ok(4)),
            (2..=4, (5, 9), Err((5, 9))),
            (2..=4, (0, 1), Err((1, 1))),
            (2..=4, (3, 2), Err((3, 2))),
        ];
        for (own, (oldest, newest), expected) in table {
            let expected = expected.map_err(|(oldest, newest)| ProtocolError { oldest, newest });
            assert_eq!(settle(own.clone(), oldest, newest), expected, "{own:?} {oldest} {newest}");
        }
        let error = agree(3, 9).unwrap_err().to_string();
        assert_eq!(error, "it speaks protocol 3 to 9, this one speaks protocol 1");
    }
}
