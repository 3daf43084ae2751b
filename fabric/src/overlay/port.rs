//! Ports: the veth pair between the bridge and a local workload.

use std::thread;
use std::time::{Duration, Instant};

use netlink_packet_route::link::InfoKind;
use sealane_proto::types::Mtu;
use sealane_sys::{NetNs, NetNsError};

use super::pass::{Devices, Pass, ensure_only_address};
use super::plan::{Base, Desired, Port};
use super::shape::port_settings;
use super::{OverlayError, Reason, Table};
use crate::AttachmentId;
use crate::netlink::{
    Link, LinkRequest, NetlinkError, NetlinkRequest, Route, Socket, Sysctl, bridge_fdb_entry,
};
use crate::nft::{NETWORK_LINK, RulesCache};
use crate::seat::Owner;

/// Below it, an interface has no IPv6.
pub(super) const IPV6_MTU: u32 = Mtu::MIN_IPV6 as u32;
/// Time that a new port has to carry packets.
const RUNNING: Duration = Duration::from_secs(1);

/// Returns true if a device of a network's namespace is a workload's port.
pub(super) fn is_port(link: &Link) -> bool {
    link.kind == Some(InfoKind::Veth) && link.name != NETWORK_LINK
}

/// Waits until a device that is up carries packets, as long as that may take. The kernel opens a device's queues by work of its own
/// some time after the other end is up (net/core/link_watch.c), and drops what is sent before: the first ARP request with
/// it, which is repeated after a second. Asking for the one device has that work done at once (since Linux 6.8).
fn await_running(socket: &mut Socket, device: &str) -> Result<(), NetlinkError> {
    let began = Instant::now();
    while began.elapsed() < RUNNING && socket.link(device)?.is_some_and(|link| link.up && !link.running) {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

impl Pass<'_> {
    /// Removes ports that nobody has and makes those that are missing.
    pub(super) fn ensure_ports(
        &mut self,
        desired: &Desired,
        devices: Devices,
        reason: Reason,
        rules: &mut RulesCache,
    ) -> Result<(), OverlayError> {
        let foreign: Vec<(u32, String)> = self
            .links
            .iter()
            .filter(|link| is_port(link) && desired.ports.iter().all(|port| port.name != link.name))
            .map(|link| (link.index, link.name.clone()))
            .collect();
        for (index, name) in foreign {
            let removed = self.change(LinkRequest::of(index).remove(), &name);
            self.unless_gone(&name, removed)?;
        }
        for port in &desired.ports {
            let there = self.link(&port.name).is_some();
            if desired.ending.contains(&port.name) && !there {
                continue;
            }
            let mut ensured = self.ensure_port_at(desired, devices, port, reason, rules);
            if there {
                ensured = self.unless_gone(&port.name, ensured);
            }
            // Nobody else waits for one whose namespace is as it should not be.
            match self.kernel.obstacles.note(self.id(port), ensured)? {
                Some(true) => {}
                Some(false) => self.applied.unattached.push(port.workload.clone()),
                None => drop(self.obstructed.insert(port.name.clone())),
            }
        }
        Ok(())
    }

    /// Makes one port what it should be; whether there is one, or what it could be made of.
    fn ensure_port_at(
        &mut self,
        desired: &Desired,
        devices: Devices,
        port: &Port,
        reason: Reason,
        rules: &mut RulesCache,
    ) -> Result<bool, OverlayError> {
        let (base, there) = (&desired.base, self.link(&port.name).is_some());
        let resized = self.link(&port.name).is_some_and(|link| link.mtu != base.mtu);
        let looks = !there || resized || reason == Reason::Audit;
        if looks && !desired.ending.contains(&port.name) {
            match NetNs::open(self.kernel.workload_path(&self.network.name, &port.workload)) {
                Ok(ns) => return self.ensure_port(base, devices, port, &ns, rules).map(|()| true),
                Err(NetNsError::Open { .. }) if there => {}
                Err(_) => return Ok(false),
            }
        }
        self.ensure_bridge_port(&port.name, base.mtu, devices.bridge, &port_settings()).map(|()| true)
    }

    /// The name of a port's attachment.
    pub(super) fn id(&self, port: &Port) -> AttachmentId {
        AttachmentId { network: self.network.name.clone(), workload: port.workload.clone() }
    }

    /// A port goes by itself with the namespace of its other end, at any moment: what could not be done to it then is no
    /// error.
    fn unless_gone<T: Default>(
        &mut self,
        name: &str,
        outcome: Result<T, OverlayError>,
    ) -> Result<T, OverlayError> {
        let Err(
            OverlayError::Netlink(NetlinkError::Refused { .. })
            | OverlayError::Sysctl(_)
            | OverlayError::Nft(_)
            | OverlayError::Thread(_),
        ) = outcome
        else {
            return outcome;
        };
        self.refresh()?;
        if self.link(name).is_some() { outcome } else { Ok(T::default()) }
    }

    /// Makes one workload's port and interface what they should be, on both sides.
    pub(super) fn ensure_port(
        &mut self,
        base: &Base,
        devices: Devices,
        port: &Port,
        netns: &NetNs,
        rules: &mut RulesCache,
    ) -> Result<(), OverlayError> {
        let mut inside = Socket::open_foreign(&self.kernel.hopper, netns)?;
        let mut links = own_links(&mut inside, port)?;
        let fresh = !self.is_pair(port, &links);
        if fresh {
            if !self.take_up(port, &mut inside)? {
                self.create_pair(base, devices, port, netns, &links)?;
            }
            links = own_links(&mut inside, port)?;
            // No port carries a frame before it is guarded.
            self.ensure_rules_with(base, port, rules)?;
        }
        self.ensure_bridge_port(&port.name, base.mtu, devices.bridge, &port_settings())?;
        self.ensure_inside(base, port, netns, &mut inside, &links)?;
        if fresh {
            await_running(&mut self.socket, &port.name)?;
            await_running(&mut inside, &port.interface.to_string())?;
        }
        Ok(())
    }

    /// Lets frames for the workload through its port. A full pass does so with all rows.
    pub(super) fn ensure_port_row(&mut self, base: &Base, port: &Port) -> Result<(), OverlayError> {
        if base.is_gateway(port) {
            return Ok(());
        }
        let row = NetlinkRequest::set_row(bridge_fdb_entry(self.index(&port.name)?, port.mac));
        self.socket.request(row, || format!("add {} behind port {}", port.mac, port.name))?;
        Ok(())
    }

    /// Returns true if the port and the workload's interface are there and each other's ends.
    fn is_pair(&self, port: &Port, inside: &[Link]) -> bool {
        let outer = self.link(&port.name);
        let inner = inside.iter().find(|link| port.interface.is_named(&link.name));
        outer.zip(inner).is_some_and(|(outer, inner)| {
            is_port(outer)
                && is_port(inner)
                && outer.peer == Some(inner.index)
                && inner.peer == Some(outer.index)
        })
    }

    /// Creates both ends by one request, each in its namespace: there is no half of it to clean up.
    fn create_pair(
        &mut self,
        base: &Base,
        devices: Devices,
        port: &Port,
        netns: &NetNs,
        inside: &[Link],
    ) -> Result<(), OverlayError> {
        let taken =
            || OverlayError::InterfaceTaken { workload: port.workload.clone(), interface: port.interface };
        if inside.iter().any(|link| port.interface.is_named(&link.name)) {
            return Err(taken());
        }
        if let Some(stale) = self.link(&port.name).map(|link| link.index) {
            // Its other end is in a namespace that the workload had before.
            self.change(LinkRequest::of(stale).remove(), &port.name)?;
        }
        let inner =
            LinkRequest::named(&port.interface.to_string()).mtu(base.mtu).mac(port.mac).in_namespace(netns);
        let pair = LinkRequest::named(&port.name).mtu(base.mtu).master(devices.bridge).veth(inner);
        match self.create("veth", pair.create(), &port.name) {
            Err(OverlayError::Netlink(NetlinkError::Refused { refusal, .. }))
                if refusal.is_already_there() =>
            {
                return Err(taken());
            }
            outcome => outcome?,
        }
        let alias = LinkRequest::of(self.index(&port.name)?).alias(port.workload.to_string());
        self.change(alias.change(), &port.name)
    }

    /// The workload's side: loopback and interface up, its one address of each family.
    fn ensure_inside(
        &mut self,
        base: &Base,
        port: &Port,
        netns: &NetNs,
        inside: &mut Socket,
        links: &[Link],
    ) -> Result<(), OverlayError> {
        let interface = port.interface;
        self.ensure_settings(base, port, netns)?;
        for link in links {
            let request = if interface.is_named(&link.name) {
                let right = link.up && link.mtu == base.mtu && link.mac == Some(port.mac);
                (!right).then(|| LinkRequest::of(link.index).mtu(base.mtu).mac(port.mac).up())
            } else {
                (link.name == "lo" && !link.up).then(|| LinkRequest::of(link.index).up())
            };
            if let Some(request) = request {
                inside.request(request.change(), || {
                    format!("set up {} of workload {}", link.name, port.workload)
                })?;
                self.applied.count(Table::Link, 1);
            }
        }
        let interface = links.iter().find(|link| port.interface.is_named(&link.name));
        // With such an MTU it had no IPv6 at all: it has it again, with the settings of a new interface.
        if interface.is_some_and(|link| link.mtu < IPV6_MTU && base.mtu >= IPV6_MTU) {
            self.ensure_settings(base, port, netns)?;
        }
        let Some(index) = interface.map(|link| link.index) else { return Ok(()) };
        for wanted in base.both(index, port.address) {
            let what = || format!("the address {} of workload {}", wanted.address, port.workload);
            let changed = ensure_only_address(inside, wanted, what)?;
            self.applied.count(Table::Address, changed);
        }
        self.ensure_routes_inside(base, port, index, inside)
    }

    /// IPv6 where the network has it, with the address that it is given and no other: none of the interface's own
    /// making (addr_gen_mode 1), none by a router's word. Packets to a workload's own sidecar come by its loopback device, which
    /// Docker leaves without IPv6.
    fn ensure_settings(&mut self, base: &Base, port: &Port, netns: &NetNs) -> Result<(), OverlayError> {
        let interface = port.interface;
        let disabled = if base.subnet6.is_some() { "0" } else { "1" };
        let ipv6 = [("addr_gen_mode", "1"), ("accept_ra", "0"), ("disable_ipv6", disabled)];
        let ipv6 = ipv6
            .map(|(name, value)| Sysctl::optional(format!("net/ipv6/conf/{interface}/{name}"), value))
            .into_iter();
        let loopback = Sysctl::optional("net/ipv6/conf/lo/disable_ipv6", "0");
        let loopback = base.subnet6.is_some().then_some(loopback);
        // A workload of two networks does not join them; new namespaces have what the host has.
        let forwarding = Sysctl::new(format!("net/ipv4/conf/{interface}/forwarding"), "0");
        let forwarding6 = Sysctl::optional(format!("net/ipv6/conf/{interface}/forwarding"), "0");
        // A sidecar connects to its application from the address that it connects to, and each port would be spent for a
        // minute; somebody else's namespace keeps what it has. Nothing of an old connection is still on its way within one
        // namespace, so a port need not rest a second (tcp_tw_reuse_delay, in ms, since Linux 6.14).
        let ports = [("tcp_tw_reuse", "1"), ("tcp_tw_reuse_delay", "10")];
        // A connection whose packets are lost again and again tries shorter ones (RFC 4821), after a second or two in place of three: an
        // agent finds a way that loses long ones within ten. Packets are never shorter than what a way of networks carries.
        let probing = [("tcp_mtu_probing", "1"), ("tcp_retries1", "1"), ("tcp_mtu_probe_floor", "512")];
        let own = ports.into_iter().chain(probing).filter(|_| interface.owner() == Owner::Agent);
        let own = own.map(|(name, value)| Sysctl::optional(format!("net/ipv4/{name}"), value));
        let settings = ipv6.chain(loopback).chain([forwarding, forwarding6]).chain(own).collect();
        let changed = Sysctl::ensure(&self.kernel.hopper, netns, settings)??;
        self.applied.count(Table::Link, changed);
        Ok(())
    }

    /// The workload's ways: to its network, and to everywhere else by the gateway, which knows what may leave.
    fn ensure_routes_inside(
        &mut self,
        base: &Base,
        port: &Port,
        index: u32,
        inside: &mut Socket,
    ) -> Result<(), OverlayError> {
        let wanted = base.routes_inside(port, index);
        let [_, default] = wanted;
        let what =
            |route: &Route| format!("add the route to {} of workload {}", route.destination, port.workload);
        let missing = inside.ensure_routes(&wanted, what)?;
        // The network's egress was another before. What others have added is theirs: a removal would not match it.
        let other =
            |route: &Route| Route { metric: default.metric, ..*route } == default && *route != default;
        let stale: Vec<Route> = inside.set_routes_by(index)?.into_iter().filter(other).collect();
        let what = || format!("remove a stale route of workload {}", port.workload);
        let mut removed = 0;
        for route in &stale {
            match inside.request(route.remove(), what) {
                // Somebody else's own.
                Err(NetlinkError::Refused { refusal, .. }) if refusal.is_gone() => {}
                outcome => {
                    outcome?;
                    removed += 1;
                }
            }
        }
        self.applied.count(Table::Route, missing + removed);
        Ok(())
    }
}

/// The devices of a workload's namespace that are looked after, whatever else is there.
pub(super) fn own_links(inside: &mut Socket, port: &Port) -> Result<Vec<Link>, NetlinkError> {
    let interface = port.interface.to_string();
    let found = [inside.link("lo")?, inside.link(&interface)?];
    Ok(found.into_iter().flatten().collect())
}
