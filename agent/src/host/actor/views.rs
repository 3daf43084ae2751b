//! What the task shows to the rest of the agent, and tells control.

use std::sync::Arc;

use sealane_proto::resource::NetworkSnapshot;
use sealane_proto::types::NetworkName;
use tokio::sync::watch;

use super::Host;
use crate::host::Effective;

impl Host {
    pub(super) fn publish(&mut self, network: NetworkName, snapshot: Arc<NetworkSnapshot>) {
        self.sequence += 1;
        let before = self.published.get(&network).map(|published| published.borrow().clone());
        let effective = Arc::new(Effective::new(self.sequence, snapshot, before.as_deref()));
        self.rest.disturb();
        self.parts.mesh.set_published(&network, self.sequence);
        match self.published.get(&network) {
            Some(published) => {
                published.send_replace(effective);
            }
            None => {
                self.published.insert(network, watch::Sender::new(effective));
                self.show_networks();
            }
        }
    }

    pub(super) fn show_outside(&self) {
        let outside = self.parts.mesh.outside();
        self.outside.send_if_modified(|known| {
            let news = *known != outside;
            *known = outside;
            news
        });
    }

    pub(super) fn show_networks(&self) {
        let networks = self.published.iter().map(|(name, published)| (name.clone(), published.subscribe()));
        self.networks.send_replace(networks.collect());
    }

    /// Shows what is wrong.
    pub(super) fn complain(&self) {
        let problems = self.problems.iter();
        let sentences: Vec<String> =
            problems.map(|((network, trouble), error)| trouble.sentence(network, error)).collect();
        self.complaints.send_if_modified(|known| {
            let news = *known != sentences;
            *known = sentences;
            news
        });
        let idle = self.parts.mesh.idle_reservations();
        self.reservations.send_if_modified(|known| {
            let news = *known != idle;
            *known = idle;
            news
        });
    }

    /// Tells control of this host's workloads.
    pub(super) fn report(&self) {
        let version = self.parts.mesh.version();
        self.parts.report.send_if_modified(|report| {
            let news = report.version != version;
            if news {
                *report = Arc::new(self.parts.mesh.report());
            }
            news
        });
    }

    /// Tells control by what this host works.
    pub(super) fn tell(&self) {
        let carried = self.parts.mesh.carried();
        self.parts.carried.send_if_modified(|known| {
            let same = |(name, snapshot)| known.get(name).is_some_and(|known| Arc::ptr_eq(known, snapshot));
            let news = known.len() != carried.len() || !carried.iter().all(same);
            *known = carried;
            news
        });
        let applied = self.parts.mesh.applied();
        self.parts.applied.send_if_modified(|known| {
            let news = *known != applied;
            *known = applied;
            news
        });
    }
}
