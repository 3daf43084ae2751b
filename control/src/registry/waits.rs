//! Waits until hosts work by what is published.

use std::collections::{BTreeMap, BTreeSet};

use sealane_proto::types::{NetworkName, NodeName};

use super::Registry;

impl Registry {
    /// Per network in which addresses rest: the revision that every host which carries it works by.
    pub(crate) fn known_to_all(&self) -> BTreeMap<NetworkName, u64> {
        let (directory, agents) = (self.directory(), self.agents());
        let known = |name: &NetworkName| Some((name.clone(), agents.tracker.known_to_all(name)?));
        directory.resting.iter().filter_map(known).collect()
    }

    /// Returns when every connected agent works by what these networks are at the time of the call.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn applied(&self, networks: &BTreeSet<NetworkName>) {
        let mut progress = self.progress.subscribe();
        let now = self.agents().tracker.revisions(networks);
        while !self.agents().tracker.late(&now).is_empty() {
            // The sender is this registry's: it does not go away.
            let _ = progress.changed().await;
        }
    }

    /// Returns those who do not work by these networks' newest state: connected agents, and hosts that are not
    /// connected.
    pub(crate) fn late(&self, networks: &BTreeSet<NetworkName>) -> (BTreeSet<NodeName>, BTreeSet<NodeName>) {
        let agents = self.agents();
        let directory = self.directory.load();
        let carriers = networks.iter().filter_map(|name| directory.networks.get(name));
        let carriers = carriers.flat_map(|network| &**network.carriers());
        let away = carriers.filter(|name| !agents.connected.contains_key(*name)).cloned().collect();
        (agents.tracker.late(&agents.tracker.revisions(networks)), away)
    }
}
