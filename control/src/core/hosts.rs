//! Hosts that may carry a network and run a service's instances: those that documents name, and that tokens were made
//! for.

use std::collections::BTreeSet;

use sealane_proto::types::{Hosts, NetworkName, NodeName, ServiceName, WorkloadName};

use super::{Change, NetworkState, NodeRecord, State, Timestamp};

/// A document leaves out a host that has workloads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "spec.hosts: node {node} is not named, but runs {workload} {of}; end that first, or name the node: \
     `sealane node ls` lists the nodes"
)]
pub struct HostInUse {
    node: NodeName,
    workload: WorkloadName,
    of: String,
}

/// A network is not for a host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotForHost {
    /// The network's document names other hosts.
    #[error(
        "network {network} is for {hosts}, not for node {node}; name the node in spec.hosts of the network's document"
    )]
    Network {
        /// The network.
        network: NetworkName,
        /// Hosts that it is for.
        hosts: Hosts,
        /// Host that asks.
        node: NodeName,
    },
    /// The host joined by a token for other networks.
    #[error(
        "node {node} joined by a token for {}, not for network {network}; to let it join anew, by a token for that as well: `sealane clean` \
         on {node}, `sealane node rm {node}` on a control host", networks(.only)
    )]
    Token {
        /// Host that asks.
        node: NodeName,
        /// Networks that the token was made for.
        only: BTreeSet<NetworkName>,
        /// The network.
        network: NetworkName,
    },
    /// The service's document names others.
    #[error(
        "service {service} in network {network} is for {hosts}, not for node {node}; name the node in spec.hosts of \
         the service's document"
    )]
    Service {
        /// The service.
        service: ServiceName,
        /// Network of the service.
        network: NetworkName,
        /// Hosts that it is for.
        hosts: Hosts,
        /// Host that asks.
        node: NodeName,
    },
}

fn networks(only: &BTreeSet<NetworkName>) -> String {
    let names: Vec<&str> = only.iter().map(NetworkName::as_str).collect();
    let word = if names.len() == 1 { "network" } else { "networks" };
    format!("{word} {}", names.join(", "))
}

/// Checks that a host may carry a network.
pub(super) fn check_network(record: &NodeRecord, network: &NetworkState) -> Result<(), NotForHost> {
    let (node, name, hosts) = (&record.node.name, &network.network.name, &network.network.hosts);
    if !hosts.admit(node) {
        let (network, hosts, node) = (name.clone(), hosts.clone(), node.clone());
        return Err(NotForHost::Network { network, hosts, node });
    }
    if !record.networks.is_empty() && !record.networks.contains(name) {
        let (node, only, network) = (node.clone(), record.networks.clone(), name.clone());
        return Err(NotForHost::Token { node, only, network });
    }
    Ok(())
}

/// Checks that a host may run instances of a service of a network that it may carry.
pub(super) fn check_service(
    network: &NetworkState,
    service: &ServiceName,
    node: &NodeName,
) -> Result<(), NotForHost> {
    match network.services.get(service).map(|service| &service.hosts) {
        Some(hosts) if !hosts.admit(node) => Err(NotForHost::Service {
            service: service.clone(),
            network: network.network.name.clone(),
            hosts: hosts.clone(),
            node: node.clone(),
        }),
        Some(_) | None => Ok(()),
    }
}

/// Computes the changes when only these hosts may carry a network: others give their blocks back, which rest.
pub(super) fn excluded(
    state: &State,
    name: &NetworkName,
    hosts: &Hosts,
    now: Timestamp,
) -> Result<Vec<Change>, HostInUse> {
    let Some(network) = state.networks.get(name) else { return Ok(vec![]) };
    if let Some(workload) = network.workloads.values().find(|workload| !hosts.admit(&workload.node)) {
        let (node, of) = (workload.node.clone(), format!("in network {name}"));
        return Err(HostInUse { node, workload: workload.name.clone(), of });
    }
    let excluded = |node: &NodeName| !hosts.admit(node);
    let theirs = network.blocks.values().filter(|block| block.node.as_ref().is_some_and(excluded));
    Ok(theirs.flat_map(|block| network.give_back(block.range, now)).collect())
}

/// Computes the blocks that a host gives back that joins by a token for other networks than it carries, where nothing of
/// its own runs. Where something does, its next report ends that.
pub(super) fn given_up(state: &State, record: &NodeRecord, now: Timestamp) -> Vec<Change> {
    let name = &record.node.name;
    let left = state.networks.values().filter(|network| {
        check_network(record, network).is_err() && network.workloads_of(name).next().is_none()
    });
    let back = left.flat_map(|network| {
        network.blocks.index().of(name).flat_map(move |range| network.give_back(range, now))
    });
    back.collect()
}

/// Checks that a service's instances are all on hosts that may run them.
pub(super) fn check_instances(
    network: &NetworkState,
    service: &ServiceName,
    hosts: &Hosts,
) -> Result<(), HostInUse> {
    match network.instances_of(service).find(|instance| !hosts.admit(&instance.node)) {
        Some(instance) => {
            let of = format!("of service {service} in network {}", network.network.name);
            Err(HostInUse { node: instance.node.clone(), workload: instance.name.clone(), of })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
