//! Join tokens.

use std::net::SocketAddr;
use std::time::SystemTime;

use sealane_proto::wire::v1;
use serde::Serialize;

use super::{dash, rfc3339, text};
use crate::printer::{self, Row};

/// A token as `token ls` shows it: everything but what proves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct TokenView {
    id: String,
    #[serde(serialize_with = "rfc3339")]
    created: Option<SystemTime>,
    #[serde(serialize_with = "rfc3339")]
    expires: Option<SystemTime>,
    /// Null: any number.
    uses: Option<u32>,
    used: u32,
    /// Null: any number.
    uses_left: Option<u32>,
    /// Null: any.
    node: Option<String>,
    /// Networks that hosts which join by it may carry; none: all.
    networks: Vec<String>,
    /// `good`, `used up`, `expired` or `revoked`.
    state: String,
}

/// A token that was just made.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub(crate) struct NewToken {
    pub(crate) token: String,
    #[serde(serialize_with = "rfc3339")]
    pub(crate) expires: Option<SystemTime>,
    /// The address at which hosts join, where control tells it.
    #[serde(skip)]
    pub(crate) listens: Option<SocketAddr>,
}

impl From<v1::Token> for TokenView {
    fn from(token: v1::Token) -> Self {
        let uses = Some(token.uses).filter(|&uses| uses != 0);
        Self {
            id: token.id,
            created: printer::instant(token.created_unix_seconds),
            expires: printer::instant(token.expires_unix_seconds),
            uses,
            used: token.used,
            uses_left: uses.map(|uses| uses.saturating_sub(token.used)),
            node: text(token.node),
            networks: token.networks,
            state: token.state,
        }
    }
}

impl From<v1::CreateTokenResponse> for NewToken {
    fn from(created: v1::CreateTokenResponse) -> Self {
        Self {
            token: created.token,
            expires: printer::instant(created.expires_unix_seconds),
            listens: created.listens.parse().ok(),
        }
    }
}

impl Row for TokenView {
    const HEADERS: &'static [&'static str] =
        &["ID", "STATE", "CREATED", "EXPIRES", "USED", "USES LEFT", "NODE", "NETWORKS"];
    const NONE: &'static str = "no tokens: `sealane token create` makes one";

    fn cells(&self, now: SystemTime) -> Vec<String> {
        let never = || "-".to_owned();
        let created = self.created.map_or_else(never, |created| printer::ago(created, now));
        let expires = self.expires.map_or_else(never, |expires| printer::remaining(expires, now));
        let left = self.uses_left.map_or_else(|| "any".to_owned(), |left| left.to_string());
        let node = dash(self.node.as_ref());
        let networks = if self.networks.is_empty() { "any".to_owned() } else { self.networks.join(", ") };
        vec![
            self.id.clone(),
            self.state.clone(),
            created,
            expires,
            self.used.to_string(),
            left,
            node,
            networks,
        ]
    }
}
