//! The versions of the specification that are spoken.

use serde_json::Value;

use crate::plugin::json::Object;

/// A version; later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    V010,
    V020,
    V030,
    V031,
    V040,
    V100,
    V110,
}

impl Version {
    /// All of them, the oldest first.
    pub(super) const ALL: [(Self, &'static str); 7] = [
        (Self::V010, "0.1.0"),
        (Self::V020, "0.2.0"),
        (Self::V030, "0.3.0"),
        (Self::V031, "0.3.1"),
        (Self::V040, "0.4.0"),
        (Self::V100, "1.0.0"),
        (Self::V110, "1.1.0"),
    ];

    /// The version that a configuration asks for, or the text that is none of them. One that says nothing is of the time before versions.
    pub(super) fn of(conf: &Object) -> Result<Self, &Value> {
        match conf.get("cniVersion") {
            None | Some(Value::Null) => Ok(Self::V010),
            Some(asked) => asked.as_str().and_then(Self::parse).ok_or(asked),
        }
    }

    /// The version of that number.
    fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, number)| *number == text).map(|(version, _)| *version)
    }

    /// Returns its number.
    pub(super) fn number(self) -> &'static str {
        Self::ALL.iter().find(|(version, _)| *version == self).map_or("1.1.0", |(_, number)| number)
    }
}
