//! Weights: an instance's share of its service's new work.

use std::fmt;
use std::str::FromStr;

/// An instance's share of its service's new connections, requests and flows, beside the other instances' weights:
/// 0 to [`Weight::MAX`]; 1 when nothing is said. One of 0 gets nothing new and finishes what it has. An instance that is drained
/// has no share either, and keeps its weight for afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight {
    share: u16,
    kept: Option<u16>,
}

impl Weight {
    /// No share at all.
    pub const NONE: Self = Self::new(0);
    /// The largest.
    pub const MAX: Self = Self::new(1000);

    const fn new(share: u16) -> Self {
        Self { share, kept: None }
    }

    /// The share: 0 while the instance is drained.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.share
    }

    /// The weight for the time after the drain; `None` unless the instance was drained by [`Weight::drain`].
    #[must_use]
    pub fn kept(self) -> Option<Self> {
        self.kept.map(Self::new)
    }

    /// Drains the instance.
    #[must_use]
    pub const fn drain(self) -> Self {
        match self.kept {
            Some(_) => self,
            None => Self { share: 0, kept: Some(self.share) },
        }
    }

    /// Ends the drain.
    #[must_use]
    pub fn undrain(self) -> Self {
        self.kept().unwrap_or(self)
    }

    /// Returns true if nothing new may go there.
    #[must_use]
    pub const fn is_drained(self) -> bool {
        self.share == 0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self::new(1)
    }
}

/// A number that is no weight.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("weight {0:?} is not a number from 0 to {max}", max = Weight::MAX)]
pub struct WeightError(String);

impl TryFrom<u32> for Weight {
    type Error = WeightError;
    fn try_from(number: u32) -> Result<Self, WeightError> {
        let weight = u16::try_from(number).ok().map(Self::new).filter(|weight| *weight <= Self::MAX);
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
        fmt::Display::fmt(&self.share, f)
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

    #[test]
    fn one_that_is_drained_has_no_share_and_gets_its_own_back() {
        for share in [0, 1, 7, 1000] {
            let weight = Weight::new(share);
            let drained = weight.drain();
            assert_eq!((drained.get(), drained.is_drained(), drained.kept()), (0, true, Some(weight)));
            assert_eq!(drained.drain(), drained, "drained twice");
            assert_eq!((drained.undrain(), weight.undrain(), weight.kept()), (weight, weight, None));
            assert_ne!(drained, weight, "others are to hear of it");
        }
    }
}
