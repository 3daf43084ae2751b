//! Verbs about names.

use clap::{Args, Subcommand};
use sealane_proto::types::WorkloadRef;

/// `sealane dns`.
#[derive(Debug, Args)]
pub(crate) struct Dns {
    #[command(subcommand)]
    pub(crate) action: DnsAction,
}

/// What can be done with names.
#[derive(Debug, Subcommand)]
pub(crate) enum DnsAction {
    /// Ask for a name as a workload of this host does, and show the answer that it gets
    Query(DnsQuery),
}

/// `sealane dns query`.
#[derive(Debug, Args)]
pub(crate) struct DnsQuery {
    /// The name, such as api, api.shop or _http._tcp.api
    pub(crate) name: String,
    /// The workload that asks
    #[arg(long, value_name = "WORKLOAD[.NETWORK]")]
    pub(crate) from: WorkloadRef,
    /// The type of records: A, AAAA, SRV, PTR...
    #[arg(long = "type", value_name = "TYPE", default_value = "A")]
    pub(crate) kind: String,
}
