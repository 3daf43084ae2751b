//! Words of this host about itself, and those it hears.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sealane_proto::client::Rejection;
use sealane_proto::identity::SerialPrefix;
use sealane_proto::resource::{Block, Edition, OwnerFacts, Workload};
use sealane_proto::types::{NetworkName, NodeName};

use super::{Mesh, owners};
use crate::attachment::AttachmentId;

/// Number of workloads that are named in a sentence.
const NAMED: usize = 8;

impl Mesh {
    /// Facts about this host's own workloads, per network that it carries.
    #[must_use]
    pub(crate) fn facts(&self) -> &BTreeMap<NetworkName, Arc<OwnerFacts>> {
        &self.facts
    }

    /// Brings what this host says to what is; `refused` are the workloads that control does not accept, of which it says nothing.
    /// Returns the networks of which it says anything else than before.
    pub(crate) fn refresh_facts(&mut self, refused: &[Rejection]) -> Vec<NetworkName> {
        let mut now: BTreeMap<NetworkName, Vec<Workload>> =
            self.networks.keys().map(|network| (network.clone(), vec![])).collect();
        for (id, hosted) in self.hosted.iter().filter(|(_, hosted)| !hosted.is_evicted()) {
            let refused = refused.iter().any(|it| it.network == id.network && it.workload == id.workload);
            if let Some(workloads) = now.get_mut(&id.network).filter(|_| !refused) {
                workloads.push(hosted.workload.clone());
            }
        }
        self.facts.retain(|network, _| now.contains_key(network));
        let mut news = vec![];
        for (network, workloads) in now {
            let known = self.facts.get(&network);
            let same = |known: &&Arc<OwnerFacts>| {
                known.incarnation == self.incarnation && known.workloads == workloads
            };
            if known.filter(same).is_none() {
                self.revision += 1;
                let (incarnation, revision) = (self.incarnation, self.revision);
                let facts = OwnerFacts { network: network.clone(), incarnation, revision, workloads };
                self.facts.insert(network.clone(), Arc::new(facts));
                news.push(network);
            }
        }
        news
    }

    /// The incarnation that this host must begin for its words to count: control has heard newer ones of it, as when its disk is
    /// an older one or its name was another host's. `None` while they count.
    #[must_use]
    pub(crate) fn outdone(&self) -> Option<u64> {
        let reported = self.networks.values().filter_map(|carried| carried.snapshot.reported.as_ref());
        let reported = reported.filter_map(|reported| reported.get(&self.node.name)).max();
        let newest = Edition { incarnation: self.incarnation, revision: self.revision };
        let reported = reported.copied().filter(|known| *known > newest);
        let placed = self.reported_place().filter(|known| *known > self.place().edition);
        reported.max(placed).map(|known| known.incarnation.saturating_add(1))
    }

    /// This host's words are of this incarnation from now on; control is told them anew.
    pub(crate) fn begin_incarnation(&mut self, incarnation: u64) {
        self.incarnation = incarnation;
        self.renew_place();
        self.tell_anew();
    }

    /// Hears what another host says of its workloads, at `now`; returns true if that may make a difference.
    pub(crate) fn hear(&mut self, owner: NodeName, facts: OwnerFacts, now: SystemTime) -> bool {
        if owner == self.node.name {
            return false;
        }
        let known = self.snapshot(&facts.network);
        let is_member = known.is_some_and(|known| owners::is_member(&known.content, &owner));
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let latest = known.map_or(u64::MAX, |known| owners::latest(&known.content, &owner, now));
        self.words.hear(owner, facts, (is_member, latest)) && is_member
    }

    /// Weighs again, at `now`, words of starts that were yet to come: this host's clock may have been set. Returns the networks in which
    /// that may make a difference.
    pub(crate) fn weigh_doubts(&mut self, now: SystemTime) -> Vec<NetworkName> {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let Self { words, networks, .. } = self;
        let doubted = words.doubted().into_iter();
        let may = |network: &NetworkName| {
            networks.get(network).is_some_and(|carried| words.weigh(&carried.snapshot.content, now))
        };
        doubted.filter(may).collect()
    }

    /// Nothing is heard of the owner any more; returns the networks in which that may make a difference.
    pub(crate) fn fall_silent(&mut self, owner: &NodeName) -> Vec<NetworkName> {
        self.words.fall_silent(owner)
    }

    /// Returns true if nobody else can have the address of a workload of this host: it lies in this host's blocks, or control has it
    /// so already.
    #[must_use]
    pub(crate) fn owns_address(&self, id: &AttachmentId) -> bool {
        let (Some(hosted), Some(known)) = (self.hosted.get(id), self.snapshot(&id.network)) else {
            return false;
        };
        let (own, address) = (&self.node.name, hosted.workload.address);
        let is_own =
            |block: &Block| block.node.as_ref() == Some(own) && block.range.contains(&address.to_ipv4());
        let is_this =
            |known: &Workload| known.name == id.workload && known.node == *own && known.address == address;
        known.blocks.iter().any(is_own) || known.workloads.iter().any(is_this)
    }

    /// Takes in a word from before the start, of another host or of this one.
    pub(crate) fn recall_word(&mut self, owner: NodeName, facts: OwnerFacts) {
        self.words.recall(owner, facts);
    }

    /// A workload of this host as it last was: as this host said, or control, whichever is newer.
    pub(super) fn last_known(&self, id: &AttachmentId) -> Option<&Workload> {
        let known = self.snapshot(&id.network)?;
        let said = self.words.newest(&known.content, &self.node.name);
        let is_it = |known: &&Workload| known.node == self.node.name && known.name == id.workload;
        match said {
            Some(said) => said.workloads.iter().find(is_it),
            None => known.workloads.iter().find(is_it),
        }
    }

    /// The words by which this host goes in a network, its own among them, as they are newer than control's.
    #[must_use]
    pub(crate) fn newer_words(&self, network: &NetworkName) -> BTreeMap<NodeName, Arc<OwnerFacts>> {
        let Some(known) = self.snapshot(network) else { return BTreeMap::new() };
        let mut words = self.words.newer(&known.content);
        words.remove(&self.node.name);
        let reported = known.reported.as_ref().and_then(|reported| reported.get(&self.node.name));
        let own = self.facts.get(network).filter(|own| reported < Some(&own.edition()));
        words.extend(own.map(|own| (self.node.name.clone(), own.clone())));
        words
    }

    /// The newest word of another host by which this one goes, its own or control's.
    #[cfg(feature = "simulation")]
    pub(crate) fn goes_by(&self, network: &NetworkName, owner: &NodeName) -> Option<Edition> {
        let known = self.snapshot(network).filter(|known| owners::is_member(&known.content, owner))?;
        let own = self.words.newer(&known.content).get(owner).map(|facts| facts.edition());
        own.max(known.reported.as_ref()?.get(owner).copied())
    }

    /// Words of other hosts that this one does not go by, a sentence each.
    pub(crate) fn doubts(&self) -> impl Iterator<Item = String> {
        self.words.doubts()
    }

    /// Names the workloads of this host in a network whose name another host has given to one of its own, with who goes by whose, for a
    /// sentence. One that control does not accept is named elsewhere.
    pub(crate) fn namesakes(&self, network: &NetworkName, refused: &[Rejection]) -> Option<String> {
        let known = self.snapshot(network)?;
        let is_refused =
            |own: &Workload| refused.iter().any(|it| it.network == *network && it.workload == own.name);
        let own = self.hosted_in(network).filter(|hosted| !hosted.ending && !hosted.is_evicted());
        let own = own.map(|hosted| &hosted.workload);
        let own: Vec<&Workload> = own.filter(|own| !is_refused(own)).collect();
        let found = owners::namesakes(&known.content, &self.node.name, &own, self.words.of(network));
        let said = found.iter().take(NAMED).map(|owners::Namesake { name, owner, is_ours }| {
            let whose = if *is_ours { "this host's" } else { "that one" };
            format!("{name} is on {owner}, too, and the other hosts go by {whose}")
        });
        let mut said: Vec<String> = said.collect();
        said.extend(
            found.len().checked_sub(NAMED).filter(|more| *more > 0).map(|more| format!("{more} more")),
        );
        (!said.is_empty()).then(|| said.join("; "))
    }

    /// The number of words of other hosts that were not taken since the last call, as they or there were too many.
    pub(crate) fn poll_refused_words(&mut self) -> u64 {
        self.words.poll_refused()
    }

    /// The certificates that nobody accepts any more, as control says.
    #[must_use]
    pub(crate) fn revoked(&self) -> BTreeSet<SerialPrefix> {
        self.networks.values().flat_map(|carried| &carried.snapshot.revoked).copied().collect()
    }
}
