//! Views that the task publishes for the rest of the agent, and its reports to control.

use std::sync::Arc;
use std::time::Instant;

use sealane_proto::resource::NetworkSnapshot;
use sealane_proto::types::NetworkName;
use tokio::sync::watch;

use super::HostActor;
use crate::host::HostNetwork;
use crate::host::trouble::{self, NetworkTrouble};

impl HostActor {
    pub(super) fn publish(&mut self, network: NetworkName, snapshot: Arc<NetworkSnapshot>) {
        self.sequence += 1;
        let before = self.published.get(&network).map(|published| published.borrow().clone());
        let host_network = Arc::new(HostNetwork::new(self.sequence, snapshot, before.as_deref()));
        self.rest.disturb();
        self.parts.mesh.set_published(&network, self.sequence);
        self.show(network, host_network);
    }

    /// Shows that the network cannot be set up: what runs in it is served by what was published last, or by what is on disk, and
    /// only what is new waits for the kernel.
    pub(super) fn hinder(&mut self, network: NetworkName, snapshot: Arc<NetworkSnapshot>, hindrance: String) {
        let before = self.published.get(&network).map(|published| published.borrow().clone());
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
        match self.published.get(&network) {
            Some(published) => {
                published.send_replace(host_network);
            }
            None => {
                self.published.insert(network, watch::Sender::new(host_network));
                self.show_networks();
            }
        }
    }

    pub(super) fn show_outside(&self) {
        show(&self.outside, self.parts.mesh.outside());
    }

    pub(super) fn show_networks(&self) {
        let networks = self.published.iter().map(|(name, published)| (name.clone(), published.subscribe()));
        self.networks.send_replace(networks.collect());
    }

    /// Returns true if control does not accept workloads of this host.
    pub(super) fn is_refused(&self) -> bool {
        !self.reported.borrow().refused.is_empty()
    }

    /// Asks control anew for the networks of workloads that it does not accept.
    pub(super) fn ask_again(&mut self) {
        let (refused, channel) = (self.reported.borrow().refused.clone(), self.link.borrow().channel.clone());
        let unknown =
            |network: &NetworkName| self.problems.contains_key(&(network.clone(), NetworkTrouble::Unknown));
        self.again.ask(&refused, unknown, channel.as_ref(), Instant::now());
    }

    /// Shows what is wrong.
    pub(super) fn complain(&self) {
        let problems = self.problems.iter();
        let sentence = |((network, trouble), error): (&(NetworkName, NetworkTrouble), &String)| {
            let of_kernel = *trouble == NetworkTrouble::Kernel;
            let own = if of_kernel { self.parts.mesh.names_in(network) } else { Vec::new() };
            trouble.sentence(network, error) + &trouble::concerned(&own)
        };
        show(&self.complaints, problems.map(sentence).collect::<Vec<String>>());
        show(&self.reservations, self.parts.mesh.idle_reservations());
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
        show(&self.parts.applied, self.parts.mesh.applied());
    }
}

/// Shows this to whoever watches, when it is another than before.
pub(super) fn show<T: PartialEq>(view: &watch::Sender<T>, now: T) {
    view.send_if_modified(|known| {
        let news = *known != now;
        *known = now;
        news
    });
}
