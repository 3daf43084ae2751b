//! Refusals of workloads, in words for whoever started them.

use ipnet::Ipv4Net;
use sealane_proto::types::{
    MacAddr, Mtls, NetworkName, NodeName, OverlayIp, Port, Protocol, ServiceName, ServicePort, Subnet,
    WorkloadName,
};

use super::bounds::Bound;
use crate::core::hosts::NotForHost;
use crate::core::vip::NoServiceAddress;

/// Reasons for which a reported workload is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadRefusal {
    /// There is no such network.
    #[error("there is no network {0}; create it with `sealane network create {0} --subnet CIDR`")]
    NoNetwork(NetworkName),
    /// The workload runs elsewhere, by its own word.
    #[error("the report of node {reporter} names {node} as the workload's node")]
    OtherNode {
        /// Host that reports.
        reporter: NodeName,
        /// Host on which it is said to run.
        node: NodeName,
    },
    /// The network or the service is for other hosts.
    #[error(transparent)]
    Host(#[from] NotForHost),
    /// The host has no block.
    #[error("node {node} holds no block of network {network} yet; it must carry the network first")]
    NotCarried {
        /// The host.
        node: NodeName,
        /// The network.
        network: NetworkName,
    },
    /// Another workload has the name.
    #[error("workload name {workload} in network {network} is in use on {node}; choose another with --name")]
    NameInUse {
        /// The name.
        workload: WorkloadName,
        /// The network.
        network: NetworkName,
        /// Host of the holder.
        node: NodeName,
    },
    /// The address is not for it.
    #[error(transparent)]
    Address(#[from] AddressRefusal),
    /// The Ethernet address is not for it.
    #[error("MAC {mac} in network {network} is in use by workload {holder}; choose another")]
    MacInUse {
        /// The address.
        mac: MacAddr,
        /// The network.
        network: NetworkName,
        /// Workload that has it.
        holder: WorkloadName,
    },
    /// The Ethernet address goes with another address.
    #[error("MAC {mac} in network {network} goes with address {address}; choose another")]
    MacReserved {
        /// The Ethernet address.
        mac: MacAddr,
        /// The network.
        network: NetworkName,
        /// The gateway's, or one that a workload has or may get.
        address: OverlayIp,
    },
    /// Ports that nobody can call.
    #[error("workload {0} offers ports without a service; name one with --service")]
    PortsWithoutService(WorkloadName),
    /// Two protocols on one port.
    #[error("port {port} of service {service} in network {network} speaks {spoken} already, not {offered}")]
    Protocol {
        /// The port.
        port: Port,
        /// The service.
        service: ServiceName,
        /// The network.
        network: NetworkName,
        /// By the other instances.
        spoken: Protocol,
        /// By this one.
        offered: Protocol,
    },
    /// A port that the service's document does not have.
    #[error(
        "port {port} of service {service} in network {network} is not declared; its document has {declared}: \
         add the port there, or do without it"
    )]
    Undeclared {
        /// The port.
        port: ServicePort,
        /// The service.
        service: ServiceName,
        /// The network.
        network: NetworkName,
        /// The ports that are declared.
        declared: String,
    },
    /// Another mode than the service's document has.
    #[error(
        "port {port} of service {service} in network {network} is {declared} by the service's document, not {asked}: \
         change mtls there, or leave --mtls out"
    )]
    Mtls {
        /// The port.
        port: Port,
        /// The service.
        service: ServiceName,
        /// The network.
        network: NetworkName,
        /// Mode by the document.
        declared: Mtls,
        /// Mode that the instance asks for.
        asked: Mtls,
    },
    /// A workload, or all of a host's together, are more than may be.
    #[error("workload {workload} in network {network}: {}", .bound.sentence(*.given))]
    TooMuch {
        /// The workload.
        workload: WorkloadName,
        /// The network.
        network: NetworkName,
        /// The bound.
        bound: Bound,
        /// The quantity as it would be.
        given: usize,
    },
    /// The host has left many services already, and wants one more.
    #[error(
        "service {service} in network {network} is not made: node {node} has left {left} services without instances there, whose \
         addresses are kept for a while; use a name again, or end some by `sealane service rm NAME --network {network}`"
    )]
    ServicesLeft {
        /// The service.
        service: ServiceName,
        /// The network.
        network: NetworkName,
        /// The host.
        node: NodeName,
        /// The number of services that it has left.
        left: usize,
    },
    /// No address for a new service.
    #[error(transparent)]
    ServiceAddress(#[from] NoServiceAddress),
}

impl WorkloadRefusal {
    /// The reason in a word, for metrics.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoNetwork(_) => "no_network",
            Self::OtherNode { .. } => "other_node",
            Self::Host(_) => "not_for_host",
            Self::NotCarried { .. } => "not_carried",
            Self::NameInUse { .. } => "name_in_use",
            Self::Address(_) => "address",
            Self::MacInUse { .. } | Self::MacReserved { .. } => "mac",
            Self::PortsWithoutService(_) | Self::Undeclared { .. } => "ports",
            Self::Protocol { .. } => "protocol",
            Self::Mtls { .. } => "mtls",
            Self::TooMuch { bound, .. } => bound.label(),
            Self::ServicesLeft { .. } => "too_many_services_left",
            Self::ServiceAddress(_) => "service_address",
        }
    }
}

/// Reasons for which an address is not for a workload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressRefusal {
    /// Not of the network.
    #[error("address {address} is outside {subnet} of network {network}")]
    Outside {
        /// The address.
        address: OverlayIp,
        /// The network's addresses.
        subnet: Subnet,
        /// The network.
        network: NetworkName,
    },
    /// For no workload at all.
    #[error("address {address} is the network, gateway or broadcast address of {subnet}; choose another")]
    Reserved {
        /// The address.
        address: OverlayIp,
        /// The network's addresses.
        subnet: Subnet,
    },
    /// For another host to assign.
    #[error("address {address} lies in block {block} of node {node}; choose another")]
    OtherBlock {
        /// The address.
        address: OverlayIp,
        /// The block.
        block: Ipv4Net,
        /// Host that holds it.
        node: NodeName,
    },
    /// For services.
    #[error("address {address} lies in block {block}, which is for service addresses; choose another")]
    ServiceBlock {
        /// The address.
        address: OverlayIp,
        /// The block.
        block: Ipv4Net,
    },
    /// The host has blocks enough, or the last ones are kept for others.
    #[error(
        "address {address} lies in block {block} of network {network}, which no host holds, and node {node} has hardly used the \
         blocks that it has, or the last are kept for hosts that have none; choose an address of the node's own blocks, or none"
    )]
    NoRoom {
        /// The address.
        address: OverlayIp,
        /// The block.
        block: Ipv4Net,
        /// The workload's host.
        node: NodeName,
        /// The network.
        network: NetworkName,
    },
    /// The last holder of the address is gone, but not everybody knows.
    #[error(
        "address {address} rests with {range}: not every host knows yet that the node or service which had it is \
         gone; choose another, or wait a minute"
    )]
    Resting {
        /// The address.
        address: OverlayIp,
        /// Range that rests.
        range: Ipv4Net,
    },
    /// Another workload's.
    #[error("address {address} in network {network} is in use by workload {holder}; choose another")]
    InUse {
        /// The address.
        address: OverlayIp,
        /// The network.
        network: NetworkName,
        /// Workload that has it.
        holder: WorkloadName,
    },
}
