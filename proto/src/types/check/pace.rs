//! The pace of a check: times, and numbers of answers in a row.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{CheckError, shown};

/// The time between two checks: 100 ms to an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(Duration);

/// Number of answers in a row: 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Threshold(u8);

impl Interval {
    const SHORTEST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(3_600);

    /// The time.
    #[must_use]
    pub fn get(self) -> Duration {
        self.0
    }

    /// The time in whole milliseconds.
    #[must_use]
    pub fn millis(self) -> u32 {
        u32::try_from(self.0.as_millis()).unwrap_or(u32::MAX)
    }

    /// The time that an instance may take to answer: the interval, two seconds at most.
    #[must_use]
    pub fn patience(self) -> Duration {
        self.0.min(Duration::from_secs(2))
    }
}

impl Default for Interval {
    fn default() -> Self {
        Self(Duration::from_secs(5))
    }
}

impl TryFrom<Duration> for Interval {
    type Error = CheckError;
    fn try_from(time: Duration) -> Result<Self, CheckError> {
        let fits = (Self::SHORTEST..=Self::LONGEST).contains(&time);
        if fits { Ok(Self(time)) } else { Err(CheckError::Interval(format!("{time:?}"))) }
    }
}

impl FromStr for Interval {
    type Err = CheckError;
    fn from_str(text: &str) -> Result<Self, CheckError> {
        let wrong = || CheckError::Interval(shown(text));
        let unit = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = text.split_at(unit);
        let each = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(each));
        Self::try_from(Duration::from_millis(millis.ok_or_else(wrong)?)).map_err(|_| wrong())
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.millis();
        let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s")];
        let whole = units.into_iter().find(|(each, _)| millis.is_multiple_of(*each));
        let (each, unit) = whole.unwrap_or((1, "ms"));
        f.pad(&format!("{}{unit}", millis / each))
    }
}

impl Threshold {
    /// One answer.
    pub const ONE: Self = Self(1);
    /// Three answers.
    pub const THREE: Self = Self(3);

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u32> for Threshold {
    type Error = CheckError;
    fn try_from(number: u32) -> Result<Self, CheckError> {
        match u8::try_from(number) {
            Ok(small @ 1..=100) => Ok(Self(small)),
            Ok(_) | Err(_) => Err(CheckError::Threshold(number.to_string())),
        }
    }
}

impl FromStr for Threshold {
    type Err = CheckError;
    fn from_str(text: &str) -> Result<Self, CheckError> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse::<u32>().ok().filter(|_| digits);
        let wrong = || CheckError::Threshold(format!("{:?}", shown(text)));
        number.and_then(|number| Self::try_from(number).ok()).ok_or_else(wrong)
    }
}

impl Serialize for Threshold {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Threshold {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(u32::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TimeVisitor)
    }
}

/// Reads a time; a number lacks its unit.
struct TimeVisitor;

impl de::Visitor<'_> for TimeVisitor {
    type Value = Interval;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a time from 100ms to 1h, such as 5s")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Interval, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_without_a_unit_is_told_to_be_a_time() {
        let refused = |json: &str| serde_json::from_str::<Interval>(json).unwrap_err().to_string();
        assert!(refused("5").contains("expected a time from 100ms to 1h, such as 5s"), "{}", refused("5"));
        assert!(refused("\"5\"").contains("is no time of a check: it is from 100ms to 1h, such as 5s"));
        assert_eq!(serde_json::from_str::<Interval>("\"5s\"").unwrap(), Interval::default());
    }

    #[test]
    fn times_and_numbers_are_read_as_they_are_written_and_have_bounds() {
        for good in ["100ms", "1500ms", "5s", "2m", "1h"] {
            assert_eq!(good.parse::<Interval>().unwrap().to_string(), good);
        }
        assert_eq!("2000ms".parse::<Interval>().unwrap().to_string(), "2s");
        for wrong in ["", "5", "s", "0s", "99ms", "2h", "-1s", "1.5s", "18446744073709551615h"] {
            assert!(wrong.parse::<Interval>().is_err(), "{wrong}");
        }
        assert_eq!(Interval::default().patience(), Duration::from_secs(2));
        for (text, fits) in
            [("1", true), ("100", true), ("0", false), ("101", false), ("-1", false), ("", false)]
        {
            assert_eq!(text.parse::<Threshold>().is_ok(), fits, "{text}");
        }
    }
}
