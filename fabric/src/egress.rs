//! The way out of a host's networks: what the host itself needs for it.
//!
//! Each network whose egress is allowed has a veth pair from its namespace to the host's (`link`; made by the
//! overlay). For all of them together the host forwards IPv4, has one nft table, and, where its firewall would drop
//! what is forwarded, rules in that (`firewall`). Everything is level-triggered, and taken back when the last link
//! is gone. Main type: `HostEgress`.

mod firewall;
mod forwarding;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod inputs;
mod iptables;
pub(crate) mod link;
mod passage;
mod tracking;

use std::collections::BTreeSet;
use std::io;

use netlink_packet_route::link::InfoKind;
use sealane_proto::types::UnderlayAddrs;
use sealane_sys::hop::Hopper;
use sealane_sys::{NetNs, RunDir};

use crate::netlink::{Address, Link, LinkRequest, NetlinkError, Socket};
use crate::nft::{self, KnownHost, NftError, Surroundings};

pub use inputs::{closed_inputs, mentions};
pub use iptables::{Firewall, inspect};
pub use passage::{Fate, Obstacle, obstacles};

/// Reasons for which workloads may not reach the world outside.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The kernel does not forward.
    #[error("cannot switch on forwarding (net.ipv4.ip_forward): {0}; /proc/sys must be mounted read-write")]
    Forwarding(#[source] io::Error),
    /// The host's nft table.
    #[error("the host's rules: {0}")]
    Nft(#[from] NftError),
    /// The host's iptables.
    #[error("the host's iptables drop what is forwarded, and a rule cannot be added: {0}")]
    Iptables(String),
    /// The links could not be looked at.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// Settings that were not as they should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EgressMended {
    /// The setting.
    pub(crate) settings: u64,
    /// The nft table.
    pub(crate) nft: u64,
    /// Rules in the host's iptables.
    pub(crate) iptables: u64,
}

/// Transport of the host's tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TunnelTransport {
    /// From this address.
    pub(crate) underlay: UnderlayAddrs,
    /// To this UDP port.
    pub(crate) port: u16,
}

/// Settings that the host needs while it carries a network whose egress is allowed.
#[derive(Debug, Default)]
pub(crate) struct HostEgress {
    wanted: bool,
    /// True once this process has taken back everything that it or one before it left.
    released: bool,
    ready: bool,
    rules: Option<KnownHost>,
    /// The note of what forwarding was before there was a link.
    before: Option<String>,
}

impl HostEgress {
    /// Returns true if everything stood when it was last looked at.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Returns true if a network needed it.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Returns true if nothing is there to be taken back.
    pub(crate) fn is_released(&self) -> bool {
        self.released
    }

    /// Makes everything so. What can be done is done, whatever else cannot. The host's iptables are looked at when its
    /// rules have changed since, and whenever the look is `thorough`: old ones change without a notice.
    pub(crate) fn ensure(
        &mut self,
        hopper: &Hopper,
        host: &NetNs,
        tunnels: TunnelTransport,
        run_dir: &RunDir,
        thorough: bool,
    ) -> (EgressMended, Result<(), EgressError>) {
        let mut mended = EgressMended::default();
        let generation = nft::generation(hopper, host);
        let changed = generation.as_ref().ok() != self.rules.as_ref().map(|known| &known.generation);
        let rules = generation.map_err(EgressError::from).and_then(|generation| {
            let drifted = self.ensure_rules(hopper, host, tunnels, generation)?;
            mended.nft = u64::from(drifted);
            Ok(())
        });
        let forwarding = forwarding::ensure(hopper, host, run_dir, &mut self.before).map(|changed| {
            mended.settings = u64::from(changed);
        });
        let firewall = if thorough || changed || !self.ready {
            iptables::ensure(hopper, host).map(|changed| mended.iptables = changed)
        } else {
            Ok(())
        };
        let outcome = rules
            .and(forwarding.map_err(EgressError::Forwarding))
            .and(firewall.map_err(EgressError::Iptables));
        let (rules, before) = (self.rules.take(), self.before.take());
        *self = Self { wanted: true, released: false, ready: outcome.is_ok(), rules, before };
        (mended, outcome)
    }

    /// Writes down again what the host is to get back, if somebody has removed it from the run directory.
    pub(crate) fn remember(&self, run_dir: &RunDir) -> io::Result<()> {
        forwarding::remember(run_dir, self.before.as_deref())
    }

    /// Answers whether somebody had changed the rules.
    fn ensure_rules(
        &mut self,
        hopper: &Hopper,
        host: &NetNs,
        tunnels: TunnelTransport,
        generation: u32,
    ) -> Result<bool, EgressError> {
        let known = self.rules.as_ref().filter(|known| known.generation == generation);
        let asked = match known.and_then(|known| known.surroundings.asked) {
            None => asks_for_states(hopper, host),
            known => known,
        };
        let untracked = asked == Some(false) && !has_legacy_iptables(hopper, host);
        let uplinks = uplinks(hopper, host, tunnels.underlay)?;
        let surroundings = Surroundings { uplinks, tunnel: tunnels.port, asked, untracked };
        if self.rules.as_ref().is_some_and(|known| known.surroundings.untracked != untracked) {
            let now = if untracked { "no longer" } else { "again" };
            tracing::info!("the host's rules have changed: packets of tunnels are tracked {now}");
        }
        Ok(nft::ensure_host_rules(hopper, host, generation, surroundings, &mut self.rules)?)
    }

    /// Takes everything back, unless there is a link still, of whatever agent.
    ///
    /// # Errors
    /// With the first thing that could not be taken back.
    pub(crate) fn release(
        &mut self,
        hopper: &Hopper,
        host: &NetNs,
        run_dir: &RunDir,
    ) -> Result<Vec<String>, EgressError> {
        let links = Socket::open(hopper, host)?.links()?;
        if links.iter().any(|link| link::is_of_host(&link.name)) {
            return Ok(Vec::new());
        }
        *self = Self::default();
        let mut done = Vec::new();
        let rules = nft::remove_host_rules(hopper, host).map(|removed| {
            done.extend(removed.then(|| "removed  the host's nft table".to_owned()));
        });
        let firewall = iptables::remove(hopper, host).map(|removed| {
            done.extend((removed > 0).then(|| "removed  the rules in the host's iptables".to_owned()));
        });
        let forwarding = forwarding::restore(hopper, host, run_dir).map(|restored| {
            done.extend(restored.then(|| "switched forwarding off again, as it was before".to_owned()));
        });
        rules?;
        firewall.map_err(EgressError::Iptables)?;
        forwarding.map_err(EgressError::Forwarding)?;
        self.released = true;
        Ok(done)
    }
}

/// Returns true if a rule of the host asks for the state of tunnels' packets; `None` when the rules cannot be read:
/// they may be changing.
fn asks_for_states(hopper: &Hopper, host: &NetNs) -> Option<bool> {
    match nft::ruleset(hopper, host).map(|rules| tracking::needed_by(&rules)) {
        Ok(asking) => {
            if let Some(chain) = &asking {
                tracing::debug!(chain, "tunnels are tracked: this chain asks for the state of connections");
            }
            Some(asking.is_some())
        }
        Err(error) => {
            tracing::debug!(%error, "tunnels are tracked: the host's rules cannot be read");
            None
        }
    }
}

/// Returns true if there are rules that nft does not list: iptables' own tables, of before nf_tables.
fn has_legacy_iptables(hopper: &Hopper, host: &NetNs) -> bool {
    let read = |family: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{family}_tables_names"));
    let names = hopper.run(host, move || ["ip", "ip6"].map(read));
    names.is_ok_and(|names| names.iter().flatten().any(|names| !names.trim().is_empty()))
}

/// The host's bridges and veths that lead outside: the device of the underlay, those that a default route leaves by, and
/// bridges with a port that is neither a container's nor a virtual machine's.
fn uplinks(hopper: &Hopper, host: &NetNs, underlay: UnderlayAddrs) -> Result<BTreeSet<String>, NetlinkError> {
    let mut socket = Socket::open(hopper, host)?;
    let (links, ways_out) = (socket.links()?, socket.default_route_devices()?);
    let addresses = socket.addresses()?;
    let leads_outside = |link: &Link| {
        let inward = |port: &Link| matches!(port.kind, Some(InfoKind::Veth | InfoKind::Tun));
        let is_underlay =
            |known: &Address| known.index == link.index && underlay.contains(known.address.into());
        ways_out.contains(&link.index)
            || addresses.iter().any(is_underlay)
            || links.iter().any(|port| port.master == Some(link.index) && !inward(port))
    };
    let doubtful = links.iter().filter(|link| matches!(link.kind, Some(InfoKind::Bridge | InfoKind::Veth)));
    let outside = doubtful.filter(|link| leads_outside(link));
    Ok(outside.filter(|link| !link::is_of_host(&link.name)).map(|link| link.name.clone()).collect())
}

/// Takes back what agents with this run directory did to the host for the sake of egress; says what that was. For a
/// host that is cleaned: no agent may run.
///
/// # Errors
/// When the kernel refuses.
pub fn clean(run_dir: &RunDir) -> Result<Vec<String>, EgressError> {
    let hopper = Hopper::start().map_err(NetlinkError::from)?;
    let host = NetNs::current().map_err(|error| NetlinkError::from(io::Error::other(error)))?;
    let entries = std::fs::read_dir(run_dir.namespaces()).into_iter().flatten().flatten();
    for network in entries.filter_map(|entry| NetNs::open(entry.path()).ok()) {
        let mut socket = Socket::open(&hopper, &network)?;
        let ours = socket.links()?.into_iter().find(|link| link.name == nft::NETWORK_LINK);
        if let Some(ours) = ours {
            // The host's end goes with it at once, whoever else keeps the namespace alive.
            socket.request(LinkRequest::of(ours.index).remove(), || format!("remove {}", ours.name))?;
        }
    }
    HostEgress::default().release(&hopper, &host, run_dir)
}
