//! Events of dockerd about containers and networks, a line of JSON each. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::attachment::ContainerCondition;

/// An event, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Something about a container is different. Where the event alone says so, what it is like now.
    Container(String, Option<ContainerCondition>),
    /// A container was removed.
    Removed(String),
    /// A network was removed.
    NetworkRemoved(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct EventView {
    #[serde(rename = "Type")]
    of: String,
    #[serde(rename = "Action")]
    action: String,
    #[serde(rename = "Actor")]
    actor: ActorView,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ActorView {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Attributes")]
    attributes: Option<BTreeMap<String, String>>,
}

/// Builds the filter for the events that are asked for. `health_status` is the beginning of several.
pub(super) fn filters() -> Value {
    json!({
        "type": ["container", "network"],
        "event": [
            "start", "die", "pause", "unpause", "oom", "health_status", "rename", "destroy", "connect", "disconnect",
        ],
    })
}

impl Event {
    /// Reads one; `None` when it is about nothing that matters here.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let EventView { of, action, actor } = serde_json::from_slice(line).ok()?;
        let id = Some(actor.id).filter(|id| !id.is_empty())?;
        match (of.as_str(), action.as_str()) {
            ("container", "die") => Some(Self::Container(id, Some(ContainerCondition::Ended))),
            ("container", "pause") => Some(Self::Container(id, Some(ContainerCondition::Paused))),
            ("container", "health_status: unhealthy") => {
                Some(Self::Container(id, Some(ContainerCondition::Unhealthy)))
            }
            ("container", "destroy") => Some(Self::Removed(id)),
            ("container", _) => Some(Self::Container(id, None)),
            ("network", "connect" | "disconnect") => {
                let container = actor.attributes?.remove("container")?;
                Some(Self::Container(container, None))
            }
            ("network", "destroy") => Some(Self::NetworkRemoved(id)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_calls_is_told_by_the_event_itself() {
        let check = |line: &str, expected: Option<Event>| assert_eq!(Event::parse(line.as_bytes()), expected);
        let container = |said| Some(Event::Container("4f1c".to_owned(), said));
        let of = |action: &str| {
            format!(r#"{{"Type":"container","Action":"{action}","Actor":{{"ID":"4f1c"}},"time":1}}"#)
        };
        check(&of("pause"), container(Some(ContainerCondition::Paused)));
        check(&of("die"), container(Some(ContainerCondition::Ended)));
        check(&of("health_status: unhealthy"), container(Some(ContainerCondition::Unhealthy)));
        check(&of("health_status: healthy"), container(None));
        check(&of("start"), container(None));
        check(&of("destroy"), Some(Event::Removed("4f1c".to_owned())));
        let network = r#"{"Type":"network","Action":"connect","Actor":{"ID":"n","Attributes":{"container":"4f1c","name":"shop"}}}"#;
        check(network, container(None));
        check(
            r#"{"Type":"network","Action":"destroy","Actor":{"ID":"n"}}"#,
            Some(Event::NetworkRemoved("n".to_owned())),
        );
        check(r#"{"Type":"image","Action":"pull","Actor":{"ID":"x"}}"#, None);
        check(r#"{"Type":"container","Action":"die"}"#, None);
        check("{", None);
    }
}
