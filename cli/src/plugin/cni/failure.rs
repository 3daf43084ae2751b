//! Errors of a CNI plugin (CNI 1.1, section 5, "Error").

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::plugin::holding::{RefusalKind, Refused};
use crate::plugin::json::Wrong;

/// The error codes of the specification, and, from 100 on, ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// The version of the configuration is none that is spoken here, or does not have the verb.
    Version = 1,
    /// A key that is not known.
    Unsupported = 2,
    /// Nothing is attached for the container, and nothing is to be cleaned up.
    UnknownContainer = 3,
    /// A variable of the environment is missing or wrong.
    Environment = 4,
    /// Reading failed.
    Io = 5,
    /// The input is no JSON, or not of the right kinds.
    Decode = 6,
    /// A value is wrong.
    Configuration = 7,
    /// A passing condition.
    TryAgain = 11,
    /// No container can be attached now.
    NotAvailable = 50,
    /// The same, and those that are attached may not reach others.
    Limited = 51,
    /// The network does not exist, or is not for this host.
    NoNetwork = 100,
    /// A name or address is another one's.
    InUse = 101,
    /// The agent could not do it.
    Failed = 102,
    /// CHECK found something else than there should be.
    Differs = 103,
}

/// A failure with its code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CniError {
    pub(super) code: Code,
    pub(super) told: Failure,
}

impl CniError {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, told: Failure::new(message) }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { told: self.told.hint(hint), ..self }
    }

    /// The answer on standard output.
    pub(super) fn answer(&self, version: &str) -> Value {
        let Failure { message, hint, .. } = &self.told;
        let mut answer =
            json!({ "cniVersion": version, "code": self.code as u32, "msg": format!("sealane: {message}") });
        if let Some(hint) = hint {
            answer["details"] = hint.clone().into();
        }
        answer
    }
}

impl From<Wrong> for CniError {
    fn from(wrong: Wrong) -> Self {
        Self { code: Code::Configuration, told: wrong.into() }
    }
}

impl From<Refused> for CniError {
    fn from(refused: Refused) -> Self {
        let code = match refused.kind {
            _ if refused.retry => Code::TryAgain,
            RefusalKind::Unreachable => Code::TryAgain,
            RefusalKind::Wrong => Code::Configuration,
            RefusalKind::Missing | RefusalKind::Forbidden | RefusalKind::Removed => Code::NoNetwork,
            RefusalKind::InUse => Code::InUse,
            RefusalKind::Namespace => Code::Environment,
            RefusalKind::Unknown | RefusalKind::Failed => Code::Failed,
        };
        Self { code, told: refused.in_words(&KEYS) }
    }
}

/// The agent speaks of the command line's flags; a configuration has keys.
const KEYS: [(&str, &str); 8] = [
    ("--no-sidecar", "\"sidecar\": false"),
    ("--network", "network"),
    ("--service", "service"),
    ("--port", "port"),
    ("--alias", "alias"),
    ("--weight", "weight"),
    ("--ip", "address"),
    ("--mac", "MAC address"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(kind: RefusalKind, retry: bool) -> Refused {
        let told = Failure::new("--port 15001 is one of the sidecar's own ports")
            .hint("listen on another one, or use --no-sidecar");
        Refused { kind, retry, told }
    }

    #[test]
    fn a_refusal_of_the_agent_speaks_of_keys() {
        let answer = CniError::from(refused(RefusalKind::Wrong, false)).answer("1.1.0");
        let expected = json!({
            "cniVersion": "1.1.0", "code": 7, "msg": "sealane: port 15001 is one of the sidecar's own ports",
            "details": "listen on another one, or use \"sidecar\": false",
        });
        assert_eq!(answer, expected);
    }

    #[test]
    fn what_may_succeed_later_is_to_be_tried_again_whatever_it_is() {
        for (kind, retry, expected) in [
            (RefusalKind::Unreachable, true, Code::TryAgain),
            (RefusalKind::InUse, true, Code::TryAgain),
            (RefusalKind::InUse, false, Code::InUse),
            (RefusalKind::Missing, false, Code::NoNetwork),
            (RefusalKind::Namespace, false, Code::Environment),
            (RefusalKind::Failed, false, Code::Failed),
        ] {
            assert_eq!(CniError::from(refused(kind, retry)).code, expected, "{kind:?}");
        }
    }
}
