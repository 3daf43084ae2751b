//! Documents that are applied: all of them are decided together, networks first, and either all take effect or none.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

use sealane_proto::document::{Document, DocumentId, NetworkDocument, ServiceDocument, Subnets};
use sealane_proto::resource::{Network, RouteDocument, Service};
use sealane_proto::types::{
    Misread, Mtls, Mtu, NetworkName, NodeName, Port, Protocol, ServiceName, WorkloadName,
};

use super::batch::Batch;
use super::external::{self, ExternalRefusal};
use super::grow::{self, GrowRefusal};
use super::hosts::{self, HostInUse};
use super::route::{self, RouteRefusal};
use super::vip::{self, NoServiceAddress};
use super::{
    Change, Command, CreateNetwork, CreateNetworkRefusal, Decision, NetworkRecord, NetworkState, State,
    Timestamp,
};

/// Makes the mesh what documents say. What they do not name stays as it is.
///
/// The outcome has an entry per document, in their order. When one is refused, or nothing but an answer is wanted,
/// nothing changes. Safe to repeat: what is as its document says is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Apply {
    /// The documents, each of which is right in itself.
    pub documents: Vec<Document>,
    /// Only say what would happen.
    pub dry_run: bool,
}

/// Effect of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: it is as the document says.
    Unchanged,
    /// The object is there from now on.
    Created,
    /// The object was there and is another one now.
    Configured,
}

/// Reasons for which a document is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentRefusal {
    /// Two documents about one thing.
    #[error("another document is about {0} too; keep one of them")]
    Twice(DocumentId),
    /// A field has changed that cannot.
    #[error(
        "spec.subnets: network {network} has subnet {fixed}, which cannot be changed to {asked}, but only to a larger one that \
         contains it; remove the network and create it again, or take another name"
    )]
    Subnet {
        /// The network.
        network: NetworkName,
        /// Subnets that it has.
        fixed: Subnets,
        /// Subnets in the document.
        asked: Subnets,
    },
    /// The network does not grow so.
    #[error("spec.subnets: {0}")]
    Grow(#[from] GrowRefusal),
    /// The packets' size has changed: running workloads would keep what they have.
    #[error(
        "spec.mtu: network {network} {}; remove the network and create it again", unchangeable(*.fixed, *.asked)
    )]
    Mtu {
        /// The network.
        network: NetworkName,
        /// MTU that it has, bytes.
        fixed: Option<Mtu>,
        /// MTU in the document, bytes.
        asked: Option<Mtu>,
    },
    /// A new network is not to be had.
    #[error("spec: {0}")]
    Network(#[from] CreateNetworkRefusal),
    /// No network for a service.
    #[error(
        "metadata.network: there is no network {0}; add a document for it, or create it with \
         `sealane network create {0} --subnet CIDR`"
    )]
    NoNetwork(NetworkName),
    /// Nobody would ask for the name of a new service.
    #[error("metadata.name: {name}: {misread}")]
    Misread {
        /// The name.
        name: ServiceName,
        /// The thing that it is taken for.
        misread: Misread,
    },
    /// No address for a new service.
    #[error(transparent)]
    ServiceAddress(#[from] NoServiceAddress),
    /// A host that is not named has workloads.
    #[error(transparent)]
    Hosts(#[from] HostInUse),
    /// A route.
    #[error(transparent)]
    Route(#[from] RouteRefusal),
    /// Instances outside every network.
    #[error(transparent)]
    External(#[from] ExternalRefusal),
    /// An instance speaks something else.
    #[error(
        "spec.ports: port {port} of service {service} is {declared}, but its instance {workload} on {node} \
         speaks {spoken} there; declare {spoken}, or end the instance first"
    )]
    Protocol {
        /// The service.
        service: ServiceName,
        /// The port.
        port: Port,
        /// Protocol in the document.
        declared: Protocol,
        /// Protocol of the instance.
        spoken: Protocol,
        /// The instance.
        workload: WorkloadName,
        /// Host that it runs on.
        node: NodeName,
    },
}

type Decided = Result<Decision<Effect>, DocumentRefusal>;

impl Command for Apply {
    type Outcome = Vec<Result<Effect, DocumentRefusal>>;
    type Refusal = Infallible;

    fn decide(self, state: &State, now: Timestamp) -> Result<Decision<Self::Outcome>, Infallible> {
        let (mut batch, mut seen) = (Batch::of(state), BTreeSet::new());
        let mut order: Vec<(DocumentId, usize)> =
            self.documents.iter().enumerate().map(|(at, document)| (document.id(), at)).collect();
        order.sort_by_key(|&(ref id, at)| (id.kind(), at));
        for (id, at) in order {
            let decided = if seen.insert(id.clone()) {
                decide(&self.documents[at], batch.state(), now, Unsaid::AsItIs)
            } else {
                Err(DocumentRefusal::Twice(id))
            };
            batch.take(at, decided);
        }
        Ok(batch.into_decision(self.dry_run))
    }
}

/// Meaning of a network's document that says nothing of its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsaid {
    /// A new network is strict, and one that is there stays as it is: none of before becomes stricter than its callers can bear.
    AsItIs,
    /// Nobody has chosen, as before there was a choice.
    Undecided,
}

impl Unsaid {
    fn unless(self, said: Option<Mtls>, is: Option<Mtls>) -> Option<Mtls> {
        match self {
            Self::AsItIs => said.or(is),
            Self::Undecided => said,
        }
    }
}

pub(super) fn decide(document: &Document, draft: &State, now: Timestamp, unsaid: Unsaid) -> Decided {
    match document {
        Document::Network(network) => decide_network(network, draft, now, unsaid),
        Document::Service(service) => decide_service(service, draft, None),
        Document::HttpRoute(document) => {
            route::decide(RouteDocument::Http(Arc::new(document.clone())), draft, now)
        }
        Document::GrpcRoute(document) => {
            route::decide(RouteDocument::Grpc(Arc::new(document.clone())), draft, now)
        }
    }
}

fn decide_network(document: &NetworkDocument, draft: &State, now: Timestamp, unsaid: Unsaid) -> Decided {
    let (name, asked) = (document.metadata.name.clone(), document.spec.subnets);
    let mtu = document.spec.mtu;
    let egress = document.spec.egress.into();
    let Some(NetworkState { network: known, changed, .. }) = draft.networks.get(&name) else {
        let hosts = document.spec.hosts.clone();
        let mtls = unsaid.unless(document.spec.mtls, Some(Mtls::Strict));
        let create =
            CreateNetwork { name, hosts, subnet: asked.ipv4, mtu, egress, subnet6: asked.ipv6, mtls };
        return Ok(Decision { changes: create.decide(draft, now)?.changes, outcome: Effect::Created });
    };
    let fixed = Subnets { ipv4: known.subnet, ipv6: known.subnet6 };
    if fixed.ipv6 != asked.ipv6 || !asked.ipv4.to_net().contains(&fixed.ipv4.to_net()) {
        return Err(DocumentRefusal::Subnet { network: name, fixed, asked });
    }
    if let Some(known) = draft.networks.get(&name) {
        grow::check(draft, known, asked.ipv4)?;
    }
    if known.mtu != mtu {
        return Err(DocumentRefusal::Mtu { network: name, fixed: known.mtu, asked: mtu });
    }
    let mtls = unsaid.unless(document.spec.mtls, known.mtls);
    let (hosts, subnet) = (document.spec.hosts.clone(), asked.ipv4);
    let network = Network { egress, mtls, hosts, subnet, ..known.clone() };
    if network == *known {
        return Ok(Decision { changes: vec![], outcome: Effect::Unchanged });
    }
    if network.egress.is_denied() {
        external::check_closing(draft, &name)?;
    }
    let mut changes = hosts::excluded(draft, &name, &network.hosts, now)?;
    changes.push(Change::put(NetworkRecord { network, changed: *changed }));
    Ok(Decision { changes, outcome: Effect::Configured })
}

fn unchangeable(fixed: Option<Mtu>, asked: Option<Mtu>) -> String {
    match (fixed, asked) {
        (None, _) => "follows the MTU of the underlay, and a fixed one cannot be set later".to_owned(),
        (Some(fixed), None) => format!("has an MTU of {fixed} bytes, and cannot follow the underlay's later"),
        (Some(fixed), Some(asked)) => {
            format!("has an MTU of {fixed} bytes, which cannot be changed to {asked} bytes")
        }
    }
}

/// Decides a service's document, which a host has registered or, without `registrar`, somebody has applied.
pub(super) fn decide_service(
    document: &ServiceDocument,
    draft: &State,
    registrar: Option<&NodeName>,
) -> Decided {
    let (name, network) = (&document.metadata.name, &document.metadata.network);
    let Some(state) = draft.networks.get(network) else {
        return Err(DocumentRefusal::NoNetwork(network.clone()));
    };
    check_instances(document, state)?;
    hosts::check_instances(state, name, &document.spec.hosts)?;
    let (known, ports, mtls) = (state.services.get(name), document.ports(), document.spec.mtls);
    let (hosts, external) = (&document.spec.hosts, document.external(registrar.cloned()));
    let same = |known: &Service| known.ports == ports && known.mtls == mtls && known.external == external;
    if known.is_some_and(|known| known.declared && same(known) && known.hosts == *hosts) {
        return Ok(Decision { changes: vec![], outcome: Effect::Unchanged });
    }
    external::check(draft, network, &external)?;
    let (outcome, vip, mut changes) = match known {
        Some(known) if known.declared => (Effect::Configured, known.vip, vec![]),
        // It is there by its instances: it keeps its address, and from now on has a document.
        Some(known) => (Effect::Created, known.vip, vec![]),
        None => {
            let wrong = |misread| DocumentRefusal::Misread { name: name.clone(), misread };
            Misread::check(name.as_str()).map_err(wrong)?;
            let (vip, leased) = vip::lease(state, name)?;
            (Effect::Created, vip, leased)
        }
    };
    let hosts = hosts.clone();
    let service = Service { name: name.clone(), hosts, vip, ports, declared: true, mtls, external };
    changes.push(Change::put_in(network, service));
    Ok(Decision { changes, outcome })
}

/// Instances may offer ports that are declared no longer (nobody is sent there), but not speak otherwise.
fn check_instances(document: &ServiceDocument, state: &NetworkState) -> Result<(), DocumentRefusal> {
    let declared = document.ports();
    for instance in state.instances_of(&document.metadata.name) {
        for offered in &instance.ports {
            let known = declared.iter().find(|port| port.key() == offered.key());
            let Some(declared) = known.filter(|known| !agree(known.protocol, offered.protocol)) else {
                continue;
            };
            return Err(DocumentRefusal::Protocol {
                service: document.metadata.name.clone(),
                port: offered.port,
                declared: declared.protocol,
                spoken: offered.protocol,
                workload: instance.name.clone(),
                node: instance.node.clone(),
            });
        }
    }
    Ok(())
}

/// Returns true if an instance that offers `offered` may stand behind a port that is declared as `declared`.
pub(super) fn agree(declared: Protocol, offered: Protocol) -> bool {
    declared == offered || declared == Protocol::Auto || offered == Protocol::Auto
}

#[cfg(test)]
mod tests;
