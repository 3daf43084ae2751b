//! Questions about this host's state, answered whether control is there or not.

mod channels;
mod others;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sealane_fabric::overlay::Overlay;
use sealane_proto::client::TlsIdentity;
use sealane_proto::resource::{AddressSpace, NetworkContent, NetworkSnapshot, Node, Workload};
use sealane_proto::types::{ExternalAddr, NodeName, TrustDomain};
use sealane_proto::wire::v1;
use sealane_proto::wire::v1::read_server::Read;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::attachment::AttachmentId;
use crate::certs::{Certs, key::Validity};
use crate::host::{HostNetwork, HostViews, Outside, OutsideCheck};
use crate::liveness::{PeerViews, Reach};
use crate::matrix::Matrix;
use crate::peer::Channels;
use crate::sidecar::Registry;
use crate::workload::Workloads;
use others::Unreached;

/// The service.
#[derive(Debug)]
pub(crate) struct ReadApi {
    /// Workloads that run here.
    pub(crate) workloads: Arc<Workloads>,
    /// Name of this host.
    pub(crate) node: NodeName,
    /// The mesh.
    pub(crate) trust_domain: TrustDomain,
    /// The program's version.
    pub(crate) version: &'static str,
    /// Start time of the agent.
    pub(crate) started: Instant,
    /// The node's own identity.
    pub(crate) identity: watch::Receiver<Arc<TlsIdentity>>,
    /// Views of the host.
    pub(crate) views: HostViews,
    /// The workloads' certificates.
    pub(crate) certs: Arc<Certs>,
    /// The sidecars, which know what calls come to.
    pub(crate) sidecars: Arc<Registry>,
    /// The kernel, and what somebody else changed of it.
    pub(crate) overlay: Arc<Overlay>,
    /// Reason for which metrics are not served at the underlay address, while they are not.
    pub(crate) metrics_problem: watch::Receiver<Option<String>>,
    /// The channels to other hosts.
    pub(crate) channels: watch::Receiver<Channels>,
    /// The hosts that share a network with this one, as echoes show them.
    pub(crate) peers: watch::Receiver<Arc<PeerViews>>,
    /// The ways between hosts, as they see them.
    pub(crate) matrix: Arc<Matrix>,
}

/// Number of instances that are looked into when somebody asks why they are not ready.
const MOST_IDLE: usize = 50;

/// Longest wait for what control says first of other hosts.
const FIRST_WORD: Duration = Duration::from_secs(1);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Read for ReadApi {
    async fn list_networks(
        &self,
        _request: Request<v1::ListNetworksRequest>,
    ) -> Answer<v1::ListNetworksResponse> {
        let networks = self
            .networks("")
            .await?
            .iter()
            .map(|host_network| host_network.snapshot.as_ref().into())
            .collect();
        Ok(Response::new(v1::ListNetworksResponse { networks }))
    }

    async fn list_nodes(&self, _request: Request<v1::ListNodesRequest>) -> Answer<v1::ListNodesResponse> {
        let networks = self.networks("").await?;
        self.await_first_word().await;
        let unreached = self.unreached(&networks).await;
        let nodes = self.views_of_nodes(&networks, &unreached).into_values().collect();
        Ok(Response::new(v1::ListNodesResponse { nodes }))
    }

    async fn list_services(
        &self,
        request: Request<v1::ListServicesRequest>,
    ) -> Answer<v1::ListServicesResponse> {
        let networks = self.networks(&request.into_inner().network).await?;
        let lost = self.views.link.borrow().lost.clone().unwrap_or_default();
        let is_ready = |workload: &Workload| workload.ready && !lost.contains_key(&workload.node);
        let services = networks.iter();
        let services =
            services.flat_map(|host_network| v1::ServiceView::all(&host_network.snapshot, is_ready));
        let outside = self.views.outside.borrow().clone();
        let services = services.map(|view| with_all(view, &outside)).collect();
        Ok(Response::new(v1::ListServicesResponse { services }))
    }

    async fn list_workloads(
        &self,
        request: Request<v1::ListWorkloadsRequest>,
    ) -> Answer<v1::ListWorkloadsResponse> {
        let networks = self.networks(&request.into_inner().network).await?;
        let reported = self.views.reported.borrow().clone();
        let (unreached, lost) = (self.unreached(&networks).await, self.views.link.borrow().lost.clone());
        let lost = lost.unwrap_or_default();
        let (idle, owners) = (self.idle(&networks).await, self.workloads.beginnings());
        let unreachable = self.views.unreachable.borrow().clone();
        let view = |workload: &Workload, hindrance: Option<&String>| {
            let id = AttachmentId::of(workload);
            let own = workload.node == self.node;
            let refused = || reported.refusal(&id).map(|refused| refused.reason.clone());
            let refused = own.then(|| refused().or_else(|| self.workloads.trouble_of(&id))).flatten();
            let gone = lost.contains_key(&workload.node);
            let gone = gone.then(|| format!("its node {} is lost, control says", workload.node));
            let silent = || unreached.iter().find(|one| one.to == id).map(Unreached::words);
            let hindered = hindrance
                .filter(|_| own)
                .map(|why| format!("network {} cannot be set up on this host: {why}", workload.network));
            let away = unreachable.contains(&workload.node);
            let away = away.then(|| format!("its node {} cannot be reached from this host", workload.node));
            let other = away.or(gone.clone()).or(hindered);
            let problem = refused.or(other).or_else(|| idle.get(&id).cloned()).or_else(silent);
            let problem = problem.or_else(|| v1::WorkloadView::drained(workload));
            let waits = !own && !workload.ready && workload.service.is_some();
            let problem = problem.or_else(|| waits.then(|| v1::WorkloadView::idle(workload)));
            let problem = problem.unwrap_or_default();
            let ready = workload.ready && gone.is_none();
            let begun_by = owners.get(&id).filter(|_| own).copied().unwrap_or_default().to_owned();
            v1::WorkloadView { begun_by, ..v1::WorkloadView::of(workload, ready, problem) }
        };
        let workloads = networks.iter().flat_map(|host_network| {
            let (known, view) = (host_network.snapshot.workloads.iter(), &view);
            known.map(move |workload| view(workload, host_network.hindrance.as_ref()))
        });
        Ok(Response::new(v1::ListWorkloadsResponse { workloads: workloads.collect() }))
    }

    async fn list_documents(
        &self,
        request: Request<v1::ListDocumentsRequest>,
    ) -> Answer<v1::ListDocumentsResponse> {
        let v1::ListDocumentsRequest { kind, network } = request.into_inner();
        let networks = self.networks(&network).await?;
        let outside = self.views.outside.borrow().clone();
        let whole: Vec<_> =
            networks.iter().map(|host_network| whole(&host_network.snapshot, &outside)).collect();
        let documents =
            whole.iter().flat_map(|snapshot| snapshot.documents()).map(|document| (document, String::new()));
        v1::ListDocumentsResponse::of(&kind, documents).map(Response::new)
    }

    async fn status(&self, _request: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        let networks = self.networks("").await?;
        let unreached = self.unreached(&networks).await;
        let nodes = self.views_of_nodes(&networks, &unreached);
        let link = self.views.link.borrow().clone();
        let sum = |of: fn(&NetworkSnapshot) -> usize| -> u32 {
            count(networks.iter().map(|host_network| of(&host_network.snapshot)).sum())
        };
        let leaf = self.identity.borrow().chain.first().map(|leaf| Validity::of(leaf));
        let own_end = leaf.and_then(Result::ok).map_or(UNIX_EPOCH, |validity| validity.not_after);
        let own = (format!("spiffe://{}/node/{}", self.trust_domain, self.node), own_end);
        let workloads = self.certs.expiries().into_iter().map(|(id, end)| (id.to_string(), end));
        let certificates = std::iter::once(own).chain(workloads);
        let (peers, peers_connected) = channels::counts(&self.channels.borrow());
        Ok(Response::new(v1::StatusResponse {
            role: "agent".to_owned(),
            version: self.version.to_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
            trust_domain: self.trust_domain.to_string(),
            node: self.node.to_string(),
            control: link.address.as_ref().map(ToString::to_string).unwrap_or_default(),
            control_connected: link.channel.is_some(),
            generation: None,
            certificates: certificates.map(|(identity, end)| certificate_view(identity, end)).collect(),
            nodes: count(nodes.len()),
            nodes_connected: 0,
            networks: count(networks.len()),
            services: sum(|snapshot| snapshot.services.len()),
            workloads: sum(|snapshot| snapshot.workloads.len()),
            problems: self.explained(self.problems(&networks, &unreached)).await,
            removed: link.refused,
            notes: self.notes(&networks),
            peers: count(peers),
            leader: String::new(),
            peers_connected: count(peers_connected),
        }))
    }
}

impl ReadApi {
    /// The networks that this host carries: all, or the one of this name. An agent that has just begun answers when it
    /// has them all.
    async fn networks(&self, name: &str) -> Result<Vec<Arc<HostNetwork>>, Status> {
        let mut begun = self.views.begun.clone();
        let begun = begun.wait_for(|begun| *begun).await.map(drop);
        begun.map_err(|_| Status::unavailable("the agent is ending"))?;
        let networks = self.views.networks.borrow();
        let wanted = networks.iter().filter(|(known, _)| name.is_empty() || known.as_str() == name);
        let found: Vec<_> = wanted.map(|(_, host_network)| host_network.borrow().clone()).collect();
        if found.is_empty() && !name.is_empty() {
            return Err(Status::not_found(format!(
                "there is no network {name} on host {}; see `sealane network ls`",
                self.node
            )));
        }
        Ok(found)
    }

    /// Collects things to know or decide, with nothing wrong.
    fn notes(&self, networks: &[Arc<HostNetwork>]) -> Vec<String> {
        let undecided = networks.iter().filter_map(|host_network| host_network.snapshot.network.undecided());
        let known = networks.iter().flat_map(|host_network| &host_network.snapshot.workloads);
        let own = known.filter(|workload| workload.node == self.node);
        let drained = own
            .filter_map(|own| Some(format!("workload {}: {}", own.shown(), v1::WorkloadView::drained(own)?)));
        let lost = self.views.link.borrow().lost.clone().unwrap_or_default();
        let unreachable = self.views.unreachable.borrow().clone();
        let told = |name: &NodeName| lost.contains_key(name) || unreachable.contains(name);
        let channels = channels::notes(&self.channels.borrow(), told, SystemTime::now());
        undecided.chain(self.overlay.recent_drift()).chain(drained.take(MOST_IDLE)).chain(channels).collect()
    }

    /// This host where it is now.
    fn own(&self) -> Node {
        Node { name: self.node.clone(), underlay: *self.overlay.underlay().borrow(), mtu: None }
    }

    /// Collects the problems of this host, and those that it sees at others.
    fn problems(&self, networks: &[Arc<HostNetwork>], unreached: &[Unreached]) -> Vec<String> {
        let link = self.views.link.borrow().clone();
        if link.refused {
            // All else that is wrong follows from that.
            return vec![link.problem.clone()];
        }
        let mut problems = self.views.complaints.borrow().clone();
        if link.channel.is_none() {
            let why = link.why_silent();
            problems.push(format!(
                "control is not there ({why}); what runs goes on, other hosts learn by their channels what starts or ends here, \
                 and new services wait"
            ));
        }
        if let Some(pair) = self.views.clocks.borrow().filter(|pair| pair.is_off()) {
            problems.push(format!(
                "this host's clock {pair}, compared with control's; set it right (NTP), or certificates will look \
                 as if they had ended or not begun"
            ));
        }
        problems.extend(self.metrics_problem.borrow().clone());
        problems.extend(self.overlay.lasting_drift());
        problems.extend(self.overlay.obstacles());
        let others = networks.iter().flat_map(|host_network| &host_network.snapshot.nodes);
        let others = others.filter(|node| node.name != self.node).count();
        let underlay = self.own().underlay;
        if underlay.first().to_ip().is_loopback() && others > 0 {
            problems.push(format!(
                "this host's underlay address is {underlay}, where no other host reaches it; start its agent again with --underlay \
                 and an interface or address that others reach, as `ip -br addr` shows them"
            ));
        }
        problems.extend(apart(&self.own(), networks.iter().map(|known| &*known.snapshot)));
        problems.extend(self.workloads.complaints());
        let snapshots = networks.iter().map(|host_network| &host_network.snapshot);
        problems.extend(snapshots.filter_map(|known| AddressSpace::of(known).shortage(&known.network)));
        for refused in &self.views.reported.borrow().refused {
            problems.push(format!("workload {}/{}: {}", refused.network, refused.workload, refused.reason));
        }
        let now = SystemTime::now();
        let shared = |name: &NodeName| {
            // One whose address another host has holds blocks, and is no host that can be reached.
            let mut blocks = networks.iter().flat_map(|host_network| &host_network.snapshot.blocks);
            blocks.any(|block| block.node.as_ref() == Some(name))
        };
        // A host that cannot be reached from here has one sentence: what follows from that is no further problem.
        let is_away = self.is_out_of_reach();
        let lost = link.lost.iter().flatten().filter(|(name, _)| shared(name) && !is_away(name));
        problems.extend(lost.map(|(name, since)| others::lost(name, *since, now)));
        let unreachable = self.views.unreachable.borrow().clone();
        let is_lost = |name: &NodeName| link.lost.as_ref().is_some_and(|lost| lost.contains_key(name));
        let told = |name: &NodeName| is_lost(name) || unreachable.contains(name);
        problems.extend(channels::problems(&self.channels.borrow(), told, now));
        let unreached: Vec<Unreached> = unreached.iter().filter(|one| !is_away(&one.node)).cloned().collect();
        problems.extend(others::sentences(&unreached, &self.node));
        problems
    }

    /// Adds to what is said of hosts that answer no echoes what their channels tell.
    async fn explained(&self, problems: Vec<String>) -> Vec<String> {
        let is_away = self.is_out_of_reach();
        let hosts: Vec<NodeName> = self.peers.borrow().keys().filter(|name| is_away(name)).cloned().collect();
        let ways = self.matrix.ways_to(&hosts).await;
        problems.into_iter().map(|problem| words::explained(problem, &ways)).collect()
    }

    /// Tells the hosts that cannot be reached from here now from those that can.
    fn is_out_of_reach(&self) -> impl Fn(&NodeName) -> bool + use<> {
        let peers = self.peers.borrow().clone();
        move |node| peers.get(node).is_some_and(|peer| peer.reach == Reach::Unreachable)
    }

    /// Finds the reasons for which instances on this host are not ready, of the first so many.
    async fn idle(&self, networks: &[Arc<HostNetwork>]) -> BTreeMap<AttachmentId, String> {
        let all = networks.iter().flat_map(|host_network| &host_network.snapshot.workloads);
        let idle = all.filter(|one| one.node == self.node && !one.ready);
        let mut reasons = BTreeMap::new();
        for workload in idle.take(MOST_IDLE) {
            let mut of = networks.iter().map(|host_network| &host_network.snapshot.network);
            let subnet6 = of.find(|network| network.name == workload.network).and_then(|known| known.subnet6);
            let reason = self.workloads.why_idle(workload, subnet6).await;
            if !reason.is_empty() {
                reasons.insert(AttachmentId::of(workload), reason);
            }
        }
        reasons
    }

    /// Waits until control has told of other hosts, as it does when a stream comes up; not for one that does not tell.
    async fn await_first_word(&self) {
        let mut link = self.views.link.clone();
        let told = link.wait_for(|link| link.channel.is_none() || link.lost.is_some());
        // Whoever asks is shown what is known, at the latest then.
        let _ = tokio::time::timeout(FIRST_WORD, told).await;
    }

    /// The instances that calls of this host's workloads do not reach now.
    async fn unreached(&self, networks: &[Arc<HostNetwork>]) -> Vec<Unreached> {
        let troubles = self.sidecars.troubles().await;
        others::unreached(&troubles, networks.iter().map(|host_network| host_network.snapshot.as_ref()))
    }

    /// The hosts that share a network with this one.
    fn views_of_nodes(
        &self,
        networks: &[Arc<HostNetwork>],
        unreached: &[Unreached],
    ) -> BTreeMap<String, v1::NodeView> {
        let lost = self.views.link.borrow().lost.clone();
        let peers = self.peers.borrow().clone();
        let mut views: BTreeMap<String, v1::NodeView> = BTreeMap::new();
        let own = v1::NodeView {
            node: Some((&self.own()).into()),
            version: self.version.to_owned(),
            connected: self.views.control.borrow().is_some(),
            ..Default::default()
        };
        views.insert(self.node.to_string(), own);
        for host_network in networks {
            let snapshot = &host_network.snapshot;
            for node in &snapshot.nodes {
                let view = views.entry(node.name.to_string()).or_default();
                view.node = Some(node.into());
                if node.name != self.node {
                    let since = lost.as_ref().map(|lost| lost.get(&node.name));
                    view.by_hearsay = since.is_none();
                    view.connected = since.is_some_and(|since| since.is_none());
                    view.last_seen_unix_seconds = since.flatten().copied().flatten().map_or(0, unix_seconds);
                    let silent = unreached.iter().find(|one| one.node == node.name);
                    view.unreached = silent.map(Unreached::words).unwrap_or_default();
                    if let Some(peer) = peers.get(&node.name) {
                        peer.show(view);
                    }
                }
                view.drained |= snapshot.drained.contains(&node.name);
                view.networks.push(snapshot.network.name.to_string());
                let here = snapshot.workloads.iter().filter(|workload| workload.node == node.name).count();
                view.workloads += count(here);
            }
        }
        for (name, view) in self.views_of_away() {
            views.entry(name.to_string()).or_insert(view);
        }
        let channels = self.channels.borrow();
        views.values_mut().for_each(|view| channels::describe(view, &channels));
        views
    }

    /// The hosts to which nothing is sent, as another one is where they were.
    fn views_of_away(&self) -> Vec<(NodeName, v1::NodeView)> {
        let (peers, unreachable) =
            (self.views.peers.borrow().clone(), self.views.unreachable.borrow().clone());
        let view = |name: &NodeName| {
            let peer = peers.get(name)?;
            let node = Node { name: name.clone(), underlay: peer.underlay, mtu: None };
            let networks = peer.networks.iter().map(ToString::to_string).collect();
            let reach = Reach::Unreachable.word().to_owned();
            Some((
                name.clone(),
                v1::NodeView {
                    node: Some((&node).into()),
                    networks,
                    reach,
                    by_hearsay: true,
                    ..Default::default()
                },
            ))
        };
        unreachable.iter().filter_map(view).collect()
    }
}

/// Counts instances outside every network that are left out here as well.
fn with_all(mut view: v1::ServiceView, outside: &[OutsideCheck]) -> v1::ServiceView {
    let Some(service) = &view.service else { return view };
    let all = instances(outside, &view.network, &service.name).map(|instance| instance.to_string());
    view.failing = all.filter(|instance| !service.external.contains(instance)).collect();
    view.instances += count(view.failing.len());
    view
}

/// The network with all its instances outside every network.
fn whole(snapshot: &NetworkSnapshot, outside: &[OutsideCheck]) -> NetworkSnapshot {
    let mut snapshot = snapshot.clone();
    let NetworkContent { network, services, .. } = &mut snapshot.content;
    for service in services.iter_mut().filter(|service| service.declared) {
        let (network, name) = (network.name.as_str(), service.name.as_str());
        service.external.instances = instances(outside, network, name).collect();
    }
    snapshot
}

/// Finds the instances outside every network that a service has.
fn instances(outside: &[OutsideCheck], network: &str, service: &str) -> impl Iterator<Item = ExternalAddr> {
    let known = outside.iter().map(|known| &known.outside);
    let of = move |of: &&Outside| of.network.as_str() == network && of.service.as_str() == service;
    known.filter(of).map(|known| known.instance)
}

fn certificate_view(identity: String, end: SystemTime) -> v1::CertificateView {
    v1::CertificateView { identity, expires_unix_seconds: unix_seconds(end) }
}

fn unix_seconds(instant: SystemTime) -> u64 {
    instant.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Names the hosts that carry a network with this one and have no family in common with it.
fn apart<'a>(own: &Node, networks: impl Iterator<Item = &'a NetworkSnapshot>) -> Vec<String> {
    let apart = |snapshot: &'a NetworkSnapshot| {
        let others = snapshot.nodes.iter().filter(|node| node.name != own.name);
        let mut apart = others.filter(|node| own.underlay.way_to(node.underlay).is_none());
        let (other, network) = (apart.next()?, &snapshot.network.name);
        let (mine, theirs) = (own.underlay.first().family(), other.underlay.first().family());
        let more = match apart.count() {
            0 => String::new(),
            more => format!(", as for {more} more"),
        };
        Some(format!(
            "node {} carries network {network} at {}, and this host is at {}: nothing goes between them{more}; start the agent of \
             this host again with --underlay {} --underlay and an {theirs} address, or that of {} with an {mine} one besides its own",
            other.name,
            other.underlay,
            own.underlay,
            own.underlay.first(),
            other.name
        ))
    };
    networks.filter_map(apart).collect()
}
