//! The host as others see it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use sealane_proto::resource::NetworkSnapshot;
use sealane_proto::types::NetworkName;

use super::{HostCore, News};
use crate::host::trouble::{self, NetworkTrouble};
use crate::host::{HostNetwork, Reported};

impl HostCore {
    /// The news since the last call, oldest first.
    pub(crate) fn poll_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Progress of control with this host's reports.
    pub(crate) fn reported(&self) -> &Reported {
        &self.reported
    }

    /// Returns true if control does not accept workloads of this host.
    pub(crate) fn is_refused(&self) -> bool {
        !self.reported.refused.is_empty()
    }

    /// Returns true once everything that was known at the start has been made, as far as it can be.
    pub(crate) fn has_begun(&self) -> bool {
        self.untried.is_empty()
    }

    /// Returns true if the kernel has everything that it should.
    #[cfg(feature = "simulation")]
    pub(crate) fn is_idle(&self) -> bool {
        self.jobs.is_idle()
    }

    /// Returns true once the kernel has had every network that was known at the start.
    pub(crate) fn has_all(&self) -> bool {
        self.missing.is_empty()
    }

    /// Returns true if a job of one of these networks is under way.
    pub(crate) fn under_way(&self, networks: impl IntoIterator<Item = NetworkName>) -> BTreeSet<NetworkName> {
        networks.into_iter().filter(|network| self.jobs.is_under_way(network)).collect()
    }

    /// Time at which something is to be tried again; `None` when nothing is.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.jobs.due()
    }

    /// Returns true if a state waits for the disk.
    pub(crate) fn is_unsaved(&self) -> bool {
        !self.unsaved.is_empty()
    }

    /// The problems of this host, a sentence each.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let sentence = |((network, trouble), error): (&(NetworkName, NetworkTrouble), &String)| {
            let of_kernel = *trouble == NetworkTrouble::Kernel;
            let own = if of_kernel { self.mesh.names_in(network) } else { Vec::new() };
            trouble.sentence(network, error) + &trouble::concerned(&own)
        };
        self.problems.iter().map(sentence).chain(self.mesh.doubts()).chain(self.mesh.displaced()).collect()
    }

    pub(super) fn publish(&mut self, network: NetworkName, snapshot: Arc<NetworkSnapshot>) {
        self.sequence += 1;
        let before = self.published.get(&network).cloned();
        let generation = snapshot.generation;
        let host_network = Arc::new(HostNetwork::new(self.sequence, snapshot, before.as_deref()));
        self.mesh.set_published(&network, self.sequence, generation);
        self.show(network, host_network);
    }

    /// Shows that the network cannot be set up: what runs in it is served by what was published last, or by what is on disk, and
    /// only what is new waits for the kernel.
    pub(super) fn hinder(&mut self, network: NetworkName, snapshot: Arc<NetworkSnapshot>, hindrance: String) {
        let before = self.published.get(&network).cloned();
        let hindrance = Some(hindrance);
        if before.as_ref().is_some_and(|before| before.hindrance == hindrance) {
            return;
        }
        let snapshot = before.as_ref().map_or(snapshot, |before| before.snapshot.clone());
        self.sequence += 1;
        let host_network = HostNetwork::new(self.sequence, snapshot, before.as_deref());
        self.show(network, Arc::new(HostNetwork { hindrance, ..host_network }));
    }

    fn show(&mut self, network: NetworkName, host_network: Arc<HostNetwork>) {
        self.published.insert(network.clone(), host_network.clone());
        self.news.push(News::Network(network, host_network));
    }
}
