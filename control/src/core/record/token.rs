//! Join tokens.

use std::collections::BTreeSet;

use prost::Message;
use sealane_proto::types::{NetworkName, NodeName};

use super::{Mesh, Record, RowError, hash, names, parse_option, text, texts};
use crate::core::{Affected, State, Timestamp};

/// A join token, of which control keeps the secret's hash alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// Public name.
    pub id: String,
    /// SHA-256 of its secret.
    pub hash: [u8; 32],
    /// Time at which it was made.
    pub created: Timestamp,
    /// From when on it admits nobody.
    pub expires: Timestamp,
    /// Number of hosts that it admits; `None`: any number.
    pub uses: Option<u32>,
    /// Number of hosts that it has admitted.
    pub used: u32,
    /// The one name that a host may join with by it; `None`: any.
    pub node: Option<NodeName>,
    /// The networks that hosts which join by it may carry; none: any.
    pub networks: BTreeSet<NetworkName>,
    /// Time at which somebody took it back.
    pub revoked: Option<Timestamp>,
}

/// Form of a token's row.
#[derive(Clone, PartialEq, Message)]
pub struct TokenRow {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(bytes = "vec", tag = "2")]
    hash: Vec<u8>,
    #[prost(uint64, tag = "3")]
    created: u64,
    #[prost(uint64, tag = "4")]
    expires: u64,
    /// 0: any number.
    #[prost(uint32, tag = "5")]
    uses: u32,
    #[prost(uint32, tag = "6")]
    used: u32,
    #[prost(string, tag = "7")]
    node: String,
    /// 0: never.
    #[prost(uint64, tag = "8")]
    revoked: u64,
    #[prost(string, repeated, tag = "9")]
    networks: Vec<String>,
}

impl Record for TokenRecord {
    type Home = Mesh;
    type Name = String;
    type Index = ();
    type Row = TokenRow;
    const TABLE: &'static str = "tokens";

    fn name(&self) -> String {
        self.id.clone()
    }

    fn read(_: &str, row: TokenRow) -> Result<Self, RowError> {
        Ok(Self {
            hash: hash(row.hash)?,
            networks: names(&row.networks)?,
            id: row.id,
            created: Timestamp::from_unix(row.created),
            expires: Timestamp::from_unix(row.expires),
            uses: Some(row.uses).filter(|&uses| uses != 0),
            used: row.used,
            node: parse_option(&row.node)?,
            revoked: Some(row.revoked).filter(|&at| at != 0).map(Timestamp::from_unix),
        })
    }

    fn affects(_: &State, _: &Mesh, _: &String, affected: &mut Affected) {
        affected.tokens = true;
    }
}

impl From<&TokenRecord> for TokenRow {
    fn from(token: &TokenRecord) -> Self {
        Self {
            id: token.id.clone(),
            hash: token.hash.into(),
            created: token.created.unix(),
            expires: token.expires.unix(),
            uses: token.uses.unwrap_or_default(),
            used: token.used,
            node: text(token.node.as_ref()),
            revoked: token.revoked.map(Timestamp::unix).unwrap_or_default(),
            networks: texts(&token.networks),
        }
    }
}
