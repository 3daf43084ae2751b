//! In real network namespaces; needs root.

use std::net::{IpAddr, Ipv6Addr};

use socket2::{Domain, Socket, Type};

use super::*;
use crate::health::{ProbeTarget, watch};
use sealane_proto::sidecar::SidecarPorts;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 5);
const ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfd42, 0, 0, 0, 0, 0, 0x0a2a, 5);

#[test]
fn this_kernel_can_tell_who_listens() {
    check_kernel().unwrap();
}

#[test]
fn a_bind_counts_if_packets_to_the_address_reach_it() {
    let table: [(IpAddr, bool, bool); 6] = [
        (Ipv4Addr::UNSPECIFIED.into(), false, true),
        (ADDRESS.into(), false, true),
        (Ipv4Addr::LOCALHOST.into(), false, false),
        (Ipv6Addr::UNSPECIFIED.into(), false, true),
        (Ipv6Addr::UNSPECIFIED.into(), true, false),
        (ADDRESS.to_ipv6_mapped().into(), false, true),
    ];
    for (kind, ports) in [(Type::STREAM, "8080/tcp"), (Type::DGRAM, "8080/udp")] {
        for (bound, only_v6, expected) in table {
            let host = Host::new();
            assert!(!host.is_listening(ports));
            let socket = host.bind(kind, (bound, 8080).into(), only_v6);
            assert_eq!(host.is_listening(ports), expected, "{ports} at {bound}, IPv6 only: {only_v6}");
            drop(socket);
            assert!(!host.is_listening(ports));
        }
    }
}

#[test]
fn what_listens_on_ipv6_alone_counts_where_a_sidecar_finds_it() {
    let host = Host::new();
    let mut target = target("8080");
    target.ipv6 = Some(ADDRESS6);
    for (bound, found) in [(Ipv6Addr::UNSPECIFIED, true), (ADDRESS6, true), (Ipv6Addr::LOCALHOST, false)] {
        let _socket = host.bind(Type::STREAM, (bound, 8080).into(), true);
        for (sidecar, expected) in [
            (None, Families { v4: false, v6: found }),
            (Some(SidecarPorts::default()), Families::both(found)),
        ] {
            target.sidecar = sidecar;
            assert_eq!(host.listening.listening(&target).unwrap(), expected, "{bound}, {sidecar:?}");
        }
    }
    let _datagrams = host.bind(Type::DGRAM, (ADDRESS6, 9000).into(), true);
    target.ports = vec!["9000/udp".parse().unwrap()];
    assert_eq!(host.listening.listening(&target).unwrap(), Families { v4: false, v6: true });
}

#[test]
fn what_listens_on_ipv4_alone_counts_for_ipv6_where_a_sidecar_finds_it() {
    let host = Host::new();
    let (any4, any6) = (IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED));
    let (only4, both) = (Families { v4: true, v6: false }, Families::both(true));
    for (kind, ports, behind) in [(Type::STREAM, "8080", both), (Type::DGRAM, "8080/udp", only4)] {
        for (bound, alone, behind) in [(any4, only4, behind), (any6, both, both)] {
            let mut target = ProbeTarget { ipv6: Some(ADDRESS6), ..target(ports) };
            let _socket = host.bind(kind, (bound, 8080).into(), false);
            assert_eq!(host.listening.listening(&target).unwrap(), alone, "{ports} at {bound}");
            target.sidecar = Some(SidecarPorts::default());
            assert_eq!(host.listening.listening(&target).unwrap(), behind, "{ports} at {bound}, sidecar");
        }
    }
}

#[test]
fn one_port_may_be_enough_and_each_family_counts_by_itself() {
    let host = Host::new();
    let target = |any_port| ProbeTarget { ipv6: Some(ADDRESS6), any_port, ..target("80 81") };
    let seen = |any_port| host.listening.listening(&target(any_port)).unwrap();
    assert_eq!((seen(true), seen(false)), (Families::both(false), Families::both(false)));
    let _first = host.bind(Type::STREAM, (Ipv4Addr::UNSPECIFIED, 80).into(), false);
    let _second = host.bind(Type::STREAM, (Ipv6Addr::UNSPECIFIED, 81).into(), true);
    assert_eq!((seen(true), seen(false)), (Families::both(true), Families::both(false)));
}

#[test]
fn every_port_must_listen_and_by_its_own_transport() {
    let host = Host::new();
    let any = |port: u16| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    assert!(host.is_listening(""), "nothing to wait for");
    let _first = host.bind(Type::STREAM, any(80), false);
    assert!(host.is_listening("80"));
    assert!(!host.is_listening("80 81/http"));
    let _datagrams = host.bind(Type::DGRAM, any(81), false);
    assert!(!host.is_listening("80 81/http"));
    assert!(host.is_listening("80 81/udp"));
    let _second = host.bind(Type::STREAM, any(81), false);
    assert!(host.is_listening("80 81/http 81/udp"));
}

#[test]
fn a_socket_that_is_bound_and_does_not_listen_does_not_count() {
    let host = Host::new();
    let bound = host.hopper.run(&host.ns, || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 80)).into()).unwrap();
        socket
    });
    assert!(!host.is_listening("80"));
    bound.unwrap().listen(1).unwrap();
}

#[test]
fn listeners_of_other_namespaces_do_not_count() {
    let (here, there) = (Host::new(), Host::new());
    let _socket = there.bind(Type::STREAM, (Ipv4Addr::UNSPECIFIED, 80).into(), false);
    assert!(there.is_listening("80") && !here.is_listening("80"));
}

#[tokio::test]
async fn a_watch_follows_the_socket() {
    let host = Host::new();
    let (mut ready, _task) = watch(&host.hopper, &host.ns, target("8080")).unwrap();
    assert!(!ready.borrow_and_update().any());
    for _ in 0..2 {
        let socket = host.bind(Type::STREAM, (Ipv6Addr::UNSPECIFIED, 8080).into(), false);
        ready.wait_for(|ready| ready.v4).await.unwrap();
        drop(socket);
        ready.wait_for(|ready| !ready.any()).await.unwrap();
    }
}

#[tokio::test]
async fn without_ports_a_workload_is_ready_and_a_sidecar_s_port_never_makes_it_so() {
    let host = Host::new();
    let (mut ready, _task) = watch(&host.hopper, &host.ns, target("")).unwrap();
    ready.wait_for(|ready| ready.v4).await.unwrap();
    let _tunnel = host.bind(Type::STREAM, (Ipv4Addr::UNSPECIFIED, 15008).into(), false);
    let mut own = target("15008");
    let (mut ready, _task) = watch(&host.hopper, &host.ns, own.clone()).unwrap();
    ready.wait_for(|ready| ready.v4).await.unwrap();
    own.sidecar = Some(SidecarPorts::default());
    let (mut never, _task) = watch(&host.hopper, &host.ns, own).unwrap();
    let wait = std::time::Duration::from_millis(100);
    assert!(tokio::time::timeout(wait, never.wait_for(|ready| ready.any())).await.is_err());
}

struct Host {
    hopper: Hopper,
    ns: NetNs,
    listening: Listening,
}

impl Host {
    fn new() -> Self {
        let hopper = Hopper::start().unwrap();
        let ns = NetNs::anonymous().expect("network namespaces need root");
        // The address must be there to be bound; the loopback interface may have it.
        hopper.run(&ns, add_address).unwrap();
        let listening = Listening::open(&hopper, &ns).unwrap();
        Self { hopper, ns, listening }
    }

    fn bind(&self, kind: Type, at: SocketAddr, only_v6: bool) -> Socket {
        let bind = move || {
            let socket = Socket::new(Domain::for_address(at), kind, None).unwrap();
            if at.is_ipv6() {
                socket.set_only_v6(only_v6).unwrap();
            }
            socket.bind(&at.into()).unwrap();
            if kind == Type::STREAM {
                socket.listen(1).unwrap();
            }
            socket
        };
        self.hopper.run(&self.ns, bind).unwrap()
    }

    fn is_listening(&self, ports: &str) -> bool {
        self.listening.listening(&target(ports)).unwrap().v4
    }
}

fn add_address() {
    for arguments in
        ["link set lo up", "address add 10.42.0.5/32 dev lo", "address add fd42::a2a:5/128 dev lo nodad"]
    {
        let status = std::process::Command::new("ip").args(arguments.split(' ')).status().unwrap();
        assert!(status.success());
    }
}

fn target(ports: &str) -> ProbeTarget {
    let ports = ports.split_whitespace().map(|port| port.parse().unwrap()).collect();
    ProbeTarget { address: ADDRESS, ipv6: None, ports, any_port: false, sidecar: None }
}
