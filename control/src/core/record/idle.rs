//! Services that nobody declared and nobody serves.

use prost::Message;
use sealane_proto::types::{NetworkName, ServiceName};

use super::{Record, RowError, parse, parse_option, text};
use crate::core::{Affected, Idle, State, Timestamp};

/// Form of an idle service's row; the service is its name.
#[derive(Clone, PartialEq, Message)]
pub struct IdleRow {
    #[prost(uint64, tag = "1")]
    since: u64,
    /// Empty: not known.
    #[prost(string, tag = "2")]
    by: String,
    #[prost(bool, tag = "3")]
    fresh: bool,
}

impl Record for Idle {
    type Home = NetworkName;
    type Name = ServiceName;
    type Index = ();
    type Row = IdleRow;
    const TABLE: &'static str = "idle";

    fn name(&self) -> ServiceName {
        self.service.clone()
    }

    fn read(name: &str, IdleRow { since, by, fresh }: IdleRow) -> Result<Self, RowError> {
        let since = Timestamp::from_unix(since);
        Ok(Self { service: parse(name)?, since, by: parse_option(&by)?, fresh })
    }

    fn affects(_: &State, network: &NetworkName, _: &ServiceName, affected: &mut Affected) {
        // Nobody is told.
        affected.network(network);
    }
}

impl From<&Idle> for IdleRow {
    fn from(idle: &Idle) -> Self {
        Self { since: idle.since.unix(), by: text(idle.by.as_ref()), fresh: idle.fresh }
    }
}
