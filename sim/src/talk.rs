//! Talk over the channels between hosts: who may have one, what is said, lost and heard.

use std::collections::{BTreeMap, BTreeSet};

use sealane_proto::identity::SerialPrefix;
use sealane_proto::resource::{NetworkSnapshot, OwnerFacts, Workload};
use sealane_proto::types::NodeName;

use crate::agent::Agent;
use crate::channels::pair;
use crate::world::World;

/// Says whether one agent takes the other for a member of the mesh that shares a network with it.
pub(crate) fn accepts(agent: &Agent, other: &Agent) -> bool {
    agent.host.peers().contains_key(&other.name)
        && !agent.host.revoked().contains(&SerialPrefix::of_key(&other.key))
}

impl World {
    /// Says whether two hosts may have a channel.
    pub(crate) fn may_talk(&self, a: u8, b: u8) -> bool {
        let (Some(one), Some(other)) = (self.agents.get(&a), self.agents.get(&b)) else { return false };
        a != b && !self.channels.apart.contains(&pair(a, b)) && accepts(one, other) && accepts(other, one)
    }

    /// The channels of a host end, both ways, and nobody remembers them.
    pub(crate) fn end_channels(&mut self, host: u8) {
        for other in self.agents.keys().copied().collect::<Vec<_>>() {
            for (from, to) in [(host, other), (other, host)] {
                self.channels.open.remove(&(from, to));
                self.silence(from, to);
            }
        }
    }

    /// Returns true if a host may say something to another one. Who does not take the other one for a peer remembers no channel.
    fn opens(&mut self, from: u8, to: u8) -> bool {
        let (Some(one), Some(other)) = (self.agents.get(&from), self.agents.get(&to)) else { return false };
        if !(accepts(one, other) && accepts(other, one)) {
            self.channels.open.remove(&(from, to));
            self.silence(from, to);
        }
        self.may_talk(from, to)
    }

    /// A channel breaks: what was under way is lost, and the hearer knows that it hears no more.
    pub(crate) fn cut_channel(&mut self, from: u8, to: u8) {
        if let Some(channel) = self.channels.open.get_mut(&(from, to)) {
            channel.under_way.clear();
            channel.said = channel.heard.clone();
        }
        self.silence(from, to);
    }

    fn silence(&mut self, from: u8, to: u8) {
        if let Some(name) = self.agents.get(&from).map(|agent| agent.name.clone())
            && let Some(hearer) = self.agents.get_mut(&to)
        {
            hearer.host.fall_silent(&name);
            hearer.publish();
        }
    }

    /// A host says what is new to another one.
    pub(crate) fn say(&mut self, from: u8, to: u8) {
        if !self.opens(from, to) {
            return;
        }
        let (Some(speaker), Some(hearer)) = (self.agents.get(&from), self.agents.get(&to)) else { return };
        let shared = speaker.host.peers().remove(&hearer.name).unwrap_or_default();
        let channel = self.channels.open.entry((from, to)).or_default();
        channel.said.retain(|network, _| shared.contains(network));
        channel.heard.retain(|network, _| shared.contains(network));
        for facts in speaker.host.facts().values().filter(|facts| shared.contains(&facts.network)) {
            let said = channel.said.insert(facts.network.clone(), facts.edition());
            if said != Some(facts.edition()) {
                channel.under_way.push_back(facts.clone());
            }
        }
    }

    /// So many words of a host arrive at another one.
    pub(crate) fn hear_words(&mut self, from: u8, to: u8, count: usize) {
        if !self.opens(from, to) {
            return;
        }
        let Some(name) = self.agents.get(&from).map(|agent| agent.name.clone()) else { return };
        for _ in 0..count {
            let channel = self.channels.open.get_mut(&(from, to));
            let word = channel.and_then(|channel| {
                let word = channel.under_way.pop_front()?;
                channel.heard.insert(word.network.clone(), word.edition());
                Some(word)
            });
            let Some(facts) = word else { return };
            if let Some(hearer) = self.agents.get_mut(&to) {
                hearer.host.hear(name.clone(), OwnerFacts::clone(&facts), self.now.clock);
                hearer.publish();
            }
        }
    }

    /// Everything that hosts have to say to each other is said and heard.
    pub(crate) fn converse(&mut self) {
        let hosts: Vec<u8> = self.agents.keys().copied().collect();
        for &from in &hosts {
            for &to in hosts.iter().filter(|to| **to != from) {
                self.say(from, to);
                self.hear_words(from, to, usize::MAX);
            }
        }
    }

    /// Hosts that have heard each other agree, whatever control knows: each goes by the newest words of the others.
    pub(crate) fn check_heard(&self) -> Result<(), String> {
        for (&from, owner) in &self.agents {
            for (&to, observer) in &self.agents {
                if self.may_talk(from, to) {
                    check_pair(owner, observer)
                        .map_err(|reason| format!("{} of {}: {reason}", observer.name, owner.name))?;
                }
            }
        }
        Ok(())
    }

    /// No host goes back to an older word of another one, whoever it hears, but for a restored store that knows no newer one.
    pub(crate) fn check_forward(&mut self) -> Result<(), String> {
        let mut now = BTreeMap::new();
        for observer in self.agents.values() {
            for network in observer.host.carried().into_keys() {
                let owners = self.agents.values().filter(|owner| owner.name != observer.name);
                for owner in owners {
                    let place = (observer.name.clone(), owner.name.clone(), network.clone());
                    let newest = observer.host.goes_by(&network, &owner.name);
                    let before = self.went_by.get(&place).copied();
                    if newest.is_some() && newest < before && !self.restored {
                        return Err(format!("{place:?} goes back from {before:?} to {newest:?}"));
                    }
                    now.extend(newest.map(|newest| (place, newest)));
                }
            }
        }
        self.went_by = now;
        Ok(())
    }

    /// No name and no address is two workloads' at any host, and nothing is there of a host that it is not told of.
    pub(crate) fn check_views(&self) -> Result<(), String> {
        for agent in self.agents.values() {
            for (network, snapshot) in agent.host.carried() {
                let Some(seen) = agent.host.seen(&network) else { continue };
                let names: BTreeSet<_> = seen.iter().map(|workload| &workload.name).collect();
                let addresses: BTreeSet<_> = seen.iter().map(|workload| workload.address).collect();
                if [names.len(), addresses.len()] != [seen.len(); 2] {
                    return Err(format!(
                        "{} sees two workloads in one place of {network}: {seen:?}",
                        agent.name
                    ));
                }
                let stranger = seen.iter().find(|workload| {
                    // Control tells of workloads whose host has lost its address to another one, which are not ready.
                    let displaced =
                        snapshot.workloads.iter().any(|known| known.name == workload.name && !known.ready);
                    let member = snapshot.nodes.iter().any(|node| node.name == workload.node);
                    !member && !displaced && workload.node != agent.name
                });
                if let Some(stranger) = stranger {
                    return Err(format!(
                        "{} sees a workload of a stranger in {network}: {stranger:?}",
                        agent.name
                    ));
                }
            }
        }
        Ok(())
    }
}

fn check_pair(owner: &Agent, observer: &Agent) -> Result<(), String> {
    let (facts, carried) = (owner.host.facts(), observer.host.carried());
    for (network, snapshot) in &carried {
        let (Some(said), Some(seen)) = (facts.get(network), observer.host.seen(network)) else { continue };
        if !snapshot.nodes.iter().any(|node| node.name == owner.name) {
            continue;
        }
        let drained = snapshot.drained.contains(&owner.name);
        for workload in seen.iter().filter(|workload| workload.node == owner.name) {
            let known = said_of(said, workload)?;
            if known.ready != workload.ready && !(drained && known.service.is_some()) {
                return Err(format!("{known:?} is taken for {workload:?}"));
            }
        }
        check_known(snapshot, said, &seen, &owner.name)?;
    }
    Ok(())
}

/// Finds what an owner says of a workload that is seen of it.
///
/// # Errors
/// When it says nothing of one at that address.
pub(crate) fn said_of<'a>(said: &'a OwnerFacts, workload: &Workload) -> Result<&'a Workload, String> {
    let same = |known: &&Workload| known.name == workload.name && known.address == workload.address;
    said.workloads.iter().find(same).ok_or_else(|| format!("{workload:?} is not there any more"))
}

/// Looks whether every workload is seen that an owner may have and that nobody else's is in the way of.
///
/// # Errors
/// The first that is not seen.
pub(crate) fn check_known(
    snapshot: &NetworkSnapshot,
    said: &OwnerFacts,
    seen: &[Workload],
    owner: &NodeName,
) -> Result<(), String> {
    for workload in &said.workloads {
        let mut blocks = snapshot.blocks.iter();
        let block = blocks.find(|block| block.range.contains(&workload.address.to_ipv4()));
        let believed = block.is_some_and(|block| block.node.as_ref() == Some(owner));
        let in_the_way = seen.iter().any(|other| {
            let same =
                other.name == workload.name || other.address == workload.address || other.mac == workload.mac;
            same && other.node != *owner
        });
        let there = seen.iter().any(|seen| seen.name == workload.name && seen.node == *owner);
        if believed && !in_the_way && !there {
            return Err(format!("{workload:?} is not known"));
        }
    }
    Ok(())
}
