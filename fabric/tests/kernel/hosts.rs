//! Hosts, workloads and commands in their namespaces. Everything ends with the test's thread: mounts are in a
//! mount namespace of its own, on a tmpfs, and namespaces live by their handles.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Output};
use std::sync::Arc;

use sealane_fabric::Attachment;
use sealane_fabric::netlink::{LinkRequest, Socket, VXLAN_PORT};
use sealane_fabric::overlay::{Applied, Overlay, OverlayConfig, OverlayError, Reason};
use sealane_fabric::seat::Seat;
use sealane_proto::resource::{Block, Egress, Network, NetworkContent, NetworkSnapshot, Node, Workload};
use sealane_proto::types::{Generation, MacAddr, NodeName, Vni};
use sealane_sys::hop::Hopper;
use sealane_sys::spawn::SpawnExt;
use sealane_sys::{NetNs, mounts};

pub(crate) struct Host {
    pub(crate) ns: NetNs,
    pub(crate) hopper: Arc<Hopper>,
    pub(crate) registry: prometheus::Registry,
    pub(crate) overlay: Overlay,
    pub(crate) node: NodeName,
    pub(crate) local: Vec<Attachment>,
}

pub(crate) struct Hosts {
    pub(crate) a: Host,
    pub(crate) b: Host,
    pub(crate) network: Network,
}

/// Two hosts, a and b, on one wire: 192.0.2.1 and 192.0.2.2 on devices named `under0`.
pub(crate) fn two_hosts() -> Hosts {
    isolate();
    let (a, b) = (NetNs::anonymous().unwrap(), NetNs::anonymous().unwrap());
    let hopper = Hopper::start().unwrap();
    let peer = LinkRequest::named("under0").in_namespace(&b);
    let wire = LinkRequest::named("under0").veth(peer);
    Socket::open(&hopper, &a).unwrap().request(wire.create(), || "join the hosts".into()).unwrap();
    for (ns, last) in [(&a, 1), (&b, 2)] {
        // IPv6 would chat on the wire.
        sh(ns, "sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
        sh(
            ns,
            &format!(
                "ip addr add 192.0.2.{last}/24 dev under0 && ip link set under0 up && ip link set lo up"
            ),
        );
    }
    let network = Network {
        name: "shop".parse().unwrap(),
        hosts: Default::default(),
        subnet: "10.42.0.0/16".parse().unwrap(),
        vni: Vni::FIRST,
        mtu: None,
        egress: Egress::Allow,
        subnet6: None,
        mtls: None,
    };
    Hosts {
        a: Host::start(a, "a", 1, "/tmp/a", VXLAN_PORT),
        b: Host::start(b, "b", 2, "/tmp/b", VXLAN_PORT),
        network,
    }
}

/// A mount namespace and a /tmp of the test's own.
pub(crate) fn isolate() {
    mounts::unshare_mounts().expect("these tests need root");
    mounts::tmpfs(Path::new("/tmp"), "mode=1777").unwrap();
}

impl Host {
    /// An agent's overlay on the host in `ns`, whose underlay address ends with `last`.
    pub(crate) fn start(ns: NetNs, name: &str, last: u8, run_dir: &str, vxlan_port: u16) -> Self {
        Self::start_at(ns, name, IpAddr::from([192, 0, 2, last]), run_dir, vxlan_port)
    }

    /// The same, with any underlay address.
    pub(crate) fn start_at(ns: NetNs, name: &str, underlay: IpAddr, run_dir: &str, vxlan_port: u16) -> Self {
        let config = OverlayConfig {
            run_dir: run_dir.into(),
            underlay: underlay.into(),
            vxlan_port,
            metrics_port: 9464,
            peer_port: 7444,
        };
        let registry = prometheus::Registry::new();
        // Hopper and overlay take the namespace of the thread they are started by for the host's.
        let (hopper, overlay) = std::thread::scope(|scope| {
            let start = || {
                ns.enter().unwrap();
                let hopper = Arc::new(Hopper::start().unwrap());
                let overlay = Overlay::new(config, hopper.clone(), &registry).unwrap();
                (hopper, overlay)
            };
            scope.spawn(start).join().unwrap()
        });
        Self { ns, hopper, registry, overlay, node: name.parse().unwrap(), local: vec![] }
    }

    /// Attaches a workload with an address ending with `last` and the MAC that goes with `mac`.
    pub(crate) async fn attach(&mut self, network: &Network, name: &str, last: u8, mac: u8) -> NetNs {
        self.attach_local(network, self.local(network, name, last, mac)).await
    }

    pub(crate) async fn attach_local(&mut self, network: &Network, local: Attachment) -> NetNs {
        let ns = NetNs::ensure_at(self.overlay.workload_path(&network.name, &local.workload.name)).unwrap();
        self.overlay.ensure_workload(network, &local, &ns).await.unwrap();
        self.local.push(local);
        ns
    }

    pub(crate) fn local(&self, network: &Network, name: &str, last: u8, mac: u8) -> Attachment {
        Attachment { workload: self.workload(network, name, last, mac), seat: Seat::default(), ending: false }
    }

    pub(crate) fn workload(&self, network: &Network, name: &str, last: u8, mac: u8) -> Workload {
        Workload {
            name: name.parse().unwrap(),
            network: network.name.clone(),
            node: self.node.clone(),
            address: Ipv4Addr::new(10, 42, 0, last).into(),
            mac: MacAddr::new([2, 0, 0, 0, 0, mac]),
            service: None,
            ports: vec![],
            sidecar: false,
            ready: true,
            ready6: true,
            weight: Default::default(),
            aliases: Default::default(),
            finding: Default::default(),
        }
    }

    pub(crate) async fn ensure(
        &self,
        snapshot: &Arc<NetworkSnapshot>,
        reason: Reason,
    ) -> Result<Applied, OverlayError> {
        self.overlay.ensure_network(snapshot, &self.node, &self.local, reason).await
    }

    /// Runs a shell line in the network's namespace.
    pub(crate) fn in_network(&self, network: &Network, line: &str) -> String {
        sh(&self.overlay.network_netns(&network.name).unwrap(), line)
    }

    /// Reads `sealane_kernel_drift_total` of a table.
    pub(crate) fn drift(&self, table: &str) -> u64 {
        self.counter("sealane_kernel_drift_total", table)
    }

    /// Reads `sealane_kernel_looks_total` of a scope.
    pub(crate) fn looks(&self, scope: &str) -> u64 {
        self.counter("sealane_kernel_looks_total", scope)
    }

    fn counter(&self, name: &str, label: &str) -> u64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let labelled = |metric: &&prometheus::proto::Metric| metric.get_label()[0].value() == label;
        family.get_metric().iter().find(labelled).unwrap().get_counter().get_value() as u64
    }
}

impl Hosts {
    /// Builds the snapshot that control would send now.
    pub(crate) fn snapshot(&self) -> Arc<NetworkSnapshot> {
        let node = |host: &Host, last: u8| Node {
            name: host.node.clone(),
            underlay: IpAddr::from([192, 0, 2, last]).into(),
            mtu: None,
        };
        let local = self.a.local.iter().chain(&self.b.local);
        let content = NetworkContent {
            nodes: vec![node(&self.a, 1), node(&self.b, 2)],
            // Addresses that are kept for services.
            blocks: vec![Block { node: None, range: "10.42.7.0/24".parse().unwrap() }],
            workloads: local.map(|local| local.workload.clone()).collect(),
            ..self.network.clone().into()
        };
        Arc::new(NetworkSnapshot::new(Generation { epoch: 1, revision: 1 }, content))
    }

    /// Brings both hosts to what control would say now.
    pub(crate) async fn converge(&self) {
        let snapshot = self.snapshot();
        for host in [&self.a, &self.b] {
            host.ensure(&snapshot, Reason::Change).await.unwrap();
        }
    }
}

/// Runs a shell line in `ns` and returns what it printed; it must succeed.
pub(crate) fn sh(ns: &NetNs, line: &str) -> String {
    let output = try_sh(ns, line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Starts a shell line in `ns`.
pub(crate) fn spawn(ns: &NetNs, line: &str) -> Child {
    let ns = OwnedFd::from(ns.try_clone().unwrap());
    Command::new("sh").args(["-c", line]).enter(vec![ns]).spawn().unwrap()
}

pub(crate) fn try_sh(ns: &NetNs, line: &str) -> Output {
    let ns = OwnedFd::from(ns.try_clone().unwrap());
    Command::new("sh").args(["-c", line]).enter(vec![ns]).output().unwrap()
}

/// Returns true if one ping is answered within `seconds`.
pub(crate) fn answers(from: &NetNs, address: &str, seconds: f32) -> bool {
    try_sh(from, &format!("ping -n -c1 -W{seconds} {address}")).status.success()
}
