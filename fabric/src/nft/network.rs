//! The rules of a network's namespace in the kernel: the guard of its ports and its border.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::Ipv4Net;
use sealane_proto::resource::Egress;
use sealane_proto::types::{Subnet, Subnet6};
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;

use super::border::{Border, MeshPorts, Surroundings};
use super::change::Changes;
use super::client::{self, Tables};
use super::guard::{Addresses, GuardTable, Guarded, Known, Sender, Tunnel};
use super::listing::Listing;
use super::program::list_ruleset;
use super::sidecar::TABLE;
use super::{NftError, border, guard};
use crate::netlink::NetlinkError;

/// Purpose of transactions, for their errors.
const GUARD: &str = "change the rules of a network";
const HOST: &str = "change the host's rules";

/// Desired rules of a network.
#[derive(Clone, Debug)]
pub(crate) struct NetworkRules {
    /// Senders that are permitted.
    pub(crate) senders: Senders,
    /// The devices of the tunnels, once they are there.
    pub(crate) tunnels: Vec<Tunnel>,
    /// The network's addresses.
    pub(crate) subnet: Subnet,
    /// Prefix of its IPv6 addresses, where it has such.
    pub(crate) subnet6: Option<Subnet6>,
    /// Treatment of packets to the world outside.
    pub(crate) egress: Egress,
    /// The ports of the mesh itself.
    pub(crate) ports: MeshPorts,
    /// Further facts of the network's state; `None`: as was told before.
    pub(crate) told: Option<Told>,
}

/// Facts that the rules go by beside the network itself.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// The hosts of the mesh, at which its ports are nobody's business.
    pub(crate) hosts: BTreeSet<Ipv4Net>,
    /// The addresses that are kept for services.
    pub(crate) services: BTreeSet<Ipv4Net>,
}

/// Change of the permitted senders.
#[derive(Clone, Debug)]
pub(crate) enum Senders {
    /// Permits these and no others.
    Exactly(Vec<Sender>),
    /// Permits these, beside those that may already.
    With(Vec<Sender>),
    /// Permits those that may already, but for these ports; the addresses of this host itself are still these.
    Without(Vec<String>, BTreeSet<IpAddr>),
}

/// Knowledge of the rules that are there. Forgetting it costs a look, nothing else.
#[derive(Debug, Default)]
pub(crate) struct RulesCache {
    /// The ruleset's generation when it was right.
    generation: Option<u32>,
    there: Option<GuardTable>,
    border: Option<Border>,
    /// The addresses that are kept for services, as was told last.
    services: BTreeSet<Ipv4Net>,
}

impl RulesCache {
    /// The devices that are guarded, as far as is known.
    pub(crate) fn guarded(&self) -> impl Iterator<Item = &String> {
        self.there.iter().flat_map(|there| there.chains.keys())
    }
}

impl NetworkRules {
    /// The changes that make the chains and addresses what they should be, and how many were not. `there` becomes those.
    fn settle(&self, addresses: &Addresses, there: &mut GuardTable) -> (Changes, usize) {
        let senders: &[Sender] = match &self.senders {
            Senders::Exactly(senders) | Senders::With(senders) => senders,
            Senders::Without(..) => &[],
        };
        let tunnel = self.tunnels.iter().map(|tunnel| tunnel.guarded(addresses));
        let guarded: Vec<Guarded> = tunnel.chain(senders.iter().map(Sender::guarded)).collect();
        let own = senders.iter().flat_map(Sender::addresses);
        let (unwanted, mut local): (Vec<String>, BTreeSet<IpAddr>) = match &self.senders {
            Senders::Exactly(_) => {
                let is_wanted = |device: &&String| guarded.iter().any(|one| one.device == **device);
                let others = there.chains.keys().filter(|device| !is_wanted(device));
                (others.cloned().collect(), own.collect())
            }
            Senders::With(_) => (Vec::new(), own.chain(there.local.iter().copied()).collect()),
            Senders::Without(ports, staying) => {
                let known = ports.iter().filter(|port| there.chains.contains_key(*port));
                (known.cloned().collect(), staying.clone())
            }
        };
        local.extend(addresses.subnet.reserved().map(|address| IpAddr::from(address.to_ipv4())));
        let wrong = guard::wrong(&there.chains, &guarded);
        let mut changes = Changes::default();
        unwanted.iter().for_each(|device| guard::free(&mut changes, device));
        // An address is nobody else's before its workload can send.
        guard::localise(&mut changes, &there.local, &local);
        for guarded in &wrong {
            match there.chains.contains_key(&guarded.device) {
                true => guard::guard_anew(&mut changes, guarded),
                false => guard::guard(&mut changes, guarded),
            }
        }
        // An address comes and goes with its chain.
        let count = (unwanted.len() + wrong.len()).max(usize::from(there.local != local));
        there.chains.retain(|device, _| !unwanted.contains(device));
        there.chains.extend(guarded.iter().map(|guarded| (guarded.device.clone(), Known::of(guarded))));
        there.local = local;
        (changes, count)
    }
}

/// Makes the rules in the network's namespace what they should be, in one transaction; answers how many rows and
/// tables were not. While nobody else changes them, that is one question to the kernel.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn ensure_network_rules(
    hopper: &Hopper,
    ns: &NetNs,
    wanted: NetworkRules,
    known: &mut RulesCache,
) -> Result<usize, NftError> {
    let mut tables = Tables::open(hopper, ns).map_err(NftError::Kernel)?;
    let before = tables.generation().map_err(NftError::Kernel)?;
    let NetworkRules { subnet, subnet6, egress, ref ports, ref told, .. } = wanted;
    let services = told.as_ref().map_or(&known.services, |told| &told.services).clone();
    let addresses = Addresses { subnet, subnet6, services };
    let ipv6 = subnet6.is_some();
    let (there, mut border_there) = if known.generation == Some(before) {
        (known.there.take(), known.border.take())
    } else {
        let there = tables.read(&guard::name()).map_err(NftError::Kernel)?;
        let border_there = tables.read(&border::name()).map_err(NftError::Kernel)?;
        (there.and_then(|listed| GuardTable::of(listed, ipv6)), border_there.and_then(Border::of))
    };
    let mut changes = if there.is_none() { guard::replacing(ipv6) } else { Changes::default() };
    let mut count = usize::from(there.is_none());
    let mut there = there.unwrap_or_default();
    let (chains, changed) = wanted.settle(&addresses, &mut there);
    changes.then(chains);
    count += changed;
    let border = border::network(subnet, egress, ports);
    let hosts = told.as_ref().map(|told| &told.hosts);
    let (borders, changed) = border::settle(&mut border_there, border, hosts);
    changes.then(borders);
    count += changed;
    let services = addresses.services;
    *known = RulesCache { generation: None, there: Some(there), border: border_there, services };
    let mut now = before;
    if !changes.is_empty() {
        tables.commit(&changes, GUARD).map_err(NftError::of_change)?;
        now = tables.generation().map_err(NftError::Kernel)?;
    }
    // Any other number says that somebody else was at it, too.
    let own = before.wrapping_add(u32::from(count > 0));
    known.generation = (now == own).then_some(now);
    Ok(count)
}

/// Knowledge of the host's rules: they were right at this generation, for these surroundings.
#[derive(Debug)]
pub(crate) struct KnownHost {
    /// The generation.
    pub(crate) generation: u32,
    /// Surroundings that they were made for.
    pub(crate) surroundings: Surroundings,
}

/// The generation of a namespace's rules, whoever they belong to.
///
/// # Errors
/// When the kernel cannot be asked.
pub(crate) fn generation(hopper: &Hopper, ns: &NetNs) -> Result<u32, NftError> {
    client::generation(hopper, ns).map_err(NftError::Kernel)
}

/// All rules of a namespace as JSON, without the rows of sets.
///
/// # Errors
/// When nft is not installed, cannot write JSON, or the kernel refuses.
pub(crate) fn ruleset(hopper: &Hopper, ns: &NetNs) -> Result<Listing, NftError> {
    let text = list_ruleset(hopper, ns)?;
    Listing::read(text.as_bytes()).map_err(NftError::Unreadable)
}

/// Makes the host's rules for the links of its networks what they should be; answers whether somebody had changed
/// them. `generation` is from before the look at the surroundings.
///
/// # Errors
/// As [`ensure_network_rules`].
pub(crate) fn ensure_host_rules(
    hopper: &Hopper,
    host: &NetNs,
    generation: u32,
    surroundings: Surroundings,
    known: &mut Option<KnownHost>,
) -> Result<bool, NftError> {
    let before = known.take();
    let same = before.as_ref().is_none_or(|known| known.surroundings == surroundings);
    if same && before.is_some_and(|known| known.generation == generation) {
        *known = Some(KnownHost { generation, surroundings });
        return Ok(false);
    }
    let mut tables = Tables::open(hopper, host).map_err(NftError::Kernel)?;
    let listed = tables.read(&border::name()).map_err(NftError::Kernel)?;
    let changes = border::host(listed, &surroundings);
    let changed = !changes.is_empty();
    if changed {
        tables.commit(&changes, HOST).map_err(NftError::of_change)?;
    }
    // One's own change is one generation; any other number says that somebody else was at it, too.
    *known = Some(KnownHost { generation: generation.wrapping_add(u32::from(changed)), surroundings });
    Ok(same && changed)
}

/// Removes the host's rules; answers whether there were any.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn remove_host_rules(hopper: &Hopper, host: &NetNs) -> Result<bool, NftError> {
    let mut tables = Tables::open(hopper, host).map_err(NftError::Kernel)?;
    let is_there = tables.has(&border::name()).map_err(NftError::Kernel)?;
    if is_there {
        let mut changes = Changes::default();
        changes.remove(border::name());
        tables.commit(&changes, HOST).map_err(NftError::of_change)?;
    }
    Ok(is_there)
}

/// Packets that a network's rules have dropped or refused, by the rules' counters: `spoofed`, `foreign`,
/// `unsupported`, `refused`.
///
/// # Errors
/// When the kernel cannot be asked.
pub(crate) fn counted(hopper: &Hopper, ns: &NetNs) -> Result<Vec<(String, u64)>, NetlinkError> {
    client::counters(hopper, ns, TABLE)
}

/// The changes that try all tables in a namespace that has none, one after another, and leave nothing behind.
pub(super) fn examples() -> Vec<Changes> {
    let Ok(subnet) = "10.0.0.0/8".parse() else { return Vec::new() };
    let mut examples = Vec::new();
    for subnet6 in [None, "fd00::/64".parse().ok()] {
        examples.push(guard::examples(&Addresses { subnet, subnet6, services: BTreeSet::new() }));
    }
    for egress in [Egress::Allow, Egress::Deny] {
        let ports = MeshPorts { tunnel: 4789, services: [7443].into() };
        let mut changes = Changes::default();
        changes.replace(border::network(subnet, egress, &ports));
        examples.push(changes);
    }
    let everything = Surroundings {
        uplinks: ["br0".to_owned()].into(),
        tunnel: 4789,
        asked: Some(false),
        untracked: true,
    };
    let mut last = border::host(None, &everything);
    last.remove(border::name());
    last.remove(guard::name());
    examples.push(last);
    examples
}
