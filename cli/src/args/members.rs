//! Verbs about hosts, services and workloads: what is there, and what leaves.

use std::time::Duration;

use clap::{Args, Subcommand};
use sealane_proto::types::{
    ExternalAddr, Interval, NetworkName, NodeName, Probe, ServiceName, ServicePort, ServiceRef, TwoNetworks,
    Weight, WorkloadRef,
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
    /// Name of the service
    #[arg(value_name = "SERVICE[.NETWORK]")]
    name: ServiceRef,
    /// Network of the service, if several have one of this name
    #[arg(long, value_name = "NETWORK")]
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
    /// Name of the service
    #[arg(value_name = "SERVICE")]
    pub(crate) name: ServiceName,
    /// Network whose workloads call it
    #[arg(long, value_name = "NETWORK")]
    pub(crate) network: NetworkName,
    /// Addresses of its instances (IPv4), each with a port if the service has one port
    #[arg(long = "address", value_name = "IP[:PORT]", value_delimiter = ',', required = true)]
    pub(crate) addresses: Vec<ExternalAddr>,
    /// Port of the service [default: the addresses' own]
    #[arg(long = "port", value_name = "[NAME=]PORT[/PROTO]")]
    pub(crate) ports: Vec<ServicePort>,
    /// Check by which each host finds out which instances work: tcp, http:PATH, grpc or grpc:SERVICE [default: none, all count as working]
    #[arg(long, value_name = "PROBE")]
    pub(crate) check: Option<Probe>,
    /// Time between two checks, from 100ms to 1h [default: 5s]
    #[arg(long, value_name = "DURATION", requires = "check")]
    pub(crate) interval: Option<Interval>,
}

/// What can be done with services.
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceAction {
    /// List services
    Ls {
        /// List only services of this network
        #[arg(long, value_name = "NETWORK")]
        network: Option<NetworkName>,
    },
    /// Show all that is known about a service
    Inspect(NamedService),
    /// List the instances of a service and their readiness
    Endpoints(NamedService),
    /// Register a service with instances outside every network, such as a database at a fixed address
    Register(Register),
    /// Deregister a service that this host has registered
    Deregister(NamedService),
    /// Remove a service without instances; its address is free once every host has forgotten it
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
    /// List hosts
    Ls,
    /// Show all that is known about a host
    Inspect {
        /// Name of the host
        #[arg(value_name = "NODE")]
        name: NodeName,
    },
    /// Drain a host: new calls of services go to other hosts, and what runs goes on
    Drain {
        /// Name of the host
        #[arg(value_name = "NODE")]
        name: NodeName,
    },
    /// Undrain a host: its instances get new calls again
    Undrain {
        /// Name of the host
        #[arg(value_name = "NODE")]
        name: NodeName,
    },
    /// Remove a host from the mesh and revoke its certificates; `sealane clean` on it does the rest
    Rm {
        /// Name of the host
        #[arg(value_name = "NODE")]
        name: NodeName,
        /// Remove it even if it is connected and has workloads
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
    /// Name of the workload
    #[arg(value_name = "WORKLOAD[.NETWORK]")]
    name: WorkloadRef,
    /// Network of the workload, if several have one of this name
    #[arg(long, value_name = "NETWORK")]
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
    /// List workloads
    Ls {
        /// List only workloads of this network
        #[arg(long, value_name = "NETWORK")]
        network: Option<NetworkName>,
    },
    /// Show all that is known about a workload
    Inspect(NamedWorkload),
    /// Drain a workload of this host: it gets no new calls, and its open ones go on
    Drain(ChangedWorkload),
    /// Undrain a workload of this host: it gets new calls again
    Undrain(ChangedWorkload),
    /// Change a workload of this host while it runs
    Set {
        #[command(flatten)]
        changed: ChangedWorkload,
        /// Weight among the instances of its service, from 0 to 1000; 0 gets no new calls
        #[arg(long, value_name = "WEIGHT", allow_negative_numbers = true)]
        weight: Weight,
    },
}

/// A workload of this host that is changed, and the wait until every host works by that.
#[derive(Debug, Args)]
pub(crate) struct ChangedWorkload {
    #[command(flatten)]
    pub(crate) workload: NamedWorkload,
    /// Wait until every connected host works by it
    #[arg(long)]
    pub(crate) wait: bool,
    /// Longest time to wait for the hosts
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration, requires = "wait")]
    pub(crate) timeout: Duration,
}
