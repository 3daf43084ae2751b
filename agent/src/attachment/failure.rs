//! Failures of a request at a door: one structure, which every door puts in its own words.

use std::fmt;

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Kind of the failure.
    pub(crate) kind: Kind,
    /// Message: names the object, the field and the cause.
    pub(crate) message: String,
    /// Remedy.
    pub(crate) hint: Option<String>,
    /// True if the same request may succeed later by itself.
    pub(crate) retry: bool,
}

/// Kind of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
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

impl Failure {
    /// A failure of this kind. The hint that a text ends with (`; hint: `) becomes the failure's.
    #[must_use]
    pub(crate) fn new(kind: Kind, text: impl fmt::Display) -> Self {
        let text = text.to_string();
        let (message, hint) = match text.split_once("; hint: ") {
            Some((message, hint)) => (message.to_owned(), Some(hint.to_owned())),
            None => (text, None),
        };
        let retry = match kind {
            Kind::NameInUse | Kind::InUse | Kind::Disk | Kind::Broken | Kind::Away | Kind::Ending => true,
            Kind::Wrong
            | Kind::NotFound
            | Kind::Refused
            | Kind::Removed
            | Kind::Forbidden
            | Kind::Namespace => false,
        };
        Self { kind, message, hint, retry }
    }

    /// The same with this hint.
    #[must_use]
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for Failure {
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
        let failure = Failure::new(Kind::InUse, "address 10.42.0.9 is in use; hint: choose another one");
        assert_eq!(failure.message, "address 10.42.0.9 is in use");
        assert_eq!(failure.hint.as_deref(), Some("choose another one"));
        assert_eq!(failure.to_string(), "address 10.42.0.9 is in use; hint: choose another one");
        assert!(failure.retry);
        assert_eq!(Failure::new(Kind::Wrong, "no").hint, None);
    }
}
