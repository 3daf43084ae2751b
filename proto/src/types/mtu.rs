//! Sizes of packets.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An inner MTU in bytes: what every IPv4 host must take (RFC 791) to jumbo frames, 576 to 9000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u16")]
pub struct Mtu(u16);

/// A number that is no sensible MTU.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("mtu {0} must be from {min} to {max} bytes, or left out", min = Mtu::MIN, max = Mtu::MAX)]
pub struct MtuError(String);

impl Mtu {
    /// The smallest.
    pub const MIN: u16 = 576;
    /// The largest.
    pub const MAX: u16 = 9_000;
    /// The smallest where there is IPv6 (RFC 8200, section 5).
    pub const MIN_IPV6: u16 = 1_280;
    /// The same as an MTU.
    pub const LEAST_IPV6: Self = Self(Self::MIN_IPV6);

    /// Bytes.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Returns true if packets of IPv6 may be that short.
    #[must_use]
    pub const fn carries_ipv6(self) -> bool {
        self.0 >= Self::MIN_IPV6
    }
}

impl TryFrom<u32> for Mtu {
    type Error = MtuError;
    fn try_from(bytes: u32) -> Result<Self, MtuError> {
        let sensible = u16::try_from(bytes).ok().filter(|bytes| (Self::MIN..=Self::MAX).contains(bytes));
        sensible.map(Self).ok_or_else(|| MtuError(bytes.to_string()))
    }
}

impl FromStr for Mtu {
    type Err = MtuError;
    fn from_str(text: &str) -> Result<Self, MtuError> {
        let bytes: u32 = text.parse().map_err(|_| MtuError(text.to_owned()))?;
        bytes.try_into()
    }
}

impl From<Mtu> for u16 {
    fn from(mtu: Mtu) -> Self {
        mtu.0
    }
}

impl From<Mtu> for u32 {
    fn from(mtu: Mtu) -> Self {
        mtu.0.into()
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sensible_sizes_are_taken_and_the_others_are_named() {
        for bytes in [576, 1_279, 1_280, 1_450, 9_000] {
            let mtu = Mtu::try_from(bytes).unwrap();
            assert_eq!((mtu.to_string().parse(), mtu.carries_ipv6()), (Ok(mtu), bytes >= 1_280));
        }
        for text in ["0", "575", "9001", "65536", "4294967296", "-1", "big", ""] {
            let said = text.parse::<Mtu>().unwrap_err().to_string();
            assert_eq!(said, format!("mtu {text} must be from 576 to 9000 bytes, or left out"));
        }
    }
}
