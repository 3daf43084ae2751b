//! Words of other hosts about their own workloads, and their merge with what control says. Pure.
//!
//! Per owner the newer word counts: control's, which says of every host what of it that has in it, or the owner's own. An owner is
//! believed about its own workloads at its own addresses, as control has leased them, and about nothing else; control alone says
//! who is a member, and which hosts may run instances of a service. Of workloads that have a name, an address or an Ethernet
//! address in common, one is there: this host's own, else the one that control knows so, else that of the owner whose name is
//! smaller. So hosts that have heard the same agree.

mod doubt;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use doubt::Doubt;
use sealane_base::shared_list::SharedList;
use sealane_proto::resource::{Edition, NetworkContent, OwnerFacts, Workload};
use sealane_proto::types::{NetworkName, NodeName, WorkloadName};

/// Number of workloads of one host in one network that others keep, as control bounds it.
const MOST_WORKLOADS: usize = 4_096;
/// Number of words that are kept of hosts that control has not told of.
const MOST_AHEAD: usize = 1_024;

/// The newest words of other hosts.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    networks: BTreeMap<NetworkName, BTreeMap<NodeName, Word>>,
    /// Words of members that this host does not go by though their owners say them now.
    doubts: BTreeMap<(NetworkName, NodeName), Doubt>,
    /// Words that were not taken, as they or there were too many.
    refused: u64,
}

/// A host's word about its workloads in one network.
#[derive(Clone, Debug)]
pub(super) struct Word {
    facts: Arc<OwnerFacts>,
    /// True while its owner is heard.
    live: bool,
}

impl Words {
    /// Hears a word; returns true if it is newer than what was known. One of a host that is no member may be ahead of control,
    /// and waits.
    /// A word of a start of its owner's agent after `latest` is not believed, as none after it could be newer.
    pub(super) fn hear(
        &mut self,
        owner: NodeName,
        facts: OwnerFacts,
        (is_member, latest): (bool, u64),
    ) -> bool {
        let ahead = || self.networks.values().map(BTreeMap::len).sum::<usize>() >= MOST_AHEAD;
        let known = self.networks.get(&facts.network).and_then(|words| words.get(&owner));
        let beyond = known.is_none() && !is_member && ahead();
        if beyond || facts.workloads.len() > MOST_WORKLOADS {
            self.refused += 1;
            return false;
        }
        let (said, known) = (facts.edition(), known.map(|known| known.facts.edition()));
        let believed = known.filter(|known| known.incarnation <= latest);
        let place = (facts.network.clone(), owner.clone());
        self.doubts.remove(&place);
        if said.incarnation > latest {
            self.refused += 1;
            if is_member {
                self.doubts.insert(place, Doubt::Ahead(facts));
            }
            return false;
        }
        let is_newer = believed.is_none_or(|known| known < said);
        if let Some(known) = believed.filter(|known| *known > said && is_member) {
            self.doubts.insert(place, Doubt::Outdone { said, known });
        }
        let words = self.networks.entry(facts.network.clone()).or_default();
        match words.get_mut(&owner) {
            Some(known) if !is_newer => !std::mem::replace(&mut known.live, true),
            Some(_) | None => {
                words.insert(owner, Word { facts: Arc::new(facts), live: true });
                true
            }
        }
    }

    /// Nothing is heard of the owner any more; returns the networks in which that may make a difference.
    pub(super) fn fall_silent(&mut self, owner: &NodeName) -> Vec<NetworkName> {
        self.doubts.retain(|(_, doubted), _| doubted != owner);
        let words =
            self.networks.iter_mut().filter_map(|(network, words)| Some((network, words.get_mut(owner)?)));
        let fallen = words
            .filter_map(|(network, word)| std::mem::replace(&mut word.live, false).then(|| network.clone()));
        fallen.collect()
    }

    /// Control says who is in a network: who was and is not any more has nothing to say, whoever comes by that name.
    /// What was ahead of everything that was known of its owner is weighed again.
    pub(super) fn dismiss(&mut self, before: Option<&NetworkContent>, after: &NetworkContent) {
        let shop = &after.network.name;
        self.doubts.retain(|(network, owner), _| network != shop || is_member(after, owner));
        self.weigh(after, 0);
        if before.is_some_and(|before| before.nodes == after.nodes) {
            return;
        }
        let Some(words) = self.networks.get_mut(&after.network.name) else { return };
        words.retain(|owner, _| {
            is_member(after, owner) || !before.is_some_and(|before| is_member(before, owner))
        });
    }

    /// Weighs again what was ahead of everything in a network, at `now`, in seconds since 1970; returns true if that may make a
    /// difference.
    pub(super) fn weigh(&mut self, content: &NetworkContent, now: u64) -> bool {
        let doubted = self.doubts.iter().filter(|((network, _), _)| *network == content.network.name);
        let ahead = |((_, owner), doubt): (&(_, NodeName), &Doubt)| match doubt {
            Doubt::Ahead(facts) => Some((owner.clone(), facts.clone())),
            Doubt::Outdone { .. } => None,
        };
        let mut news = false;
        for (owner, facts) in doubted.filter_map(ahead).collect::<Vec<_>>() {
            let latest = latest(content, &owner, now);
            if facts.incarnation <= latest {
                news |= self.hear(owner, facts, (true, latest));
            }
        }
        news
    }

    /// The networks in which words are doubted.
    pub(super) fn doubted(&self) -> BTreeSet<NetworkName> {
        self.doubts.keys().map(|(network, _)| network.clone()).collect()
    }

    /// The words about one network.
    pub(super) fn of(&self, network: &NetworkName) -> Option<&BTreeMap<NodeName, Word>> {
        self.networks.get(network)
    }

    /// Takes in a word from before the start; nobody is heard yet.
    pub(super) fn recall(&mut self, owner: NodeName, facts: OwnerFacts) {
        let words = self.networks.entry(facts.network.clone()).or_default();
        words.insert(owner, Word { facts: Arc::new(facts), live: false });
    }

    /// The words of a network's members that say more than control does.
    pub(super) fn newer(&self, content: &NetworkContent) -> BTreeMap<NodeName, Arc<OwnerFacts>> {
        let words = self.of(&content.network.name).into_iter().flatten();
        let newer = words.filter(|(owner, word)| is_member(content, owner) && word.is_newer(content, owner));
        newer.map(|(owner, word)| (owner.clone(), word.facts.clone())).collect()
    }

    /// The word of an owner, if it says more than control does.
    pub(super) fn newest(&self, content: &NetworkContent, owner: &NodeName) -> Option<&OwnerFacts> {
        let word = self.of(&content.network.name)?.get(owner)?;
        word.is_newer(content, owner).then_some(word.facts.as_ref())
    }

    /// The words that are not gone by, a sentence each; those of one start that is yet to come have one.
    pub(super) fn doubts(&self) -> impl Iterator<Item = String> {
        self.doubts.iter().filter_map(|((network, owner), doubt)| match doubt {
            Doubt::Outdone { .. } => Some(doubt.sentence(&[network], owner)),
            Doubt::Ahead(_) => {
                let networks = self.ahead_in(owner);
                (networks.first() == Some(&network)).then(|| doubt.sentence(&networks, owner))
            }
        })
    }

    /// The networks in which the owner's words are ahead of everything.
    fn ahead_in(&self, owner: &NodeName) -> Vec<&NetworkName> {
        let ahead =
            self.doubts.iter().filter(|((_, of), doubt)| of == owner && matches!(doubt, Doubt::Ahead(_)));
        ahead.map(|((network, _), _)| network).collect()
    }

    /// The number of words that were not taken since the last call.
    pub(super) fn poll_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }
}

/// Seconds by which a start may be ahead of this host's clock, or of what control knows of its host.
const SKEW: u64 = 24 * 3600;

/// The latest start of a host's agent that this one believes at `now`, in seconds since 1970: a clock that is wrong counts as far as
/// control has taken the host's word.
pub(super) fn latest(content: &NetworkContent, owner: &NodeName, now: u64) -> u64 {
    latest_after(content.reported.as_ref().and_then(|reported| reported.get(owner)).copied(), now)
}

/// The same of a host of which control has heard this.
pub(super) fn latest_after(known: Option<Edition>, now: u64) -> u64 {
    known.map_or(0, |known| known.incarnation).max(now).saturating_add(SKEW)
}

/// Returns true if control has told of the host in this network.
pub(super) fn is_member(content: &NetworkContent, node: &NodeName) -> bool {
    content.nodes.iter().any(|known| known.name == *node)
}

/// Claims to names and addresses by what backs them; the first is the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Backing {
    /// The workload runs on this host.
    Own,
    /// Control has it under this owner, at this address.
    Control,
    /// Control has the name under this owner, at another address.
    Name,
    /// The owner alone says so.
    Owner,
}

/// Makes `content`, which is as control says, what this host goes by: with the newer words of the owners, and with `local`, which
/// are the workloads of this host `node`. Returns true if nobody was in the way of another.
pub(super) fn merge(
    content: &mut NetworkContent,
    node: &NodeName,
    local: Vec<Workload>,
    words: Option<&BTreeMap<NodeName, Word>>,
) -> bool {
    let told = std::mem::take(&mut content.workloads);
    let newer: BTreeMap<&NodeName, &OwnerFacts> = words
        .into_iter()
        .flatten()
        .filter(|(owner, word)| *owner != node && is_member(content, owner) && word.is_newer(content, owner))
        .map(|(owner, word)| (owner, word.facts.as_ref()))
        .collect();
    let mut claims: Vec<(Backing, Workload)> = vec![];
    for (owner, facts) in &newer {
        let mut own = facts.workloads.iter().filter_map(|workload| claim(content, &told, owner, workload));
        claims.extend(&mut own);
    }
    let by_control = |known: &Workload| known.node != *node && !newer.contains_key(&known.node);
    claims
        .extend(told.iter().filter(|known| by_control(known)).map(|known| (Backing::Control, known.clone())));
    claims.extend(local.into_iter().map(|own| (Backing::Own, own)));
    claims.sort_by(|(a, one), (b, other)| (a, &one.node, &one.name).cmp(&(b, &other.node, &other.name)));
    let (mut names, mut addresses, mut macs) = (BTreeSet::new(), HashSet::new(), HashSet::new());
    let (mut workloads, mut is_clear) = (Vec::with_capacity(claims.len()), true);
    for (backing, workload) in claims {
        let taken = names.contains(&workload.name)
            || addresses.contains(&workload.address)
            || macs.contains(&workload.mac);
        if backing == Backing::Own || !taken {
            names.insert(workload.name.clone());
            addresses.insert(workload.address);
            macs.insert(workload.mac);
            workloads.push(workload);
        }
        is_clear &= !taken;
    }
    workloads.sort_by(|a, b| a.name.cmp(&b.name));
    content.workloads = workloads.into();
    // Nobody who follows this host compares ages.
    (content.reported, content.placed) = (None, None);
    is_clear
}

/// Returns true if one of these hosts, other than `node`, has said more than control.
pub(super) fn have_newer(
    content: &NetworkContent,
    node: &NodeName,
    words: Option<&BTreeMap<NodeName, Word>>,
    is_member: impl Fn(&NodeName) -> bool,
) -> bool {
    let mut words = words.into_iter().flatten();
    words.any(|(owner, word)| owner != node && word.is_newer(content, owner) && is_member(owner))
}

/// Another host's workload that has the name of one of this host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Namesake {
    pub(super) name: WorkloadName,
    /// The other host.
    pub(super) owner: NodeName,
    /// True if all other hosts go by this host's.
    pub(super) is_ours: bool,
}

/// Finds the names of `local`, workloads of this host `node`, that other hosts say of theirs as well, by words newer than `content`,
/// which is as control says.
pub(super) fn namesakes(
    content: &NetworkContent,
    node: &NodeName,
    local: &[&Workload],
    words: Option<&BTreeMap<NodeName, Word>>,
) -> Vec<Namesake> {
    let ours: BTreeMap<&WorkloadName, &Workload> = local.iter().map(|own| (&own.name, *own)).collect();
    let rank = |owner: &NodeName, workload: &Workload| {
        claim(content, &content.workloads, owner, workload).map(|(backing, _)| backing)
    };
    let mut found = Vec::new();
    let newer = words
        .into_iter()
        .flatten()
        .filter(|(owner, word)| *owner != node && is_member(content, owner) && word.is_newer(content, owner));
    for (owner, word) in newer {
        for theirs in &word.facts.workloads {
            let Some(own) = ours.get(&theirs.name) else { continue };
            let Some(their_rank) = rank(owner, theirs) else { continue };
            let is_ours = rank(node, own).is_some_and(|rank| (rank, node) < (their_rank, owner));
            found.push(Namesake { name: theirs.name.clone(), owner: owner.clone(), is_ours });
        }
    }
    found
}

impl Word {
    /// Returns true if this is newer than what control says of the owner. A control plane that does not say what it has heard is
    /// behind an owner that is heard, and ahead of one that is not.
    fn is_newer(&self, content: &NetworkContent, owner: &NodeName) -> bool {
        match &content.reported {
            None => self.live,
            Some(reported) => reported.get(owner).is_none_or(|known| *known < self.facts.edition()),
        }
    }
}

/// Weighs what an owner says of one of its workloads; `None` if it has no say in that.
fn claim(
    content: &NetworkContent,
    told: &SharedList<Workload>,
    owner: &NodeName,
    workload: &Workload,
) -> Option<(Backing, Workload)> {
    let known = told.find_by(|known| known.name.cmp(&workload.name)).filter(|known| known.node == *owner);
    let backing = match known {
        Some(known) if known.address == workload.address => Backing::Control,
        Some(_) => Backing::Name,
        None => Backing::Owner,
    };
    let network = &content.network;
    let (address, subnet) = (workload.address, network.subnet);
    let leased = || {
        let mut blocks = content.blocks.iter();
        let block = blocks.find(|block| block.range.contains(&address.to_ipv4()));
        let own = block.is_some_and(|block| block.node.as_ref() == Some(owner));
        own && subnet.contains(address) && !subnet.reserved().contains(&address)
    };
    let at_known = || told.iter().any(|known| known.node == *owner && known.address == address);
    let same_service = known.is_some_and(|known| known.service == workload.service);
    let admitted = || content.service_of(workload).is_none_or(|service| service.hosts.admit(owner));
    let same_mac = known.is_some_and(|known| known.mac == workload.mac);
    let own_mac = || network.address_of(workload.mac).is_none_or(|meant| meant == address);
    let ports = workload.ports.len() <= Workload::MOST_PORTS
        && (workload.service.is_some() || workload.ports.is_empty());
    let fits = workload.node == *owner
        && workload.network == network.name
        && ports
        && (leased() || at_known())
        && (same_mac || own_mac())
        && (same_service || admitted());
    let drained = workload.service.is_some() && content.drained.contains(owner);
    let ready = |ready: bool| ready && !drained;
    let (ready, ready6) = (ready(workload.ready), ready(workload.ready6));
    fits.then(|| (backing, Workload { ready, ready6, ..workload.clone() }))
}

#[cfg(test)]
mod tests;
