//! The history: what has changed, when, and by whom.

use std::time::SystemTime;

use sealane_proto::wire::v1;
use serde::Serialize;
use serde_json::Value;
use v1::actor::Kind;

use super::{rfc3339, text};
use crate::printer::{self, Row};

/// A change as `history` shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct EntryView {
    revision: u64,
    #[serde(serialize_with = "rfc3339")]
    at: Option<SystemTime>,
    actor: ActorView,
    /// `created`, `changed`, `deleted`; of hosts `joined`, `readmitted`, `recalled`, `removed`, `drained`, `undrained`; of tokens
    /// `revoked`.
    deed: String,
    /// `Network`, `Service`, `Host` or `Token`.
    kind: String,
    /// Null: the object belongs to none.
    network: Option<String>,
    name: String,
    /// The token by which a host has joined.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// The host that has registered the service; null: somebody has applied it.
    registrar: Option<String>,
    /// The document before; null: there was none. Of one that is cut off, its beginning as a text.
    before: Option<Value>,
    /// The document since; null: there is none. Of one that is cut off, its beginning as a text.
    after: Option<Value>,
}

/// Author of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct ActorView {
    /// `operator`, `host` or `control`.
    kind: &'static str,
    /// In words.
    words: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    login_uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verb: Option<String>,
}

impl EntryView {
    fn object(&self) -> String {
        let kind = self.kind.to_lowercase();
        match self.network.as_ref().filter(|network| **network != self.name || kind != "network") {
            Some(network) => format!("{kind} {}.{network}", self.name),
            None => format!("{kind} {}", self.name),
        }
    }
}

impl From<v1::HistoryEntry> for EntryView {
    fn from(entry: v1::HistoryEntry) -> Self {
        let document = |kept: v1::KeptDocument| match kept.cut {
            true => Value::String(kept.json),
            false => serde_json::from_str(&kept.json).unwrap_or(Value::String(kept.json)),
        };
        let kept = [&entry.after, &entry.before].into_iter().flatten().next();
        Self {
            revision: entry.revision,
            at: printer::instant(entry.at_unix_seconds),
            registrar: kept.and_then(|kept| text(kept.registrar.clone())),
            actor: entry.actor.unwrap_or_default().into(),
            deed: entry.deed,
            kind: entry.kind,
            network: text(entry.network),
            name: entry.name,
            token: text(entry.token),
            before: entry.before.map(document),
            after: entry.after.map(document),
        }
    }
}

impl From<v1::Actor> for ActorView {
    fn from(actor: v1::Actor) -> Self {
        let kind = match actor.kind() {
            Kind::Control => "control",
            Kind::Host => "host",
            Kind::Operator => "operator",
            Kind::Unspecified => "unknown",
        };
        Self {
            kind,
            words: actor.words,
            node: text(actor.node),
            uid: actor.uid,
            user: text(actor.user),
            login_uid: actor.login_uid,
            login: text(actor.login),
            verb: text(actor.verb),
        }
    }
}

impl Row for EntryView {
    const HEADERS: &'static [&'static str] = &["REVISION", "WHEN", "WHO", "WHAT", "OBJECT"];
    const NONE: &'static str = "no changes are known";

    fn cells(&self, now: SystemTime) -> Vec<String> {
        let when = self.at.map_or_else(|| "-".to_owned(), |at| printer::ago(at, now));
        let by = match (&self.actor.verb, &self.token) {
            (Some(verb), _) => format!(" ({verb})"),
            (None, Some(token)) => format!(" (token {token})"),
            (None, None) => String::new(),
        };
        let what = format!("{}{by}", self.deed);
        vec![self.revision.to_string(), when, self.actor.words.clone(), what, self.object()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_says_who_did_what_to_which_object() {
        let told = |kind: &str, network: &str, name: &str, verb: &str, token: &str| {
            let actor = v1::Actor { words: "root".to_owned(), verb: verb.to_owned(), ..v1::Actor::default() };
            let entry = v1::HistoryEntry {
                revision: 7,
                actor: Some(actor),
                deed: "changed".to_owned(),
                kind: kind.to_owned(),
                network: network.to_owned(),
                name: name.to_owned(),
                token: token.to_owned(),
                ..v1::HistoryEntry::default()
            };
            EntryView::from(entry).cells(SystemTime::UNIX_EPOCH).join(" | ")
        };
        assert_eq!(
            told("Service", "shop", "api", "apply", ""),
            "7 | - | root | changed (apply) | service api.shop"
        );
        assert_eq!(told("Service", "shop", "shop", "", ""), "7 | - | root | changed | service shop.shop");
        assert_eq!(told("Network", "shop", "shop", "", ""), "7 | - | root | changed | network shop");
        assert_eq!(told("Host", "", "h", "", "abc"), "7 | - | root | changed (token abc) | host h");
    }

    #[test]
    fn a_document_is_shown_as_one_and_the_beginning_of_one_as_text() {
        let kept = |json: &str, cut| {
            Some(v1::KeptDocument { json: json.to_owned(), cut, registrar: "host-1".to_owned() })
        };
        let entry = v1::HistoryEntry {
            before: kept(r#"{"kind":"Ser"#, true),
            after: kept(r#"{"kind":"Service"}"#, false),
            ..v1::HistoryEntry::default()
        };
        let shown = serde_json::to_value(EntryView::from(entry)).unwrap();
        assert_eq!(shown["before"], r#"{"kind":"Ser"#);
        assert_eq!((&shown["after"]["kind"], &shown["registrar"]), (&"Service".into(), &"host-1".into()));
    }
}
