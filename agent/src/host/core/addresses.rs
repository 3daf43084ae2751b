//! Networks of which control is asked for addresses, and addresses that this host does not need.

use std::collections::BTreeSet;
use std::time::Instant;

use ipnet::Ipv4Net;
use sealane_proto::types::NetworkName;

use super::HostCore;
use crate::host::trouble::NetworkTrouble;

impl HostCore {
    /// The networks for which control is to be asked anew, as it does not accept workloads in them. `connected` is true while it
    /// can be asked.
    pub(crate) fn poll_carry(&mut self, connected: bool, now: Instant) -> Vec<NetworkName> {
        let problems = &self.problems;
        let unknown =
            |network: &NetworkName| problems.contains_key(&(network.clone(), NetworkTrouble::Unknown));
        self.again.due(&self.reported.refused, unknown, connected, now)
    }

    /// Time has passed while control does not accept workloads: the report may have to be told anew.
    pub(crate) fn handle_refused_still(&mut self, now: Instant) {
        if self.again.tells(now) {
            self.mesh.tell_anew();
        }
    }

    /// Addresses of a network have been kept for somebody.
    pub(crate) fn handle_reserved(&mut self, network: NetworkName) {
        self.ahead.note(network);
    }

    /// The networks of which control is to be asked for one more block than so many, before it is needed.
    pub(crate) fn poll_ahead(&mut self, now: Instant) -> Vec<(NetworkName, usize)> {
        self.ahead.due(|network| self.mesh.wants_more(network, now), now)
    }

    /// The networks of which this host gives addresses back, each with all ranges that it gives back then. They are to be kept on
    /// disk: whoever starts after this agent must not assign from them.
    pub(crate) fn poll_offers(&mut self, now: Instant) -> Vec<(NetworkName, BTreeSet<Ipv4Net>)> {
        if !self.takes_blocks {
            return vec![];
        }
        let due = self.back.due(self.mesh.surplus(), now).into_iter();
        due.map(|(network, ranges)| (network.clone(), &ranges | &self.mesh.offered(&network))).collect()
    }

    /// Ranges given back of a network are on disk: from now on nothing is assigned from them, and control is told.
    pub(crate) fn handle_offered(&mut self, network: &NetworkName, ranges: &BTreeSet<Ipv4Net>) {
        self.mesh.offer(network, ranges);
    }

    /// Every connected host works by what this report led to.
    pub(crate) fn handle_settled(&mut self, version: u64) {
        self.reported.settled = self.reported.settled.max(version);
        // What control says is known here now: a workload of an earlier agent may be in the way of it as well.
        for network in self.mesh.networks() {
            if self.evict(&network) {
                self.handle_change(network);
            }
        }
    }

    /// Cuts off the network's workloads here whose addresses control gives to others; returns true if there are further ones.
    pub(super) fn evict(&mut self, network: &NetworkName) -> bool {
        let news = self.mesh.evict(network);
        self.note(network, NetworkTrouble::Evicted, self.mesh.evicted(network));
        news
    }
}
