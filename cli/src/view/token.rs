//! Join tokens.

use std::time::SystemTime;

use sealane_proto::wire::v1;
use serde::Serialize;

use super::rfc3339;
use crate::printer::{self, Row};

/// A token as `token ls` shows it: everything but what proves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct TokenView {
    id: String,
    #[serde(serialize_with = "rfc3339")]
    created: Option<SystemTime>,
    #[serde(serialize_with = "rfc3339")]
    expires: Option<SystemTime>,
}

/// A token that was just made.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub(crate) struct NewToken {
    pub(crate) token: String,
    #[serde(serialize_with = "rfc3339")]
    pub(crate) expires: Option<SystemTime>,
}

impl From<v1::Token> for TokenView {
    fn from(token: v1::Token) -> Self {
        Self {
            id: token.id,
            created: printer::instant(token.created_unix_seconds),
            expires: printer::instant(token.expires_unix_seconds),
        }
    }
}

impl From<v1::CreateTokenResponse> for NewToken {
    fn from(created: v1::CreateTokenResponse) -> Self {
        Self { token: created.token, expires: printer::instant(created.expires_unix_seconds) }
    }
}

impl Row for TokenView {
    const HEADERS: &'static [&'static str] = &["ID", "CREATED", "EXPIRES"];
    const NONE: &'static str = "no tokens: `sealane token create` makes one";

    fn cells(&self, now: SystemTime) -> Vec<String> {
        let never = || "-".to_owned();
        let created = self.created.map_or_else(never, |created| printer::ago(created, now));
        let expires = self.expires.map_or_else(never, |expires| printer::remaining(expires, now));
        vec![self.id.clone(), created, expires]
    }
}
