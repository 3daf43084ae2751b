//! Failures of a request at a door: one structure, which every door puts in its own words.

use std::fmt;

use sealane_base::text::without_numbers;

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestFailure {
    /// Kind of the failure.
    pub(crate) kind: FailureKind,
    /// Message: names the object, the field and the cause.
    pub(crate) message: String,
    /// Remedy.
    pub(crate) hint: Option<String>,
    /// True if the same request may succeed later by itself.
    pub(crate) retry: bool,
}

/// Kind of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// The request contradicts itself or the network.
    Wrong,
    /// An object that it names is not there.
    NotFound,
    /// The workload's name is another one's.
    NameInUse,
    /// An object that it asks for is another one's.
    InUse,
    /// Control refuses.
    Refused,
    /// Control wants nothing of this host any more.
    Removed,
    /// Control refuses an identity.
    Forbidden,
    /// The namespace is not there, or not one to attach.
    Namespace,
    /// The disk is full or faulty.
    Disk,
    /// The kernel, or a part of this host, does not do what it should.
    Broken,
    /// Control is asked and does not answer.
    Away,
    /// The agent is ending.
    Ending,
}

impl RequestFailure {
    /// A failure of this kind. The hint that a text ends with (`; hint: `) becomes the failure's.
    #[must_use]
    pub(crate) fn new(kind: FailureKind, text: impl fmt::Display) -> Self {
        let text = without_numbers(&text.to_string()).into_owned();
        let (message, hint) = match text.split_once("; hint: ") {
            Some((message, hint)) => (message.to_owned(), Some(hint.to_owned())),
            None => (text, None),
        };
        let retry = match kind {
            FailureKind::NameInUse
            | FailureKind::InUse
            | FailureKind::Disk
            | FailureKind::Broken
            | FailureKind::Away
            | FailureKind::Ending => true,
            FailureKind::Wrong
            | FailureKind::NotFound
            | FailureKind::Refused
            | FailureKind::Removed
            | FailureKind::Forbidden
            | FailureKind::Namespace => false,
        };
        Self { kind, message, hint, retry }
    }

    /// The same with this hint.
    #[must_use]
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for RequestFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hint {
            Some(hint) => write!(f, "{}; hint: {hint}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_told_from_what_it_is_a_hint_to() {
        let failure =
            RequestFailure::new(FailureKind::InUse, "address 10.42.0.9 is in use; hint: choose another one");
        assert_eq!(failure.message, "address 10.42.0.9 is in use");
        assert_eq!(failure.hint.as_deref(), Some("choose another one"));
        assert_eq!(failure.to_string(), "address 10.42.0.9 is in use; hint: choose another one");
        assert!(failure.retry);
        assert_eq!(RequestFailure::new(FailureKind::Wrong, "no").hint, None);
    }
}
