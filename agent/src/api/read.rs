//! What this host knows, whether control is there or not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use sealane_proto::client::TlsIdentity;
use sealane_proto::resource::{NetworkSnapshot, Node};
use sealane_proto::types::TrustDomain;
use sealane_proto::wire::v1;
use sealane_proto::wire::v1::read_server::Read;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::certs::{Certs, key::Validity};
use crate::host::{Effective, HostViews};
use crate::sidecar::Key;
use crate::workload::Workloads;

/// The service.
#[derive(Debug)]
pub(crate) struct ReadApi {
    /// What runs here.
    pub(crate) workloads: Arc<Workloads>,
    /// This host.
    pub(crate) node: Node,
    /// The mesh.
    pub(crate) trust_domain: TrustDomain,
    /// The program's version.
    pub(crate) version: &'static str,
    /// When the agent started.
    pub(crate) started: Instant,
    /// The node's own identity.
    pub(crate) identity: watch::Receiver<Arc<TlsIdentity>>,
    /// What the host shows.
    pub(crate) views: HostViews,
    /// The workloads' certificates.
    pub(crate) certs: Arc<Certs>,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Read for ReadApi {
    async fn list_networks(
        &self,
        _request: Request<v1::ListNetworksRequest>,
    ) -> Answer<v1::ListNetworksResponse> {
        let networks =
            self.networks("").await?.iter().map(|effective| effective.snapshot.as_ref().into()).collect();
        Ok(Response::new(v1::ListNetworksResponse { networks }))
    }

    async fn list_nodes(&self, _request: Request<v1::ListNodesRequest>) -> Answer<v1::ListNodesResponse> {
        let nodes = self.nodes().await?.into_values().collect();
        Ok(Response::new(v1::ListNodesResponse { nodes }))
    }

    async fn list_services(
        &self,
        request: Request<v1::ListServicesRequest>,
    ) -> Answer<v1::ListServicesResponse> {
        let networks = self.networks(&request.into_inner().network).await?;
        let services =
            networks.iter().flat_map(|effective| v1::ServiceView::all(&effective.snapshot)).collect();
        Ok(Response::new(v1::ListServicesResponse { services }))
    }

    async fn list_workloads(
        &self,
        request: Request<v1::ListWorkloadsRequest>,
    ) -> Answer<v1::ListWorkloadsResponse> {
        let networks = self.networks(&request.into_inner().network).await?;
        let reported = self.views.reported.borrow().clone();
        let view = |workload: &sealane_proto::resource::Workload| {
            let key = Key { network: workload.network.clone(), workload: workload.name.clone() };
            let own = workload.node == self.node.name;
            let problem = own.then(|| reported.refusal(&key)).flatten().unwrap_or_default().to_owned();
            v1::WorkloadView { workload: Some(workload.into()), problem }
        };
        let workloads = networks.iter().flat_map(|effective| effective.snapshot.workloads.iter().map(view));
        Ok(Response::new(v1::ListWorkloadsResponse { workloads: workloads.collect() }))
    }

    async fn list_documents(
        &self,
        request: Request<v1::ListDocumentsRequest>,
    ) -> Answer<v1::ListDocumentsResponse> {
        let v1::ListDocumentsRequest { kind, network } = request.into_inner();
        let networks = self.networks(&network).await?;
        let documents = networks.iter().flat_map(|effective| effective.snapshot.documents());
        v1::ListDocumentsResponse::of(&kind, documents).map(Response::new)
    }

    async fn status(&self, _request: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        let (networks, nodes) = (self.networks("").await?, self.nodes().await?);
        let link = self.views.link.borrow().clone();
        let sum = |of: fn(&NetworkSnapshot) -> usize| -> u32 {
            count(networks.iter().map(|effective| of(&effective.snapshot)).sum())
        };
        let mut problems = self.views.complaints.borrow().clone();
        if link.refused {
            problems.push(link.problem.clone());
        } else if link.channel.is_none() {
            let why = link.why_silent();
            problems.push(format!("control is not there ({why}); what runs goes on, new services wait"));
        }
        if let Some(pair) = self.views.clocks.borrow().filter(|pair| pair.is_off()) {
            problems.push(format!(
                "this host's clock {pair}, compared with control's; set it right (NTP), or certificates will look \
                 as if they had ended or not begun"
            ));
        }
        problems.extend(self.workloads.complaints());
        for refused in &self.views.reported.borrow().refused {
            problems.push(format!("workload {}/{}: {}", refused.network, refused.workload, refused.reason));
        }
        let leaf = self.identity.borrow().chain.first().map(|leaf| Validity::of(leaf));
        let own_end = leaf.and_then(Result::ok).map_or(UNIX_EPOCH, |validity| validity.not_after);
        let own = (format!("spiffe://{}/node/{}", self.trust_domain, self.node.name), own_end);
        let workloads = self.certs.expiries().into_iter().map(|(id, end)| (id.to_string(), end));
        let certificates = std::iter::once(own).chain(workloads);
        Ok(Response::new(v1::StatusResponse {
            role: "agent".to_owned(),
            version: self.version.to_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
            trust_domain: self.trust_domain.to_string(),
            node: self.node.name.to_string(),
            control: link.address.as_ref().map(ToString::to_string).unwrap_or_default(),
            control_connected: link.channel.is_some(),
            generation: None,
            certificates: certificates.map(|(identity, end)| certificate_view(identity, end)).collect(),
            nodes: count(nodes.len()),
            nodes_connected: 0,
            networks: count(networks.len()),
            services: sum(|snapshot| snapshot.services.len()),
            workloads: sum(|snapshot| snapshot.workloads.len()),
            problems,
        }))
    }
}

impl ReadApi {
    /// The networks that this host carries: all, or the one of this name. An agent that has just begun answers when it
    /// has them all.
    async fn networks(&self, name: &str) -> Result<Vec<Arc<Effective>>, Status> {
        let mut begun = self.views.begun.clone();
        let begun = begun.wait_for(|begun| *begun).await.map(drop);
        begun.map_err(|_| Status::unavailable("the agent is ending"))?;
        let networks = self.views.networks.borrow();
        let wanted = networks.iter().filter(|(known, _)| name.is_empty() || known.as_str() == name);
        let found: Vec<_> = wanted.map(|(_, effective)| effective.borrow().clone()).collect();
        if found.is_empty() && !name.is_empty() {
            return Err(Status::not_found(format!(
                "network {name} is not carried by host {}",
                self.node.name
            )));
        }
        Ok(found)
    }

    /// The hosts that share a network with this one.
    async fn nodes(&self) -> Result<BTreeMap<String, v1::NodeView>, Status> {
        let mut views: BTreeMap<String, v1::NodeView> = BTreeMap::new();
        let own = v1::NodeView {
            node: Some((&self.node).into()),
            version: self.version.to_owned(),
            connected: self.views.control.borrow().is_some(),
            ..Default::default()
        };
        views.insert(self.node.name.to_string(), own);
        for effective in self.networks("").await? {
            let snapshot = &effective.snapshot;
            for node in &snapshot.nodes {
                let view = views.entry(node.name.to_string()).or_default();
                view.node = Some(node.into());
                view.by_hearsay = node.name != self.node.name;
                view.drained |= snapshot.drained.contains(&node.name);
                view.networks.push(snapshot.network.name.to_string());
                let here = snapshot.workloads.iter().filter(|workload| workload.node == node.name).count();
                view.workloads += count(here);
            }
        }
        Ok(views)
    }
}

fn certificate_view(identity: String, end: SystemTime) -> v1::CertificateView {
    let expires_unix_seconds = end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    v1::CertificateView { identity, expires_unix_seconds }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
