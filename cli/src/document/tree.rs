//! YAML (and with it JSON) as a tree that knows where each of its parts stands.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::Flaw;

/// A place in a text, from 1 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct At {
    pub(super) line: u64,
    pub(super) column: u64,
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) at: At,
    pub(super) value: Value,
}

/// Content of a value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the text, each with the place of its key.
    Map(Vec<(String, At, Node)>),
}

/// The documents of a text, without empty ones.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, Flaw> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 50_000 },
        merge_keys: serde_saphyr::MergeKeyPolicy::Error,
        budget: serde_saphyr::budget! {
            max_events: 1_000_000,
            max_nodes: 500_000,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_depth: 32,
            max_documents: 10_001,
        },
    };
    let nodes: Vec<Node> = serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let at = error.location().map(At::from);
        let message = message(error.without_snippet());
        Flaw { at, path: String::new(), message }
    })?;
    Ok(nodes.into_iter().filter(|node| node.value != Value::Null).collect())
}

/// An error in the words of documents, where the parser's are for programmers.
#[allow(clippy::wildcard_enum_match_arm, reason = "the others say it well themselves")]
fn message(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error;
    match error {
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("field `{key}` is there twice"),
        Error::MergeKeyNotAllowed { .. } => {
            "merge keys (<<) are not understood; write the fields out".to_owned()
        }
        Error::RecursiveReferencesRequireWeakTypes { .. } => "an anchor cannot hold its own alias".to_owned(),
        Error::AliasError { error, .. } => message(error),
        Error::Budget { .. } | Error::AliasReplayLimitExceeded { .. } => {
            "too large, too deep, or grown too large by its aliases".to_owned()
        }
        other => bare(&other.to_string()).to_owned(),
    }
}

/// Words without the place that they may begin or end with.
fn bare(text: &str) -> &str {
    let text = text.lines().next().unwrap_or_default();
    let text = match text.strip_prefix("line ").and_then(|rest| rest.split_once(": ")) {
        Some((place, rest)) if place.chars().all(|c| c.is_ascii_digit() || " column".contains(c)) => rest,
        _ => text,
    };
    text.rsplit_once(" at line ").map_or(text, |(text, _)| text)
}

impl From<serde_saphyr::Location> for At {
    fn from(location: serde_saphyr::Location) -> Self {
        Self { line: location.line(), column: location.column() }
    }
}

impl Node {
    pub(super) fn is_map(&self) -> bool {
        matches!(self.value, Value::Map(_))
    }

    /// A field of a mapping.
    pub(super) fn field(&self, name: &str) -> Option<&Self> {
        let Value::Map(fields) = &self.value else { return None };
        fields.iter().find(|(key, ..)| key == name).map(|(.., node)| node)
    }

    pub(super) fn text(&self) -> Option<&str> {
        if let Value::Text(text) = &self.value { Some(text) } else { None }
    }

    /// The part at a path such as `spec.ports[1].port`, or what there is of it.
    pub(super) fn find(&self, path: &str) -> Option<&Self> {
        let mut found = self;
        for step in path.split(['.', '[']).map(|step| step.trim_end_matches(']')) {
            let next = if let Value::List(nodes) = &found.value {
                step.parse().ok().and_then(|at: usize| nodes.get(at))
            } else {
                found.field(step)
            };
            found = next.unwrap_or(found);
        }
        Some(found)
    }

    /// The documents that this is: a list is as many as it has members, and so is a List as kubectl writes it.
    pub(super) fn into_documents(self) -> Vec<Self> {
        let word = |name: &str| self.field(name).and_then(Self::text);
        let is_list = word("kind") == Some("List") && word("apiVersion") == Some("v1");
        match self.value {
            Value::List(nodes) => nodes,
            Value::Map(fields) if is_list => {
                let items = fields.into_iter().find(|(key, ..)| key == "items");
                items.map(|(_, _, items)| items.into_documents()).unwrap_or_default()
            }
            Value::Map(_)
            | Value::Null
            | Value::Bool(_)
            | Value::Signed(_)
            | Value::Unsigned(_)
            | Value::Float(_)
            | Value::Text(_) => vec![self],
        }
    }

    /// In the words of a sentence.
    pub(super) fn what(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Signed(_) | Value::Unsigned(_) | Value::Float(_) => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { at: spanned.referenced.into(), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyVisitor)
    }
}

struct AnyVisitor;

impl<'de> Visitor<'de> for AnyVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(u64::try_from(value).map_or(Value::Signed(value), Value::Unsigned))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Unsigned(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut nodes = vec![];
        while let Some(node) = sequence.next_element()? {
            nodes.push(node);
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = vec![];
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            fields.push((key.value, key.referenced.into(), map.next_value()?));
        }
        Ok(Value::Map(fields))
    }
}
