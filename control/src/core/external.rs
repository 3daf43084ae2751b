//! Services whose instances run outside every network: which addresses these may have, and which hosts may register them.

use std::collections::BTreeSet;

use sealane_proto::document::{DocumentId, ServiceDocument};
use sealane_proto::resource::{External, Service};
use sealane_proto::types::{NetworkName, NodeName, ServiceName};

use super::batch::Batch;
use super::declare::{self, DocumentRefusal, Effect};
use super::hosts::{self, NotForHost};
use super::{Change, Command, Decision, State, Timestamp, network, withdraw};

/// The number of services that a host may register.
const MOST: usize = 1_000;

/// A reason for which a service does not get its external instances.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExternalRefusal {
    /// Nothing leaves the network.
    #[error(
        "spec.external: network {0} lets nothing out (egress: deny), and external instances are reached by its ways out; \
         say `egress: allow` in the network's document, or run the service in the network"
    )]
    NoWayOut(NetworkName),
    /// A network has the address.
    #[error(
        "spec.external: {address} is inside network {network} ({subnet}); what runs there is an instance by \
         `sealane run` or `attach` with --service"
    )]
    Inside {
        /// The address.
        address: std::net::Ipv4Addr,
        /// The network.
        network: NetworkName,
        /// The network's prefix that the address lies in.
        subnet: ipnet::IpNet,
    },
    /// A network that is to let nothing out has such services.
    #[error(
        "spec.egress: service {service} has external instances, which are reached by the ways out of network {network}; delete it \
         first, or leave egress allowed"
    )]
    InUse {
        /// A service with external instances.
        service: ServiceName,
        /// The network.
        network: NetworkName,
    },
    /// A host registers what is no such service.
    #[error(
        "spec.external is missing: a host registers services outside every network; what runs in one is an instance by \
         `sealane run` or `attach` with --service"
    )]
    Nothing,
    /// The service is there by other means.
    #[error(
        "service {service} in network {network} is there already, {by}; take another name, or remove that first"
    )]
    Taken {
        /// The service.
        service: ServiceName,
        /// The network.
        network: NetworkName,
        /// By what.
        by: String,
    },
    /// Too much for one host.
    #[error(
        "a host registers up to {MOST} services; declare further ones with `sealane apply` on the control host"
    )]
    TooMany,
    /// The network is not the host's to carry.
    #[error(transparent)]
    NotForHost(#[from] NotForHost),
}

/// Checks that external instances may be reached from `network`, and lie in no network's subnet.
pub(super) fn check(
    state: &State,
    network: &NetworkName,
    external: &External,
) -> Result<(), ExternalRefusal> {
    if external.instances.is_empty() {
        return Ok(());
    }
    let own = state.networks.get(network);
    if own.is_some_and(|own| own.network.egress.is_denied()) {
        return Err(ExternalRefusal::NoWayOut(network.clone()));
    }
    for instance in &external.instances {
        let address = instance.address();
        if let Some((network, subnet)) = network::around(state, address.into()) {
            return Err(ExternalRefusal::Inside { address, network, subnet });
        }
    }
    Ok(())
}

/// Checks that a network may let nothing out from now on: no service of it has external instances.
pub(super) fn check_closing(state: &State, network: &NetworkName) -> Result<(), ExternalRefusal> {
    let mut services = state.networks.get(network).into_iter().flat_map(|known| known.services.values());
    match services.find(|service| !service.external.instances.is_empty()) {
        Some(service) => {
            let (service, network) = (service.name.clone(), network.clone());
            Err(ExternalRefusal::InUse { service, network })
        }
        None => Ok(()),
    }
}

/// Makes the services that a host has registered those of these documents, as far as they may be.
///
/// A host speaks for its own ones alone, in networks that it may carry. The outcome has an entry per document, in their order; one
/// that is refused changes nothing, unless the host may not speak of its network any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    /// The host.
    pub node: NodeName,
    /// All that it registers.
    pub documents: Vec<ServiceDocument>,
    /// There may be more: what is not among them stays.
    pub partial: bool,
}

/// A host that is no part of the mesh registers nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no node {0}")]
pub struct NoSuchNode(pub NodeName);

impl Command for Register {
    type Outcome = Vec<Result<Effect, DocumentRefusal>>;
    type Refusal = NoSuchNode;

    fn decide(self, state: &State, now: Timestamp) -> Result<Decision<Self::Outcome>, NoSuchNode> {
        let Self { node, documents, partial } = self;
        if !state.nodes.contains_key(&node) {
            return Err(NoSuchNode(node));
        }
        let (mut batch, mut kept) = (Batch::of(state), BTreeSet::new());
        for (at, document) in documents.iter().enumerate() {
            let id = document.id();
            let decided = if at >= MOST {
                Err(ExternalRefusal::TooMany.into())
            } else if kept.contains(&id) {
                Err(DocumentRefusal::Twice(id.clone()))
            } else {
                decide(document, batch.state(), &node)
            };
            let banned = matches!(&decided, Err(DocumentRefusal::External(ExternalRefusal::NotForHost(_))));
            if !banned {
                kept.insert(id);
            }
            batch.take(at, decided);
        }
        if !partial {
            batch.change(dismissed(batch.state(), &node, &kept, now));
        }
        Ok(batch.into_accepted())
    }
}

fn decide(
    document: &ServiceDocument,
    draft: &State,
    node: &NodeName,
) -> Result<Decision<Effect>, DocumentRefusal> {
    let (name, network) = (&document.metadata.name, &document.metadata.network);
    if document.spec.external.is_empty() {
        return Err(ExternalRefusal::Nothing.into());
    }
    if let (Some(record), Some(state)) = (draft.nodes.get(node), draft.networks.get(network)) {
        hosts::check_network(record, state).map_err(ExternalRefusal::from)?;
        if let Some(by) = state.services.get(name).and_then(|known| taken(known, node)) {
            let (service, network) = (name.clone(), network.clone());
            return Err(ExternalRefusal::Taken { service, network, by }.into());
        }
    }
    declare::decide_service(document, draft, Some(node))
}

/// Says by whom a service is there that is not this host's to register.
fn taken(known: &Service, node: &NodeName) -> Option<String> {
    match &known.external.registrar {
        Some(registrar) if registrar == node => None,
        Some(registrar) => Some(format!("registered by node {registrar}")),
        None if known.declared => Some("by a document".to_owned()),
        None => Some("by its instances".to_owned()),
    }
}

/// Makes the changes that end the services which a host has registered, but for these.
pub(super) fn dismissed(
    state: &State,
    node: &NodeName,
    kept: &BTreeSet<DocumentId>,
    now: Timestamp,
) -> Vec<Change> {
    let mut changes = vec![];
    for (network, known) in &state.networks {
        let own = known.services.values().filter(|service| service.external.registrar.as_ref() == Some(node));
        let is_kept = |name: &ServiceName| kept.contains(&DocumentId::Service(network.clone(), name.clone()));
        for service in own.filter(|service| !is_kept(&service.name)) {
            let ended = withdraw::decide_service(network, &service.name, state, now);
            changes.extend(ended.map(|decision| decision.changes).unwrap_or_default());
        }
    }
    changes
}

#[cfg(test)]
mod tests;
