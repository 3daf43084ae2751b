//! Addresses that nobody has any more and nobody gets yet.

use ipnet::Ipv4Net;
use prost::Message;
use sealane_proto::types::NetworkName;

use super::{Record, RowError, parse};
use crate::core::{Affected, Rest, State, Timestamp};

/// Form of a rest's row; the addresses are its name.
#[derive(Clone, PartialEq, Message)]
pub struct RestRow {
    #[prost(uint64, tag = "1")]
    after: u64,
    #[prost(uint64, tag = "2")]
    since: u64,
}

impl Record for Rest {
    type Home = NetworkName;
    type Name = Ipv4Net;
    type Index = ();
    type Row = RestRow;
    const TABLE: &'static str = "rests";

    fn name(&self) -> Ipv4Net {
        self.range
    }

    fn read(name: &str, RestRow { after, since }: RestRow) -> Result<Self, RowError> {
        Ok(Self { range: parse(name)?, after, since: Timestamp::from_unix(since) })
    }

    fn affects(_: &State, network: &NetworkName, _: &Ipv4Net, affected: &mut Affected) {
        // Nobody is told; the directory knows which networks have some.
        affected.network(network);
    }
}

impl From<&Rest> for RestRow {
    fn from(rest: &Rest) -> Self {
        Self { after: rest.after, since: rest.since.unix() }
    }
}
