//! Addresses for services: from blocks that control itself holds, one more when those are full.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;
use sealane_proto::resource::{Block, Network, way_out};
use sealane_proto::types::{NetworkName, OverlayIp, ServiceName, Subnet};

use super::ipam::{self, Taken};
use super::{Change, NetworkState};

/// A network has no address left for one more service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "network {network} ({subnet}) has no address left for the new service {service}; \
     end workloads, or {}", way_out(.network, *.subnet)
)]
pub struct NoServiceAddress {
    service: ServiceName,
    network: NetworkName,
    subnet: Subnet,
}

impl NoServiceAddress {
    pub(super) fn new(network: &NetworkState, service: &ServiceName) -> Self {
        let Network { name, subnet, .. } = &network.network;
        Self { service: service.clone(), network: name.clone(), subnet: *subnet }
    }
}

/// The next free address of these blocks, or of a new one, which then comes with it. `find` finds a free block of at most so many
/// addresses.
pub(super) fn free(
    subnet: Subnet,
    held: &[Ipv4Net],
    unusable: impl Fn(OverlayIp) -> bool,
    find: impl FnOnce(usize) -> Option<Ipv4Net>,
) -> Option<(OverlayIp, Option<Ipv4Net>)> {
    let free = |block| ipam::free_address(subnet, block, &unusable);
    if let Some(vip) = held.iter().copied().find_map(free) {
        return Some((vip, None));
    }
    let block = find(ipam::next_size_of_services(subnet, held.iter().copied().map(ipam::size).sum()))?;
    free(block).map(|vip| (vip, Some(block)))
}

/// An address for a new service of a network as it is, with what must change before it can be used.
pub(super) fn lease(
    network: &NetworkState,
    service: &ServiceName,
) -> Result<(OverlayIp, Vec<Change>), NoServiceAddress> {
    let subnet = network.network.subnet;
    let taken: BTreeSet<OverlayIp> = network.services.values().map(|service| service.vip).collect();
    let unusable = |address| taken.contains(&address) || network.resting_at(address).is_some();
    let held: Vec<Ipv4Net> = network.blocks.index().own().rev().collect();
    let find = |most| {
        let cells = network.workloads.values().map(|workload| ipam::cell_of(subnet, workload.address));
        let known = network.blocks.keys().chain(network.resting.keys()).copied();
        Taken::new(subnet, known.chain(cells)).find(most, ipam::End::Top)
    };
    let (vip, block) =
        free(subnet, &held, unusable, find).ok_or_else(|| NoServiceAddress::new(network, service))?;
    let name = &network.network.name;
    let put = |range| Change::put_in(name, Block { node: None, range });
    Ok((vip, block.map(put).into_iter().collect()))
}
