//! The echo device: a VXLAN device by which hosts that share a network ask each other for a sign of life.
//!
//! It is in a namespace of its own, has the UDP port and the gate of every tunnel, and a VNI that no network has. The kernel
//! answers: a host whose agent is down answers all the same. Outer packets may not be fragmented (DF), so that the size of an
//! echo says what the way takes, and leave with a mark, so that they may be longer than others ([`super::narrow`]). Addresses
//! follow from hosts' names ([`MacAddr::of_host`]); nothing is learned or flooded.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use netlink_packet_route::link::{InfoData, InfoKind, InfoVxlan, VxlanDf};
use sealane_proto::types::{IpFamily, MacAddr, NodeName, UnderlayAddr, UnderlayAddrs, Vni};
use sealane_sys::NetNs;

use super::applied::{Applied, Table};
use super::narrow::ECHO_MARK;
use super::pass::{ensure_only_address, remove_links};
use super::plan::{FdbRow, NeighbourRow, Row, diff};
use super::shape::differs;
use super::tunnel::{VXLAN, VXLAN_OTHER};
use super::underlay::is_of_all;
use super::{KernelAccess, Overlay, OverlayError, Reason, blocking, lock};
use crate::netlink::{
    Address, Ear, EchoSocket, Link, LinkRequest, NetlinkError, NetlinkRequest, Socket, Sysctl,
    neighbour_entry, vxlan_fdb_entry,
};
use crate::nft::ensure_echo_rules;
use netlink_packet_route::neighbour::NeighbourMessage;

/// Bytes of notices that are kept of the namespace of echoes, and those that are taken at once.
const OF_ECHO: usize = 32 << 10;
const MOST: usize = 1_024;

/// The hosts that share a network with this one, with their underlay addresses.
pub type EchoPeers = BTreeMap<NodeName, UnderlayAddrs>;

/// The echo devices as a look has left them: one of each family of which there are peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EchoDevice {
    /// Addresses of the peers there; none while there is no device.
    pub peers: BTreeMap<NodeName, EchoAddr>,
    /// Peers whose address is another host's as well, with that host: they are not asked.
    pub colliding: BTreeMap<NodeName, NodeName>,
    /// Number of things that somebody else had changed and that were mended.
    pub mended: u64,
}

/// The place of a peer among echo devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EchoAddr {
    /// The peer's underlay address, to which the device sends.
    pub underlay: UnderlayAddr,
    /// Address of the peer on the device.
    pub address: Ipv6Addr,
    /// Number of the device that leads there, in the namespace of echoes.
    pub device: u32,
}

/// Rows of the devices. Pure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rows {
    families: BTreeMap<IpFamily, FamilyRows>,
    /// Underlay address and address of each peer.
    peers: BTreeMap<NodeName, (UnderlayAddr, Ipv6Addr)>,
    colliding: BTreeMap<NodeName, NodeName>,
}

/// Rows of the device of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct FamilyRows {
    fdb: BTreeSet<FdbRow>,
    neighbours: BTreeSet<NeighbourRow>,
}

impl Rows {
    /// A row per peer that this host at `local` has a way to; of hosts with one address, this host goes first and then the one
    /// whose name comes first.
    fn of((own, local): (&NodeName, UnderlayAddrs), peers: &EchoPeers) -> Self {
        let mut holders = BTreeMap::from([(MacAddr::of_host(own), own)]);
        let mut rows = Self::default();
        for (name, underlay) in peers {
            let Some(way) = local.way_to(*underlay) else { continue };
            let mac = MacAddr::of_host(name);
            if let Some(holder) = holders.get(&mac) {
                rows.colliding.insert(name.clone(), (*holder).clone());
                continue;
            }
            holders.insert(mac, name);
            let family = rows.families.entry(way.own.family()).or_default();
            family.fdb.insert(FdbRow { mac, peer: way.peer.to_ip() });
            family.neighbours.insert(NeighbourRow { address: mac.link_local().into(), mac });
            rows.peers.insert(name.clone(), (way.peer, mac.link_local()));
        }
        rows
    }
}

impl Overlay {
    /// Makes the kernel exchange echoes with these peers and nobody else; takes the device away when there are none.
    ///
    /// # Errors
    /// With the first thing that could not be mended; [`OverlayError::EchoInUse`] where another device has the VNI of echoes.
    ///
    /// # Cancel safety
    /// A look that has begun runs to its end.
    pub async fn ensure_echo(
        &self,
        own: &NodeName,
        peers: &EchoPeers,
        reason: Reason,
    ) -> Result<EchoDevice, OverlayError> {
        let (kernel, own, peers) = (self.kernel.clone(), own.clone(), peers.clone());
        let (device, applied) = blocking(move || kernel.ensure_echo(&own, &peers)).await?;
        let mended = if reason == Reason::Audit { applied.total() } else { 0 };
        if mended > 0 {
            self.metrics.count_drift("the echo device", &applied);
        }
        Ok(EchoDevice { mended, ..device })
    }

    /// Listens in the namespace of echoes; `None` while there is none.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or at the limit of open files.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn echo_ear(&self) -> std::io::Result<Option<EchoEar>> {
        let echo = lock(&self.kernel.echo);
        let ear = echo.as_ref().map(|ns| Ear::open(&self.kernel.hopper, ns, OF_ECHO)).transpose()?;
        Ok(ear.map(EchoEar))
    }

    /// Returns true if an agent before this one, since the machine was started, has made the namespace of echoes.
    #[must_use]
    pub fn has_echo(&self) -> bool {
        NetNs::open(self.kernel.config.run_dir.echo_namespace()).is_ok()
    }

    /// Opens a socket for echoes; `None` while there is no device for them.
    ///
    /// # Errors
    /// When the socket cannot be made, or outside a runtime.
    pub fn echo_socket(&self) -> Result<Option<EchoSocket>, OverlayError> {
        let echo = lock(&self.kernel.echo);
        let socket = echo.as_ref().map(|ns| EchoSocket::open(&self.kernel.hopper, ns));
        Ok(socket.transpose()?)
    }
}

/// Ear in the namespace of echoes.
#[derive(Debug)]
pub struct EchoEar(Ear);

impl EchoEar {
    /// Waits until another program has changed rules.
    ///
    /// # Errors
    /// When the socket fails for good.
    ///
    /// # Cancel safety
    /// Changes that were not told are told the next time.
    pub async fn rules_changed(&self) -> std::io::Result<()> {
        loop {
            self.0.rules_told().await?;
            let heard = self.0.drain_rules(MOST)?;
            if heard.rules || heard.lost {
                return Ok(());
            }
        }
    }
}

impl KernelAccess {
    fn ensure_echo(&self, own: &NodeName, peers: &EchoPeers) -> Result<(EchoDevice, Applied), OverlayError> {
        let mut handle = lock(&self.echo);
        let beneath = self.beneath();
        let local = self.underlay();
        let has_moved = lock(&self.echoed).replace(local) != Some(local);
        let single = peers.iter().filter(|(_, underlay)| !underlay.iter().any(|own| is_of_all(own, beneath)));
        let peers = single.map(|(name, underlay)| (name.clone(), *underlay)).collect();
        let Rows { families, peers, colliding } = Rows::of((own, local), &peers);
        if peers.is_empty() {
            self.remove_echo(&mut handle)?;
            self.admit_echoes(BTreeSet::new())?;
            return Ok((EchoDevice { colliding, ..EchoDevice::default() }, Applied::default()));
        }
        let rows = families.values().flat_map(|rows| &rows.fdb);
        self.admit_echoes(rows.map(|row| row.peer).collect())?;
        let ns = match handle.as_ref() {
            Some(known) => {
                let path = self.config.run_dir.echo_namespace();
                self.rebind(known, &path, || "the namespace of echoes".to_owned())?;
                known
            }
            None => &*handle.insert(NetNs::ensure_at(self.config.run_dir.echo_namespace())?),
        };
        let mut look = EchoLook { kernel: self, ns, applied: Applied::default() };
        let ruled = ensure_echo_rules(&self.hopper, ns, ECHO_MARK)?;
        look.applied.count(Table::Rules, usize::from(ruled));
        let mut devices = BTreeMap::new();
        let wanted = local.iter().filter(|local| families.contains_key(&local.family()));
        let wanted: Vec<_> = wanted.map(|address| (look.name_of(address), address)).collect();
        look.remove_others(&wanted)?;
        for (name, address) in wanted {
            let index = look.ensure_device((name, address), MacAddr::of_host(own))?;
            look.ensure_rows(index, &families[&address.family()])?;
            devices.insert(address.family(), index);
        }
        let applied = if has_moved { Applied::default() } else { look.applied };
        let placed = peers.into_iter().filter_map(|(name, (underlay, address))| {
            Some((name, EchoAddr { underlay, address, device: *devices.get(&underlay.family())? }))
        });
        Ok((EchoDevice { peers: placed.collect(), colliding, mended: 0 }, applied))
    }

    /// The device goes before its namespace, whoever keeps that alive.
    fn remove_echo(&self, handle: &mut Option<NetNs>) -> Result<(), OverlayError> {
        let path = self.config.run_dir.echo_namespace();
        if let Some(known) = handle.take() {
            known.bind_at(&path)?;
        }
        remove_links(self, &path, |link| link.kind.is_some())?;
        Ok(NetNs::remove_at(&path)?)
    }
}

/// A look at the device under way.
struct EchoLook<'a> {
    kernel: &'a KernelAccess,
    ns: &'a NetNs,
    applied: Applied,
}

impl EchoLook<'_> {
    /// The name of the device that sends from an address of this host.
    fn name_of(&self, local: UnderlayAddr) -> &'static str {
        if local == self.kernel.underlay().first() { VXLAN } else { VXLAN_OTHER }
    }

    /// Takes away devices that are no longer wanted, or send from elsewhere: then their families are free for others.
    fn remove_others(&mut self, wanted: &[(&'static str, UnderlayAddr)]) -> Result<(), OverlayError> {
        let mut socket = Socket::open(&self.kernel.hopper, self.ns)?;
        for name in [VXLAN, VXLAN_OTHER] {
            let settings = wanted.iter().find(|(known, _)| *known == name);
            let settings = settings.map(|(_, local)| self.settings(*local));
            if let Some(link) = socket.link(name)?
                && !settings.is_some_and(|settings| has(&link, &settings))
            {
                let request = LinkRequest::of(link.index).remove();
                self.change(&mut socket, request, "remove another device than that of echoes")?;
            }
        }
        Ok(())
    }

    /// Makes the device what it should be; answers its number.
    fn ensure_device(
        &mut self,
        (name, local): (&'static str, UnderlayAddr),
        mac: MacAddr,
    ) -> Result<u32, OverlayError> {
        // Addresses are what this agent gives; the kernel answers whoever the gate lets in.
        let settings = vec![
            Sysctl::new("net/ipv6/conf/all/disable_ipv6", "0"),
            Sysctl::new("net/ipv6/conf/default/disable_ipv6", "0"),
            Sysctl::new("net/ipv6/conf/default/addr_gen_mode", "1"),
            Sysctl::new("net/ipv6/conf/default/accept_ra", "0"),
            Sysctl::optional("net/ipv6/conf/vxlan0/disable_ipv6", "0"),
            Sysctl::optional("net/ipv6/conf/vxlan1/disable_ipv6", "0"),
            Sysctl::optional("net/ipv6/icmp/echo_ignore_all", "0"),
            // Answers to long echoes are whole again as soon as the device is: by itself the kernel remembers a short way for ten minutes.
            Sysctl::optional("net/ipv6/route/mtu_expires", "1"),
        ];
        let changed = Sysctl::ensure(&self.kernel.hopper, self.ns, settings)??;
        self.applied.count(Table::Link, changed);
        let mtu = self.kernel.inner_mtu()?;
        let mut socket = Socket::open(&self.kernel.hopper, self.ns)?;
        let link = match socket.link(name)? {
            Some(link) => link,
            None => self.create(&mut socket, name, self.settings(local), mtu)?,
        };
        if !(link.up && link.mac == Some(mac) && link.mtu == mtu) {
            let request = LinkRequest::of(link.index).mtu(mtu).mac(mac).up().change();
            self.change(&mut socket, request, "set up the device of echoes")?;
        }
        let address = Address { index: link.index, address: mac.link_local().into(), prefix_len: 64 };
        let changed = ensure_only_address(&mut socket, address, || "the address of echoes".to_owned())?;
        self.applied.count(Table::Address, changed);
        Ok(link.index)
    }

    fn settings(&self, local: UnderlayAddr) -> Vec<InfoVxlan> {
        let local = match local.to_ip() {
            IpAddr::V4(address) => InfoVxlan::Local(address),
            IpAddr::V6(address) => InfoVxlan::Local6(address),
        };
        vec![
            local,
            InfoVxlan::Id(Vni::ECHO.get()),
            InfoVxlan::Port(self.kernel.config.vxlan_port),
            InfoVxlan::Learning(false),
            InfoVxlan::Df(VxlanDf::Set),
        ]
    }

    /// Made by the host's socket and born in its namespace, as a network's: the outer UDP socket is the host's.
    fn create(
        &mut self,
        socket: &mut Socket,
        name: &'static str,
        settings: Vec<InfoVxlan>,
        mtu: u32,
    ) -> Result<Link, OverlayError> {
        let mut host = Socket::open(&self.kernel.hopper, &self.kernel.host)?;
        let request = LinkRequest::named(name).mtu(mtu).in_namespace(self.ns);
        let request = request.data(InfoKind::Vxlan, InfoData::Vxlan(settings)).create();
        match host.request(request, || "make the device of echoes".to_owned()) {
            Err(NetlinkError::Refused { refusal, .. }) if refusal.is_already_there() => {
                return Err(OverlayError::EchoInUse { port: self.kernel.config.vxlan_port });
            }
            outcome => outcome?,
        }
        self.applied.count(Table::Link, 1);
        let made = socket.link(name)?;
        made.ok_or_else(|| std::io::Error::other("the device of echoes was removed as it was made").into())
    }

    fn change(
        &mut self,
        socket: &mut Socket,
        request: NetlinkRequest,
        what: &str,
    ) -> Result<(), OverlayError> {
        socket.request(request, || what.to_owned())?;
        self.applied.count(Table::Link, 1);
        Ok(())
    }

    fn ensure_rows(
        &mut self,
        index: u32,
        FamilyRows { fdb, neighbours }: &FamilyRows,
    ) -> Result<(), OverlayError> {
        let mut socket = Socket::open(&self.kernel.hopper, self.ns)?;
        let there = socket.fdb()?.into_iter().filter(|entry| entry.fixed && entry.index == index);
        let there = there.filter_map(|entry| Some(FdbRow { mac: entry.mac, peer: entry.peer? })).collect();
        let message = |row: &FdbRow| vxlan_fdb_entry(index, row.mac, row.peer);
        self.applied.count(Table::Fdb, mend(&mut socket, fdb, &there, message)?);
        let there = socket.neighbours()?.into_iter().filter(|row| row.index == index);
        let there = there.map(|row| NeighbourRow { address: row.address, mac: row.mac }).collect();
        let message = |row: &NeighbourRow| neighbour_entry(index, row.address, row.mac);
        self.applied.count(Table::Neighbour, mend(&mut socket, neighbours, &there, message)?);
        Ok(())
    }
}

/// Brings rows to their state; answers how many were wrong.
fn mend<R: Row>(
    socket: &mut Socket,
    wanted: &BTreeSet<R>,
    there: &BTreeSet<R>,
    message: impl Fn(&R) -> NeighbourMessage,
) -> Result<usize, NetlinkError> {
    let changes = diff(wanted, there);
    let removed = changes.remove.len();
    let remove = changes.remove.iter().map(|row| NetlinkRequest::remove_row(message(row)));
    let add = changes.add.iter().map(|row| NetlinkRequest::set_row(message(row)));
    let refusals = socket.batch(remove.chain(add))?;
    let refused = refusals.into_iter().find(|(place, refusal)| !(*place < removed && refusal.is_gone()));
    match refused {
        Some((_, refusal)) => {
            Err(NetlinkError::Refused { what: "change a row of echoes".to_owned(), refusal })
        }
        None => Ok(removed + changes.add.len()),
    }
}

/// Returns true if the device has these settings, as far as the kernel tells of them; it always tells of an address.
fn has(link: &Link, wanted: &[InfoVxlan]) -> bool {
    let Some(InfoData::Vxlan(data)) = &link.data else { return false };
    !differs(wanted, data) && wanted.first().is_some_and(|local| data.contains(local))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_has_a_row_and_nobody_has_this_hosts() {
        let own: NodeName = "a".parse().unwrap();
        let peers: EchoPeers = [("a", "192.0.2.9"), ("b", "192.0.2.2"), ("c", "2001:db8::3")]
            .map(|(name, underlay)| (name.parse().unwrap(), underlay.parse().unwrap()))
            .into();
        let rows = Rows::of((&own, "192.0.2.1,2001:db8::1".parse().unwrap()), &peers);
        assert_eq!(rows.peers.keys().map(NodeName::as_str).collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(rows.colliding, BTreeMap::from([(own.clone(), own)]), "a peer with this host's name");
        let hosts = rows.families.values().flat_map(|rows| rows.fdb.iter().map(|row| row.peer.to_string()));
        assert_eq!(hosts.collect::<Vec<_>>(), ["192.0.2.2", "2001:db8::3"]);
        for (name, (underlay, address)) in &rows.peers {
            let (mac, of) = (MacAddr::of_host(name), &rows.families[&underlay.family()]);
            assert!(of.neighbours.contains(&NeighbourRow { address: (*address).into(), mac }));
            assert!(
                of.fdb.contains(&FdbRow { mac, peer: underlay.to_ip() }) && *underlay == peers[name].first()
            );
        }
        let single = Rows::of((&"d".parse().unwrap(), "192.0.2.4".parse().unwrap()), &peers);
        assert_eq!(single.peers.keys().map(NodeName::as_str).collect::<Vec<_>>(), ["a", "b"], "no way to c");
    }
}
