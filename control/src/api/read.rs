//! Views of the mesh from here: of the directory and of who is connected.

mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use sealane_proto::document::Document;
use sealane_proto::resource::{NetworkSnapshot, RouteDocument, Workload};
use sealane_proto::types::{NetworkName, NodeName};
use sealane_proto::wire::v1;
use tonic::{Request, Response, Status};

use crate::VERSION;
use crate::ca::{Authority, OwnCertificate};
use crate::census::is_ready;
use crate::core::{NodeRecord, Span, Timestamp, observed};
use crate::fellows::Fellows;
use crate::registry::{AgentPresence, Directory, Registry};
use crate::serve::Leader;
use crate::store::Writability;

/// Serves views. Cheap: nothing here waits for the store.
#[derive(Clone)]
pub(crate) struct ReadApi {
    pub(crate) registry: Arc<Registry>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) own: Arc<OwnCertificate>,
    pub(crate) writes: Writability,
    pub(crate) started: Instant,
    pub(crate) standing: Standing,
    /// The other control planes, if the store may be shared.
    pub(crate) fellows: Option<Fellows>,
}

/// Standing of a control plane among those that share its store.
#[derive(Clone, Debug)]
pub(crate) enum Standing {
    /// None shares it.
    Alone,
    /// The control plane leads.
    Leading,
    /// Another one leads, with this address, as far as is known.
    Standby(Leader),
}

#[tonic::async_trait]
impl v1::read_server::Read for ReadApi {
    async fn list_networks(
        &self,
        _request: Request<v1::ListNetworksRequest>,
    ) -> Result<Response<v1::ListNetworksResponse>, Status> {
        let directory = self.registry.directory();
        let networks = directory.networks.values().map(|network| (&network.snapshot()).into()).collect();
        Ok(Response::new(v1::ListNetworksResponse { networks }))
    }

    async fn list_nodes(
        &self,
        _request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let directory = self.registry.directory();
        let (mut seen, mut behind) = (self.registry.seen(), self.registry.behind());
        behind.extend(self.registry.unconfirmed());
        let mut workloads = workloads_by_node(&directory);
        let nodes = directory.nodes.values().map(|record| {
            let name = &record.node.name;
            let seen = seen.remove(name).unwrap_or_default();
            let networks = directory.carried_by(name);
            v1::NodeView {
                node: Some(place(record)),
                connected: seen.connected,
                version: seen.version,
                workloads: workloads.remove(name).unwrap_or_default(),
                networks: networks.keys().map(ToString::to_string).collect(),
                behind: behind.remove(name).unwrap_or_default().iter().map(ToString::to_string).collect(),
                last_seen_unix_seconds: seen.last.unix(),
                joined_unix_seconds: record.joined.unix(),
                drained: record.drained,
                token: record.token.clone().unwrap_or_default(),
                allowed: record.networks.iter().map(ToString::to_string).collect(),
                // The rest is for agents to tell.
                ..v1::NodeView::default()
            }
        });
        Ok(Response::new(v1::ListNodesResponse { nodes: nodes.collect() }))
    }

    async fn list_services(
        &self,
        request: Request<v1::ListServicesRequest>,
    ) -> Result<Response<v1::ListServicesResponse>, Status> {
        let directory = self.registry.directory();
        let networks = select(&directory, &request.into_inner().network)?;
        let lost = self.registry.lost(SystemTime::now().into());
        let services = networks
            .iter()
            .flat_map(|snapshot| v1::ServiceView::all(snapshot, |workload| is_ready(workload, &lost)));
        Ok(Response::new(v1::ListServicesResponse { services: services.collect() }))
    }

    async fn list_workloads(
        &self,
        request: Request<v1::ListWorkloadsRequest>,
    ) -> Result<Response<v1::ListWorkloadsResponse>, Status> {
        let directory = self.registry.directory();
        let networks = select(&directory, &request.into_inner().network)?;
        let (seen, now) = (self.registry.seen(), SystemTime::now().into());
        let lost = self.registry.lost(now);
        let workloads = networks.iter().flat_map(|snapshot| &snapshot.workloads);
        let drained = |node| directory.nodes.get(node).is_some_and(|record| record.drained);
        let workloads = workloads.map(|workload| {
            let problem = problem(workload, drained(&workload.node), seen.get(&workload.node), now);
            v1::WorkloadView::of(workload, is_ready(workload, &lost), problem)
        });
        Ok(Response::new(v1::ListWorkloadsResponse { workloads: workloads.collect() }))
    }

    async fn list_documents(
        &self,
        request: Request<v1::ListDocumentsRequest>,
    ) -> Result<Response<v1::ListDocumentsResponse>, Status> {
        let directory = self.registry.directory();
        let v1::ListDocumentsRequest { kind, network } = request.into_inner();
        let networks = select(&directory, &network)?;
        let documents = networks.iter().flat_map(|snapshot| documents(snapshot, &directory));
        v1::ListDocumentsResponse::of(&kind, documents).map(Response::new)
    }

    async fn status(
        &self,
        _request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(status::status(self, SystemTime::now().into())))
    }
}

/// The documents of a network, with what there is to say of their objects: routes with labels and annotations, which hosts are not told.
fn documents(snapshot: &NetworkSnapshot, directory: &Directory) -> Vec<(Document, String)> {
    let routes = directory.routes_of(&snapshot.network.name);
    let routes =
        routes.filter_map(|route| Some((route.document.as_ref()?.to_document(), observed(route, directory))));
    let others = snapshot.documents().filter(|document| RouteDocument::of(document).is_none());
    others.map(|document| (document, String::new())).chain(routes).collect()
}

/// View of the control plane that is asked.
pub(super) fn own_view(api: &ReadApi) -> v1::ControlView {
    let (role, store_problem) = match &api.standing {
        Standing::Alone => ("alone", api.writes.problem()),
        Standing::Leading => ("leader", api.writes.problem()),
        Standing::Standby(_) => ("standby", api.fellows.as_ref().and_then(Fellows::store_problem)),
    };
    v1::ControlView {
        role: role.to_owned(),
        version: VERSION.to_owned(),
        generation: Some(api.registry.directory().generation.into()),
        uptime_seconds: api.started.elapsed().as_secs(),
        store_problem: store_problem.unwrap_or_default(),
        ..v1::ControlView::default()
    }
}

/// A host, without an address while another one has that.
fn place(record: &NodeRecord) -> v1::Node {
    let node = v1::Node::from(&record.node);
    match record.displaced {
        Some(_) => v1::Node { underlay: String::new(), underlay_other: String::new(), ..node },
        None => node,
    }
}

/// Copies the named network, or all.
fn select(directory: &Directory, name: &str) -> Result<Vec<NetworkSnapshot>, Status> {
    if name.is_empty() {
        return Ok(directory.networks.values().map(|network| network.snapshot()).collect());
    }
    let name: NetworkName = name.parse().map_err(|error| Status::invalid_argument(format!("{error}")))?;
    let found = directory.networks.get(&name).map(|network| vec![network.snapshot()]);
    found.ok_or_else(|| Status::not_found(format!("there is no network {name}; see `sealane network ls`")))
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn workloads_by_node(directory: &Directory) -> BTreeMap<NodeName, u32> {
    let mut counts = BTreeMap::new();
    for workload in directory.networks.values().flat_map(|network| network.workloads()) {
        *counts.entry(workload.node.clone()).or_default() += 1;
    }
    counts
}

fn problem(workload: &Workload, drained: bool, seen: Option<&AgentPresence>, now: Timestamp) -> String {
    match seen {
        Some(seen) if !seen.connected => format!(
            "its node {node} has been disconnected for {}, so whether it runs is not known; `sealane node drain {node}` \
             keeps new calls away from it",
            Span(now.since(seen.last)),
            node = workload.node
        ),
        None => format!(
            "its node {node} has not connected since this control plane started, so whether it runs is not known; \
             `sealane node drain {node}` keeps new calls away from it",
            node = workload.node
        ),
        Some(_) if drained && workload.service.is_some() => {
            format!("its node {} is drained: new calls go elsewhere", workload.node)
        }
        Some(_) if !workload.ready && workload.service.is_some() => v1::WorkloadView::idle(workload),
        Some(_) => v1::WorkloadView::drained(workload).unwrap_or_default(),
    }
}
