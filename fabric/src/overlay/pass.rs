//! Pass over a network: the bridge, and settings of all its devices.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use netlink_packet_route::link::{InfoBridgePort, InfoData, InfoKind};
use sealane_base::shared_list::SharedList;
use sealane_proto::resource::Network;
use sealane_proto::types::{IpFamily, UnderlayAddrs};
use sealane_sys::{NetNs, NetNsError};

use super::plan::{Base, BridgeFdbRow, Desired, FdbRow};
use super::shape::{bridge_settings, is_bridge, is_bridge_port};
use super::{Applied, KernelAccess, NetworkCache, OverlayError, Reason, Table};
use crate::egress::link::Ends;
use crate::netlink::{Address, Link, LinkRequest, NetlinkError, Route, Socket, Sysctl};
use crate::nft::RulesCache;

pub(super) const BRIDGE: &str = "br0";

/// A pass under way: the network's namespace, what is in it, and what was changed so far.
pub(super) struct Pass<'a> {
    pub(super) kernel: &'a KernelAccess,
    pub(super) network: &'a Network,
    pub(super) socket: Socket,
    pub(super) links: Vec<Link>,
    pub(super) applied: Applied,
    pub(super) ns: NetNs,
    /// The underlay addresses that the tunnels start from.
    pub(super) local: UnderlayAddrs,
    /// The link to the host, once it stands.
    pub(super) way_out: Option<WayOut>,
    /// The names of ports that their workloads' namespaces kept from being mended.
    pub(super) obstructed: BTreeSet<String>,
}

/// A network's end of its link to the host: the device's number, and the addresses of both ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct WayOut {
    pub(super) device: u32,
    pub(super) ends: Ends,
}

/// The numbers of the network's own devices.
#[derive(Clone, Copy, Debug)]
pub(super) struct Devices {
    pub(super) bridge: u32,
    /// The VXLAN device of the host's main family.
    pub(super) vxlan: u32,
    /// Main family.
    pub(super) family: IpFamily,
    /// The VXLAN device of the other family, while another host is reached by that alone.
    pub(super) other: Option<u32>,
}

impl Devices {
    /// The VXLAN device by which packets go to a host at this address.
    pub(super) fn towards(&self, peer: IpAddr) -> Option<u32> {
        if IpFamily::of(peer) == self.family { Some(self.vxlan) } else { self.other }
    }

    /// The row of the bridge for a remote workload behind the second VXLAN device: what has none goes to the first one.
    pub(super) fn beside(&self, row: &FdbRow) -> Option<BridgeFdbRow> {
        let port = self.other.filter(|_| IpFamily::of(row.peer) != self.family)?;
        Some(BridgeFdbRow { mac: row.mac, port })
    }

    /// The same of all of them; without a second device, none is looked at.
    pub(super) fn all_beside(self, fdb: &SharedList<FdbRow>) -> impl Iterator<Item = BridgeFdbRow> {
        let looked_at = self.other.map(|_| fdb.iter());
        looked_at.into_iter().flatten().filter_map(move |row| self.beside(row))
    }
}

impl<'a> Pass<'a> {
    /// Makes the network's namespace where it is missing and reads what is in it.
    pub(super) fn open(kernel: &'a KernelAccess, network: &'a Network) -> Result<Self, OverlayError> {
        let ns = kernel.ensure_netns(&network.name)?;
        let mut socket = Socket::open(&kernel.hopper, &ns)?;
        let links = socket.links()?;
        let (applied, obstructed, local) = (Applied::default(), BTreeSet::new(), kernel.underlay());
        Ok(Self { kernel, network, socket, links, applied, ns, local, way_out: None, obstructed })
    }

    /// Goes on in a namespace that a pass has left as it should be: of what is in it, only these devices are read.
    pub(super) fn resume(
        kernel: &'a KernelAccess,
        network: &'a Network,
        names: &[&str],
    ) -> Result<Self, OverlayError> {
        let ns = kernel.ensure_netns(&network.name)?;
        let socket = Socket::open(&kernel.hopper, &ns)?;
        let (links, applied, obstructed) = (Vec::new(), Applied::default(), BTreeSet::new());
        let local = kernel.underlay();
        let mut pass = Self { kernel, network, socket, links, applied, ns, local, way_out: None, obstructed };
        names.iter().try_for_each(|name| pass.refresh_link(name))?;
        Ok(pass)
    }

    /// Brings everything to its state; answers the network's own devices.
    pub(super) fn run(
        &mut self,
        desired: &Desired,
        reason: Reason,
        carried: &mut NetworkCache,
    ) -> Result<Devices, OverlayError> {
        let devices = self.ensure_base(&desired.base, Some(desired), &mut carried.rules)?;
        self.ensure_rules(desired, &mut carried.rules)?;
        self.ensure_ports(desired, devices, reason, &mut carried.rules)?;
        self.ensure_rows(desired, devices, &mut carried.known)?;
        if let Err(error) = self.ensure_egress(&desired.base) {
            self.applied.egress_problem = Some(error.to_string());
        }
        Ok(devices)
    }

    /// Makes the network's own devices what they should be. Where nothing is known of other hosts, the second VXLAN device is
    /// left as it is.
    pub(super) fn ensure_base(
        &mut self,
        base: &Base,
        desired: Option<&Desired>,
        rules: &mut RulesCache,
    ) -> Result<Devices, OverlayError> {
        // Addresses are what this agent gives, so nobody announces any; a VXLAN device without IPv6 answers for nobody.
        // What is forwarded is what leaves: inside, the bridge does it below IP, and nobody
        // is told of a shorter way.
        let no_ipv6 = if base.subnet6.is_some() { "0" } else { "1" };
        let forward = if base.egress.is_denied() { "0" } else { "1" };
        let settings = vec![
            Sysctl::optional("net/ipv6/conf/default/addr_gen_mode", "1"),
            Sysctl::optional("net/ipv6/conf/default/accept_ra", "0"),
            Sysctl::optional("net/ipv6/conf/all/disable_ipv6", no_ipv6),
            Sysctl::optional("net/ipv6/conf/default/disable_ipv6", no_ipv6),
            Sysctl::new("net/ipv4/ip_forward", forward),
            Sysctl::new("net/ipv4/conf/all/send_redirects", "0"),
            Sysctl::new("net/ipv4/conf/default/send_redirects", "0"),
            Sysctl::optional("net/ipv4/conf/br0/send_redirects", "0"),
            // 1 in every new namespace once br_netfilter is loaded.
            Sysctl::optional("net/bridge/bridge-nf-call-iptables", "0"),
            Sysctl::optional("net/bridge/bridge-nf-call-ip6tables", "0"),
            Sysctl::optional("net/bridge/bridge-nf-call-arptables", "0"),
        ];
        let changed = Sysctl::ensure(&self.kernel.hopper, &self.ns, settings)??;
        self.applied.count(Table::Link, changed);
        if let Some(loopback) = self.links.iter().find(|link| link.name == "lo" && !link.up) {
            let request = LinkRequest::of(loopback.index).up().change();
            self.socket.request(request, || "set lo up".to_owned())?;
            self.applied.count(Table::Link, 1);
        }
        let bridge = self.ensure_bridge(base)?;
        let (vxlan, other) = self.ensure_tunnels(base, desired, bridge, rules)?;
        self.ensure_gateway(base, bridge)?;
        Ok(Devices { bridge, vxlan, family: self.local.first().family(), other })
    }

    fn ensure_bridge(&mut self, base: &Base) -> Result<u32, OverlayError> {
        let settings = bridge_settings();
        let shape = |request: LinkRequest| {
            request
                .mtu(base.mtu)
                .mac(base.gateway_mac)
                .up()
                .data(InfoKind::Bridge, InfoData::Bridge(settings.clone()))
        };
        let Some(link) = self.link(BRIDGE) else {
            let request = shape(LinkRequest::named(BRIDGE)).create();
            self.create("bridge", request, BRIDGE)?;
            return self.index(BRIDGE);
        };
        let index = link.index;
        if !is_bridge(link, base) {
            let request = shape(LinkRequest::of(index)).change();
            self.change(request, BRIDGE)?;
        }
        Ok(index)
    }

    fn ensure_gateway(&mut self, base: &Base, bridge: u32) -> Result<(), OverlayError> {
        for gateway in base.both(bridge, base.gateway) {
            let what = || format!("the gateway {}", gateway.address);
            let changed = ensure_only_address(&mut self.socket, gateway, what)?;
            self.applied.count(Table::Address, changed);
        }
        let route = Route::connected(bridge, base.gateway.to_ipv4(), base.subnet.to_net());
        let missing =
            self.socket.ensure_routes(&[route], |route| format!("add the route to {}", route.destination))?;
        self.applied.count(Table::Route, missing);
        Ok(())
    }

    /// Makes an existing device a port of the bridge, with these settings, up.
    pub(super) fn ensure_bridge_port(
        &mut self,
        name: &str,
        mtu: u32,
        bridge: u32,
        settings: &[InfoBridgePort],
    ) -> Result<(), OverlayError> {
        let Some(link) = self.link(name) else { return Ok(()) };
        let index = link.index;
        let enslaved = link.master == Some(bridge) && link.mtu == mtu;
        if is_bridge_port(link, mtu, bridge, settings) {
            return Ok(());
        }
        // A port is set up before it carries its first frame.
        if !enslaved {
            let request = LinkRequest::of(index).mtu(mtu).master(bridge).change();
            self.socket.request(request, || format!("make {name} a port of {BRIDGE}"))?;
        }
        let request = LinkRequest::of(index).port(settings.to_vec()).change();
        self.socket.request(request, || format!("set up port {name} of {BRIDGE}"))?;
        match self.change(LinkRequest::of(index).up().change(), name) {
            // The VXLAN device opens its outer socket as it goes up.
            Err(OverlayError::Netlink(NetlinkError::Refused { refusal, .. }))
                if refusal.is_address_in_use() =>
            {
                let (network, port) = (self.network.name.clone(), self.kernel.config.vxlan_port);
                Err(OverlayError::PortTaken { network, port })
            }
            outcome => outcome,
        }
    }

    pub(super) fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    pub(super) fn index(&self, name: &str) -> Result<u32, OverlayError> {
        let index = self.link(name).map(|link| link.index);
        index.ok_or_else(|| io::Error::other(format!("{name} was removed while it was set up")).into())
    }

    pub(super) fn create(
        &mut self,
        kind: &'static str,
        request: crate::netlink::NetlinkRequest,
        name: &str,
    ) -> Result<(), OverlayError> {
        match self.socket.request(request, || format!("make {name} of network {}", self.network.name)) {
            Err(NetlinkError::Refused { refusal, .. }) if refusal.is_unsupported() => {
                return Err(OverlayError::NoSuchDevice { kind });
            }
            outcome => outcome?,
        }
        self.applied.count(Table::Link, 1);
        self.refresh_link(name)
    }

    pub(super) fn change(
        &mut self,
        request: crate::netlink::NetlinkRequest,
        name: &str,
    ) -> Result<(), OverlayError> {
        self.socket.request(request, || format!("change {name} of network {}", self.network.name))?;
        self.applied.count(Table::Link, 1);
        self.refresh_link(name)
    }

    pub(super) fn refresh(&mut self) -> Result<(), OverlayError> {
        self.links = self.socket.links()?;
        Ok(())
    }

    /// Reads one device anew.
    pub(super) fn refresh_link(&mut self, name: &str) -> Result<(), OverlayError> {
        self.links.retain(|link| link.name != name);
        self.links.extend(self.socket.link(name)?);
        Ok(())
    }
}

/// A socket in the namespace that is bound at `path`; `None` when there is none.
fn socket_at(kernel: &KernelAccess, path: &Path) -> Result<Option<Socket>, OverlayError> {
    match NetNs::open(path) {
        Ok(ns) => Ok(Some(Socket::open(&kernel.hopper, &ns)?)),
        // No file, or a file that never became a namespace (kill -9 between the two).
        Err(NetNsError::Open { source, .. })
            if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Removes a device of a network; one that is gone, or whose namespace is, is no error.
pub(super) fn remove_link(kernel: &KernelAccess, path: &Path, name: &str) -> Result<(), OverlayError> {
    let Some(mut socket) = socket_at(kernel, path)? else { return Ok(()) };
    Ok(socket.remove_link(name, || format!("remove {name} in {}", path.display()))?)
}

/// Removes the devices of a network that match, and does nothing when its namespace is gone.
pub(super) fn remove_links(
    kernel: &KernelAccess,
    path: &Path,
    matches: impl Fn(&Link) -> bool,
) -> Result<(), OverlayError> {
    let Some(mut socket) = socket_at(kernel, path)? else { return Ok(()) };
    let links: Vec<Link> = socket.links()?.into_iter().filter(matches).collect();
    let refusals = socket.batch(links.iter().map(|link| LinkRequest::of(link.index).remove()))?;
    for (place, refusal) in refusals {
        if !refusal.is_gone() {
            let what = format!("remove {} in {}", links[place].name, path.display());
            return Err(NetlinkError::Refused { what, refusal }.into());
        }
    }
    Ok(())
}

/// Gives the device this address and takes every other one of its family from it; answers how many were wrong.
pub(super) fn ensure_only_address(
    socket: &mut Socket,
    wanted: Address,
    what: impl Fn() -> String,
) -> Result<usize, NetlinkError> {
    let addresses = socket.addresses_of(wanted.index)?;
    let (right, wrong): (Vec<Address>, Vec<Address>) = addresses
        .into_iter()
        .filter(|known| known.index == wanted.index && known.address.is_ipv4() == wanted.address.is_ipv4())
        .partition(|known| *known == wanted);
    // The same address with another prefix: connections that have it never miss it.
    if right.is_empty()
        && wrong.iter().any(|known| known.address == wanted.address && wanted.address.is_ipv4())
    {
        socket.request(wanted.add(), || format!("add {}", what()))?;
    }
    for other in &wrong {
        socket
            .request(other.remove(), || format!("remove {} from the device of {}", other.address, what()))?;
    }
    // Taking an address away may take others of its subnet along.
    if right.is_empty() || !wrong.is_empty() {
        socket.request(wanted.add(), || format!("add {}", what()))?;
    }
    Ok(wrong.len() + usize::from(right.is_empty()))
}
