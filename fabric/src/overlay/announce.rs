//! Telling local workloads that an address has another MAC now.
//!
//! A warm neighbour cache would send to the old one for up to half a minute. Linux ignores a new MAC within one
//! second of the last (net.ipv4.neigh.*.locktime), so each announcement is made three times.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use etherparse::icmpv6::NeighborAdvertisementHeader;
use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, Icmpv6Type, PacketBuilder};
use sealane_base::shared_list::SharedList;
use sealane_proto::types::{MacAddr, OverlayIp, Subnet6};
use sealane_sys::NetNs;

use super::plan::{Desired, NeighbourRow, Port};
use super::{KernelAccess, NetworkCache, lock};
use crate::netlink::{PacketSocket, Socket};

/// Intervals after which an announcement is made again, each counted from the one before.
pub(super) const REPEATS: [Duration; 2] = [Duration::from_millis(1100), Duration::from_millis(1900)];
/// Number of addresses that one pass announces; a change of more is a new network, where nobody is warm.
const MAX_ANNOUNCED: usize = 1024;
/// Number of addresses that are remembered without being in use.
const MAX_KNOWN: usize = 1 << 16;

/// The MAC that each address had last. Addresses without a workload are remembered: warm caches do so, too.
#[derive(Debug, Default)]
pub(super) struct Known {
    macs: BTreeMap<OverlayIp, MacAddr>,
}

impl Known {
    /// Takes in what the kernel had before this process: the workloads' caches may still have it.
    pub(super) fn remember(&mut self, before: impl IntoIterator<Item = (OverlayIp, MacAddr)>) {
        for (address, mac) in before {
            self.macs.entry(address).or_insert(mac);
        }
    }

    /// Takes in what the addresses' MACs are now; the answer is those that had another one before.
    pub(super) fn observe(
        &mut self,
        now: impl IntoIterator<Item = (OverlayIp, MacAddr)>,
    ) -> Vec<(OverlayIp, MacAddr)> {
        let mut changed = Vec::new();
        for (address, mac) in now {
            if self.macs.len() >= MAX_KNOWN && !self.macs.contains_key(&address) {
                self.macs.pop_first();
            }
            if self.macs.insert(address, mac).is_some_and(|before| before != mac) {
                changed.push((address, mac));
            }
        }
        changed.truncate(MAX_ANNOUNCED);
        changed
    }

    /// Returns true if `mac` is still the address's last.
    fn is_current(&self, (address, mac): (OverlayIp, MacAddr)) -> bool {
        self.macs.get(&address) == Some(&mac)
    }
}

/// The addresses that local workloads can have in their caches, without those of neighbours that were as they are before.
pub(super) fn visible<'a>(
    desired: &'a Desired,
    before: &'a SharedList<NeighbourRow>,
) -> impl Iterator<Item = (OverlayIp, MacAddr)> + 'a {
    let news = before.differences(&desired.neighbours, NeighbourRow::cmp).filter_map(|(_, new)| new);
    let remote = news.filter_map(announced);
    remote.chain(desired.ports.iter().map(|port: &Port| (port.address, port.mac)))
}

/// Of a workload's two addresses, the one that stands for both.
pub(super) fn announced(row: &NeighbourRow) -> Option<(OverlayIp, MacAddr)> {
    match row.address {
        IpAddr::V4(address) => Some((address.into(), row.mac)),
        IpAddr::V6(_) => None,
    }
}

/// Announces `rows` on every local port, at once and twice again. Ends early when the network is gone.
pub(super) async fn run(
    kernel: Arc<KernelAccess>,
    path: PathBuf,
    carried: Weak<Mutex<NetworkCache>>,
    rows: Vec<(OverlayIp, MacAddr)>,
    subnet6: Option<Subnet6>,
) -> io::Result<()> {
    for wait in [Duration::ZERO].into_iter().chain(REPEATS) {
        tokio::time::sleep(wait).await;
        let (kernel, path) = (kernel.clone(), path.clone());
        let Some(carried) = carried.upgrade() else { return Ok(()) };
        let rows = rows.clone();
        // Opened anew each time: a socket that is kept would keep a removed namespace alive.
        tokio::task::spawn_blocking(move || {
            // Held while sending: a pass that changes the address again comes before or after.
            let carried = lock(&carried);
            let current: Vec<_> = rows.into_iter().filter(|row| carried.known.is_current(*row)).collect();
            send(&kernel, &path, &current, subnet6)
        })
        .await??;
    }
    Ok(())
}

fn send(
    kernel: &KernelAccess,
    path: &Path,
    rows: &[(OverlayIp, MacAddr)],
    subnet6: Option<Subnet6>,
) -> io::Result<()> {
    let ns = NetNs::open(path).map_err(io::Error::other)?;
    let links = Socket::open(&kernel.hopper, &ns).and_then(|mut socket| socket.links());
    let socket = PacketSocket::open(&kernel.hopper, &ns)?;
    for port in links.map_err(io::Error::other)?.iter().filter(|link| super::port::is_port(link)) {
        for &(address, mac) in rows {
            let twin = subnet6.map(|subnet6| subnet6.address(address).into());
            for address in [IpAddr::from(address.to_ipv4())].into_iter().chain(twin) {
                for frame in announcements(address, mac)? {
                    // A port that is just going needs no announcement.
                    let _ = socket.send(port.index, &frame);
                }
            }
        }
    }
    Ok(())
}

/// The frames that tell everybody on a link that `address` is at `mac`.
pub(super) fn announcements(address: IpAddr, mac: MacAddr) -> io::Result<Vec<Vec<u8>>> {
    match address {
        IpAddr::V4(address) => {
            let operations = [ArpOperation::REQUEST, ArpOperation::REPLY];
            operations.into_iter().map(|operation| gratuitous_arp(operation, address, mac)).collect()
        }
        IpAddr::V6(address) => Ok(vec![unsolicited_advertisement(address, mac)?]),
    }
}

/// A gratuitous ARP packet (RFC 826, RFC 5227 section 3): sender and target are `address`. Some hosts learn from
/// the request form only, some from the reply form only.
fn gratuitous_arp(operation: ArpOperation, address: Ipv4Addr, mac: MacAddr) -> io::Result<Vec<u8>> {
    const BROADCAST: [u8; 6] = [0xff; 6];
    let (mac, ip) = (mac.octets(), address.octets());
    let packet =
        ArpPacket::new(ArpHardwareId::ETHERNET, EtherType::IPV4, operation, &mac, &ip, &BROADCAST, &ip);
    let frame = PacketBuilder::ethernet2(mac, BROADCAST).arp(packet.map_err(io::Error::other)?);
    let mut bytes = Vec::with_capacity(frame.size());
    frame.write_to_vec(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// An unsolicited neighbour advertisement to all nodes that overrides what they have (RFC 4861, sections 4.4 and
/// 7.2.6).
fn unsolicited_advertisement(address: Ipv6Addr, mac: MacAddr) -> io::Result<Vec<u8>> {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
    /// Routers pass nothing on with fewer.
    const HOPS: u8 = 255;
    /// Option of the target's link-layer address, and its length in units of eight bytes.
    const TARGET_MAC: [u8; 2] = [2, 1];
    let flags = NeighborAdvertisementHeader { router: false, solicited: false, r#override: true };
    let message = [&address.octets()[..], &TARGET_MAC, &mac.octets()].concat();
    let frame = PacketBuilder::ethernet2(mac.octets(), ALL_NODES_MAC)
        .ipv6(address.octets(), ALL_NODES.octets(), HOPS)
        .icmpv6(Icmpv6Type::NeighborAdvertisement(flags));
    let mut bytes = Vec::with_capacity(frame.size(message.len()));
    frame.write_to_vec(&mut bytes, &message).map_err(io::Error::other)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> OverlayIp {
        std::net::Ipv4Addr::new(10, 42, 0, last).into()
    }

    const FIRST: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 1]);
    const SECOND: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 2]);

    #[test]
    fn only_an_address_that_had_another_mac_is_announced() {
        let mut known = Known::default();
        assert!(known.observe([(address(5), FIRST), (address(6), FIRST)]).is_empty());
        assert!(known.observe([(address(5), FIRST)]).is_empty());
        assert_eq!(known.observe([(address(6), SECOND)]), [(address(6), SECOND)]);
        assert!(known.is_current((address(6), SECOND)) && !known.is_current((address(6), FIRST)));
    }

    #[test]
    fn an_announcement_is_a_neighbour_advertisement_with_a_right_checksum() {
        let address: Ipv6Addr = "fd42::a2a:5".parse().unwrap();
        let frame = unsolicited_advertisement(address, FIRST).unwrap();
        let packet = etherparse::PacketHeaders::from_ethernet_slice(&frame).unwrap();
        let Some(etherparse::NetHeaders::Ipv6(ip, _)) = &packet.net else { panic!("{packet:?}") };
        let Some(etherparse::TransportHeader::Icmpv6(message)) = &packet.transport else {
            panic!("{packet:?}")
        };
        let payload = packet.payload.slice();
        let right = message.icmp_type.calc_checksum(ip.source, ip.destination, payload).unwrap();
        assert_eq!(message.checksum, right);
        assert_eq!((ip.source, ip.hop_limit), (address.octets(), 255));
        assert_eq!(frame[62..78], address.octets());
    }

    #[test]
    fn an_announcement_is_an_arp_packet_about_its_sender() {
        let frame = gratuitous_arp(ArpOperation::REPLY, address(5).to_ipv4(), FIRST).unwrap();
        let packet = etherparse::PacketHeaders::from_ethernet_slice(&frame).unwrap();
        let Some(etherparse::NetHeaders::Arp(arp)) = packet.net else { panic!("{packet:?}") };
        assert_eq!(arp.operation, etherparse::ArpOperation::REPLY);
        assert_eq!(arp.sender_hw_addr(), FIRST.octets());
        assert_eq!(arp.sender_protocol_addr(), arp.target_protocol_addr());
        assert_eq!(arp.sender_protocol_addr(), [10, 42, 0, 5]);
    }
}
