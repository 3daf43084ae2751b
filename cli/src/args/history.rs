//! Verbs about what has changed.

use std::time::Duration;

use clap::Args;
use sealane_proto::resource::SubjectKind;
use sealane_proto::types::NetworkName;

use super::document::Effort;

/// `sealane history`.
#[derive(Debug, Args)]
pub(crate) struct History {
    /// Kind of the objects: network, service, host or token [default: any]
    #[arg(value_name = "KIND")]
    pub(crate) kind: Option<SubjectKind>,
    /// Name of the object, of a service also NAME.NETWORK [default: all]
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Show only changes of this network and of its services
    #[arg(short, long, value_name = "NETWORK")]
    pub(crate) network: Option<NetworkName>,
    /// Show only changes of the last time, such as 2h
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) since: Option<Duration>,
    /// Number of changes to show, the newest ones; 0 for all
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) limit: u32,
}

/// `sealane rollback`.
#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// Revision whose documents are restored, as `sealane history` shows it
    #[arg(long, value_name = "REVISION")]
    pub(crate) to: u64,
    #[command(flatten)]
    pub(crate) effort: Effort,
}
