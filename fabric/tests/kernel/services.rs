use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sealane_fabric::nft::{Redirect, ensure_sidecar_rules};
use sealane_fabric::seat::Seat;
use sealane_fabric::services::{ServiceRules, ServiceTable, ServiceTables};
use sealane_proto::resource::{Block, NetworkSnapshot, Service, Workload};
use sealane_proto::sidecar::SidecarPorts;
use sealane_sys::NetNs;
use socket2::{Domain, Socket, Type};

use crate::hosts::{Hosts, answers, sh, try_sh, two_hosts};

const VIP: &str = "10.42.255.1";

#[tokio::test]
async fn connections_are_spread_by_weight_and_stay_where_they_are() {
    let mut scene = Scene::new().await;
    for (last, weight) in [(11, 1), (12, 3)] {
        scene.serve(last, weight);
    }
    let listeners = [11, 12].map(|last| scene.listen(last));
    scene.ensure().await;
    let mut counts = [0; 2];
    let mut last = None;
    for _ in 0..200 {
        let stream = scene.connect(80).unwrap();
        let at = accepted(&listeners);
        counts[at.0] += 1;
        last = Some((stream, at));
    }
    // 50 and 150 are expected; these are more than seven standard deviations off.
    assert!((5..95).contains(&counts[0]), "{counts:?}");
    // Its endpoint gets nothing new any more: what there is goes on.
    let (mut stream, (at, mut far)) = last.unwrap();
    scene.snapshot.workloads[at].ready = false;
    assert!(scene.ensure().await);
    io::Write::write_all(&mut stream, b"still").unwrap();
    let mut bytes = [0; 5];
    io::Read::read_exact(&mut far, &mut bytes).unwrap();
    assert_eq!(&bytes, b"still");
    for _ in 0..20 {
        let _stream = scene.connect(80).unwrap();
        assert_ne!(accepted(&listeners).0, at);
    }
}

#[tokio::test]
async fn datagrams_of_one_port_leave_an_endpoint_that_is_gone_and_only_then() {
    let mut scene = Scene::new().await;
    let servers: Vec<UdpSocket> = (11..=13)
        .map(|last| {
            scene.serve(last, 1);
            scene.udp(last, 53)
        })
        .collect();
    scene.ensure().await;
    let client = scene.udp(10, 4000);
    client.connect((VIP, 53)).unwrap();
    let ask = || {
        client.send(b"?").unwrap();
        let at = received(&servers);
        client.recv(&mut [0; 8]).unwrap();
        at
    };
    let first = ask();
    assert!((0..10).all(|_| ask() == first), "a flow stays");
    // Others come and go.
    let other = (first + 1) % 3;
    scene.snapshot.workloads[other].ready = false;
    scene.ensure().await;
    assert!((0..10).all(|_| ask() == first), "a flow stays where it is served");
    scene.snapshot.workloads[first].ready = false;
    scene.ensure().await;
    assert_eq!(ask(), 3 - first - other);
    scene.snapshot.workloads = Default::default();
    scene.ensure().await;
    client.send(b"?").unwrap();
    assert_eq!(client.recv(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    scene.serve(12, 1);
    scene.ensure().await;
    assert_eq!(ask(), 1, "as soon as there is one again");
}

#[tokio::test]
async fn a_workload_reaches_itself_by_its_services_address() {
    let mut scene = Scene::new().await;
    scene.serve(10, 1);
    let (listener, server, client) = (scene.listen(10), scene.udp(10, 53), scene.udp(10, 0));
    scene.ensure().await;
    let stream = scene.connect(80).unwrap();
    let (far, peer) = listener.accept().unwrap();
    assert_eq!(far.local_addr().unwrap(), "10.42.0.10:80".parse().unwrap());
    assert_eq!(peer.ip(), Ipv4Addr::new(10, 42, 0, 10));
    assert_eq!(stream.peer_addr().unwrap(), format!("{VIP}:80").parse().unwrap());
    client.connect((VIP, 53)).unwrap();
    client.send(b"?").unwrap();
    let mut bytes = [0; 8];
    let (_, from) = server.recv_from(&mut bytes).unwrap();
    server.send_to(b"!", from).unwrap();
    assert_eq!(client.recv(&mut bytes).unwrap(), 1);
}

#[tokio::test]
async fn what_leads_nowhere_is_refused_at_once_and_pings_are_answered() {
    let mut scene = Scene::new().await;
    scene.serve(11, 1);
    let _listener = scene.listen(11);
    scene.ensure().await;
    check_refusals(&scene, 81);
    assert!(answers(&scene.client, VIP, 5.0), "a service's address");
    assert!(!answers(&scene.client, "10.42.255.77", 5.0), "nobody's");
    scene.connect(80).unwrap();
    scene.snapshot.workloads[0].ready = false;
    scene.ensure().await;
    check_refusals(&scene, 80);
    // With a sidecar, what goes over TCP is its business.
    let (hopper, subnet) = (scene.hosts.a.hopper.clone(), scene.hosts.network.subnet);
    let address = Ipv4Addr::new(10, 42, 0, 10).into();
    let redirect = Redirect::v4(subnet, address, Seat::default(), SidecarPorts::default());
    ensure_sidecar_rules(&hopper, &scene.client, [redirect]).await.unwrap();
    scene.snapshot.workloads[0].ready = true;
    scene.sidecar = true;
    scene.ensure().await;
    let (client, listen) = (&scene.client, || TcpListener::bind(("0.0.0.0", 15001)));
    let sidecar = hopper.run(client, listen).unwrap().unwrap();
    for port in [80, 81] {
        let _stream = scene.connect(port).unwrap();
        sidecar.accept().unwrap();
    }
    check_udp_refusal(&scene, 54);
    assert!(answers(&scene.client, VIP, 5.0));
}

#[tokio::test]
async fn a_connection_that_meets_a_change_of_rules_is_led_by_it() {
    let mut scene = Scene::new().await;
    for last in [11, 13] {
        scene.serve(last, 1);
        let listener = scene.listen(last);
        std::thread::spawn(move || listener.incoming().for_each(drop));
    }
    scene.ensure().await;
    let (hopper, client) = (scene.hosts.a.hopper.clone(), scene.client.try_clone().unwrap());
    let over = Arc::new(AtomicBool::new(false));
    let until = over.clone();
    let caller = std::thread::spawn(move || {
        let to: SocketAddr = format!("{VIP}:80").parse().unwrap();
        let mut made = 0;
        // Fewer than there are ports: one that is used again meets what is left of its last connection.
        while !until.load(Ordering::Relaxed) {
            let socket = hopper.run(&client, || Socket::new(Domain::IPV4, Type::STREAM, None)).unwrap()?;
            socket.connect_timeout(&to.into(), Duration::from_millis(900))?;
            made += 1;
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok::<_, io::Error>(made)
    });
    let other = Block { node: None, range: "10.42.254.0/24".parse().unwrap() };
    for change in 1..=400_u32 {
        scene.snapshot.workloads[1].weight = (change % 5 + 1).try_into().unwrap();
        if change % 10 == 0 {
            scene.snapshot.blocks.truncate(1);
            scene.snapshot.blocks.extend((change % 20 == 0).then(|| other.clone()));
        }
        assert!(scene.rules.ensure(&scene.client, &scene.table()).await.unwrap());
    }
    over.store(true, Ordering::Relaxed);
    let made = caller.join().unwrap().unwrap();
    assert!(made > 100, "{made}");
    // What was changed step by step is what another agent would make.
    scene.restart();
    assert!(!scene.ensure().await);
}

#[tokio::test]
async fn rules_are_known_again_and_what_somebody_changed_is_put_back() {
    let mut scene = Scene::new().await;
    scene.serve(11, 1);
    scene.serve(12, 2);
    assert!(scene.ensure().await);
    assert!(!scene.ensure().await);
    let before = sh(&scene.client, "nft list ruleset");
    assert!(before.contains("dnat ip to numgen random mod 3"), "nft can show them: {before}");
    // Another agent finds them as they should be.
    scene.restart();
    assert!(!scene.ensure().await);
    assert!(!scene.audit().await);
    let table = "inet sealane-services-shop";
    for change in [
        format!("nft flush chain {table} balance"),
        format!("nft add rule {table} unmapped accept"),
        format!("nft flush map {table} services"),
        format!("nft add element {table} vips '{{ 10.42.9.9 }}'"),
        format!("nft delete table {table}"),
    ] {
        sh(&scene.client, &change);
        assert!(scene.audit().await, "{change}");
        assert!(!scene.audit().await, "{change}");
        assert_eq!(sh(&scene.client, "nft list ruleset").lines().count(), before.lines().count(), "{change}");
    }
    // What is not as it is known to be is made anew.
    sh(&scene.client, &format!("nft delete table {table}"));
    scene.serve(13, 1);
    assert!(scene.ensure().await);
    assert!(!scene.audit().await);
    let Scene { rules, client, .. } = &mut scene;
    rules.remove(client).await.unwrap();
    rules.remove(client).await.unwrap();
    assert_eq!(sh(client, "nft list ruleset"), "");
}

#[tokio::test]
async fn a_network_without_services_costs_its_workloads_nothing() {
    let mut scene = Scene::new().await;
    let services = std::mem::take(&mut scene.snapshot.services);
    assert!(!scene.ensure().await);
    assert!(!scene.audit().await);
    assert_eq!(sh(&scene.client, "nft list ruleset"), "", "no rule, so no flow is tracked");
    scene.serve_as(11, 1, &services[0]);
    scene.snapshot.services = services;
    let listener = scene.listen(11);
    assert!(scene.ensure().await);
    let mut stream = scene.connect(80).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    // With its last service the address goes, and no connection.
    scene.snapshot.services = Default::default();
    assert!(scene.ensure().await);
    io::Write::write_all(&mut stream, b"still").unwrap();
    let mut bytes = [0; 5];
    io::Read::read_exact(&mut far, &mut bytes).unwrap();
    scene.restart();
    assert!(!scene.ensure().await);
}

fn check_refusals(scene: &Scene, port: u16) {
    assert_eq!(scene.connect(port).unwrap_err().kind(), io::ErrorKind::ConnectionRefused, "{port}");
    check_udp_refusal(scene, port);
    let other = try_sh(&scene.client, "ping -n -c1 -W5 10.42.255.77");
    assert!(String::from_utf8_lossy(&other.stdout).contains("Port Unreachable"), "{other:?}");
}

fn check_udp_refusal(scene: &Scene, port: u16) {
    let socket = scene.udp(10, 0);
    socket.connect((VIP, port)).unwrap();
    socket.send(b"?").unwrap();
    assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::ConnectionRefused, "{port}");
}

struct Scene {
    hosts: Hosts,
    client: NetNs,
    servers: Vec<(u8, NetNs)>,
    snapshot: NetworkSnapshot,
    sidecar: bool,
    rules: ServiceRules,
}

impl Scene {
    /// A client at 10.42.0.10 and servers at 11 to 13 on two hosts; the service `api` has nobody yet.
    async fn new() -> Self {
        let mut hosts = two_hosts();
        let network = hosts.network.clone();
        let client = hosts.a.attach(&network, "client", 10, 10).await;
        let mut servers = vec![(10, client.try_clone().unwrap())];
        for last in 11..=13 {
            let host = if last == 12 { &mut hosts.b } else { &mut hosts.a };
            servers.push((last, host.attach(&network, &format!("api-{last}"), last, last).await));
        }
        hosts.converge().await;
        let mut snapshot = hosts.snapshot().as_ref().clone();
        snapshot.workloads = Default::default();
        snapshot.blocks = vec![Block { node: None, range: "10.42.255.0/24".parse().unwrap() }];
        let ports = ["80", "53/udp"].map(|port| port.parse().unwrap()).to_vec();
        snapshot.services = [Service {
            name: "api".parse().unwrap(),
            hosts: Default::default(),
            vip: VIP.parse().unwrap(),
            ports,
            declared: false,
            mtls: None,
            external: Default::default(),
        }]
        .into();
        let rules = ServiceRules::new(hosts.a.hopper.clone(), network.name.clone());
        Self { hosts, client, servers, snapshot, sidecar: false, rules }
    }

    /// Adds an instance.
    fn serve(&mut self, last: u8, weight: u32) {
        let service = self.snapshot.services[0].clone();
        self.serve_as(last, weight, &service);
    }

    fn serve_as(&mut self, last: u8, weight: u32, service: &Service) {
        let workload = self.hosts.a.workload(&self.hosts.network, &format!("api-{last}"), last, last);
        self.snapshot.workloads.push(Workload {
            service: Some(service.name.clone()),
            ports: service.ports.clone(),
            weight: weight.try_into().unwrap(),
            ..workload
        });
    }

    fn table(&self) -> Arc<ServiceTable> {
        ServiceTables::build(&self.snapshot).of(self.sidecar).clone()
    }

    async fn ensure(&mut self) -> bool {
        let changed = self.rules.ensure(&self.client, &self.table()).await.unwrap();
        self.rules.freed().await;
        changed
    }

    async fn audit(&mut self) -> bool {
        let changed = self.rules.audit(&self.client).await.unwrap();
        self.rules.freed().await;
        changed
    }

    fn restart(&mut self) {
        self.rules = ServiceRules::new(self.hosts.a.hopper.clone(), self.hosts.network.name.clone());
    }

    fn netns(&self, last: u8) -> &NetNs {
        &self.servers.iter().find(|(number, _)| *number == last).unwrap().1
    }

    fn listen(&self, last: u8) -> TcpListener {
        let listen = || TcpListener::bind(("0.0.0.0", 80));
        self.hosts.a.hopper.run(self.netns(last), listen).unwrap().unwrap()
    }

    fn udp(&self, last: u8, port: u16) -> UdpSocket {
        let bind = move || UdpSocket::bind(("0.0.0.0", port));
        let socket = self.hosts.a.hopper.run(self.netns(last), bind).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    }

    fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let to: SocketAddr = format!("{VIP}:{port}").parse().unwrap();
        let make = || Socket::new(Domain::IPV4, Type::STREAM, None);
        let socket = self.hosts.a.hopper.run(&self.client, make).unwrap()?;
        socket.connect_timeout(&to.into(), Duration::from_secs(10))?;
        Ok(socket.into())
    }
}

/// Waits for the listener that a connection comes to.
fn accepted(listeners: &[TcpListener]) -> (usize, TcpStream) {
    listeners.iter().for_each(|listener| listener.set_nonblocking(true).unwrap());
    let accept = |at: usize| listeners[at].accept().ok().map(|(stream, _)| (at, stream));
    let (at, stream) = wait_for(|| (0..listeners.len()).find_map(accept));
    stream.set_nonblocking(false).unwrap();
    (at, stream)
}

/// Waits for the server that a datagram comes to, and lets it answer.
fn received(servers: &[UdpSocket]) -> usize {
    servers.iter().for_each(|server| server.set_nonblocking(true).unwrap());
    let answer = |at: usize| {
        let (_, from) = servers[at].recv_from(&mut [0; 8]).ok()?;
        servers[at].send_to(b"!", from).unwrap();
        Some(at)
    };
    wait_for(|| (0..servers.len()).find_map(answer))
}

fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let started = std::time::Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "nothing came");
        std::thread::sleep(Duration::from_millis(1));
    }
}
