//! Looks that follow notices: what was told is compared with what should be, and only a difference leads to work.
//!
//! A round takes what was told while it holds the network's lock, under which this program's own changes are made: whatever it
//! hears is then as the last change has left it, or somebody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sealane_sys::NetNs;

use super::hearing::{Expected, ExpectedRows, Hearing};
use super::metrics::Metrics;
use super::pass::{BRIDGE, Devices, Pass};
use super::plan::{Base, BridgeFdbRow, Port};
use super::port::{is_port, own_links};
use super::settled::{Settled, StandingPort};
use super::shape::{is_bridge, is_bridge_port, port_settings, vxlan_port_settings};
use super::tunnel::{VXLAN, VXLAN_OTHER};
use super::{Applied, KernelAccess, NetworkCache, OverlayError};
use crate::AttachmentId;
use crate::netlink::{Ear, Link, Notice, Route, Socket};
use crate::nft::NETWORK_LINK;

/// Notices of a network that are taken at once.
const MOST: usize = 1 << 16;
/// Devices that are asked for one by one.
const FEW: usize = 64;

/// Result of comparing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All is as it should be, as far as was told.
    Right,
    /// Something is not.
    Wrong,
    /// Something could not be mended before, and may be now.
    Obstructed,
    /// Something has gone that its runtime may have taken, as it does just before it says so.
    Taken,
}

/// A whole look at a network.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Look {
    pub(super) took: Duration,
    /// True if there was something to mend, or to fail at.
    pub(super) mended: bool,
}

/// Notices of a workload's namespace.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) notices: Vec<Notice>,
    /// True if there were more.
    pub(super) lost: bool,
    /// True if what a runtime may have taken has been waited for.
    pub(super) waited: bool,
    /// The namespace's inode.
    pub(super) inode: u64,
}

impl NetworkCache {
    /// Compares what `ear` has heard in the network's namespace. Devices in `taken` have been waited for; those that are to be,
    /// it names in their place.
    pub(super) fn hear(
        &self,
        kernel: &KernelAccess,
        ear: &Ear,
        taken: &mut BTreeSet<String>,
    ) -> Result<Verdict, OverlayError> {
        let waited = std::mem::take(taken);
        let rules = ear.drain_rules(MOST)?;
        let Some(settled) = &self.settled else {
            // The pass that failed comes again, and looks at everything.
            ear.drain_network(MOST, drop)?;
            return Ok(Verdict::Right);
        };
        let (mut hearing, expected) = (Hearing::default(), settled.expected());
        let lost = ear.drain_network(MOST, |notice| hearing.handle(&notice, &expected))?;
        if lost || rules.lost || rules.rules || hearing.contradicts() {
            return Ok(Verdict::Wrong);
        }
        let mut names = hearing.into_devices();
        names.extend(waited.iter().cloned());
        for (name, link) in kernel.devices(settled, names)? {
            match settled.compare(kernel, &name, link.as_ref()) {
                Verdict::Right => {}
                Verdict::Taken if !waited.contains(&name) => drop(taken.insert(name)),
                Verdict::Wrong | Verdict::Taken | Verdict::Obstructed => return Ok(Verdict::Wrong),
            }
        }
        Ok(if taken.is_empty() { Verdict::Right } else { Verdict::Taken })
    }

    /// Compares what was told in the namespace of a port's workload, and mends it; answers what it found.
    pub(super) fn hear_inside(
        &mut self,
        (kernel, metrics): (&KernelAccess, &Metrics),
        name: &str,
        told: &Told,
    ) -> Result<Verdict, OverlayError> {
        let Some(settled) = &self.settled else { return Ok(Verdict::Right) };
        if settled.obstructed.contains(name) {
            return Ok(Verdict::Obstructed);
        }
        let standing = settled.ports.get(name).filter(|_| !settled.desired.ending.contains(name));
        let Some(StandingPort { port, device }) = standing else { return Ok(Verdict::Right) };
        let netns = NetNs::open(kernel.workload_path(&settled.network.name, &port.workload));
        // Its handle is bound again by whoever has the workload.
        let Some(netns) = netns.ok().filter(|netns| netns.inode().is_ok_and(|inode| inode == told.inode))
        else {
            return Ok(if told.waited { Verdict::Right } else { Verdict::Taken });
        };
        let mut inside = Socket::open_foreign(&kernel.hopper, &netns)?;
        let links = own_links(&mut inside, port)?;
        match settled.compare_inside(port, *device, &links, told) {
            Verdict::Right => Ok(Verdict::Right),
            Verdict::Taken if !told.waited => Ok(Verdict::Taken),
            Verdict::Taken | Verdict::Wrong | Verdict::Obstructed => {
                let id =
                    AttachmentId { network: settled.network.name.clone(), workload: port.workload.clone() };
                metrics.count_look("workload");
                let looked = self.look_inside(kernel, name, &netns);
                let applied = kernel.obstacles.note(id.clone(), looked)?.unwrap_or_default();
                metrics.count_drift(&format!("workload {id}"), &applied);
                Ok(Verdict::Wrong)
            }
        }
    }

    /// Makes a port and its workload's interface what they should be.
    fn look_inside(
        &mut self,
        kernel: &KernelAccess,
        name: &str,
        netns: &NetNs,
    ) -> Result<Applied, OverlayError> {
        let Some(settled) = &mut self.settled else { return Ok(Applied::default()) };
        let Some(StandingPort { port, device }) = settled.ports.get_mut(name) else {
            return Ok(Applied::default());
        };
        let base = settled.desired.base;
        let mut pass = Pass::resume(kernel, &settled.network, &[name])?;
        pass.ensure_port(&base, settled.devices, port, netns, &mut self.rules)?;
        pass.ensure_port_row(&base, port)?;
        *device = pass.index(name)?;
        Ok(pass.applied)
    }
}

impl KernelAccess {
    /// Reads devices of a network's namespace by their names.
    fn devices(
        &self,
        settled: &Settled,
        names: BTreeSet<String>,
    ) -> Result<Vec<(String, Option<Link>)>, OverlayError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut socket = Socket::open(&self.hopper, &self.ensure_netns(&settled.network.name)?)?;
        if names.len() <= FEW {
            let read = names.into_iter().map(|name| Ok((name.clone(), socket.link(&name)?)));
            return read.collect();
        }
        let mut links: BTreeMap<String, Link> =
            socket.links()?.into_iter().map(|link| (link.name.clone(), link)).collect();
        Ok(names.into_iter().map(|name| (name.clone(), links.remove(&name))).collect())
    }
}

impl Settled {
    /// The content of the network's namespace, as far as notices tell of it.
    fn expected(&self) -> Expected<'_> {
        let (base, Devices { bridge, .. }) = (&self.desired.base, self.devices);
        let gateway = base.gateway.to_ipv4();
        let standing = self.ports.values().filter(|standing| !base.is_gateway(&standing.port));
        let local =
            standing.map(|StandingPort { port, device }| BridgeFdbRow { mac: port.mac, port: *device });
        let local = local.chain([BridgeFdbRow { mac: base.gateway_mac, port: bridge }]);
        let local = local.chain(self.devices.all_beside(&self.desired.fdb)).collect();
        let mut routes = vec![Route::connected(bridge, gateway, base.subnet.to_net())];
        routes.extend(self.way_out.iter().flat_map(|way_out| way_out.routes()));
        let addresses = base.both(bridge, base.gateway);
        Expected {
            addresses: addresses.chain(self.way_out.map(|way_out| way_out.address())).collect(),
            routes,
            alone: None,
            forwarding: BTreeMap::from([((ALL, false), !base.egress.is_denied())]),
            rows: Some(ExpectedRows {
                devices: self.devices,
                fdb: &self.desired.fdb,
                neighbours: &self.desired.neighbours,
                local,
            }),
        }
    }

    /// Compares a device of the network's namespace, which may be gone.
    fn compare(&self, kernel: &KernelAccess, name: &str, link: Option<&Link>) -> Verdict {
        let (base, Devices { bridge, vxlan, other, .. }) = (&self.desired.base, self.devices);
        let is = |right: &dyn Fn(&Link) -> bool| link.is_some_and(right);
        let right = match name {
            "lo" => is(&|link| link.up),
            BRIDGE => is(&|link| link.index == bridge && is_bridge(link, base)),
            VXLAN => is(&|link| {
                let settings = vxlan_port_settings(true, other.is_some());
                link.index == vxlan
                    && kernel.vxlan_lacks(link, base, self.local.first()).is_empty()
                    && is_bridge_port(link, base.mtu, bridge, &settings)
            }),
            VXLAN_OTHER => match (other, self.desired.other) {
                (Some(other), Some(local)) => is(&|link| {
                    link.index == other
                        && kernel.vxlan_lacks(link, base, local).is_empty()
                        && is_bridge_port(link, base.mtu, bridge, &vxlan_port_settings(false, true))
                }),
                _ => link.is_none(),
            },
            NETWORK_LINK => match self.way_out {
                Some(way_out) => is(&|link| link.index == way_out.device && link.up && link.mtu == base.mtu),
                None => link.is_none(),
            },
            _ => return self.compare_port(name, link),
        };
        if right { Verdict::Right } else { Verdict::Wrong }
    }

    fn compare_port(&self, name: &str, link: Option<&Link>) -> Verdict {
        let (base, bridge) = (&self.desired.base, self.devices.bridge);
        let is_coming = || self.desired.ports.iter().any(|port| port.name == name);
        match (self.ports.get(name), link) {
            (Some(_), None) if self.desired.ending.contains(name) => Verdict::Right,
            (Some(standing), None) if standing.port.interface.is_of_runtime() => Verdict::Taken,
            (Some(_), None) => Verdict::Wrong,
            (Some(standing), Some(link)) => {
                let right = link.index == standing.device
                    && is_port(link)
                    && is_bridge_port(link, base.mtu, bridge, &port_settings());
                if right { Verdict::Right } else { Verdict::Wrong }
            }
            (None, Some(link)) if is_port(link) && !is_coming() => Verdict::Wrong,
            (None, _) => Verdict::Right,
        }
    }

    fn compare_inside(&self, port: &Port, device: u32, links: &[Link], told: &Told) -> Verdict {
        let base = &self.desired.base;
        let Some(inner) = links.iter().find(|link| port.interface.is_named(&link.name)) else {
            return if port.interface.is_of_runtime() { Verdict::Taken } else { Verdict::Wrong };
        };
        let shaped = inner.up && inner.mtu == base.mtu && inner.mac == Some(port.mac);
        let joined = is_port(inner) && inner.peer == Some(device);
        let loopback = links.iter().any(|link| link.name == "lo" && link.up);
        let (mut hearing, expected) = (Hearing::default(), expected_inside(base, port, inner.index));
        told.notices.iter().for_each(|notice| hearing.handle(notice, &expected));
        let right = shaped && joined && loopback && !told.lost && !hearing.contradicts();
        if right { Verdict::Right } else { Verdict::Wrong }
    }
}

/// Number that stands for all devices of a namespace (NETCONFA_IFINDEX_ALL).
const ALL: i32 = -1;

/// The content of a workload's namespace, as far as notices tell of it.
fn expected_inside(base: &Base, port: &Port, index: u32) -> Expected<'static> {
    let routes = base.routes_inside(port, index);
    let device = i32::try_from(index).unwrap_or(i32::MAX);
    Expected {
        addresses: base.both(index, port.address).collect(),
        routes: routes.into(),
        alone: Some(routes[1]),
        forwarding: [false, true].map(|ipv6| ((device, ipv6), false)).into(),
        rows: None,
    }
}

/// Measures some work.
pub(super) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let done = work();
    (done, began.elapsed())
}
