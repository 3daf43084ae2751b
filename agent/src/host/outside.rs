//! Instances of services outside every network: which there are, and which of them this host does without now. Pure.

use std::collections::BTreeSet;
use std::net::SocketAddrV4;

use sealane_proto::resource::{NetworkContent, NetworkSnapshot, Service};
use sealane_proto::types::{Check, ExternalAddr, NetworkName, ServiceName, Transport};

use super::core::HostCore;
use super::mesh::Mesh;

/// An instance of a service outside every network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Outside {
    /// The service's network.
    pub(crate) network: NetworkName,
    /// The service.
    pub(crate) service: ServiceName,
    /// Address of the instance.
    pub(crate) instance: ExternalAddr,
}

/// Instance that is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OutsideCheck {
    /// Identity of the instance.
    pub(crate) outside: Outside,
    /// Address of the port that its check asks, or of its first one over TCP.
    pub(crate) place: Option<SocketAddrV4>,
    /// Check that is made there.
    pub(crate) check: Option<Check>,
}

impl Mesh {
    /// All of them in the networks that this host carries, sorted.
    #[must_use]
    pub(crate) fn outside(&self) -> Vec<OutsideCheck> {
        let mut all: Vec<OutsideCheck> =
            self.carried().values().flat_map(|snapshot| outside(snapshot)).collect();
        all.sort_by(|a, b| a.outside.cmp(&b.outside));
        all
    }

    /// Takes what does not work, seen from here; answers the networks in which that is news.
    pub(crate) fn set_down(&mut self, down: BTreeSet<Outside>) -> BTreeSet<NetworkName> {
        let news = self.down.symmetric_difference(&down).map(|outside| outside.network.clone()).collect();
        self.down = down;
        news
    }

    /// Takes those that do not work out of a network's services.
    pub(super) fn leave_out(&self, snapshot: &mut NetworkSnapshot) {
        let NetworkContent { network, services, .. } = &mut snapshot.content;
        for outside in self.down.iter().filter(|outside| outside.network == network.name) {
            let order = |service: &Service| service.name.cmp(&outside.service);
            if let Some(mut service) = services.find_by(order).cloned() {
                service.external.instances.retain(|instance| *instance != outside.instance);
                services.set_by(order, Some(service));
            }
        }
    }
}

impl HostCore {
    /// These instances do not work, seen from here, and all others do.
    pub(crate) fn handle_outside(&mut self, down: BTreeSet<Outside>) {
        self.mesh.set_down(down).into_iter().for_each(|network| self.handle_change(network));
    }
}

fn outside(snapshot: &NetworkSnapshot) -> impl Iterator<Item = OutsideCheck> + '_ {
    snapshot.services.iter().flat_map(move |service| {
        let streams = service.ports.iter().find(|port| port.protocol.transport() == Transport::Tcp);
        service.external.instances.iter().map(move |&instance| OutsideCheck {
            outside: Outside {
                network: snapshot.network.name.clone(),
                service: service.name.clone(),
                instance,
            },
            place: match service.external.check.as_ref().and_then(|check| check.port) {
                Some(port) => Some(SocketAddrV4::new(instance.address(), port.get())),
                None => streams.map(|port| instance.serving(port.port)),
            },
            check: service.external.check.clone(),
        })
    })
}
