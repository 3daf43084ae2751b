//! JSON that runtimes write, read value by value: what is wrong is named by its key.

#[cfg(test)]
pub(super) mod arbitrary;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use sealane_proto::types::MacAddr;
use serde_json::{Map, Value};

use crate::failure::Failure;

/// The most characters of a value that a sentence shows.
const SHOWN: usize = 100;

/// An object.
pub(super) type Object = Map<String, Value>;

/// A value that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    key: String,
    reason: String,
}

impl Wrong {
    pub(super) fn new(key: &str, reason: impl Display) -> Self {
        Self { key: key.to_owned(), reason: reason.to_string() }
    }

    fn kind(key: &str, value: &Value, kind: &str) -> Self {
        Self::new(key, format!("{} is no {kind}", shown(value)))
    }
}

impl From<Wrong> for Failure {
    fn from(wrong: Wrong) -> Self {
        Self::new(format!("{}: {}", wrong.key, wrong.reason))
    }
}

/// The object of a text; `what` names that.
pub(super) fn object(what: &str, text: &[u8]) -> Result<Object, Failure> {
    match serde_json::from_slice(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Failure::new(format!("{what} is no JSON object"))),
        Err(error) => Err(Failure::new(format!("{what} is no JSON: {error}"))),
    }
}

/// A value in a sentence.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Takes null for nothing.
fn there(value: Option<&Value>) -> Option<&Value> {
    value.filter(|value| !value.is_null())
}

/// A text; an empty one is none.
pub(super) fn text<'a>(key: &str, value: Option<&'a Value>) -> Result<Option<&'a str>, Wrong> {
    match there(value) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(other) => Err(Wrong::kind(key, other, "text")),
    }
}

/// A text of this type.
pub(super) fn parsed<T: FromStr<Err: Display>>(key: &str, value: Option<&Value>) -> Result<Option<T>, Wrong> {
    text(key, value)?.map(str::parse).transpose().map_err(|error: T::Err| Wrong::new(key, error))
}

/// A MAC address, in small or capital letters.
pub(super) fn mac(key: &str, value: Option<&Value>) -> Result<Option<MacAddr>, Wrong> {
    let text = text(key, value)?.map(str::to_ascii_lowercase);
    text.map(|text| text.parse()).transpose().map_err(|error| Wrong::new(key, error))
}

/// True or false.
pub(super) fn flag(key: &str, value: Option<&Value>) -> Result<Option<bool>, Wrong> {
    match there(value) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(other) => Err(Wrong::new(key, format!("{} is neither true nor false", shown(other)))),
    }
}

/// An object.
pub(super) fn section<'a>(key: &str, value: Option<&'a Value>) -> Result<Option<&'a Object>, Wrong> {
    match there(value) {
        None => Ok(None),
        Some(Value::Object(section)) => Ok(Some(section)),
        Some(other) => Err(Wrong::kind(key, other, "object")),
    }
}

/// A list.
pub(super) fn list<'a>(key: &str, value: Option<&'a Value>) -> Result<&'a [Value], Wrong> {
    match there(value) {
        None => Ok(&[]),
        Some(Value::Array(list)) => Ok(list),
        Some(other) => Err(Wrong::kind(key, other, "list")),
    }
}

/// A list of texts.
pub(super) fn words(key: &str, value: Option<&Value>) -> Result<Vec<String>, Wrong> {
    let word = |value: &Value| {
        let text = value.as_str().map(str::to_owned);
        text.ok_or_else(|| Wrong::kind(key, value, "text"))
    };
    list(key, value)?.iter().map(word).collect()
}

/// The one IPv4 address of a list, each perhaps with the length of its prefix.
pub(super) fn address(key: &str, value: Option<&Value>) -> Result<Option<Ipv4Addr>, Wrong> {
    let mut found = None;
    for text in words(key, value)? {
        let bare = text.split_once('/').map_or(text.as_str(), |(bare, _)| bare);
        let why = match bare.parse() {
            Ok(IpAddr::V4(address)) if found.is_none() => {
                found = Some(address);
                continue;
            }
            Ok(IpAddr::V4(_)) => "is the second IPv4 address: an attachment has one",
            Ok(IpAddr::V6(_)) => {
                "cannot be asked for: an IPv6 address follows from the IPv4 address; hint: leave it out, and ask for that"
            }
            Err(_) => "is no address",
        };
        return Err(Wrong::new(key, format!("{} {why}", shown(&text.into()))));
    }
    Ok(found)
}

/// An object of texts.
pub(super) fn pairs(key: &str, value: Option<&Value>) -> Result<BTreeMap<String, String>, Wrong> {
    let pair = |(name, value): (&String, &Value)| {
        let text = value.as_str().map(|text| (name.clone(), text.to_owned()));
        text.ok_or_else(|| Wrong::kind(&format!("{key}.{name}"), value, "text"))
    };
    section(key, value)?.into_iter().flatten().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_of_another_kind_are_named_by_their_key_and_bounded() {
        let long = json!("x".repeat(10_000));
        for (wrong, expected) in [
            (text("name", Some(&json!(7))).unwrap_err(), "name: 7 is no text"),
            (words("ips", Some(&json!([7]))).unwrap_err(), "ips: 7 is no text"),
            (words("ips", Some(&json!({}))).unwrap_err(), "ips: {} is no list"),
            (pairs("options", Some(&json!({ "a": [] }))).unwrap_err(), "options.a: [] is no text"),
            (section("dns", Some(&json!("x"))).unwrap_err(), "dns: \"x\" is no object"),
            (
                flag("internal", Some(&json!("yes"))).unwrap_err(),
                "internal: \"yes\" is neither true nor false",
            ),
            (parsed::<u8>("weight", Some(&json!("x"))).unwrap_err(), "weight: invalid digit"),
        ] {
            let told = Failure::from(wrong).message;
            assert!(told.starts_with(expected), "{told}");
        }
        assert!(Failure::from(list("ips", Some(&long)).unwrap_err()).message.len() < 150);
        assert_eq!(text("name", Some(&Value::Null)), text("name", None));
        assert_eq!(shown(&json!("ä".repeat(200))).chars().count(), SHOWN + 3);
    }
}
