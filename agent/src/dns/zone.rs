//! The names of a network, immutable.

use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::slice;
use std::sync::Arc;

use sealane_base::shared_map::SharedMap;
use sealane_fabric::transition::{Members, Transition, workload};
use sealane_proto::resource::{Network, NetworkContent, NetworkSnapshot, Service, Workload};
use sealane_proto::types::{Alias, ExternalAddr, NetworkName, Port, Subnet, Subnet6, WorkloadName};

use super::targets::{NameSelector, OfferedPort, Targets};

/// The names of one network at one generation: its services and workloads, bare and as `<name>.<network>`. One that is made by a change
/// shares with the one before what has not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    network: NetworkName,
    /// True if nothing leaves the network, questions included.
    pub(super) closed: bool,
    pub(super) subnet: Subnet,
    pub(super) subnet6: Option<Subnet6>,
    /// By label, or by label and group.
    names: SharedMap<Key, Arc<ZoneEntry>>,
    /// The workloads that have a name as an alias, also where it is somebody else's.
    aliases: Members<Key>,
    /// The groups of workloads that have one.
    groups: SharedMap<WorkloadName, Alias>,
    /// Wire-format names by address.
    pointers: SharedMap<Ipv4Addr, Arc<[u8]>>,
}

/// A label, or a label and a group.
type Key = Box<[u8]>;

/// Meaning of a name to an asker.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lookup<'a> {
    /// Ours, with these addresses; with none, nothing can be reached under it now.
    Addresses(Addresses<'a>),
    /// `localhost` or a name under it (RFC 6761, section 6.3).
    Loopback,
    /// An address of ours (in-addr.arpa, ip6.arpa) that belongs to this name, in wire format.
    Pointer(&'a [u8]),
    /// The ports of a service (RFC 2782), offered by these instances or by none now.
    Targets(Targets<'a>),
    /// The name would be ours, and does not exist.
    Missing,
}

/// Addresses of a network. A service's IPv6 ones are those of the instances that are ready there: its own is nobody's.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Addresses<'a> {
    pub(crate) v4: &'a [Ipv4Addr],
    /// IPv4 addresses that IPv6 ones are made from, and their prefix.
    twins: (&'a [Ipv4Addr], Option<Subnet6>),
}

impl Addresses<'_> {
    /// The IPv6 addresses, from a place that `seed` chooses.
    pub(crate) fn v6(&self, seed: u64) -> impl Iterator<Item = Ipv6Addr> {
        let (twins, subnet6) = self.twins;
        let start = usize::try_from(seed % twins.len().max(1) as u64).unwrap_or(0);
        let turned = twins.iter().cycle().skip(start).take(twins.len());
        subnet6.into_iter().flat_map(move |subnet6| turned.clone().map(move |&twin| subnet6.of_ipv4(twin)))
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum ZoneEntry {
    Service {
        vip: Ipv4Addr,
        /// Ready instances: workloads, then those outside every network that listen on the service's own ports.
        ready: Box<[Ipv4Addr]>,
        /// The workloads that are ready at their IPv6 addresses.
        ready6: Box<[Ipv4Addr]>,
        /// In wire format.
        name: Arc<[u8]>,
        offers: Box<[OfferedPort]>,
        /// By a document: its address is known before its first instance, for programs that look names up as they start.
        declared: bool,
    },
    Workload {
        address: Option<Ipv4Addr>,
        /// As the IPv6 address that is made of it.
        address6: Option<Ipv4Addr>,
    },
    /// The workloads that have it which can be reached, and those at their IPv6 addresses.
    Alias(Vec<Ipv4Addr>, Vec<Ipv4Addr>),
}

impl Zone {
    /// The names that `snapshot` gives. A service's name stands before a workload's, and that before an alias; a service is
    /// reachable with its first ready instance, a workload of no service from the start, an instance when it is ready.
    #[must_use]
    pub fn build(snapshot: &NetworkSnapshot) -> Self {
        let network = &snapshot.network.name;
        let (mut names, mut pointers) = (SharedMap::default(), SharedMap::default());
        let mut ready: HashMap<_, Vec<&Workload>> = HashMap::new();
        for workload in &snapshot.workloads {
            // The name of one that was renamed is another's to have.
            if workload.aliases.called().is_none() {
                names.insert(key(workload.name.as_str()), Arc::new(ZoneEntry::workload(workload)));
            }
            pointers.insert(workload.address.to_ipv4(), wire_name(own_name(workload), network));
            if let (true, Some(service)) = (is_ready(workload), &workload.service) {
                ready.entry(service).or_default().push(workload);
            }
        }
        for service in &snapshot.services {
            let ready = ready.remove(&service.name).unwrap_or_default();
            let name = wire_name(service.name.as_str(), network);
            pointers.insert(service.vip.to_ipv4(), name.clone());
            names.insert(key(service.name.as_str()), Arc::new(ZoneEntry::service(service, name, &ready)));
        }
        let mut known: HashMap<Key, Vec<&Workload>> = HashMap::new();
        for workload in &snapshot.workloads {
            alias_keys(workload).for_each(|key| known.entry(key).or_default().push(workload));
        }
        let aliases =
            known.iter().flat_map(|(key, of)| of.iter().map(move |workload| (key.clone(), &workload.name)));
        let aliases = Members::of(aliases);
        for (key, of) in known {
            if names.get(&key).is_none() {
                names.insert(key, Arc::new(ZoneEntry::alias(of)));
            }
        }
        let Network { subnet, subnet6, egress, .. } = snapshot.network;
        let grouped = |workload: &Workload| Some((workload.name.clone(), workload.aliases.group()?.clone()));
        let groups = snapshot.workloads.iter().filter_map(grouped).collect();
        let (network, closed) = (network.clone(), egress.is_denied());
        Self { network, closed, subnet, subnet6, names, aliases, groups, pointers }
    }

    /// The names after a change: what it does not touch is not looked at.
    #[must_use]
    pub fn follow(&self, transition: Transition<'_>) -> Self {
        let mut zone = self.clone();
        zone.follow_aliases(transition);
        zone.follow_addresses(transition);
        let both = transition.workloads().flat_map(|(before, after)| before.into_iter().chain(after));
        let of_workloads =
            both.flat_map(|workload| alias_keys(workload).chain([key(workload.name.as_str())]));
        let services = transition.services().filter_map(|(before, after)| before.or(after));
        let of_services = services.map(|service| key(service.name.as_str()));
        for key in of_workloads.chain(of_services).collect::<BTreeSet<_>>() {
            match zone.meaning(&key, transition) {
                Some(entry) => zone.names.insert(key, Arc::new(entry)),
                None => zone.names.remove(&key),
            };
        }
        zone
    }

    fn follow_aliases<'a>(&mut self, transition: Transition<'a>) {
        let of = |workload: &'a Workload| alias_keys(workload).map(move |key| (key, &workload.name));
        let before = transition.workloads().filter_map(|(before, _)| before).flat_map(of);
        let since = transition.workloads().filter_map(|(_, after)| after).flat_map(of);
        self.aliases.alter(before, since);
        for (before, after) in transition.workloads() {
            if let Some(before) = before {
                self.groups.remove(&before.name);
            }
            if let Some((name, group)) = after.and_then(|after| Some((&after.name, after.aliases.group()?))) {
                self.groups.insert(name.clone(), group.clone());
            }
        }
    }

    /// An address of a service is no workload's.
    fn follow_addresses(&mut self, transition: Transition<'_>) {
        let workloads = transition.workloads().filter_map(|(before, _)| Some(before?.address));
        let services = transition.services().filter_map(|(before, _)| Some(before?.vip));
        for before in workloads.chain(services) {
            self.pointers.remove(&before.to_ipv4());
        }
        for after in transition.workloads().filter_map(|(_, after)| after) {
            let name = wire_name(own_name(after), &self.network);
            self.pointers.insert(after.address.to_ipv4(), name);
        }
        for after in transition.services().filter_map(|(_, after)| after) {
            let name = wire_name(after.name.as_str(), &self.network);
            self.pointers.insert(after.vip.to_ipv4(), name);
        }
    }

    /// The meaning of a name in the content that the transition leads to, by the aliases of that.
    fn meaning(&self, key: &[u8], transition: Transition<'_>) -> Option<ZoneEntry> {
        let NetworkContent { services, workloads, .. } = transition.after;
        if let Some(service) = services.find_by(|service| service.name.as_str().as_bytes().cmp(key)) {
            let ready: Vec<_> =
                transition.instances_of(&service.name).filter(|known| is_ready(known)).collect();
            return Some(ZoneEntry::service(
                service,
                wire_name(service.name.as_str(), &self.network),
                &ready,
            ));
        }
        let found = workloads.find_by(|workload| workload.name.as_str().as_bytes().cmp(key));
        if let Some(found) = found.filter(|found| found.aliases.called().is_none()) {
            return Some(ZoneEntry::workload(found));
        }
        let names = self.aliases.names(key);
        let of = names.iter().filter_map(|name| workload(transition.after, name));
        (!names.is_empty()).then(|| ZoneEntry::alias(of))
    }

    /// The addresses that can be reached under a name; a service's are its instances'.
    #[cfg(feature = "simulation")]
    pub(crate) fn reached(&self, label: &str) -> Vec<Ipv4Addr> {
        self.find(label.as_bytes()).map(|entry| entry.addresses(false).to_vec()).unwrap_or_default()
    }

    pub(super) fn find(&self, label: &[u8]) -> Option<&ZoneEntry> {
        self.names.get(label).map(|entry| &**entry)
    }

    /// Whoever has the name `label` in the group `group`.
    pub(super) fn find_in_group(&self, label: &[u8], group: &[u8]) -> Option<&ZoneEntry> {
        if self.groups.is_empty() {
            return None;
        }
        self.find(&grouped_key(label, group))
    }

    /// Returns true if one of these workloads is in the group.
    pub(super) fn are_in_group(&self, workloads: &[WorkloadName], group: &[u8]) -> bool {
        let mut groups = workloads.iter().filter_map(|workload| self.groups.get(workload));
        groups.any(|own| own.as_str().as_bytes() == group)
    }

    /// Joins these addresses with the IPv6 ones that are made of `twins`.
    pub(super) fn both<'a>(&self, v4: &'a [Ipv4Addr], twins: &'a [Ipv4Addr]) -> Addresses<'a> {
        Addresses { v4, twins: (twins, self.subnet6) }
    }

    /// The name of whoever has the address, in wire format.
    pub(super) fn pointer(&self, address: Ipv4Addr) -> Option<&[u8]> {
        self.pointers.get(&address).map(|name| &**name)
    }

    pub(super) fn is_named(&self, label: &[u8]) -> bool {
        self.network.as_str().as_bytes() == label
    }
}

impl ZoneEntry {
    fn service(service: &Service, name: Arc<[u8]>, ready: &[&Workload]) -> Self {
        let of = |takes_work: fn(&Workload) -> bool| {
            let ready = ready.iter().filter(move |workload| takes_work(workload));
            ready.map(|workload| workload.address.to_ipv4())
        };
        let elsewhere = |port: Port| service.ports.iter().all(|own| own.port != port);
        let outside = service.external.instances.iter().filter(|known| !known.port().is_some_and(elsewhere));
        Self::Service {
            vip: service.vip.to_ipv4(),
            ready: of(Workload::takes_work).chain(outside.map(ExternalAddr::address)).collect(),
            ready6: of(Workload::takes_work6).collect(),
            name,
            offers: service.ports.iter().map(|port| OfferedPort::new(port, ready, service)).collect(),
            declared: service.declared,
        }
    }

    fn workload(workload: &Workload) -> Self {
        // One of no service is there before it is ready; it ends without a share.
        let begins = workload.service.is_none() && !workload.weight.is_drained();
        let serves = workload.weight.kept().is_none();
        let reached = |ready: bool| ((ready && serves) || begins).then(|| workload.address.to_ipv4());
        Self::Workload { address: reached(workload.ready), address6: reached(workload.ready6) }
    }

    fn alias<'a>(of: impl IntoIterator<Item = &'a Workload>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for own in of.into_iter().map(Self::workload) {
            v4.extend(own.addresses(false));
            v6.extend(own.twins());
        }
        Self::Alias(v4, v6)
    }

    /// Returns the entry's rank among those of the same name: the lowest wins.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Service { .. } => 0,
            Self::Workload { .. } => 1,
            Self::Alias(..) => 2,
        }
    }

    pub(super) fn is_service(&self) -> bool {
        matches!(self, Self::Service { .. })
    }

    /// Returns the addresses to which the name leads an asker for whom service addresses are balanced or not; with no
    /// address, nowhere now.
    fn addresses(&self, balanced: bool) -> &[Ipv4Addr] {
        match self {
            Self::Service { declared: false, ready, .. } if ready.is_empty() => &[],
            Self::Service { vip, .. } if balanced => slice::from_ref(vip),
            Self::Service { ready, .. } => ready,
            Self::Workload { address, .. } => address.as_slice(),
            Self::Alias(addresses, _) => addresses,
        }
    }

    /// Returns the addresses that those are made from to which the name leads by IPv6.
    fn twins(&self) -> &[Ipv4Addr] {
        match self {
            Self::Service { ready6, .. } => ready6,
            Self::Workload { address6, .. } => address6.as_slice(),
            Self::Alias(_, addresses6) => addresses6,
        }
    }

    /// Returns true if the name leads nowhere now.
    pub(super) fn is_unreachable(&self) -> bool {
        self.addresses(false).is_empty() && self.twins().is_empty()
    }

    fn of_both<'a>(&'a self, zone: &Zone, balanced: bool) -> Addresses<'a> {
        zone.both(self.addresses(balanced), self.twins())
    }

    /// Returns the part of the name that is `wanted`; instances and ports are a service's.
    pub(super) fn found<'a>(
        &'a self,
        wanted: NameSelector<'a>,
        zone: &'a Zone,
        balanced: bool,
    ) -> Lookup<'a> {
        match (self, wanted) {
            (_, NameSelector::Itself) => Lookup::Addresses(self.of_both(zone, balanced)),
            (Self::Service { .. } | Self::Alias(..), NameSelector::Instances) => {
                Lookup::Addresses(self.of_both(zone, false))
            }
            (Self::Service { name, offers, .. }, NameSelector::Ports(ports)) => {
                let itself = (&**name, self.of_both(zone, balanced));
                Targets::new(offers, ports, itself, zone).map_or(Lookup::Missing, Lookup::Targets)
            }
            (Self::Workload { .. }, NameSelector::Instances | NameSelector::Ports(_))
            | (Self::Alias(..), NameSelector::Ports(_)) => Lookup::Missing,
        }
    }
}

/// Returns true if a service's name leads to the workload.
fn is_ready(workload: &Workload) -> bool {
    workload.takes_work() || workload.takes_work6()
}

/// The name by which its address is told.
fn own_name(workload: &Workload) -> &str {
    workload.aliases.called().map_or(workload.name.as_str(), Alias::as_str)
}

fn key(name: &str) -> Key {
    name.as_bytes().into()
}

/// The keys of a workload's aliases, alone and in its group.
fn alias_keys(workload: &Workload) -> impl Iterator<Item = Key> {
    let aliases = &workload.aliases;
    let called = aliases.called().filter(|called| !aliases.contains(called));
    aliases.iter().chain(called).flat_map(move |alias| {
        let grouped =
            aliases.group().map(|group| grouped_key(alias.as_str().as_bytes(), group.as_str().as_bytes()));
        [key(alias.as_str())].into_iter().chain(grouped)
    })
}

/// No label that is asked for has a byte of nothing in it and is an alias.
fn grouped_key(name: &[u8], group: &[u8]) -> Key {
    [name, group].join(&0).into()
}

fn wire_name(name: &str, network: &NetworkName) -> Arc<[u8]> {
    let mut wire = Vec::with_capacity(name.len() + network.as_str().len() + 3);
    for label in [name, network.as_str()] {
        // Labels have at most 63 bytes.
        wire.push(u8::try_from(label.len()).unwrap_or(0));
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire.into()
}

#[cfg(test)]
pub(super) mod tests;
