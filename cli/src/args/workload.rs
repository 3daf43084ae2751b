//! Verbs that start a command of the user's.

use std::ffi::OsString;
use std::net::Ipv4Addr;

use clap::Args;
use sealane_proto::types::{MacAddr, NetworkName, ServiceName, ServicePort, Weight, WorkloadName};

/// `sealane run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) attach: Attach,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// How a workload is attached to a network.
#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// The network it joins
    #[arg(long, value_name = "NAME")]
    pub(crate) network: NetworkName,
    /// The service that it is an instance of
    #[arg(long, value_name = "NAME", requires = "ports")]
    pub(crate) service: Option<ServiceName>,
    /// A port of the service that it listens on
    #[arg(long = "port", id = "ports", value_name = "[NAME=]PORT[/PROTO]", requires = "service")]
    pub(crate) ports: Vec<ServicePort>,
    /// Its own name; made from the service or the command when not given
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<WorkloadName>,
    /// Its address; the next free one of this host when not given
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip: Option<Ipv4Addr>,
    /// Its Ethernet address; made from its address when not given
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) mac: Option<MacAddr>,
    /// Its share of its service's new calls beside the other instances' weights, 0 to 1000; 0: none
    #[arg(long, value_name = "WEIGHT", default_value_t)]
    pub(crate) weight: Weight,
    /// Plain packets only: no identity, no encryption, no retries
    #[arg(long)]
    pub(crate) no_sidecar: bool,
}

/// `sealane exec`.
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// The workload, as `sealane workload ls` names it
    pub(crate) workload: WorkloadName,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}
