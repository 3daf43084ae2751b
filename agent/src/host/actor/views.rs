//! Views that the task publishes for the rest of the agent, and its reports to control.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sealane_proto::client::{CarriedNetworks, ClockPair, Followed, LinkReport};
use sealane_proto::identity::SerialPrefix;
use sealane_proto::resource::{HostPlaces, Whereabouts};
use sealane_proto::types::{NetworkName, NodeName};
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::attachment::Reservation;
use crate::host::core::HostCore;
use crate::host::mesh::Mesh;
use crate::host::{
    HeardWords, HostNetwork, HostViews, LinkState, OutsideCheck, OwnFacts, Peer, Reported, Works,
};

/// Channels to control: reports, progress with what it tells, and networks as they were last told.
pub(super) type ToControl =
    (watch::Sender<Arc<LinkReport>>, watch::Sender<Followed>, watch::Sender<CarriedNetworks>);

/// Everything that the task shows.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) begun: watch::Sender<bool>,
    pub(super) link: watch::Sender<LinkState>,
    pub(super) control: watch::Sender<Option<Channel>>,
    pub(super) clocks: watch::Sender<Option<ClockPair>>,
    published: BTreeMap<NetworkName, watch::Sender<Arc<HostNetwork>>>,
    networks: watch::Sender<BTreeMap<NetworkName, watch::Receiver<Arc<HostNetwork>>>>,
    reported: watch::Sender<Reported>,
    reservations: watch::Sender<Vec<Reservation>>,
    outside: watch::Sender<Vec<OutsideCheck>>,
    complaints: watch::Sender<Vec<String>>,
    facts: watch::Sender<Arc<OwnFacts>>,
    place: watch::Sender<Whereabouts>,
    places: watch::Sender<Arc<HostPlaces>>,
    placed: watch::Sender<CarriedNetworks>,
    /// The version of what is known about places that is shown.
    places_version: Option<u64>,
    peers: watch::Sender<Arc<BTreeMap<NodeName, Peer>>>,
    revoked: watch::Sender<Arc<BTreeSet<SerialPrefix>>>,
    told: watch::Sender<BTreeMap<NetworkName, HeardWords>>,
    works: watch::Sender<Works>,
    works_version: u64,
    unreachable: watch::Sender<Arc<BTreeSet<NodeName>>>,
    report: watch::Sender<Arc<LinkReport>>,
    followed: watch::Sender<Followed>,
    carried: watch::Sender<CarriedNetworks>,
}

impl Shown {
    pub(super) fn new(mesh: &Mesh, (report, followed, carried): ToControl) -> Self {
        Self {
            begun: watch::Sender::default(),
            link: watch::Sender::default(),
            control: watch::Sender::default(),
            clocks: watch::Sender::default(),
            published: BTreeMap::new(),
            networks: watch::Sender::default(),
            reported: watch::Sender::default(),
            reservations: watch::Sender::default(),
            outside: watch::Sender::new(mesh.outside()),
            complaints: watch::Sender::default(),
            facts: watch::Sender::default(),
            place: watch::Sender::new(mesh.place()),
            places: watch::Sender::new(Arc::new(mesh.newer_places())),
            placed: watch::Sender::new(mesh.placed()),
            places_version: None,
            peers: watch::Sender::new(Arc::new(mesh.peers())),
            revoked: watch::Sender::new(Arc::new(mesh.revoked())),
            told: watch::Sender::default(),
            works: watch::Sender::default(),
            works_version: 0,
            unreachable: watch::Sender::default(),
            report,
            followed,
            carried,
        }
    }

    /// Views of all of it.
    pub(super) fn views(&self) -> HostViews {
        HostViews {
            begun: self.begun.subscribe(),
            networks: self.networks.subscribe(),
            link: self.link.subscribe(),
            control: self.control.subscribe(),
            reported: self.reported.subscribe(),
            clocks: self.clocks.subscribe(),
            reservations: self.reservations.subscribe(),
            outside: self.outside.subscribe(),
            complaints: self.complaints.subscribe(),
            facts: self.facts.subscribe(),
            place: self.place.subscribe(),
            places: self.places.subscribe(),
            placed: self.placed.subscribe(),
            peers: self.peers.subscribe(),
            revoked: self.revoked.subscribe(),
            told: self.told.subscribe(),
            works: self.works.subscribe(),
            unreachable: self.unreachable.subscribe(),
        }
    }

    /// Shows a network as it is from now on.
    pub(super) fn network(&mut self, network: NetworkName, host_network: Arc<HostNetwork>) {
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

    /// Takes a network out of the views.
    pub(super) fn withdraw(&mut self, network: &NetworkName) {
        self.published.remove(network);
        self.show_networks();
    }

    fn show_networks(&self) {
        let networks = self.published.iter().map(|(name, published)| (name.clone(), published.subscribe()));
        self.networks.send_replace(networks.collect());
    }

    pub(super) fn outside(&self, core: &HostCore) {
        show(&self.outside, core.mesh.outside());
    }

    pub(super) fn reported(&self, core: &HostCore) {
        show(&self.reported, core.reported().clone());
    }

    /// Shows what is wrong, with the problem of the task itself.
    pub(super) fn complain(&self, core: &HostCore, problem: Option<String>) {
        show(&self.complaints, core.complaints().into_iter().chain(problem).collect());
        show(&self.reservations, core.mesh.idle_reservations());
    }

    /// Tells control and the other hosts of this host's workloads, and control by what the host works.
    pub(super) fn tell(&mut self, core: &HostCore) {
        // Calls under way do not wait for the kernel's pass.
        show(&self.unreachable, Arc::new(core.mesh.unreachable()));
        show(&self.facts, Arc::new(core.mesh.facts().clone()));
        let version = core.mesh.version();
        self.report.send_if_modified(|report| {
            let news = report.version != version;
            if news {
                *report = Arc::new(core.mesh.report());
            }
            news
        });
        let told = show_networks(&self.carried, core.mesh.carried());
        show_networks(&self.placed, core.mesh.placed());
        if told {
            show(&self.revoked, Arc::new(core.mesh.revoked()));
        }
        let version = core.mesh.places_version();
        if self.places_version.replace(version) != Some(version) {
            show(&self.place, core.mesh.place());
            show(&self.places, Arc::new(core.mesh.newer_places()));
            show(&self.peers, Arc::new(core.mesh.peers()));
        }
        show(&self.followed, core.followed());
        show(&self.told, core.told());
        let (works, version) = core.works();
        if std::mem::replace(&mut self.works_version, version) != version {
            self.works.send_replace(works.clone());
        }
    }
}

/// Shows networks where one is another than before; returns true if one is.
fn show_networks(view: &watch::Sender<CarriedNetworks>, now: CarriedNetworks) -> bool {
    view.send_if_modified(|known| {
        let same = |(name, snapshot)| known.get(name).is_some_and(|known| Arc::ptr_eq(known, snapshot));
        let news = known.len() != now.len() || !now.iter().all(same);
        *known = now;
        news
    })
}

/// Shows this to whoever watches, when it is another than before.
pub(super) fn show<T: PartialEq>(view: &watch::Sender<T>, now: T) {
    view.send_if_modified(|known| {
        let news = *known != now;
        *known = now;
        news
    });
}
