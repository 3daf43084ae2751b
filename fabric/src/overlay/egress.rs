//! A network's link to its host, by which packets leave for the world outside.

use std::io;
use std::net::IpAddr;

use ipnet::Ipv4Net;
use sealane_proto::types::Vni;

use super::pass::{Pass, WayOut, ensure_only_address};
use super::plan::Base;
use super::port::IPV6_MTU;
use super::{KernelAccess, OverlayError, Table, lock};
use crate::egress::link::{self, Ends};
use crate::egress::{EgressError, EgressMended, TunnelTransport};
use crate::netlink::{Address, Link, LinkRequest, Route, Socket, Sysctl};
use crate::nft::NETWORK_LINK;

/// Reason for a look at the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// A network needs it.
    Needed,
    /// The kernel says that something has changed.
    Told,
    /// The time has come, whatever the kernel says or does not say.
    Thorough,
}

/// A link's devices.
struct Devices {
    host: u32,
    network: u32,
}

impl Pass<'_> {
    /// Makes the link, with its addresses and the way out, or removes it where nothing may leave.
    pub(super) fn ensure_egress(&mut self, base: &Base) -> Result<(), OverlayError> {
        if base.egress.is_denied() {
            let link = self.link(NETWORK_LINK).map(|link| link.index);
            return link.map_or(Ok(()), |index| self.change(LinkRequest::of(index).remove(), NETWORK_LINK));
        }
        let mut host = Socket::open(&self.kernel.hopper, &self.kernel.host)?;
        let name = link::host_name(base.vni, self.kernel.config.vxlan_port);
        let mut links = host.links()?;
        if !self.is_linked(&name, &links) {
            self.create_link(base, &name, &links, &mut host)?;
            links = host.links()?;
        }
        let outer = links.iter().find(|link| link.name == name).map(|link| link.index);
        let gone = || io::Error::other(format!("{name} was removed while it was set up"));
        let outer = outer.ok_or_else(gone)?;
        let devices = Devices { host: outer, network: self.index(NETWORK_LINK)? };
        // No other network takes these addresses before they are on the link.
        let choosing = lock(&self.kernel.links);
        let ends = ends(&mut host, outer, base.vni)?;
        self.ensure_host_end(base, &name, &devices, ends, &links, &mut host)?;
        drop(choosing);
        self.ensure_network_end(base, &devices, ends)?;
        self.way_out = Some(WayOut { device: devices.network, ends });
        Ok(())
    }

    fn is_linked(&self, name: &str, host: &[Link]) -> bool {
        let outer = host.iter().find(|link| link.name == name);
        outer
            .zip(self.link(NETWORK_LINK))
            .is_some_and(|(outer, inner)| outer.peer == Some(inner.index) && inner.peer == Some(outer.index))
    }

    fn create_link(
        &mut self,
        base: &Base,
        name: &str,
        links: &[Link],
        host: &mut Socket,
    ) -> Result<(), OverlayError> {
        // Halves whose other ends are elsewhere: of a namespace that this network had before.
        if let Some(stale) = self.link(NETWORK_LINK).map(|link| link.index) {
            self.change(LinkRequest::of(stale).remove(), NETWORK_LINK)?;
        }
        if let Some(stale) = links.iter().find(|link| link.name == name && link.peer.is_some()) {
            let removed = host.request(LinkRequest::of(stale.index).remove(), || format!("remove {name}"));
            // With its other end, just now.
            if host.links()?.iter().any(|link| link.name == name) {
                removed?;
            }
        }
        let outer = LinkRequest::named(name).mtu(base.mtu).in_namespace(&self.kernel.host);
        let pair = LinkRequest::named(NETWORK_LINK).mtu(base.mtu).veth(outer);
        self.create("veth", pair.create(), NETWORK_LINK)
    }

    /// The host's side: up, its address, no IPv6 (nothing here carries it), packets from it are forwarded.
    fn ensure_host_end(
        &mut self,
        base: &Base,
        name: &str,
        devices: &Devices,
        ends: Ends,
        links: &[Link],
        host: &mut Socket,
    ) -> Result<(), OverlayError> {
        let mut ensure_settings = || {
            let settings = vec![
                Sysctl::optional(format!("net/ipv6/conf/{name}/disable_ipv6"), "1"),
                Sysctl::new(format!("net/ipv4/conf/{name}/forwarding"), "1"),
            ];
            let changed = Sysctl::ensure(&self.kernel.hopper, &self.kernel.host, settings)??;
            self.applied.count(Table::Link, changed);
            Ok::<(), OverlayError>(())
        };
        ensure_settings()?;
        let known = links.iter().find(|link| link.index == devices.host);
        if !known.is_some_and(|link| link.up && link.mtu == base.mtu) {
            let alias = format!("the way out of network {}", self.network.name);
            let request = LinkRequest::of(devices.host).mtu(base.mtu).alias(alias).up();
            host.request(request.change(), || format!("set up {name}"))?;
            // With such an MTU it had no IPv6 at all: it has it again, with the settings of a new device.
            if known.is_some_and(|link| link.mtu < IPV6_MTU && base.mtu >= IPV6_MTU) {
                ensure_settings()?;
            }
            self.applied.count(Table::Link, 1);
        }
        let address =
            Address { index: devices.host, address: IpAddr::V4(ends.host), prefix_len: link::PREFIX_LEN };
        let changed = ensure_only_address(host, address, || format!("the address of {name}"))?;
        self.applied.count(Table::Address, changed);
        let route = Route::connected(devices.host, ends.host, ends.net());
        let missing =
            host.ensure_routes(&[route], |route| format!("add the route to {}", route.destination))?;
        self.applied.count(Table::Route, missing);
        Ok(())
    }

    fn ensure_network_end(&mut self, base: &Base, devices: &Devices, ends: Ends) -> Result<(), OverlayError> {
        let right = self.link(NETWORK_LINK).is_some_and(|link| link.up && link.mtu == base.mtu);
        if !right {
            self.change(LinkRequest::of(devices.network).mtu(base.mtu).up().change(), NETWORK_LINK)?;
        }
        let address = WayOut { device: devices.network, ends }.address();
        let changed =
            ensure_only_address(&mut self.socket, address, || format!("the address of {NETWORK_LINK}"))?;
        self.applied.count(Table::Address, changed);
        let routes = WayOut { device: devices.network, ends }.routes();
        let network = &self.network.name;
        let missing = self.socket.ensure_routes(&routes, |route| {
            format!("add the route to {} of network {network}", route.destination)
        })?;
        self.applied.count(Table::Route, missing);
        Ok(())
    }
}

impl WayOut {
    /// The address of the network's end.
    pub(super) fn address(self) -> Address {
        let address = IpAddr::V4(self.ends.network);
        Address { index: self.device, address, prefix_len: link::PREFIX_LEN }
    }

    /// The routes by it: to the host, and to everywhere else.
    pub(super) fn routes(self) -> [Route; 2] {
        let Self { device, ends } = self;
        [Route::connected(device, ends.network, ends.net()), Route::default_via(device, ends.host, 0)]
    }
}

/// The addresses of the link that has device `outer`: those it has, or free ones.
fn ends(host: &mut Socket, outer: u32, vni: Vni) -> Result<Ends, OverlayError> {
    let known: Vec<(u32, Ipv4Net)> = host
        .addresses()?
        .iter()
        .filter_map(|known| match known.address {
            IpAddr::V4(address) => Some((known.index, Ipv4Net::new(address, known.prefix_len).ok()?)),
            IpAddr::V6(_) => None,
        })
        .collect();
    // Somebody's 169.254.0.0/16 as a whole is in nobody's way: the link's route is more specific.
    let taken =
        |net: Ipv4Net| known.iter().any(|(index, other)| *index != outer && net.contains(&other.addr()));
    let own = known.iter().filter(|(index, _)| *index == outer);
    let kept = own.filter_map(|(_, address)| Ends::of_host(address.addr())).find(|ends| !taken(ends.net()));
    let ends = kept.or_else(|| Ends::choose(vni, taken));
    ends.ok_or_else(|| io::Error::other("no link-local addresses are left for the network's way out").into())
}

impl Pass<'_> {
    /// Sees that the host lets the network's packets leave, or is left alone when none may.
    pub(super) fn settle_host_egress(&mut self, base: &Base) {
        let outcome = if base.egress.is_denied() {
            self.kernel.release_host_egress()
        } else {
            self.kernel.ensure_host_egress(Look::Needed).1
        };
        if let Err(error) = outcome {
            self.applied.egress_problem.get_or_insert(error.to_string());
        }
    }
}

impl KernelAccess {
    /// Ensures the settings that the host itself needs for the egress of its networks. Looked at when there is a reason
    /// to doubt it.
    pub(super) fn ensure_host_egress(&self, look: Look) -> (EgressMended, Result<(), EgressError>) {
        let mut egress = lock(&self.egress);
        let doubtful = match look {
            Look::Needed => !egress.is_ready(),
            Look::Told | Look::Thorough => egress.is_wanted(),
        };
        if !doubtful {
            return (EgressMended::default(), Ok(()));
        }
        let tunnels = TunnelTransport { underlay: self.underlay(), port: self.config.vxlan_port };
        egress.ensure(&self.hopper, &self.host, tunnels, &self.config.run_dir, look != Look::Told)
    }

    /// Takes it back when no network needs it any more.
    pub(super) fn release_host_egress(&self) -> Result<(), EgressError> {
        let mut egress = lock(&self.egress);
        if egress.is_released() {
            return Ok(());
        }
        let taken_back = egress.release(&self.hopper, &self.host, &self.config.run_dir)?;
        for what in taken_back {
            tracing::info!(what, "no network needs egress any more");
        }
        Ok(())
    }
}
