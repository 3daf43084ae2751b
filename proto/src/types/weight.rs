//! Weights: an instance's share of its service's new work.

use std::fmt;
use std::str::FromStr;

/// An instance's share of its service's new connections, requests and flows, beside the other instances' weights:
/// 0 to [`Weight::MAX`]; 1 when nothing is said. One of 0 is drained: it gets nothing new and finishes what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u16);

impl Weight {
    /// No share at all: drained.
    pub const NONE: Self = Self(0);
    /// The largest.
    pub const MAX: Self = Self(1000);

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Returns true if nothing new may go there.
    #[must_use]
    pub const fn is_drained(self) -> bool {
        self.0 == 0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(1)
    }
}

/// A number that is no weight.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("weight {0:?} is not a number from 0 to {max}", max = Weight::MAX)]
pub struct WeightError(String);

impl TryFrom<u32> for Weight {
    type Error = WeightError;
    fn try_from(number: u32) -> Result<Self, WeightError> {
        let weight = u16::try_from(number).ok().map(Self).filter(|weight| *weight <= Self::MAX);
        weight.ok_or_else(|| WeightError(number.to_string()))
    }
}

impl FromStr for Weight {
    type Err = WeightError;
    fn from_str(text: &str) -> Result<Self, WeightError> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number: Option<u32> = if digits { text.parse().ok() } else { None };
        number.and_then(|number| Self::try_from(number).ok()).ok_or_else(|| WeightError(text.to_owned()))
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_small_numbers_and_others_are_named() {
        for text in ["0", "1", "1000"] {
            assert_eq!(text.parse::<Weight>().unwrap().to_string(), text);
        }
        for text in ["", "1001", "-1", "+1", "1.5", "99999999999"] {
            let error = text.parse::<Weight>().unwrap_err().to_string();
            assert_eq!(error, format!("weight {text:?} is not a number from 0 to 1000"));
        }
        assert!("0".parse::<Weight>().unwrap().is_drained() && !Weight::default().is_drained());
    }
}
