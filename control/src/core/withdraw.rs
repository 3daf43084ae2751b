//! Documents that are withdrawn: services first, then networks; all of them or none.

use std::cmp::Reverse;
use std::convert::Infallible;

use sealane_proto::document::DocumentId;
use sealane_proto::resource::{External, RouteId, RouteKind, Service, Workload};
use sealane_proto::types::{Hosts, NetworkName, ServiceName};

use super::batch::Batch;
use super::report::Ports;
use super::route;
use super::service::check_registrar;
use super::{
    Change, Command, Decision, RemoveNetwork, RemoveNetworkRefusal, RemoveServiceRefusal, State, Timestamp,
};

/// Ends what documents have made. The outcome has an entry per document; when one is refused, nothing changes.
///
/// A service with instances loses its document only: it goes on as its instances make it, at the same address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdraw {
    /// Objects that are to end.
    pub documents: Vec<DocumentId>,
    /// Only say what would happen.
    pub dry_run: bool,
    /// True if an object that is not there counts as ended.
    pub ignore_not_found: bool,
}

/// Result of a withdrawal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Withdrawn {
    /// The object is no more.
    Deleted,
    /// The object's document is no more; these instances keep it.
    Kept(String),
    /// The object was not there.
    NotFound,
}

/// Reasons for which an object stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WithdrawRefusal {
    /// There is none.
    #[error("there is no {0}; --ignore-not-found takes that for done")]
    NotFound(DocumentId),
    /// A service without a document, and with instances.
    #[error(
        "service {service} in network {network} has no document: it is there while its instances run ({instances}); end them"
    )]
    Undeclared {
        /// The service.
        service: ServiceName,
        /// The network.
        network: NetworkName,
        /// Some of them.
        instances: String,
    },
    /// A network that is in use.
    #[error(transparent)]
    Network(#[from] RemoveNetworkRefusal),
    /// A service that a host has registered, and would again.
    #[error(transparent)]
    Service(#[from] RemoveServiceRefusal),
}

pub(super) type Decided = Result<Decision<Withdrawn>, WithdrawRefusal>;

impl Command for Withdraw {
    type Outcome = Vec<Result<Withdrawn, WithdrawRefusal>>;
    type Refusal = Infallible;

    fn decide(self, state: &State, now: Timestamp) -> Result<Decision<Self::Outcome>, Infallible> {
        let Self { documents, dry_run, ignore_not_found } = self;
        let mut batch = Batch::of(state);
        let mut order: Vec<(usize, DocumentId)> = documents.into_iter().enumerate().collect();
        order.sort_by_key(|&(at, ref id)| (Reverse(id.kind()), at));
        for (at, id) in order {
            let decided = match decide(&id, batch.state(), now) {
                Ok(Decision { outcome: Withdrawn::NotFound, .. }) if !ignore_not_found => {
                    Err(WithdrawRefusal::NotFound(id))
                }
                decided => decided,
            };
            batch.take(at, decided);
        }
        Ok(batch.into_decision(dry_run))
    }
}

pub(super) fn decide(id: &DocumentId, draft: &State, now: Timestamp) -> Decided {
    match id {
        DocumentId::Network(name) if !draft.networks.contains_key(name) => Ok(not_found()),
        DocumentId::Network(name) => {
            let removed = RemoveNetwork(name.clone()).decide(draft, now)?;
            Ok(Decision { changes: removed.changes, outcome: Withdrawn::Deleted })
        }
        DocumentId::Service(network, name) => {
            check_registrar(draft, network, name)?;
            decide_service(network, name, draft, now)
        }
        DocumentId::HttpRoute(network, name) => {
            Ok(route::withdraw(network, RouteId { kind: RouteKind::Http, name: name.clone() }, draft))
        }
        DocumentId::GrpcRoute(network, name) => {
            Ok(route::withdraw(network, RouteId { kind: RouteKind::Grpc, name: name.clone() }, draft))
        }
    }
}

fn not_found() -> Decision<Withdrawn> {
    Decision { changes: vec![], outcome: Withdrawn::NotFound }
}

pub(super) fn decide_service(
    network: &NetworkName,
    name: &ServiceName,
    draft: &State,
    now: Timestamp,
) -> Decided {
    let known = draft.networks.get(network).and_then(|state| Some((state, state.services.get(name)?)));
    let Some((state, known)) = known else { return Ok(not_found()) };
    let instances: Vec<&Workload> = state.instances_of(name).collect();
    let network = network.clone();
    if instances.is_empty() {
        return Ok(Decision { changes: state.end(name, now), outcome: Withdrawn::Deleted });
    }
    let some: Vec<String> =
        instances.iter().take(3).map(|instance| format!("{} on {}", instance.name, instance.node)).collect();
    let some = some.join(", ");
    if !known.declared {
        return Err(WithdrawRefusal::Undeclared { service: name.clone(), network, instances: some });
    }
    let mut ports = Ports::default();
    for instance in instances {
        // Under one document they may have said different things; the first one is right from now on.
        let _ = ports.add(&instance.ports);
    }
    let service = Service {
        ports: ports.into_vec(),
        hosts: Hosts::default(),
        declared: false,
        mtls: None,
        external: External::default(),
        ..known.clone()
    };
    let changes = vec![Change::put_in(&network, service)];
    Ok(Decision { changes, outcome: Withdrawn::Kept(some) })
}
