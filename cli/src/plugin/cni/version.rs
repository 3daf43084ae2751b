//! The versions of the specification that are spoken.

/// A version; later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    V030,
    V031,
    V040,
    V100,
    V110,
}

impl Version {
    /// All of them, the oldest first.
    pub(super) const ALL: [(Self, &'static str); 5] = [
        (Self::V030, "0.3.0"),
        (Self::V031, "0.3.1"),
        (Self::V040, "0.4.0"),
        (Self::V100, "1.0.0"),
        (Self::V110, "1.1.0"),
    ];

    /// The version of that number.
    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, number)| *number == text).map(|(version, _)| *version)
    }

    /// Returns its number.
    pub(super) fn number(self) -> &'static str {
        Self::ALL.iter().find(|(version, _)| *version == self).map_or("1.1.0", |(_, number)| number)
    }
}
