//! The JSON Schema (draft 2020-12) of documents, for editors and validators. It is made from the types that readers use;
//! what those parse from text is said here as a pattern.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};

use super::DocumentKind;
use crate::types::{Mtls, Mtu, Protocol};

/// The schema of the documents of a kind, or of any kind.
#[must_use]
pub fn schema(kind: Option<DocumentKind>) -> Schema {
    let mut generator =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true).into_generator();
    match kind {
        Some(kind) => of(kind, &mut generator),
        None => {
            let kinds: Vec<Schema> =
                DocumentKind::ALL.into_iter().map(|kind| kind.schema(&mut generator)).collect();
            json_schema!({
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "title": "Document",
                "description": "A document for `sealane apply`.",
                "oneOf": kinds,
            })
        }
    }
}

fn of(kind: DocumentKind, generator: &mut SchemaGenerator) -> Schema {
    let mut schema = kind.schema(generator);
    schema.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
    schema
}

macro_rules! stands_for {
    ($(#[$doc:meta])* $name:ident, $schema:tt) => {
        $(#[$doc])*
        pub(in crate::resource) struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

stands_for!(
    /// A DNS label.
    Label,
    { "type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" }
);
stands_for!(
    /// The name of an object of the Gateway API.
    Subdomain,
    { "type": "string", "maxLength": 253, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$" }
);
stands_for!(
    /// The status of a redirection.
    RedirectCode,
    { "type": "integer", "enum": [301, 302, 303, 307, 308], "default": 302 }
);
stands_for!(
    /// The status of a failure.
    RetryCode,
    { "type": "integer", "minimum": 400, "maximum": 599 }
);
stands_for!(
    /// The name of a port (RFC 6335, section 5.1).
    PortLabel,
    { "type": "string", "maxLength": 15, "pattern": "^(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*$" }
);
stands_for!(
    /// A port.
    PortNumber,
    { "type": "integer", "minimum": 1, "maximum": 65535 }
);
stands_for!(
    /// Protocol of a port.
    ProtocolName,
    { "type": "string", "enum": (Protocol::NAMES.map(|(name, _)| name)), "default": "auto" }
);
stands_for!(
    /// Accepted callers.
    MtlsMode,
    { "type": "string", "enum": (Mtls::NAMES.map(|(name, _)| name)) }
);
stands_for!(
    /// A network's addresses.
    SubnetList,
    {
        "type": "array",
        "minItems": 1,
        "maxItems": 2,
        "items": {
            "type": "string",
            "pattern": "^(([0-9]{1,3}\\.){3}[0-9]{1,3}/([89]|1[0-9]|2[0-6])|[0-9a-fA-F:]+/(1[6-9]|[2-8][0-9]|9[0-6]))$",
            "examples": ["10.42.0.0/16", "fd42::/64"],
        },
    }
);
stands_for!(
    /// The place of an external instance.
    ExternalPlace,
    {
        "type": "string",
        "pattern": "^([0-9]{1,3}\\.){3}[0-9]{1,3}(:[1-9][0-9]{0,4})?$",
        "examples": ["192.0.2.50:5432"],
    }
);
stands_for!(
    /// The path of a request.
    PathText,
    { "type": "string", "maxLength": 256, "pattern": "^/[!-~]*$" }
);
stands_for!(
    /// A time.
    IntervalText,
    { "type": "string", "pattern": "^[0-9]+(ms|s|m|h)$", "default": "5s" }
);
stands_for!(
    /// A time that has no default of its own.
    TimeText,
    { "type": "string", "pattern": "^[0-9]+(ms|s|m|h)$" }
);
stands_for!(
    /// A status of HTTP, or two.
    StatusText,
    { "type": "string", "pattern": "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$" }
);
stands_for!(
    /// The name of a service of gRPC.
    GrpcName,
    { "type": "string", "maxLength": 256, "pattern": "^[!-~]*$" }
);
stands_for!(
    /// Answers in a row.
    Answers,
    { "type": "integer", "minimum": 1, "maximum": 100 }
);
stands_for!(
    /// Bytes per packet.
    MtuBytes,
    { "type": "integer", "minimum": (Mtu::MIN), "maximum": (Mtu::MAX) }
);
