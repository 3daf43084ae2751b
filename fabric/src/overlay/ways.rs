//! Sizes of packets to the other hosts: by the ways to them, not by the device that has the address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::Ipv4Net;
use sealane_proto::resource::{Network, NetworkSnapshot};
use sealane_proto::types::{Mtu, NetworkName, NodeName};
use tokio::sync::watch;

use super::{KernelAccess, Overlay, OverlayError, Underlay, lock};
use crate::netlink::{Link, Socket};

/// Number of ways that are looked at: they differ by device, not by host.
const MOST: usize = 256;

/// The ways of this host.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// The other hosts of its networks.
    peers: BTreeMap<NetworkName, BTreeSet<IpAddr>>,
    /// Result of the last look, until something changes.
    seen: Option<Seen>,
    told: watch::Sender<Option<Mtu>>,
}

/// The ways as they are.
#[derive(Debug)]
struct Seen {
    /// The length of packets that they allow inside a tunnel.
    inner: u32,
    /// The network beneath, as the underlay address has it.
    beneath: Option<Ipv4Net>,
    /// Number of the device that has the underlay address.
    device: u32,
}

impl Overlay {
    /// Returns the largest packet that this host's ways to the others allow inside a tunnel, as far as that was looked
    /// at.
    #[must_use]
    pub fn mtu(&self) -> watch::Receiver<Option<Mtu>> {
        lock(&self.kernel.ways).told.subscribe()
    }

    /// The MTU of a network's devices on this host, in bytes.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn mtu_of(&self, network: &Network) -> Result<u32, OverlayError> {
        let carried = self.carried(&network.name);
        let others = lock(&carried).others;
        self.kernel.mtu(network, others)
    }
}

impl KernelAccess {
    /// The network's MTU: as given, or what fits into the ways of this host and of the `others`.
    pub(super) fn mtu(&self, network: &Network, others: Option<Mtu>) -> Result<u32, OverlayError> {
        if let Some(mtu) = network.mtu {
            return Ok(mtu.into());
        }
        let own = self.seen(|seen| seen.inner)?;
        Ok(others.map_or(own, |others| own.min(others.into())))
    }

    /// Explains how the network's packets do not fit into this host's ways, if they do not.
    pub(super) fn too_long(&self, network: &Network) -> Option<String> {
        let (mtu, own) = (network.mtu?, self.seen(|seen| seen.inner).ok()?);
        (u32::from(mtu) > own).then(|| format!("{mtu} bytes, and {own} fit"))
    }

    /// The network beneath, of IPv4.
    pub(super) fn beneath(&self) -> Option<Ipv4Net> {
        self.seen(|seen| seen.beneath).ok()?
    }

    /// Number of the device that has the underlay address, if any has it.
    pub(super) fn device_beneath(&self) -> Option<u32> {
        self.seen(|seen| seen.device).ok()
    }

    /// Remembers whom a network's packets go to.
    pub(super) fn note_peers(&self, network: &NetworkName, peers: BTreeSet<IpAddr>) {
        let mut ways = lock(&self.ways);
        let known = ways.peers.insert(network.clone(), peers);
        if known.as_ref() != ways.peers.get(network) {
            ways.seen = None;
        }
    }

    pub(super) fn forget_peers(&self, network: &NetworkName) {
        lock(&self.ways).peers.remove(network);
    }

    /// Looks at the ways again: they may have changed.
    pub(super) fn measure_ways(&self) -> Result<u32, OverlayError> {
        lock(&self.ways).seen = None;
        self.seen(|seen| seen.inner)
    }

    /// Takes something of the ways as they are, which are looked at when something has changed.
    fn seen<T>(&self, take: impl FnOnce(&Seen) -> T) -> Result<T, OverlayError> {
        let mut ways = lock(&self.ways);
        let seen = match ways.seen.take() {
            Some(seen) => seen,
            None => {
                let seen = self.look(&ways.peers)?;
                let told = Mtu::try_from(seen.inner).ok();
                ways.told.send_if_modified(|known| std::mem::replace(known, told) != told);
                seen
            }
        };
        Ok(take(ways.seen.insert(seen)))
    }

    fn look(&self, peers: &BTreeMap<NetworkName, BTreeSet<IpAddr>>) -> Result<Seen, OverlayError> {
        let mut socket = Socket::open(&self.hopper, &self.host)?;
        let underlay = Underlay::find(&mut socket, self.config.underlay)?;
        let links = socket.links()?;
        let beneath = match underlay.address.to_ip() {
            IpAddr::V4(address) => Ipv4Net::new(address, underlay.prefix_len).ok().map(|net| net.trunc()),
            IpAddr::V6(_) => None,
        };
        let peers: BTreeSet<IpAddr> = peers.values().flatten().copied().collect();
        let mut allowed = Vec::new();
        for peer in peers.into_iter().take(MOST) {
            if let Some(way) = socket.way_to(peer)? {
                let device = links.iter().find(|link| link.index == way.device && !is_loopback(link));
                allowed.extend(device.map(|device| way.mtu.map_or(device.mtu, |mtu| mtu.min(device.mtu))));
            }
        }
        let least = allowed.into_iter().min().unwrap_or_else(|| without_peers(&underlay, &links));
        let device = underlay.index;
        let inner = Underlay { mtu: least, ..underlay }.inner_mtu().min(Mtu::MAX.into());
        Ok(Seen { inner, beneath, device })
    }
}

/// The least that the other hosts told.
pub(super) fn least_of_others(snapshot: &NetworkSnapshot, node: &NodeName) -> Option<Mtu> {
    snapshot.nodes.iter().filter(|other| other.name != *node).filter_map(|other| other.mtu).min()
}

/// The MTU of the device with the underlay address or, where that is loopback, the least of those that packets may leave by.
fn without_peers(underlay: &Underlay, links: &[Link]) -> u32 {
    let own = links.iter().find(|link| link.index == underlay.index);
    if !own.is_some_and(is_loopback) {
        return underlay.mtu;
    }
    let others = links.iter().filter(|link| link.up && !is_loopback(link) && link.kind.is_none());
    others.map(|link| link.mtu).min().unwrap_or(1500)
}

fn is_loopback(link: &Link) -> bool {
    link.name == "lo"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn the_least_that_any_other_host_told_counts() {
        let mut snapshot = testing::snapshot();
        let told = |name: &str, bytes: u32| sealane_proto::resource::Node {
            name: name.parse().unwrap(),
            underlay: "192.0.2.1".parse().unwrap(),
            mtu: Mtu::try_from(bytes).ok(),
        };
        snapshot.nodes = vec![told("a", 1400), told("b", 8950), told("c", 1450), told("old", 0)];
        let least = |node: &str| least_of_others(&snapshot, &node.parse().unwrap()).map(Mtu::get);
        assert_eq!((least("a"), least("b")), (Some(1450), Some(1400)));
        snapshot.nodes.truncate(1);
        assert_eq!(least_of_others(&snapshot, &"a".parse().unwrap()), None);
    }
}
