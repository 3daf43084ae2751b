//! The world outside, and who may say to be whom inside.

use std::time::Duration;

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, Running, Site, eventually};

/// host-1 is the mesh; host-2 is the world outside and serves HTTP on port 8000.
fn beside_the_world(prepare: impl FnOnce(&Site)) -> (Mesh, Running) {
    let mesh = Mesh::hosts(2);
    prepare(mesh.site(1));
    let mesh = mesh.up_to(1);
    let serve = ["-u", "-m", "http.server", "8000", "--directory", "/var/lib"];
    let server = mesh.site(2).start("/usr/bin/python3", &serve, "Serving HTTP");
    (mesh, server)
}

/// curl's exit status towards the world from a new workload of this network: 0 reached, 7 refused, 28 no answer.
fn curl(mesh: &Mesh, network: &str, flags: &[&str], url: &str) -> i32 {
    let flags = [&["--network", network], flags].concat();
    mesh.site(1).run(&flags, &["curl", "-sS", "-o", "/dev/null", "--max-time", "25", url]).wait().code()
}

const WORLD: &str = "http://192.0.2.12:8000/";

#[test]
fn workloads_reach_the_world_unless_their_network_denies_it_and_clean_leaves_the_host_as_it_was() {
    if !isolated() {
        return;
    }
    let (mut mesh, mut server) = beside_the_world(|_| {});
    let state = |site: &Site| {
        let line = "nft list tables; iptables -S; ip -br link; sysctl net.ipv4.ip_forward";
        site.command("sh", &["-c", line]).ok().stdout
    };
    let before = state(mesh.site(1));
    mesh.create_shop();
    let deny = ["network", "create", "vault", "--subnet", "10.43.0.0/16", "--egress", "deny"];
    let _ = mesh.sealane(&deny).ok();
    assert_eq!(mesh.json(&["network", "inspect", "vault"])["egress"], "deny");
    assert_eq!(mesh.json(&["network", "inspect", "shop"])["egress"], "allow");
    for flags in [&[][..], &["--no-sidecar"]] {
        assert_eq!(curl(&mesh, "shop", flags, WORLD), 0, "{flags:?}");
        assert_eq!(curl(&mesh, "vault", flags, WORLD), 7, "refused at once: {flags:?}");
    }
    server.wait_for("192.0.2.11 - - ");
    assert!(!server.stderr().contains("10.42."), "{}", server.stderr());
    // The host's own services are not the world.
    assert_eq!(curl(&mesh, "shop", &[], "http://192.0.2.11:9464/live"), 7);
    let refused = mesh.site(1).metrics().sum("sealane_egress_refused_packets_total", &[("network", "vault")]);
    assert!(refused >= 2.0, "{refused}");

    mesh.site_mut(1).agent.kill9();
    mesh.control.kill9();
    let _ = mesh.site(1).sealane(&["clean", "--yes"]).ok();
    assert_eq!(state(mesh.site(1)), before);
}

#[test]
fn a_host_whose_firewall_drops_what_is_forwarded_lets_workloads_out_and_forgets_it_with_the_network() {
    if !isolated() {
        return;
    }
    let (mesh, _server) = beside_the_world(|site| {
        let _ = site.command("iptables", &["-P", "FORWARD", "DROP"]).ok();
    });
    let rules = || mesh.site(1).command("iptables", &["-S"]).ok().stdout;
    let before = rules();
    mesh.create_shop();
    assert_eq!(curl(&mesh, "shop", &[], WORLD), 0);
    assert!(rules().contains("--comment sealane"), "{}", rules());
    eventually(PATIENCE, "the network can be removed", || {
        mesh.sealane(&["network", "rm", "shop"]).status.success().then_some(())
    });
    eventually(PATIENCE, "the firewall is as it was", || (rules() == before).then_some(()));
}

#[test]
fn check_names_a_chain_that_drops_egress_and_its_remedy_helps() {
    if !isolated() {
        return;
    }
    let (mesh, _server) = beside_the_world(|site| {
        let table = "nft add table inet fw; nft 'add chain inet fw onward { type filter hook forward priority 10; }'; \
                     nft add rule inet fw onward reject";
        let _ = site.command("sh", &["-ec", table]).ok();
    });
    mesh.create_shop();
    assert_eq!(curl(&mesh, "shop", &[], WORLD), 7);
    let findings = || mesh.site(1).findings("forwarding");
    let words = "inet fw onward drops what workloads send to the world outside, or the answers".to_owned();
    assert_eq!(findings(), [("warning".to_owned(), words)]);
    for rule in ["iifname sealane*", "oifname sealane* ct state established,related"] {
        let _ = mesh.site(1).command("nft", &["insert", "rule", "inet", "fw", "onward", rule, "accept"]).ok();
    }
    let open = ("ok".to_owned(), "nothing drops what is forwarded".to_owned());
    assert_eq!(findings(), [open]);
    assert_eq!(curl(&mesh, "shop", &[], WORLD), 0);
}

#[test]
fn a_document_that_changes_egress_changes_it_for_running_workloads() {
    if !isolated() {
        return;
    }
    let (mesh, _server) = beside_the_world(|_| {});
    let folder = tempfile::TempDir::new().unwrap();
    let apply = |egress: &str| {
        let path = folder.path().join("shop.yaml");
        let document = format!(
            "apiVersion: sealane.dev/v1\nkind: Network\nmetadata: {{name: shop}}\n\
             spec: {{subnets: [10.42.0.0/16], egress: {egress}}}\n"
        );
        std::fs::write(&path, document).unwrap();
        mesh.sealane(&["apply", "-f", path.to_str().unwrap(), "--wait"]).ok().stdout
    };
    assert!(apply("allow").contains("network shop created"));
    let clients: [(&str, &[&str]); 2] = [("plain", &["--no-sidecar"]), ("beside-a-sidecar", &[])];
    let _running = clients.map(|(name, flags)| {
        let flags = [&["--network", "shop", "--name", name], flags].concat();
        let mut client = mesh.site(1).run(&flags, &["sh", "-c", "echo began; exec sleep infinity"]);
        client.wait_for("began");
        client
    });
    let check = |expected: i32| {
        for (name, _) in clients {
            let curl = ["curl", "-sS", "-o", "/dev/null", "--max-time", "25", WORLD];
            assert_eq!(mesh.site(1).exec(name, &curl).code(), expected, "{name}");
        }
    };
    check(0);
    for (egress, code) in [("deny", 7), ("allow", 0), ("deny", 7)] {
        assert!(apply(egress).contains("network shop configured"));
        check(code);
    }
}

/// Sends, from its interface, an ARP reply to everybody that 10.42.0.1 is here, and an echo request from an address
/// that is not its own.
const LIES: &str = r#"
import socket, sys
packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
packet.bind(("eth0", 0))
own = packet.getsockname()[4]
gateway = socket.inet_aton("10.42.0.1")
everybody = b"\xff" * 6
arp = bytes.fromhex("0001080006040002") + own + gateway + everybody + gateway
for _ in range(10):
    packet.send(everybody + own + bytes.fromhex("0806") + arp)
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
head = bytes.fromhex("4500001c000000004001000000000000")[:12]
for _ in range(10):
    header = head + socket.inet_aton("10.42.0.77") + socket.inet_aton(sys.argv[1])
    raw.sendto(header + bytes.fromhex("0800f7ff00000000"), (sys.argv[1], 0))
print("told")
"#;

#[test]
fn who_lies_about_its_address_is_not_heard_while_others_go_on() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = Mesh::serving(2, 1);
    let load = mesh.site(1).load("client", &["http://api:8080/", "--pause-ms", "2"]);
    let target = mesh.site(1).workload("api-1").unwrap()["address"].as_str().unwrap().to_owned();
    let flags = ["--network", "shop", "--no-sidecar", "--name", "liar"];
    let told = mesh.site(1).run(&flags, &["/usr/bin/python3", "-c", LIES, &target]).wait().ok();
    assert_eq!(told.stdout.trim(), "told");
    let spoofed = mesh.site(1).metrics().sum("sealane_spoofed_packets_total", &[("network", "shop")]);
    assert!(spoofed >= 20.0, "{spoofed}");
    load.await_further(20);
    let _ = load.stop().ok();
}

#[test]
fn a_workloads_rules_that_somebody_flushed_come_back_at_once() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = Mesh::serving(1, 1);
    let rules = || {
        let all = mesh.site(1).exec("api-1", &["nft", "list", "ruleset"]).ok().stdout;
        all.lines().filter(|line| !line.contains("counter")).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = rules();
    assert!(before.iter().any(|line| line.contains("redirect to :15006")), "{before:?}");
    let _ = mesh.site(1).exec("api-1", &["nft", "flush", "ruleset"]).ok();
    // Once a minute they would be looked at anyway.
    eventually(Duration::from_secs(10), "the rules are back", || (rules() == before).then_some(()));
}

#[test]
fn a_workloads_routes_that_somebody_flushed_come_back() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = Mesh::serving(1, 1);
    let routes = || mesh.site(1).exec("api-1", &["ip", "route"]).ok().stdout;
    let before = routes();
    assert!(before.contains("default via 10.42.0.1"), "{before}");
    let _ = mesh.site(1).exec("api-1", &["ip", "route", "flush", "table", "main"]).ok();
    // The agent looks once a minute.
    eventually(PATIENCE * 4, "the routes are as they were", || (routes() == before).then_some(()));
    let drift = mesh.site(1).metrics().sum("sealane_kernel_drift_total", &[("table", "route")]);
    assert!(drift >= 2.0, "{drift}");
}
