//! Changes by others are mended when the kernel tells of them, wherever they are made.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sealane_base::task::THREADS;
use sealane_fabric::overlay::{Reason, Table};
use sealane_proto::resource::NetworkSnapshot;
use sealane_sys::NetNs;

use crate::hosts::{Host, Hosts, answers, sh, two_hosts};

/// Bound for a mending.
const SOON: Duration = Duration::from_secs(2);
/// Time within which whatever follows by itself would have come.
const QUIET: Duration = Duration::from_millis(1_500);

/// Runs a test in threads of the name by which changes of this program are known.
fn run(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().thread_name(THREADS).build().unwrap().block_on(async {
        // What this thread itself changes is known by its name as well.
        test.await;
    });
}

/// Looks at what is doubted, as an agent does, while `work` goes on.
async fn tended(host: &Host, snapshot: &Arc<NetworkSnapshot>, work: impl Future<Output = ()>) {
    let mut doubted = host.overlay.doubted();
    let tend = async {
        loop {
            doubted.changed().await.unwrap();
            doubted.borrow_and_update();
            host.ensure(snapshot, Reason::Audit).await.unwrap();
        }
    };
    tokio::select! {
        () = tend => {}
        () = work => {}
    }
}

/// Waits until something of `table` was mended since it was counted `before`; returns how long that took.
async fn mended(host: &Host, table: Table, before: u64, line: &str) -> Duration {
    let began = Instant::now();
    while host.drift(table.label()) == before {
        assert!(began.elapsed() < 10 * SOON, "{line}: never mended");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

/// Two hosts that know each other, each with a workload; of host a, the workload's namespace and its port's name.
async fn standing() -> (Hosts, NetNs, String) {
    let mut hosts = two_hosts();
    let network = hosts.network.clone();
    let client = hosts.a.attach(&network, "client", 10, 10).await;
    hosts.b.attach(&network, "server", 20, 20).await;
    hosts.converge().await;
    let port = sealane_fabric::overlay::plan::port_name(&hosts.a.local[0].workload.name);
    (hosts, client, port)
}

/// Has each line change something in `place`; it is mended soon, counted so many times in its table, and nothing is left.
async fn check(hosts: &Hosts, place: &NetNs, client: &NetNs, table: &[(&str, Table, u64)]) {
    let (host, snapshot) = (&hosts.a, hosts.snapshot());
    tended(host, &snapshot, async {
        for &(line, broken, times) in table {
            let before = host.drift(broken.label());
            sh(place, line);
            let took = mended(host, broken, before, line).await;
            assert!(took < SOON, "{line}: mended after {took:?}");
            let left = host.ensure(&snapshot, Reason::Audit).await.unwrap();
            assert_eq!(left.total(), 0, "{line}: {left:?} is left");
            assert_eq!(host.drift(broken.label()), before + times, "{line}: counted");
            assert!(answers(client, "10.42.0.20", 5.0), "{line}");
        }
    })
    .await;
}

#[test]
fn whatever_others_change_in_a_network_s_namespace_is_mended_at_once_and_counted() {
    run(async {
        let (hosts, client, port) = standing().await;
        let network = hosts.a.overlay.network_netns(&hosts.network.name).unwrap();
        let gateway = hosts.network.mac_of(hosts.network.subnet.gateway());
        let table = [
            ("bridge fdb del 02:00:00:00:00:14 dev vxlan0 dst 192.0.2.2", Table::Fdb, 1),
            ("bridge fdb replace 02:00:00:00:00:14 dev vxlan0 dst 192.0.2.9", Table::Fdb, 1),
            ("bridge fdb append 02:00:00:00:00:66 dev vxlan0 dst 192.0.2.9", Table::Fdb, 1),
            ("ip neigh del 10.42.0.20 dev vxlan0", Table::Neighbour, 1),
            (
                "ip neigh replace 10.42.0.20 lladdr 02:00:00:00:00:66 dev vxlan0 nud permanent",
                Table::Neighbour,
                1,
            ),
            (
                "ip neigh add 10.42.0.66 lladdr 02:00:00:00:00:66 dev vxlan0 nud permanent",
                Table::Neighbour,
                1,
            ),
            (&format!("bridge fdb del 02:00:00:00:00:0a dev {port} master"), Table::BridgeFdb, 1),
            (&format!("bridge fdb replace {gateway} dev {port} master static"), Table::BridgeFdb, 1),
            (&format!("bridge fdb del {gateway} dev br0 self"), Table::BridgeFdb, 1),
            ("ip addr del 10.42.0.1/16 dev br0", Table::Address, 1),
            ("ip addr add 10.42.0.99/16 dev br0", Table::Address, 1),
            ("ip link set br0 down", Table::Link, 1),
            ("ip link set br0 mtu 1300", Table::Link, 1),
            ("ip link set lo down", Table::Link, 1),
            ("ip link set vxlan0 down", Table::Link, 1),
            ("ip link set vxlan0 nomaster", Table::Link, 1),
            ("ip link set vxlan0 type bridge_slave learning on", Table::Link, 1),
            ("bridge link set dev vxlan0 isolated on neigh_suppress on", Table::Link, 1),
            (&format!("bridge link set dev {port} locked off flood on"), Table::Link, 1),
            (&format!("ip link set {port} down"), Table::Link, 1),
            (&format!("ip link set {port} nomaster"), Table::Link, 1),
            ("ip addr flush dev egress0", Table::Address, 1),
            ("ip link set egress0 mtu 1280", Table::Link, 1),
            ("ip route del default", Table::Route, 1),
            ("ip route replace default via 10.42.0.9", Table::Route, 1),
            ("ip route flush table main", Table::Route, 3),
            ("sysctl -qw net.ipv4.ip_forward=0", Table::Link, 1),
            ("nft delete element netdev sealane local { 10.42.0.10 }", Table::Rules, 1),
            (&format!("nft flush chain netdev sealane {port}"), Table::Rules, 1),
            (&format!("nft insert rule netdev sealane {port} accept"), Table::Rules, 1),
            ("nft delete table inet sealane", Table::Rules, 2),
        ];
        check(&hosts, &network, &client, &table).await;
    });
}

#[test]
fn a_device_that_others_remove_is_made_again_at_once_with_all_that_goes_with_it() {
    run(async {
        let (hosts, client, port) = standing().await;
        let (host, snapshot) = (&hosts.a, hosts.snapshot());
        tended(host, &snapshot, async {
            for device in [&port, "vxlan0", "br0", "egress0"] {
                let (line, before) = (format!("ip link del {device}"), host.drift(Table::Link.label()));
                host.in_network(&hosts.network, &line);
                let took = mended(host, Table::Link, before, &line).await;
                assert!(took < SOON, "{line}: mended after {took:?}");
                assert!(answers(&client, "10.42.0.20", 5.0), "{line}");
                let left = host.ensure(&snapshot, Reason::Audit).await.unwrap();
                assert_eq!(left.total(), 0, "{line}: {left:?} is left");
            }
        })
        .await;
    });
}

#[test]
fn whatever_others_change_in_a_workload_s_namespace_is_mended_at_once_and_counted() {
    run(async {
        let (hosts, client, _) = standing().await;
        let table = [
            ("ip link set eth0 down", Table::Link, 1),
            ("ip link set eth0 mtu 1300", Table::Link, 1),
            ("ip link set eth0 address 02:aa:bb:cc:dd:ee", Table::Link, 1),
            ("ip link set lo down", Table::Link, 1),
            ("ip addr flush dev eth0", Table::Address, 1),
            ("ip addr add 10.42.0.77/16 dev eth0", Table::Address, 1),
            ("ip route del default", Table::Route, 1),
            ("ip route del 10.42.0.0/16 dev eth0", Table::Route, 1),
            ("ip route replace default via 10.42.0.9 metric 1000", Table::Route, 1),
            ("ip route add default via 10.42.0.1 metric 5 proto static", Table::Route, 1),
            ("ip route flush table main", Table::Route, 2),
            ("sysctl -qw net.ipv4.conf.eth0.forwarding=1", Table::Link, 1),
        ];
        check(&hosts, &client, &client, &table).await;
        let (host, snapshot) = (&hosts.a, hosts.snapshot());
        tended(host, &snapshot, async {
            for line in ["ip link del eth0", "ip link set eth0 down name other0"] {
                let before = host.drift(Table::Link.label());
                sh(&client, line);
                let took = mended(host, Table::Link, before, line).await;
                assert!(took < SOON, "{line}: mended after {took:?}");
                assert!(answers(&client, "10.42.0.20", 5.0), "{line}");
            }
        })
        .await;
    });
}

#[test]
fn a_workload_that_is_taken_up_again_is_heard_as_before() {
    run(async {
        let (hosts, client, _) = standing().await;
        // As an agent does that starts again: by the network's pass first, then with the workload.
        let local = &hosts.a.local[0];
        hosts.a.overlay.ensure_workload(&hosts.network, local, &client).await.unwrap();
        let table =
            [("ip link set eth0 down", Table::Link, 1), ("ip route flush table main", Table::Route, 2)];
        check(&hosts, &client, &client, &table).await;
    });
}

#[test]
fn what_this_program_changes_itself_leads_to_no_look() {
    run(async {
        let (mut hosts, client, _) = standing().await;
        let network = hosts.network.clone();
        for last in 30..45 {
            hosts.a.attach(&network, &format!("a{last}"), last, last).await;
            hosts.b.attach(&network, &format!("b{last}"), 100 + last, 100 + last).await;
            hosts.converge().await;
        }
        for last in 30..40 {
            let workload =
                hosts.a.local.iter().position(|local| local.workload.name.as_str() == format!("a{last}"));
            let gone = hosts.a.local.remove(workload.unwrap());
            hosts.a.overlay.remove_workload(&network.name, &gone.workload.name).await.unwrap();
            hosts.converge().await;
        }
        // Traffic makes neighbours of the kernel's own.
        assert!(answers(&client, "10.42.0.20", 5.0) && answers(&client, "10.42.0.1", 5.0));
        let (host, snapshot) = (&hosts.a, hosts.snapshot());
        tended(host, &snapshot, tokio::time::sleep(QUIET)).await;
        assert_eq!((host.looks("network"), host.looks("workload")), (0, 0));
        // It hears all the same.
        let before = host.drift(Table::Fdb.label());
        host.in_network(&network, "bridge fdb del 02:00:00:00:00:14 dev vxlan0 dst 192.0.2.2");
        tended(host, &snapshot, async {
            mended(host, Table::Fdb, before, "a row is removed").await;
            tokio::time::sleep(QUIET).await;
        })
        .await;
        assert_eq!(host.looks("network"), 1, "the mending itself leads to no further one");
    });
}

#[test]
fn a_workload_that_changes_its_namespace_all_the_time_costs_little_and_hides_nothing() {
    run(async {
        let (mut hosts, client, _) = standing().await;
        let network = hosts.network.clone();
        let hostile = hosts.a.attach(&network, "hostile", 66, 66).await;
        hosts.converge().await;
        let (host, snapshot) = (&hosts.a, hosts.snapshot());
        let mut storm = crate::hosts::spawn(
            &hostile,
            "while :; do ip addr flush dev eth0; ip addr add 10.42.0.77/16 dev eth0; \
             ip route add blackhole 10.9.0.0/16; ip route del blackhole 10.9.0.0/16; done 2>/dev/null",
        );
        tended(host, &snapshot, async {
            let (began, used) = (Instant::now(), cpu_time());
            let mut times = 0;
            while began.elapsed() < Duration::from_secs(12) {
                let (line, before) = ("ip route del default", host.drift(Table::Route.label()));
                sh(&client, line);
                let gone = Instant::now();
                while !sh(&client, "ip route show default").contains("10.42.0.1") {
                    assert!(gone.elapsed() < SOON, "{line}: not mended beside the storm");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                assert!(host.drift(Table::Route.label()) > before);
                times += 1;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            let share = (cpu_time() - used).as_secs_f64() / began.elapsed().as_secs_f64();
            assert!(share < 0.35, "{share:.2} of a processor");
            assert!(times > 3);
        })
        .await;
        storm.kill().unwrap();
        storm.wait().unwrap();
        let said = host.overlay.lasting_drift();
        let of_hostile: Vec<&String> =
            said.iter().filter(|sentence| sentence.contains("addresses of workload shop/hostile")).collect();
        assert_eq!(of_hostile.len(), 1, "{said:?}");
        assert!(of_hostile[0].contains("times"), "{said:?}");
        let looks = host.looks("workload");
        assert!(looks < 150, "{looks} looks: the rests grow");
    });
}

#[test]
fn a_workload_whose_namespace_cannot_be_mended_is_named_and_its_neighbours_are_mended() {
    run(async {
        let (mut hosts, client, _) = standing().await;
        let network = hosts.network.clone();
        let hostile = hosts.a.attach(&network, "hostile", 66, 66).await;
        hosts.converge().await;
        let (host, snapshot) = (&hosts.a, hosts.snapshot());
        tended(host, &snapshot, async {
            sh(&hostile, "ip link del eth0; ip link add eth0 type bridge || true");
            let began = Instant::now();
            while host.overlay.obstacles().is_empty() {
                // It may have been put back before the other one came.
                sh(&hostile, "ip -d link show eth0 | grep -q ' bridge ' || { ip link del eth0; ip link add eth0 type bridge; } || true");
                assert!(began.elapsed() < 10 * SOON, "nobody names it");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let said = host.overlay.obstacles();
            assert!(said[0].contains("workload shop/hostile"), "{said:?}");
            let before = host.drift(Table::Neighbour.label());
            host.in_network(&network, "ip neigh del 10.42.0.20 dev vxlan0");
            let took = mended(host, Table::Neighbour, before, "a neighbour is removed").await;
            assert!(took < SOON, "{took:?}");
            assert!(answers(&client, "10.42.0.20", 5.0));
            sh(&hostile, "ip link del eth0");
            host.ensure(&snapshot, Reason::Audit).await.unwrap();
            assert_eq!(host.overlay.obstacles(), [""; 0]);
            assert!(answers(&hostile, "10.42.0.20", 5.0));
        })
        .await;
    });
}

#[test]
fn a_port_that_a_runtime_takes_away_as_its_workload_ends_is_nobody_s_drift() {
    run(async {
        let (mut hosts, client, _) = standing().await;
        let (network, runtime) = (hosts.network.clone(), Some("net1".parse().unwrap()));
        let mut container = hosts.a.local(&network, "container", 30, 30);
        container.seat = sealane_fabric::seat::Seat::default().named(runtime);
        let ns = hosts.a.attach_local(&network, container).await;
        hosts.converge().await;
        sh(&ns, "ip link del net1");
        // It says so in a moment.
        hosts.a.local[1].ending = true;
        let (host, snapshot) = (&hosts.a, hosts.snapshot());
        host.ensure(&snapshot, Reason::Change).await.unwrap();
        tended(host, &snapshot, tokio::time::sleep(QUIET)).await;
        host.ensure(&snapshot, Reason::Audit).await.unwrap();
        assert_eq!(host.drift(Table::Link.label()), 0);
        assert!(!sh(&ns, "ip link").contains("net1"), "it is not made again");
        assert!(answers(&client, "10.42.0.20", 5.0));
    });
}

#[test]
fn notices_that_were_lost_lead_to_a_look() {
    run(async {
        let (hosts, client, _) = standing().await;
        let (host, snapshot) = (&hosts.a, hosts.snapshot());
        // More than a workload's ear keeps, before it is asked.
        let lines: String =
            (0..2_000).map(|n| format!("route add blackhole 10.9.{}.{}/32\n", n / 250, n % 250)).collect();
        let batch = std::path::Path::new("/tmp/routes");
        std::fs::write(batch, lines + "route del default\n").unwrap();
        let before = host.drift(Table::Route.label());
        tended(host, &snapshot, async {
            sh(&client, "ip -batch /tmp/routes");
            let took = mended(host, Table::Route, before, "a route is removed").await;
            assert!(took < SOON, "{took:?}");
        })
        .await;
        assert!(answers(&client, "10.42.0.20", 5.0));
    });
}

/// Processor time of this process, without that of the programs it has started.
fn cpu_time() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
    [usage.user_time(), usage.system_time()]
        .map(|time| Duration::from_micros((time.tv_sec() * 1_000_000 + time.tv_usec()) as u64))
        .into_iter()
        .sum()
}
