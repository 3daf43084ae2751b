use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

use sealane_fabric::nft::{Redirect, ensure_sidecar_rules, remove_sidecar_rules};
use sealane_fabric::seat::Seat;
use sealane_proto::sidecar::{MARK, SidecarPorts};
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;
use socket2::{Domain, SockRef, Socket, Type};

use crate::hosts::{Hosts, sh, try_sh, two_hosts};

const PORTS: SidecarPorts = SidecarPorts { outbound: 15001, inbound: 15006, tunnel: 15008 };

#[tokio::test]
async fn calls_of_a_workload_and_to_it_go_through_its_sidecar() {
    let scene = Scene::new().await;
    let Scene { client, server, hopper, .. } = &scene;
    let outbound = listen(hopper, client, 15001);
    let inbound = listen(hopper, server, 15006);
    let application = listen(hopper, server, 8080);

    let _call = connect(hopper, client, "10.42.0.11:8080", None).unwrap();
    assert_eq!(accepted(&outbound), "10.42.0.11:8080", "the original destination");
    // What the client's sidecar sends is marked, and comes in through the server's.
    let _call = connect(hopper, client, "10.42.0.11:8080", Some(MARK)).unwrap();
    assert_eq!(accepted(&inbound), "10.42.0.11:8080");
    // The sidecar calls its own workload over loopback.
    let _call = connect(hopper, server, "10.42.0.11:8080", Some(MARK)).unwrap();
    application.accept().unwrap();
    // The gateway (DNS over TCP) is not the sidecar's business.
    assert_eq!(refusal(connect(hopper, client, "10.42.0.1:53", None)), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn redirect_ports_refuse_what_was_not_redirected() {
    let scene = Scene::new().await;
    let Scene { client, server, hopper, .. } = &scene;
    let _listeners = [15001, 15006, 15008].map(|port| listen(hopper, server, port));
    let _own = [15001, 15006].map(|port| listen(hopper, client, port));
    for port in [15001, 15006] {
        // From outside, and by the workload to a peer and to itself.
        for (from, mark) in [(client, Some(MARK)), (client, None)] {
            let call = connect(hopper, from, &format!("10.42.0.11:{port}"), mark);
            assert_eq!(refusal(call), io::ErrorKind::ConnectionRefused, "{port} {mark:?}");
        }
        let call = connect(hopper, server, &format!("127.15.0.1:{port}"), None);
        assert_eq!(refusal(call), io::ErrorKind::ConnectionRefused, "{port} from within");
    }
    connect(hopper, client, "10.42.0.11:15008", Some(MARK)).unwrap();
}

#[tokio::test]
async fn nobody_reaches_another_address_of_a_workload_nor_comes_from_outside_its_network() {
    let scene = Scene::new().await;
    let Scene { hosts, client, server, hopper, .. } = &scene;
    let inbound = listen(hopper, server, 15006);
    let _application = listen(hopper, server, 8080);
    sh(
        server,
        "ip link add other type veth peer name further && ip addr add 172.30.0.2/24 dev other && ip link set other up",
    );
    sh(client, "ip route add 172.30.0.2/32 via 10.42.0.11");
    let network = hosts.a.overlay.network_netns(&hosts.network.name).unwrap();
    sh(&network, "ip addr add 198.51.100.1/32 dev lo");
    let dropped = || {
        let rules = sh(server, "nft list chain inet sealane guard");
        let counted = rules.split("counter packets ").skip(1);
        counted.map(|rest| rest.split(' ').next().unwrap().parse::<u64>().unwrap()).sum::<u64>()
    };
    let ping = |from: &NetNs, line: &str| try_sh(from, &format!("ping -n -c1 -W0.5 {line}")).status.success();
    assert!(ping(client, "10.42.0.11"));
    assert!(!ping(client, "172.30.0.2") && !ping(&network, "-I 198.51.100.1 10.42.0.11"));
    let call = "timeout 2 bash -c \"exec 3<>/dev/tcp/172.30.0.2/8080\"";
    assert!(!try_sh(client, call).status.success(), "not even by the sidecar");
    inbound.set_nonblocking(true).unwrap();
    assert!(inbound.accept().is_err());
    assert!(dropped() >= 3, "{}", dropped());
}

#[tokio::test]
async fn datagrams_reach_the_address_of_the_network_alone_whatever_frame_or_interface_brings_them() {
    let scene = Scene::new().await;
    let Scene { client, server, hopper, .. } = &scene;
    let beside = NetNs::anonymous().unwrap();
    let fd = format!("/proc/{}/fd/{}", std::process::id(), beside.as_fd().as_raw_fd());
    sh(
        server,
        &format!(
            "ip link add other type veth peer name eth0 netns {fd} && ip addr add 172.30.0.2/24 dev other && \
             ip link set other up && sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.other.rp_filter=0"
        ),
    );
    sh(
        &beside,
        "ip addr add 172.30.0.3/24 dev eth0 && ip addr add 10.42.0.10/32 dev eth0 && ip link set eth0 up && \
         ip route add 10.42.0.11/32 via 172.30.0.2",
    );
    sh(
        client,
        "ip route add 172.30.0.2/32 dev eth0 && \
         ip neigh replace 172.30.0.2 lladdr 01:00:5e:00:00:07 dev eth0 nud permanent",
    );
    let bind = |ns: &NetNs, address: &'static str| {
        hopper.run(ns, move || UdpSocket::bind(address)).unwrap().unwrap()
    };
    let heard = bind(server, "0.0.0.0:5000");
    let senders = [
        (bind(client, "0.0.0.0:0"), "172.30.0.2:5000"),
        (bind(&beside, "172.30.0.3:0"), "10.42.0.11:5000"),
        (bind(&beside, "10.42.0.10:0"), "172.30.0.2:5000"),
    ];
    for (sender, to) in &senders {
        sender.send_to(b"astray", to).unwrap();
    }
    // Each of them is handed over within the sending call, or never.
    bind(client, "10.42.0.10:0").send_to(b"meant", "10.42.0.11:5000").unwrap();
    bind(&beside, "172.30.0.3:0").send_to(b"the container's own", "172.30.0.2:5000").unwrap();
    heard.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut buffer = [0; 64];
    let mut next =
        || heard.recv(&mut buffer).map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned());
    let mut both = [next().unwrap(), next().unwrap()];
    both.sort();
    assert_eq!(both, ["meant", "the container's own"]);
}

#[tokio::test]
async fn rules_are_replaced_only_when_they_differ() {
    let scene = Scene::new().await;
    let Scene { hosts, client, hopper, .. } = &scene;
    let ensure = |ports| ensure_sidecar_rules(hopper, client, [redirect(hosts, 10, ports)]);
    assert!(!ensure(PORTS).await.unwrap());
    let other = SidecarPorts { outbound: 25001, ..PORTS };
    assert!(ensure(other).await.unwrap());
    assert!(!ensure(other).await.unwrap());
    sh(client, "nft flush chain inet sealane guard");
    assert!(ensure(other).await.unwrap());
    remove_sidecar_rules(hopper, client, Seat::default()).await.unwrap();
    remove_sidecar_rules(hopper, client, Seat::default()).await.unwrap();
    assert_eq!(sh(client, "nft list ruleset"), "");
    assert!(ensure(other).await.unwrap());
}

struct Scene {
    hosts: Hosts,
    hopper: Arc<Hopper>,
    client: NetNs,
    server: NetNs,
}

impl Scene {
    /// Two workloads with rules on one host.
    async fn new() -> Self {
        let mut hosts = two_hosts();
        let network = hosts.network.clone();
        let client = hosts.a.attach(&network, "client", 10, 10).await;
        let server = hosts.a.attach(&network, "server", 11, 11).await;
        let hopper = hosts.a.hopper.clone();
        for (ns, last) in [(&client, 10), (&server, 11)] {
            assert!(ensure_sidecar_rules(&hopper, ns, [redirect(&hosts, last, PORTS)]).await.unwrap());
        }
        Self { hosts, hopper, client, server }
    }
}

fn redirect(hosts: &Hosts, last: u8, ports: SidecarPorts) -> Redirect {
    let address = Ipv4Addr::new(10, 42, 0, last).into();
    Redirect::v4(hosts.network.subnet, address, Seat::default(), ports)
}

fn listen(hopper: &Hopper, ns: &NetNs, port: u16) -> TcpListener {
    hopper.run(ns, move || TcpListener::bind(("0.0.0.0", port))).unwrap().unwrap()
}

fn connect(hopper: &Hopper, ns: &NetNs, to: &str, mark: Option<u32>) -> io::Result<TcpStream> {
    let to: SocketAddr = to.parse().unwrap();
    let socket = hopper.run(ns, || Socket::new(Domain::IPV4, Type::STREAM, None)).unwrap()?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    socket.connect_timeout(&to.into(), Duration::from_secs(10))?;
    Ok(socket.into())
}

fn refusal(outcome: io::Result<TcpStream>) -> io::ErrorKind {
    outcome.expect_err("it was let in").kind()
}

/// Accepts one connection and tells where it was going to (SO_ORIGINAL_DST).
fn accepted(listener: &TcpListener) -> String {
    let (stream, _) = listener.accept().unwrap();
    let original = SockRef::from(&stream).original_dst_v4().unwrap();
    original.as_socket().unwrap().to_string()
}
