//! Sizes of packets to the other hosts: by the ways to them, not by the device that has the address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::Ipv4Net;
use sealane_proto::resource::{Network, NetworkSnapshot};
use sealane_proto::types::{IpFamily, Mtu, NetworkName};
use tokio::sync::watch;

use super::narrow::ECHO_MARK;
use super::underlay::inner_mtu;
use super::{KernelAccess, Overlay, OverlayError, Underlay, lock};
use crate::netlink::{Link, Socket};
use crate::nft::gate::GateDevices;

/// Number of ways that are looked at: they differ by device, not by host.
const MOST: usize = 256;

/// The ways of this host.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// The other hosts of its networks.
    peers: BTreeMap<NetworkName, BTreeSet<IpAddr>>,
    /// Result of the last look, until something changes.
    seen: Option<Measurement>,
    told: watch::Sender<Option<Mtu>>,
}

/// The ways as they are.
#[derive(Debug)]
struct Measurement {
    /// The length of packets that they allow inside a tunnel.
    inner: u32,
    /// The network beneath, as the underlay address has it.
    beneath: Option<Ipv4Net>,
    /// Numbers of the devices that have the underlay addresses.
    devices: GateDevices,
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
        let told = lock(&carried).told;
        self.kernel.mtu(network, told)
    }
}

impl KernelAccess {
    /// The network's MTU: as given, or what fits into the ways of this host and what all hosts have `told`.
    pub(super) fn mtu(&self, network: &Network, told: Option<Mtu>) -> Result<u32, OverlayError> {
        if let Some(mtu) = network.mtu {
            return Ok(mtu.into());
        }
        let own = self.seen(|seen| seen.inner)?;
        Ok(fitting(network, own, told))
    }

    /// The longest packet that the ways allow inside a tunnel, in bytes.
    pub(super) fn inner_mtu(&self) -> Result<u32, OverlayError> {
        self.seen(|seen| seen.inner)
    }

    /// Explains how the network's packets do not fit into this host's ways, if they do not.
    pub(super) fn too_long(&self, network: &Network) -> Option<String> {
        too_long(network, self.seen(|seen| seen.inner).ok()?)
    }

    /// The network beneath, of IPv4.
    pub(super) fn beneath(&self) -> Option<Ipv4Net> {
        self.seen(|seen| seen.beneath).ok()?
    }

    /// Numbers of the devices that have the underlay addresses, if any has the main one.
    pub(super) fn devices_beneath(&self) -> Option<GateDevices> {
        self.seen(|seen| seen.devices).ok()
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
    fn seen<T>(&self, take: impl FnOnce(&Measurement) -> T) -> Result<T, OverlayError> {
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

    fn look(&self, peers: &BTreeMap<NetworkName, BTreeSet<IpAddr>>) -> Result<Measurement, OverlayError> {
        let mut socket = Socket::open(&self.hopper, &self.host)?;
        let local = self.underlay();
        let underlay = Underlay::find(&mut socket, local.first())?;
        // Who has lost the other one still reaches all others.
        let other = local.other().and_then(|other| Underlay::find(&mut socket, other).ok());
        let links = socket.links()?;
        let beneath = [Some(&underlay), other.as_ref()].into_iter().flatten().find_map(|underlay| {
            let IpAddr::V4(address) = underlay.address.to_ip() else { return None };
            Ipv4Net::new(address, underlay.prefix_len).ok().map(|net| net.trunc())
        });
        let peers: BTreeSet<IpAddr> = peers.values().flatten().copied().collect();
        let mut allowed = Vec::new();
        for peer in peers.into_iter().take(MOST) {
            // The way that others have made: what echoes have found out of one peer makes no network's packets shorter.
            if let Some(way) = socket.way_to(peer, Some(ECHO_MARK))? {
                let device = links.iter().find(|link| link.index == way.device && !is_loopback(link));
                let outer = device.map(|device| way.mtu.map_or(device.mtu, |mtu| mtu.min(device.mtu)));
                allowed.extend(outer.map(|outer| inner_mtu(outer, IpFamily::of(peer))));
            }
        }
        let family = underlay.address.family();
        let least = allowed.into_iter().min();
        let inner = least.unwrap_or_else(|| inner_mtu(without_peers(&underlay, &links), family));
        let devices = GateDevices::new(family, underlay.index, other.map(|other| other.index));
        Ok(Measurement { inner: inner.min(Mtu::MAX.into()), beneath, devices })
    }
}

/// The length of packets for which there is room on this host, and on all as they have `told`, or that IPv6 takes at least.
fn fitting(network: &Network, own: u32, told: Option<Mtu>) -> u32 {
    let fitting = told.map_or(own, |told| own.min(told.into()));
    match network.subnet6 {
        Some(_) => fitting.max(Mtu::MIN_IPV6.into()),
        None => fitting,
    }
}

fn too_long(network: &Network, own: u32) -> Option<String> {
    let (length, fix) = match (network.mtu, network.subnet6) {
        (Some(mtu), _) => (u32::from(mtu), "with a smaller --mtu or without"),
        (None, Some(_)) => {
            (u32::from(Mtu::MIN_IPV6), "without a --subnet of IPv6, which takes packets of that length")
        }
        (None, None) => return None,
    };
    let beneath = "large ones are lost: raise the MTU beneath, or create the network again";
    (length > own).then(|| format!("{length} bytes, and {own} fit; {beneath} {fix}"))
}

/// The least that hosts have told, as control passes it on. What this host told counts as well: longer packets of its own would be lost at
/// bridges of hosts that are told later, so all go over to them by one state.
pub(super) fn least_told(snapshot: &NetworkSnapshot) -> Option<Mtu> {
    snapshot.nodes.iter().filter_map(|node| node.mtu).min()
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
    fn the_least_that_any_host_told_counts_this_one_among_them() {
        let mut snapshot = testing::snapshot();
        let told = |name: &str, bytes: u32| sealane_proto::resource::Node {
            name: name.parse().unwrap(),
            underlay: "192.0.2.1".parse().unwrap(),
            mtu: Mtu::try_from(bytes).ok(),
        };
        snapshot.nodes = vec![told("a", 1400), told("b", 8950), told("c", 1450), told("old", 0)];
        assert_eq!(least_told(&snapshot).map(Mtu::get), Some(1_400));
        snapshot.nodes.push(told("small", 576));
        let least = least_told(&snapshot).map(Mtu::get);
        assert_eq!(least, Some(576), "who tells less than IPv6 takes counts as well");
        snapshot.nodes = vec![told("old", 0)];
        assert_eq!(least_told(&snapshot), None);
    }

    #[test]
    fn a_network_of_ipv4_alone_follows_the_shortest_way_and_one_of_both_keeps_what_ipv6_takes() {
        let plain = testing::snapshot().network.clone();
        let both = Network { subnet6: "fd42::/64".parse().ok(), ..plain.clone() };
        let mtu = |bytes: u32| Mtu::try_from(bytes).ok();
        for (own, others, of_plain, of_both) in [
            (1_450, None, 1_450, 1_450),
            (1_450, mtu(1_400), 1_400, 1_400),
            (1_450, mtu(1_000), 1_000, 1_280),
            (900, mtu(1_400), 900, 1_280),
        ] {
            let fitting = (fitting(&plain, own, others), fitting(&both, own, others));
            assert_eq!(fitting, (of_plain, of_both), "{own} {others:?}");
        }
        assert_eq!(too_long(&plain, 900), None);
        assert_eq!(too_long(&both, 1_280), None);
        let said = too_long(&both, 900).unwrap();
        assert!(
            said.starts_with("1280 bytes, and 900 fit; ") && said.contains("without a --subnet of IPv6"),
            "{said}"
        );
        let fixed = Network { mtu: mtu(1_400), ..plain };
        assert!(too_long(&fixed, 1_399).unwrap().contains("with a smaller --mtu"));
    }
}
