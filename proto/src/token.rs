//! Join tokens: `slt1.<id>.<secret>.<pin>`, where the pin is the SHA-256 of the authority's certificate, so that
//! a joining host knows its control plane before it says anything secret.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use sha2::{Digest, Sha256};

const PREFIX: &str = "slt1";

/// The SHA-256 of an authority's certificate (DER).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin([u8; 32]);

impl Pin {
    /// The pin of this certificate (DER).
    #[must_use]
    pub fn of(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&encode(&self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The secret half of a token. Control keeps only its hash; `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret([u8; 20]);

impl TokenSecret {
    /// A secret from 160 random bits.
    #[must_use]
    pub fn new(random: [u8; 20]) -> Self {
        Self(random)
    }

    /// Returns the hash that control keeps. 160 random bits need no slow hash.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(..)")
    }
}

impl fmt::Display for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&encode(&self.0))
    }
}

impl FromStr for TokenSecret {
    type Err = ParseTokenError;
    fn from_str(text: &str) -> Result<Self, ParseTokenError> {
        decode(text).map(Self).ok_or(ParseTokenError)
    }
}

/// A join token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    /// Public name: 8 base-32 characters.
    pub id: String,
    /// Secret that proves it.
    pub secret: TokenSecret,
    /// The authority that made it.
    pub pin: Pin,
}

/// A text that is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the join token is malformed (it reads slt1.ID.SECRET.PIN, as `sealane token create` prints it)")]
pub struct ParseTokenError;

/// Returns true if a text may be a token's public name.
#[must_use]
pub fn is_id(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

impl FromStr for JoinToken {
    type Err = ParseTokenError;
    fn from_str(text: &str) -> Result<Self, ParseTokenError> {
        let parts: Vec<&str> = text.trim().split('.').collect();
        let [PREFIX, id, secret, pin] = parts.as_slice() else {
            return Err(ParseTokenError);
        };
        if !is_id(id) {
            return Err(ParseTokenError);
        }
        let pin = decode(pin).map(Pin).ok_or(ParseTokenError)?;
        Ok(Self { id: (*id).to_owned(), secret: secret.parse()?, pin })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}.{}.{}.{}", self.id, self.secret, self.pin)
    }
}

fn encode(bytes: &[u8]) -> String {
    BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}

fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let lower = text.bytes().all(|byte| !byte.is_ascii_uppercase());
    let bytes = BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).ok()?;
    if lower { bytes.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_and_debug_hides_the_secret() {
        let secret = TokenSecret::new([7; 20]);
        let token = JoinToken { id: "abcd2345".into(), secret, pin: Pin::of(b"certificate") };
        assert_eq!(token.to_string().parse::<JoinToken>().unwrap(), token);
        assert!(!format!("{token:?}").contains(&token.secret.to_string()));
    }

    #[test]
    fn damaged_tokens_are_refused() {
        let token =
            JoinToken { id: "abcd2345".into(), secret: TokenSecret::new([7; 20]), pin: Pin::of(b"x") };
        let text = token.to_string();
        for bad in ["", "slt1", &text[1..], &text[..text.len() - 1], &text.replace("slt1", "slt2")] {
            assert!(bad.parse::<JoinToken>().is_err(), "{bad}");
        }
    }
}
