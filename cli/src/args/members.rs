//! Verbs about hosts, services and workloads: what is there, and what leaves.

use clap::{Args, Subcommand};
use sealane_proto::types::{
    ExternalAddr, Interval, NetworkName, NodeName, Probe, ServiceName, ServicePort, ServiceRef, TwoNetworks,
    WorkloadRef,
};

/// `sealane service`.
#[derive(Debug, Args)]
pub(crate) struct Service {
    #[command(subcommand)]
    pub(crate) action: ServiceAction,
}

/// A service, by name.
#[derive(Debug, Args)]
pub(crate) struct NamedService {
    /// Its name
    #[arg(value_name = "SERVICE[.NETWORK]")]
    name: ServiceRef,
    /// Its network, when several have a service of this name
    #[arg(long, value_name = "NAME")]
    network: Option<NetworkName>,
}

impl NamedService {
    /// Its name, with its network as far as that is said.
    pub(crate) fn reference(&self) -> Result<ServiceRef, TwoNetworks> {
        self.name.within(self.network.as_ref())
    }
}

/// `sealane service register`.
#[derive(Debug, Args)]
pub(crate) struct Register {
    /// Its name
    #[arg(value_name = "SERVICE")]
    pub(crate) name: ServiceName,
    /// The network whose workloads call it
    #[arg(long, value_name = "NAME")]
    pub(crate) network: NetworkName,
    /// Where its instances are: IPv4 addresses, with a port each when the service has one port
    #[arg(long = "address", value_name = "IP[:PORT]", value_delimiter = ',', required = true)]
    pub(crate) addresses: Vec<ExternalAddr>,
    /// A port of the service; the addresses' own when not given
    #[arg(long = "port", value_name = "[NAME=]PORT[/PROTO]")]
    pub(crate) ports: Vec<ServicePort>,
    /// How each host finds out which instances work: tcp, or http:PATH; all are taken to when not given
    #[arg(long, value_name = "PROBE")]
    pub(crate) check: Option<Probe>,
    /// The time between two checks, 100ms to 1h; 5s when not given
    #[arg(long, value_name = "DURATION", requires = "check")]
    pub(crate) interval: Option<Interval>,
}

/// What can be done with services.
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceAction {
    /// List them
    Ls {
        /// Only those of this network
        #[arg(long, value_name = "NAME")]
        network: Option<NetworkName>,
    },
    /// Show all that is known about a service
    Inspect(NamedService),
    /// List a service's instances and whether they get calls
    Endpoints(NamedService),
    /// Register a service whose instances run outside every network, such as a database at a fixed address
    Register(Register),
    /// End what `register` began
    Deregister(NamedService),
    /// Remove a service that has no instances; its address is free when every host has forgotten it
    Rm(NamedService),
}

/// `sealane node`.
#[derive(Debug, Args)]
pub(crate) struct Node {
    #[command(subcommand)]
    pub(crate) action: NodeAction,
}

/// What can be done with hosts.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeAction {
    /// List them
    Ls,
    /// Show all that is known about a host
    Inspect {
        /// Its name
        #[arg(value_name = "NODE")]
        name: NodeName,
    },
    /// Send its services' new calls elsewhere; what runs goes on
    Drain {
        /// Its name
        #[arg(value_name = "NODE")]
        name: NodeName,
    },
    /// Let a drained host's services have calls again
    Undrain {
        /// Its name
        #[arg(value_name = "NODE")]
        name: NodeName,
    },
    /// Remove a host from the mesh and revoke its certificates; `sealane clean` on it does the rest
    Rm {
        /// Its name
        #[arg(value_name = "NODE")]
        name: NodeName,
        /// Even if it is connected and has workloads
        #[arg(long)]
        force: bool,
    },
}

/// `sealane workload`.
#[derive(Debug, Args)]
pub(crate) struct Workload {
    #[command(subcommand)]
    pub(crate) action: WorkloadAction,
}

/// A workload, by name.
#[derive(Debug, Args)]
pub(crate) struct NamedWorkload {
    /// Its name
    #[arg(value_name = "WORKLOAD[.NETWORK]")]
    name: WorkloadRef,
    /// Its network, when several have a workload of this name
    #[arg(long, value_name = "NAME")]
    network: Option<NetworkName>,
}

impl NamedWorkload {
    /// Its name, with its network as far as that is said.
    pub(crate) fn reference(&self) -> Result<WorkloadRef, TwoNetworks> {
        self.name.within(self.network.as_ref())
    }
}

/// What can be done with workloads.
#[derive(Debug, Subcommand)]
pub(crate) enum WorkloadAction {
    /// List them
    Ls {
        /// Only those of this network
        #[arg(long, value_name = "NAME")]
        network: Option<NetworkName>,
    },
    /// Show all that is known about a workload
    Inspect(NamedWorkload),
}
