//! Deed of a verb that has nothing else to show.

use std::fmt::Display;

use serde::Serialize;

/// The thing and what became of it, in the words of `apply` and `delete`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Done {
    kind: &'static str,
    /// The network that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<String>,
    name: String,
    effect: &'static str,
}

impl Done {
    /// The effect on an object that belongs to no network.
    pub(crate) fn of(kind: &'static str, name: &impl Display, effect: &'static str) -> Self {
        Self { kind, network: None, name: name.to_string(), effect }
    }

    /// Adds the network that it belongs to.
    pub(crate) fn in_network(self, network: String) -> Self {
        Self { network: Some(network), ..self }
    }
}
