//! From a tree to the types of documents. Errors name the field's path, its place, and for a word that is not known the
//! nearest one that is.

use std::fmt::Display;

use sealane_proto::document::nearest;
use serde::de::value::{StrDeserializer, StringDeserializer};
use serde::de::{
    self, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    Visitor,
};

use super::Flaw;
use super::tree::{At, Node, Value};

/// Reads one part of a document.
pub(super) struct Decoder<'a> {
    node: &'a Node,
    path: String,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(node: &'a Node) -> Self {
        Self { node, path: String::new() }
    }

    fn whole(&self) -> Flaw {
        Flaw::new(self.node.at, self.path.clone(), "")
    }

    fn dispatch<V: Visitor<'a>>(&self, visitor: V) -> Result<V::Value, Flaw> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Signed(value) => visitor.visit_i64(*value),
            Value::Unsigned(value) => visitor.visit_u64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::List(nodes) => visitor.visit_seq(Members { nodes, path: self.path.clone(), at: 0 }),
            Value::Map(fields) => visitor.visit_map(Fields { fields, path: self.path.clone(), at: 0 }),
        }
    }

    /// Refuses fields that are not known.
    fn check_fields(&self, known: &'static [&'static str]) -> Result<(), Flaw> {
        let Value::Map(fields) = &self.node.value else { return Ok(()) };
        match fields.iter().find(|(key, ..)| !known.contains(&key.as_str())) {
            Some((key, at, _)) => Err(Flaw::new(*at, self.path.clone(), unknown("field", key, known))),
            None => Ok(()),
        }
    }
}

/// Words for what is not known.
fn unknown(what: &str, given: &str, known: &[&str]) -> String {
    let shown = given.escape_debug();
    match nearest(given, known.iter().copied()) {
        Some(nearest) => format!("unknown {what} `{shown}`; did you mean `{nearest}`?"),
        None => format!("unknown {what} `{shown}`; known are {}", known.join(", ")),
    }
}

impl Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Flaw {}

impl Flaw {
    /// Keeps its own place, or takes this one where it has none.
    fn or(self, place: Self) -> Self {
        if self.at.is_some() { self } else { Self { message: self.message, ..place } }
    }
}

impl de::Error for Flaw {
    fn custom<T: Display>(message: T) -> Self {
        Self { message: message.to_string(), ..Self::default() }
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let wanted = expected.to_string();
        let wanted = match wanted.as_str() {
            "a string" => "a text",
            "u16" | "u32" | "u64" => "a number from 0 on",
            "a sequence" => "a list",
            text if text.starts_with("struct ") => "a mapping",
            text => text,
        };
        let quote = matches!(
            unexpected,
            Unexpected::Bool(_) | Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_)
        );
        let hint = if quote && wanted == "a text" { "; write it in quotes" } else { "" };
        let found = match unexpected {
            Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Map => "a mapping".to_owned(),
            Unexpected::Str(text) => format!("the text {text:?}"),
            Unexpected::Bool(value) => value.to_string(),
            Unexpected::Unsigned(value) => value.to_string(),
            Unexpected::Signed(value) => value.to_string(),
            Unexpected::Float(value) => value.to_string(),
            Unexpected::Char(_)
            | Unexpected::Bytes(_)
            | Unexpected::NewtypeStruct
            | Unexpected::Enum
            | Unexpected::UnitVariant
            | Unexpected::NewtypeVariant
            | Unexpected::TupleVariant
            | Unexpected::StructVariant
            | Unexpected::Other(_) => unexpected.to_string(),
        };
        Self::custom(format!("must be {wanted}, not {found}{hint}"))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format!("field `{field}` is missing"))
    }
}

impl<'de> Deserializer<'de> for Decoder<'de> {
    type Error = Flaw;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
        self.dispatch(visitor).map_err(|flaw| flaw.or(self.whole()))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
        let place = self.whole();
        let read =
            if self.node.value == Value::Null { visitor.visit_none() } else { visitor.visit_some(self) };
        read.map_err(|flaw| flaw.or(place))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Flaw> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Flaw> {
        self.check_fields(fields)?;
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Flaw> {
        let Some(text) = self.node.text() else {
            let message = format!("must be one of {}, not {}", variants.join(", "), self.node.what());
            return Err(Flaw { message, ..self.whole() });
        };
        if !variants.contains(&text) {
            return Err(Flaw { message: unknown("value", text, variants), ..self.whole() });
        }
        let word: StrDeserializer<'_, Flaw> = text.into_deserializer();
        visitor.visit_enum(word).map_err(|flaw| flaw.or(self.whole()))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

struct Members<'a> {
    nodes: &'a [Node],
    path: String,
    at: usize,
}

impl<'de> SeqAccess<'de> for Members<'de> {
    type Error = Flaw;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Flaw> {
        let Some(node) = self.nodes.get(self.at) else { return Ok(None) };
        let path = format!("{}[{}]", self.path, self.at);
        self.at += 1;
        let place = Flaw::new(node.at, path.clone(), "");
        seed.deserialize(Decoder { node, path }).map(Some).map_err(|flaw| flaw.or(place))
    }
}

struct Fields<'a> {
    fields: &'a [(String, At, Node)],
    path: String,
    at: usize,
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = Flaw;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Flaw> {
        let Some((key, ..)) = self.fields.get(self.at) else { return Ok(None) };
        let key: StringDeserializer<Flaw> = key.clone().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Flaw> {
        let Some((key, _, node)) = self.fields.get(self.at) else {
            return Err(de::Error::custom("a value without a key"));
        };
        self.at += 1;
        let path = if self.path.is_empty() { key.clone() } else { format!("{}.{key}", self.path) };
        let place = Flaw::new(node.at, path.clone(), "");
        seed.deserialize(Decoder { node, path }).map_err(|flaw| flaw.or(place))
    }
}
