//! Times as the Gateway API writes them (GEP-2257).

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A time: up to four numbers of at most five digits, each with a unit (`h`, `m`, `s`, `ms`). It is written as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GatewayDuration {
    text: Arc<str>,
    time: Duration,
}

/// A text that is no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} is no time: it must be one to four numbers of at most five digits, each with h, m, s or ms behind it, such as 500ms \
     or 1m30s"
)]
pub struct GatewayDurationError {
    /// The text, cut where it is long.
    pub given: String,
}

impl GatewayDuration {
    /// The time.
    #[must_use]
    pub fn get(&self) -> Duration {
        self.time
    }

    /// The time, unless it is zero, which means that there is no limit.
    #[must_use]
    pub fn limit(&self) -> Option<Duration> {
        Some(self.time).filter(|time| !time.is_zero())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Splits a number with its unit off the beginning of a text.
fn part(text: &str) -> Option<(Duration, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if !(1..=5).contains(&digits) {
        return None;
    }
    let (number, rest) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let (unit, rest) =
        ["ms", "h", "m", "s"].iter().find_map(|unit| Some((*unit, rest.strip_prefix(unit)?)))?;
    let time = match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number * 60),
        _ => Duration::from_secs(number * 3600),
    };
    Some((time, rest))
}

fn parse(text: &str) -> Option<Duration> {
    let (mut time, mut rest) = part(text)?;
    for _ in 0..3 {
        if rest.is_empty() {
            break;
        }
        let (next, behind) = part(rest)?;
        time += next;
        rest = behind;
    }
    rest.is_empty().then_some(time)
}

impl FromStr for GatewayDuration {
    type Err = GatewayDurationError;
    fn from_str(text: &str) -> Result<Self, GatewayDurationError> {
        match parse(text) {
            Some(time) => Ok(Self { text: text.into(), time }),
            None => Err(GatewayDurationError { given: text.chars().take(40).collect() }),
        }
    }
}

impl TryFrom<String> for GatewayDuration {
    type Error = GatewayDurationError;
    fn try_from(text: String) -> Result<Self, GatewayDurationError> {
        text.parse()
    }
}

impl From<GatewayDuration> for String {
    fn from(time: GatewayDuration) -> Self {
        time.as_str().to_owned()
    }
}

impl fmt::Display for GatewayDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl JsonSchema for GatewayDuration {
    fn schema_name() -> Cow<'static, str> {
        "GatewayDuration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$" })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_numbers_with_units() {
        for (text, milliseconds) in [
            ("0s", 0),
            ("0h", 0),
            ("1h", 3_600_000),
            ("30m", 1_800_000),
            ("10s", 10_000),
            ("500ms", 500),
            ("2h30m", 9_000_000),
            ("1h1m1s1ms", 3_661_001),
            ("1s1s", 2_000),
            ("99999h", 359_996_400_000),
            ("00005ms", 5),
        ] {
            let time: GatewayDuration = text.parse().unwrap();
            assert_eq!((time.get().as_millis(), time.as_str()), (milliseconds, text));
        }
        for text in
            ["", "1", "s", "-1s", "1.5s", "100000s", "1d", "1us", "1h1m1s1ms1s", "1s ", " 1s", "1S", "1sx"]
        {
            let error = text.parse::<GatewayDuration>().unwrap_err().to_string();
            assert!(error.contains("is no time"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn every_text_of_the_form_is_the_sum_of_its_parts(parts in prop::collection::vec((0_u64..100_000, 0_usize..4), 1..=4)) {
            let units = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
            let text: String = parts.iter().map(|(number, unit)| format!("{number}{}", units[*unit].0)).collect();
            let sum: u64 = parts.iter().map(|(number, unit)| number * units[*unit].1).sum();
            prop_assert_eq!(text.parse::<GatewayDuration>().unwrap().get(), Duration::from_millis(sum));
        }
    }
}
