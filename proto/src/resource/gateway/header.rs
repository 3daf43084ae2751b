//! Changes of headers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::place::Place;
use super::text::{HeaderName, HeaderValue};
use crate::resource::document::FieldError;

/// The number of headers that a filter may set, add or remove each.
const HEADERS: usize = 16;
/// Headers that say where a message ends or what becomes of its connection. They belong to whoever sends the message.
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Settings of a filter that changes the headers of requests or responses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderModifier {
    /// Headers that replace those of the same name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub set: Vec<HeaderSetting>,
    /// Headers whose values are appended to those of the same name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub add: Vec<HeaderSetting>,
    /// Names of headers that are taken out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub remove: Vec<HeaderName>,
}

/// A header with its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderSetting {
    /// Name of the header.
    pub name: HeaderName,
    /// Value of the header.
    pub value: HeaderValue,
}

impl HeaderModifier {
    /// Checks that no header has two things done to it, and that none is one of those that frame a message.
    pub(super) fn check(&self, place: &Place<'_>) -> Result<(), FieldError> {
        let lists = [
            ("set", self.set.iter().map(|setting| &setting.name).collect::<Vec<_>>()),
            ("add", self.add.iter().map(|setting| &setting.name).collect()),
            ("remove", self.remove.iter().collect()),
        ];
        let mut seen: Vec<(&HeaderName, String)> = vec![];
        for (list, names) in lists {
            let place = place.field(list);
            place.at_most(HEADERS, names.len())?;
            for (at, name) in names.into_iter().enumerate() {
                let item = place.item(at);
                check_name(name, &item)?;
                if let Some((_, first)) = seen.iter().find(|(other, _)| other.is(name)) {
                    return Err(item.wrong(format!(
                        "{name} is {first} already, and one thing is done to a header at most; join values \
                                                   with commas"
                    )));
                }
                seen.push((name, item.to_string()));
            }
        }
        Ok(())
    }
}

fn check_name(name: &HeaderName, place: &Place<'_>) -> Result<(), FieldError> {
    if FRAMING.iter().any(|framing| name.as_str().eq_ignore_ascii_case(framing)) {
        return Err(place.wrong(format!(
            "{name} belongs to a connection or frames a message, and is not changed; leave it out"
        )));
    }
    if name.as_str().eq_ignore_ascii_case("host") {
        return Err(
            place.wrong(format!("{name} is changed by a filter URLRewrite with a hostname; leave it out"))
        );
    }
    Ok(())
}
