use std::collections::BTreeSet;
use std::net::SocketAddr;

use sealane_base::ready::Readiness;
use sealane_fabric::health::Families;
use sealane_fabric::overlay::{Applied, OverlayError};
use sealane_fabric::seat::Seat;
use sealane_proto::resource::{NetworkSnapshot, Node};
use sealane_proto::types::{Mtu, NodeName, UnderlayAddrs};
use tokio::sync::Semaphore;

use super::*;
use crate::attachment::{AttachmentId, AttachmentSpec};
use crate::disk::{StoredAnchor, StoredProcess};
use crate::host::HostHandle;
use crate::host::core::Pass;
use crate::testing;

/// Networks in memory, of which one takes its time.
#[derive(Debug)]
struct Twin {
    /// Permits, of which a pass of `slow` takes one.
    passes: Semaphore,
    mtu: watch::Sender<Option<Mtu>>,
    underlay: watch::Sender<UnderlayAddrs>,
    doubted: watch::Sender<BTreeSet<NetworkName>>,
}

impl Fabric for Twin {
    async fn program(&self, pass: Pass, _: NodeName) -> Result<Applied, OverlayError> {
        if pass.snapshot.network.name.as_str() == "slow" {
            self.passes.acquire().await.unwrap().forget();
        }
        Ok(Applied::default())
    }

    async fn remove(&self, _: NetworkName) -> Result<(), OverlayError> {
        Ok(())
    }

    async fn audit(&self) -> Result<(), String> {
        Ok(())
    }

    fn learn_control(&self, _: Vec<SocketAddr>) {}

    fn mtu(&self) -> watch::Receiver<Option<Mtu>> {
        self.mtu.subscribe()
    }

    fn underlay(&self) -> watch::Receiver<UnderlayAddrs> {
        self.underlay.subscribe()
    }

    fn doubted(&self) -> watch::Receiver<BTreeSet<NetworkName>> {
        self.doubted.subscribe()
    }
}

/// A running host, and all that it hears from.
struct Host {
    handle: HostHandle,
    twin: Arc<Twin>,
    events: mpsc::Sender<LinkEvent>,
    acks: watch::Receiver<Followed>,
    _task: Task,
    _folder: tempfile::TempDir,
}

impl Host {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str| Folder::open(folder.path().join(name)).unwrap();
        let node =
            Node { name: "host-1".parse().unwrap(), underlay: "192.0.2.1".parse().unwrap(), mtu: None };
        let (mtu, doubted) = (watch::Sender::default(), watch::Sender::default());
        let underlay = watch::Sender::new(node.underlay);
        let twin = Arc::new(Twin { passes: Semaphore::new(0), mtu, underlay, doubted });
        let (events, incoming) = mpsc::channel(64);
        let (followed, acks) = watch::channel(Followed::default());
        let (handle, task) = start(HostParts {
            mesh: Mesh::new(node, 1),
            overlay: twin.clone(),
            folder: open("networks"),
            workloads: open("workloads"),
            reservations: open("reservations"),
            words: open("owners"),
            places: open("node"),
            incarnations: Incarnations::new(open("node"), open("run")),
            metrics: HostMetrics::register(&prometheus::Registry::new()).unwrap(),
            events: incoming,
            report: watch::Sender::default(),
            followed,
            carried: watch::Sender::default(),
            ready: Readiness::default().part("networks"),
        });
        Self { handle, twin, events, acks, _task: task, _folder: folder }
    }

    async fn tell(&self, network: &str, subnet: &str, block: &str) {
        let mut snapshot: NetworkSnapshot = testing::snapshot();
        snapshot.network.name = network.parse().unwrap();
        snapshot.network.subnet = subnet.parse().unwrap();
        snapshot.blocks = vec![testing::block(Some("host-1"), block)];
        self.events.send(LinkEvent::State(Box::new(snapshot))).await.unwrap();
    }

    async fn admit(&self, network: &str) -> AttachmentId {
        let spec = AttachmentSpec {
            network: network.parse().unwrap(),
            name: "api".parse().unwrap(),
            service: None,
            ports: vec![],
            address: None,
            mac: None,
            sidecar: false,
            weight: Default::default(),
            health: None,
            aliases: Default::default(),
            seat: Seat::default(),
            reserved: None,
        };
        let anchor = StoredAnchor::Process(StoredProcess { pid: 1, started: 1, boot: "b".to_owned() });
        let admitted = self.handle.admit(vec![spec], anchor).await.unwrap().unwrap();
        admitted[0].id()
    }

    async fn carries(&self, network: &str) {
        let (mut networks, name) = (self.handle.views.networks.clone(), network.parse().unwrap());
        networks.wait_for(|networks| networks.contains_key(&name)).await.unwrap();
    }
}

#[tokio::test]
async fn a_network_whose_kernel_is_slow_holds_up_neither_admission_nor_readiness_of_others() {
    let mut host = Host::start();
    host.tell("slow", "10.43.0.0/16", "10.43.0.0/24").await;
    host.tell("shop", "10.42.0.0/16", "10.42.0.0/24").await;
    host.carries("shop").await;
    let api = host.admit("shop").await;
    let mut known = host.handle.views.networks.borrow()[&api.network].clone();
    host.handle.set_ready(api.clone(), Families::both(true)).await.unwrap();
    let is_ready = |network: &Arc<crate::host::HostNetwork>| {
        network.snapshot.workloads.iter().any(|workload| workload.name == api.workload && workload.ready)
    };
    known.wait_for(is_ready).await.unwrap();
    host.acks.wait_for(|acks| acks.applied.contains_key(&api.network)).await.unwrap();
    let slow = "slow".parse().unwrap();
    assert!(!host.handle.views.networks.borrow().contains_key(&slow), "it is not set up");
    assert!(!host.acks.borrow().applied.contains_key(&slow));
    host.twin.passes.add_permits(1);
    host.carries("slow").await;
}

#[tokio::test]
async fn who_lets_go_of_a_port_hears_of_it_when_no_pass_is_under_way_that_would_make_it_again() {
    let host = Host::start();
    host.tell("slow", "10.43.0.0/16", "10.43.0.0/24").await;
    host.twin.passes.add_permits(1);
    host.carries("slow").await;
    // Its pass is under way from now on.
    let id = host.admit("slow").await;
    let handle = host.handle.clone();
    let mut detached = Box::pin(handle.detach(id.clone()));
    // Requests are answered in turn, but for those that wait.
    let end = host.handle.end(id);
    tokio::select! {
        biased;
        _ = &mut detached => panic!("a pass that would make the port again is under way"),
        ended = end => drop(ended.unwrap()),
    }
    host.twin.passes.add_permits(1);
    detached.await.unwrap();
}
