//! Ways between hosts by a router that takes only short packets and tells nobody.

use std::time::{Duration, Instant};

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, Running, Site, eventually, lab_sh, sealane, testapp};

/// Bytes of a long transfer.
const LONG: &str = "20000000";

/// A mesh whose hosts reach each other by the router alone.
fn routed(hosts: usize) -> Mesh {
    let mesh = Mesh::hosts(hosts);
    lab_sh(
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.underlay.send_redirects=0",
    );
    for site in mesh.sites() {
        let address = site.host.address();
        site.sh(&format!(
            "ip addr flush dev eth0; ip addr add {address}/32 dev eth0; ip route add 192.0.2.1 dev eth0; \
                 ip route add default via 192.0.2.1; ip link set eth0 gso_max_segs 1"
        ));
    }
    let mesh = mesh.up();
    mesh.create_shop();
    mesh.permissive()
}

/// From now on the router drops packets that are longer, and whatever would tell of it.
fn narrow(length: u32) {
    lab_sh(&format!(
        "nft 'table ip router {{ }}; delete table ip router; table ip router {{ \
           chain forward {{ type filter hook forward priority 0; ip length > {length} drop; ip protocol icmp drop; }}; \
           chain output {{ type filter hook output priority 0; ip protocol icmp drop; }}; }}'"
    ));
}

fn wide() {
    lab_sh("nft delete table ip router");
}

/// The MTU of packets of the host's tunnels to another one, where the route has one.
fn mtu(from: &Site, to: &Site) -> Option<u32> {
    let way = from.sh(&format!("ip route get {} ipproto udp dport 4789", to.host.address()));
    way.split("mtu ").nth(1)?.split_whitespace().next()?.parse().ok()
}

fn await_mtu(from: &Site, to: &Site, wanted: Option<u32>, within: Duration) -> Duration {
    let began = Instant::now();
    let what = format!("packets of {} are at most {wanted:?} bytes long", from.host.name());
    eventually(within, &what, || (mtu(from, to) == wanted).then_some(()));
    began.elapsed()
}

fn path_mtu(from: &Site, to: &str) -> serde_json::Value {
    let nodes = from.json(&["node", "ls"]);
    nodes.as_array().unwrap().iter().find(|view| view["name"] == to).unwrap()["path_mtu"].clone()
}

fn await_path_mtu(from: &Site, to: &str, wanted: u32) {
    let what = format!("{} knows that {wanted} bytes pass to {to}", from.host.name());
    eventually(PATIENCE, &what, || (path_mtu(from, to) == wanted).then_some(()));
}

#[test]
fn news_of_control_and_new_hosts_come_where_long_packets_are_lost() {
    if !isolated() {
        return;
    }
    let mut mesh = routed(2);
    let _carried = mesh.site(2).serve("web", "web-1");
    narrow(600);
    // Each state of the network is longer than a packet that passes, and so is what greets a host.
    for number in 0..8 {
        let service = format!("a-service-with-a-long-name-{number}");
        let document = format!(
            "{{apiVersion: sealane.dev/v1, kind: Service, metadata: {{name: {service}, network: shop}}, spec: {{ports: [{{port: 8080}}]}}}}"
        );
        mesh.site(1).sh(&format!("echo '{document}' | '{}' apply -f -", sealane().display()));
        let what = format!("host 2 knows of {service}");
        eventually(Duration::from_secs(5), &what, || {
            let known = mesh.site(2).json(&["service", "ls", "--network", "shop"]);
            known.as_array().unwrap().iter().any(|view| view["name"] == *service).then_some(())
        });
    }
    mesh.site_mut(2).agent.kill9();
    mesh.site_mut(2).agent.start();
    mesh.site_mut(2).await_ready();
    mesh.await_connected();
    eventually(PATIENCE, "there is a channel between the hosts", || {
        (!mesh.site(2).problems().contains("there is no channel")).then_some(())
    });
}

/// An instance of `api` and one of `plain` without a sidecar.
fn servers(site: &Site) -> [Running; 2] {
    let program = testapp();
    let flags =
        ["--network", "shop", "--service", "plain", "--port", "8080", "--name", "plain-1", "--no-sidecar"];
    let mut plain = site.run(&flags, &[program.to_str().unwrap(), "http", "8080", "plain-1"]);
    plain.wait_for("listening");
    [site.serve("api", "api-1"), plain]
}

/// Workloads that call, with a sidecar and without.
fn clients(site: &Site) -> [Running; 2] {
    [&["--name", "web"][..], &["--name", "bare", "--no-sidecar"]].map(|flags| {
        let program = testapp();
        let flags = [&["--network", "shop"], flags].concat();
        let mut client = site.run(&flags, &[program.to_str().unwrap(), "http", "9999", "client"]);
        client.wait_for("listening");
        client
    })
}

/// Transfers bytes from a service to a workload; answers how many came and how long that took.
fn transfer(site: &Site, workload: &str, service: &str, patience: &str) -> (String, Duration) {
    let began = Instant::now();
    let url = format!("http://{service}:8080/bytes/{LONG}");
    let words = ["curl", "-sS", "-o", "/dev/null", "-w", "%{size_download}", "--max-time", patience, &url];
    (site.exec(workload, &words).stdout, began.elapsed())
}

/// Sends bytes the other way.
fn upload(site: &Site, workload: &str, service: &str) -> String {
    let url = format!("http://{service}:8080/");
    let script = format!(
        "head -c {LONG} /dev/zero | curl -sS -o /dev/null -w '%{{size_upload}}' --max-time 60 -H Expect: --data-binary @- {url}"
    );
    site.exec(workload, &["sh", "-c", &script]).stdout
}

#[test]
fn a_black_hole_is_found_named_and_told_to_senders_and_forgotten_when_the_way_has_grown() {
    if !isolated() {
        return;
    }
    let mut mesh = routed(2);
    let _servers = servers(mesh.site(1));
    let _clients = clients(mesh.site(2));
    mesh.await_instances("api", 1);
    mesh.await_instances("plain", 1);
    await_path_mtu(mesh.site(2), "host-1", 1_500);
    await_path_mtu(mesh.site(1), "host-2", 1_500);
    for (workload, service) in [("web", "api"), ("bare", "plain")] {
        assert_eq!(transfer(mesh.site(2), workload, service, "60").0, LONG);
    }

    narrow(1_380);
    let began = Instant::now();
    for (from, to) in [(1, 2), (2, 1)] {
        await_mtu(mesh.site(from), mesh.site(to), Some(1_380), Duration::from_secs(20));
    }
    let took = began.elapsed();
    println!("found and applied after {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    let two = mesh.site(2);
    for (workload, service) in [("web", "api"), ("bare", "api"), ("bare", "plain")] {
        let (bytes, took) = transfer(two, workload, service, "60");
        println!("{workload} <- {service}: {bytes} bytes in {took:?}");
        assert_eq!(bytes, LONG, "{workload} from {service}");
        assert_eq!(upload(two, workload, service), LONG, "{workload} to {service}");
    }
    // Who has sent long packets was told so, and the other end by the server's maximum segment size.
    let told =
        mesh.site(1).exec("plain-1", &["sh", "-c", "ip route get $(getent hosts bare | cut -d' ' -f1)"]);
    assert!(told.stdout.contains("mtu 1330"), "{told}");
    await_path_mtu(two, "host-1", 1_380);
    assert_eq!(two.metrics().sum("sealane_agent_peer_path_mtu_bytes", &[("peer", "host-1")]), 1_380.0);
    let problems = two.problems();
    assert!(
        problems.contains("packets of 1500 bytes to node host-1 (192.0.2.11) are lost on the way"),
        "{problems}"
    );
    assert!(problems.contains("at most 1380 bytes pass"), "{problems}");

    // What is set stays while the agent is away, and is taken over.
    mesh.site_mut(2).agent.kill9();
    assert_eq!(mtu(mesh.site(2), mesh.site(1)), Some(1_380));
    mesh.site_mut(2).agent.start();
    mesh.site_mut(2).await_ready();
    await_path_mtu(mesh.site(2), "host-1", 1_380);
    assert_eq!(mtu(mesh.site(2), mesh.site(1)), Some(1_380));
    // So is what somebody takes away.
    mesh.site(2).sh("ip rule del pref 47");
    let mended = await_mtu(mesh.site(2), mesh.site(1), Some(1_380), PATIENCE);
    assert!(mended < Duration::from_secs(2), "{mended:?}");
    assert!(mesh.site(2).metrics().sum("sealane_kernel_drift_total", &[("table", "route")]) >= 1.0);

    wide();
    for (from, to) in [(1, 2), (2, 1)] {
        println!(
            "as before after {:?}",
            await_mtu(mesh.site(from), mesh.site(to), None, Duration::from_secs(40))
        );
    }
    eventually(PATIENCE, "status is well again", || {
        (!mesh.site(2).problems().contains("lost on the way")).then_some(())
    });
    assert!(!mesh.site(2).sh("ip rule; ip -6 rule").contains("47:"));
}

/// Starts a script in the workload `web`, which calls `api` as URL, and waits until it has said `word`.
fn start(site: &Site, word: &str, script: &str) -> Running {
    let script = format!("URL=http://api:8080; {script}");
    site.start(sealane().to_str().unwrap(), &["exec", "web", "--", "sh", "-c", &script], word)
}

#[test]
fn transfers_through_sidecars_go_on_and_calls_beside_them_pass_while_long_packets_are_lost() {
    if !isolated() {
        return;
    }
    let mesh = routed(2);
    let (one, two) = (mesh.site(1), mesh.site(2));
    let _servers = servers(one);
    let _clients = clients(two);
    mesh.await_instances("api", 1);
    await_path_mtu(two, "host-1", 1_500);
    await_path_mtu(one, "host-2", 1_500);
    // A kernel finds out itself in namespaces of the agent's own; other ones may be without that.
    for (length, probing) in [(1_400, "1"), (1_050, "0")] {
        for (site, workload) in [(one, "api-1"), (two, "web")] {
            let set = format!("echo {probing} > /proc/sys/net/ipv4/tcp_mtu_probing");
            let was =
                site.exec(workload, &["sh", "-c", &format!("sysctl -n net.ipv4.tcp_mtu_probing; {set}")]);
            assert_eq!(was.ok().stdout, "1\n");
        }
        let of_curl = "curl -sS --max-time 60 -o /dev/null";
        let down = format!(
            "{of_curl} --limit-rate 3M -D /dev/stdout -w 'got %{{size_download}}' $URL/bytes/60000000"
        );
        let up = format!(
            "echo begun; head -c 60000000 /dev/zero | \
             {of_curl} --limit-rate 3M -w '%{{http_code}} sent %{{size_upload}}' -H Expect: --data-binary @- $URL/"
        );
        let calls = format!(
            "for i in $(seq 60); do {of_curl} -w '%{{http_code}} %{{time_total}}\\n' $URL/ & sleep 0.2; done; wait"
        );
        let (down, up) = (start(two, "200 OK", &down), start(two, "begun", &up));
        let calls = start(two, "200 ", &calls);
        narrow(length);
        let (down, up, calls) = (down.wait(), up.wait(), calls.wait());
        println!("{length}: {}; {}", down.stdout, up.stdout);
        assert!(down.stdout.ends_with("got 60000000"), "{down}");
        assert!(up.stdout.ends_with("200 sent 60000000"), "{up}");
        let took = |line: &str| line.strip_prefix("200 ").and_then(|seconds| seconds.parse::<f64>().ok());
        let took: Option<Vec<f64>> = calls.stdout.lines().map(took).collect();
        let mut took = took.unwrap_or_else(|| panic!("{calls}"));
        took.sort_by(f64::total_cmp);
        println!("the slowest calls took {:?} s", &took[50..]);
        assert!(took.len() == 60 && took[50] < 2.0, "only those at the beginning may have stalled: {took:?}");
        for (from, to) in [(1, 2), (2, 1)] {
            await_mtu(mesh.site(from), mesh.site(to), Some(length), Duration::from_secs(20));
        }
        assert_eq!(two.metrics().sum("sealane_streams_abandoned_total", &[]), 0.0);
    }
}

#[test]
fn routes_of_narrow_ways_go_with_the_host() {
    if !isolated() {
        return;
    }
    let mut mesh = routed(2);
    let _servers = servers(mesh.site(1));
    let _clients = clients(mesh.site(2));
    await_path_mtu(mesh.site(2), "host-1", 1_500);
    narrow(1_300);
    await_mtu(mesh.site(2), mesh.site(1), Some(1_300), Duration::from_secs(20));
    let _ = mesh.site_mut(2).agent.terminate();
    assert_eq!(mtu(mesh.site(2), mesh.site(1)), Some(1_300), "workloads go on without the agent");
    let of_host = mesh.site(2).sh(&format!("ip route get {}", mesh.site(1).host.address()));
    assert!(!of_host.contains("table"), "what the host says itself needs no agent: {of_host}");
    let _ = mesh.site(2).sealane(&["clean", "--yes"]).ok();
    assert_eq!(mtu(mesh.site(2), mesh.site(1)), None);
    let left = mesh.site(2).sh("ip rule; ip -6 rule; ip route show table all; ip -6 route show table all");
    assert!(!left.contains("47:") && !left.contains("proto 94") && !left.contains("proto sealane"), "{left}");
}
