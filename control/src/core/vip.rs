//! Addresses for services: from blocks that control itself holds, one more when those are full.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;
use sealane_proto::resource::{Block, Network};
use sealane_proto::types::{NetworkName, OverlayIp, ServiceName, Subnet};

use super::{Change, NetworkState, ipam};

/// A network has no address left for one more service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "network {network} ({subnet}) has no address left for the new service {service}; \
     end workloads or create a larger network"
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

/// The next free address of these blocks, or of a new one, which then comes with it.
pub(super) fn free(
    subnet: Subnet,
    mut held: impl Iterator<Item = Ipv4Net>,
    unusable: impl Fn(OverlayIp) -> bool,
    is_taken: impl Fn(Ipv4Net) -> bool,
) -> Option<(OverlayIp, Option<Ipv4Net>)> {
    let free = |block| ipam::free_address(subnet, block, &unusable);
    if let Some(vip) = held.find_map(free) {
        return Some((vip, None));
    }
    let block = ipam::free_block(subnet, ipam::End::Top, is_taken)?;
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
    let held = network.blocks.index().own();
    let is_taken = |block: Ipv4Net| {
        network.blocks.contains_key(&block)
            || network.rests_in(block)
            || network.within(block).next().is_some()
    };
    let (vip, block) = free(subnet, held.rev(), unusable, is_taken)
        .ok_or_else(|| NoServiceAddress::new(network, service))?;
    let name = &network.network.name;
    let put = |range| Change::put_in(name, Block { node: None, range });
    Ok((vip, block.map(put).into_iter().collect()))
}
