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
    /// Query a name as a workload of this host, and show the answer
    Query(DnsQuery),
}

/// `sealane dns query`.
#[derive(Debug, Args)]
pub(crate) struct DnsQuery {
    /// Name, such as api, api.shop or _http._tcp.api; an address for PTR
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Workload that asks
    #[arg(long, value_name = "WORKLOAD[.NETWORK]")]
    pub(crate) from: WorkloadRef,
    /// Type of the records, such as A, AAAA, SRV or PTR
    #[arg(long = "type", value_name = "TYPE", default_value = "A")]
    pub(crate) kind: String,
}
