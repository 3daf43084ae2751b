//! What a CNI plugin says when it fails (CNI 1.1, section 5, "Error").

use serde_json::{Value, json};

use crate::plugin::holding::{Kind, Refused};

/// The error codes of the specification, and, from 100 on, ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// The version of the configuration is none that is spoken here, or does not have the verb.
    Version = 1,
    /// A key that is not known.
    Unsupported = 2,
    /// A variable of the environment is missing or wrong.
    Environment = 4,
    /// Reading failed.
    Io = 5,
    /// What was read is no JSON, or not of the right kinds.
    Decode = 6,
    /// A value is wrong.
    Configuration = 7,
    /// A passing condition.
    TryAgain = 11,
    /// No container can be attached now.
    NotAvailable = 50,
    /// There is no such network or attachment.
    Missing = 100,
    /// A name or address is another one's.
    InUse = 101,
    /// The agent could not do it.
    Failed = 102,
    /// CHECK found something else than there should be.
    Differs = 103,
}

/// A failure, as it is printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CniError {
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) details: String,
}

impl CniError {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { details: hint.into(), ..self }
    }

    /// The answer on standard output.
    pub(super) fn answer(&self, version: &str) -> Value {
        let mut answer = json!({ "cniVersion": version, "code": self.code as u32, "msg": format!("sealane: {}", self.message) });
        if !self.details.is_empty() {
            answer["details"] = self.details.clone().into();
        }
        answer
    }
}

impl From<Refused> for CniError {
    fn from(refused: Refused) -> Self {
        let code = match refused.kind {
            Kind::Unreachable => Code::TryAgain,
            Kind::Wrong => Code::Configuration,
            Kind::Missing => Code::Missing,
            Kind::InUse => Code::InUse,
            Kind::Namespace => Code::Environment,
            Kind::Failed => Code::Failed,
        };
        let details = refused.hint.as_deref().map(in_keys).unwrap_or_default();
        Self { code, message: in_keys(&refused.message), details }
    }
}

/// The agent speaks of the command line's flags; a configuration has keys.
fn in_keys(text: &str) -> String {
    let keys = [
        ("--no-sidecar", "\"sidecar\": false"),
        ("--network", "network"),
        ("--service", "service"),
        ("--port", "port"),
        ("--alias", "alias"),
        ("--weight", "weight"),
        ("--ip", "address"),
        ("--mac", "MAC address"),
    ];
    keys.iter().fold(text.to_owned(), |text, (flag, key)| text.replace(flag, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_the_agent_speaks_of_keys() {
        let refused = Refused {
            kind: Kind::Wrong,
            message: "--port 15001 is one of the sidecar's own ports".to_owned(),
            hint: Some("listen on another one, or use --no-sidecar".to_owned()),
        };
        let answer = CniError::from(refused).answer("1.1.0");
        let expected = json!({
            "cniVersion": "1.1.0", "code": 7, "msg": "sealane: port 15001 is one of the sidecar's own ports",
            "details": "listen on another one, or use \"sidecar\": false",
        });
        assert_eq!(answer, expected);
    }
}
