//! A network card that says that it makes checksums and makes none inside tunnels: what comes of it, who says so, and the line that helps.

use std::process::Command;
use std::time::{Duration, Instant};

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, Running, Site, eventually, lab_sh, testapp};

/// Program that is such a card.
const BROKEN_CARD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/programs/broken_card.py");
/// Time in which a fault is named: up to 10 s until it is met, twenty tries that say something, of which loss leaves two in three, and
/// as much again.
const NAMED: Duration = Duration::from_secs(90);
const PEER: [(&str, &str); 1] = [("peer", "host-1")];

/// Gives the host with this number such a card.
fn break_card(number: usize) -> Running {
    let (card, wire, port) = (format!("u{number}"), format!("card{number}"), format!("wire{number}"));
    // The lab itself is neither asked nor does it say anything at the card.
    lab_sh(&format!(
        "ip link set {card} nomaster; ip link add {wire} type veth peer name {port}; \
         for device in {card} {wire} {port}; do \
           sysctl -qw net.ipv6.conf.$device.disable_ipv6=1; ip link set $device arp off; ip link set $device up; \
         done; \
         ip link set {port} master underlay"
    ));
    let mut relay = Command::new("/usr/bin/python3");
    relay.args([BROKEN_CARD, &card, &wire]);
    let mut relay = Running::start(relay);
    relay.wait_for("joined");
    relay
}

/// Has a host's kernel make all checksums, or leave them to the card.
fn leave_to_card(site: &Site, leave: bool) {
    site.sh(&format!("ethtool -K eth0 tx {}", if leave { "on" } else { "off" }));
}

/// An instance of `plain` without a sidecar.
fn serve(site: &Site) -> Running {
    let program = testapp();
    let flags =
        ["--network", "shop", "--service", "plain", "--port", "8080", "--name", "plain-1", "--no-sidecar"];
    let mut plain = site.run(&flags, &[program.to_str().unwrap(), "http", "8080", "plain-1"]);
    plain.wait_for("listening");
    plain
}

/// A workload that calls.
fn client(site: &Site) -> Running {
    let program = testapp();
    let flags = ["--network", "shop", "--name", "bare", "--no-sidecar"];
    let mut client = site.run(&flags, &[program.to_str().unwrap(), "http", "9999", "client"]);
    client.wait_for("listening");
    client
}

/// Returns true if a workload reaches a service by TCP.
fn calls(site: &Site) -> bool {
    let call = site.exec("bare", &["curl", "-sS", "-m", "3", "http://plain:8080/"]);
    call.stdout.contains("plain-1")
}

fn pings(site: &Site) -> bool {
    let script = "ping -n -c1 -W3 $(getent hosts plain-1 | cut -d' ' -f1)";
    site.exec("bare", &["sh", "-c", script]).stdout.contains("1 received")
}

/// From now on one packet in five of tunnels is lost on its way to a host.
fn lose(site: &Site) {
    site.sh("nft 'table ip loss { chain c { type filter hook prerouting priority -400; \
           udp dport 4789 numgen random mod 5 == 0 drop; }; }'");
}

fn await_fault(site: &Site, fault: f64) -> Duration {
    let began = Instant::now();
    eventually(NAMED, &format!("the fault is {fault}"), || {
        let metrics = site.metrics();
        let is_known = metrics.has("sealane_agent_peer_checksum_fault", &PEER);
        (is_known && metrics.sum("sealane_agent_peer_checksum_fault", &PEER) == fault).then_some(())
    });
    began.elapsed()
}

#[test]
fn a_card_that_makes_no_checksums_in_tunnels_is_named_with_the_line_that_helps() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::hosts(2);
    // The card cuts no segments: nothing describes those in tunnels to the program.
    mesh.sites().for_each(|site| drop(site.sh("ip link set eth0 gso_max_segs 1")));
    leave_to_card(mesh.site(2), false);
    let _card = break_card(2);
    let mesh = mesh.up();
    mesh.create_shop();
    let mesh = mesh.permissive();
    let _server = serve(mesh.site(1));
    let _client = client(mesh.site(2));
    let (one, two) = (mesh.site(1), mesh.site(2));
    one.await_instances("plain", 1);
    await_fault(two, 0.0);
    eventually(PATIENCE, "all is well while the kernel makes checksums", || calls(two).then_some(()));

    // Loss neither hides it, nor makes one of the sound way back.
    mesh.sites().for_each(lose);
    leave_to_card(two, true);
    println!("named after {:?}", await_fault(two, 1.0));
    assert!(!one.problems().contains("checksums"), "{}", one.problems());
    mesh.sites().for_each(|site| drop(site.sh("nft delete table ip loss")));
    assert!(pings(two), "what has the kernel's checksum passes");
    assert!(!calls(two), "TCP does not");
    let sentence = "packets of TCP and UDP to node host-1 (192.0.2.11) are lost where network device eth0 is left to make \
                    their checksums";
    eventually(PATIENCE, "status names it", || two.problems().contains(sentence).then_some(()));
    let problems = two.problems();
    let line = problems.split('`').find(|words| words.starts_with("ethtool ")).expect("a line to type");
    let check = two.sealane(&["check"]);
    assert!(check.stdout.contains(sentence) && check.stdout.contains(line), "{check}");
    let matrix = one.sealane(&["check", "--peers"]);
    assert_eq!(matrix.code(), 1, "{matrix}");
    assert!(matrix.stdout.contains("packets of TCP and UDP from host-2 to host-1 are lost"), "{matrix}");
    assert!(
        matrix.stdout.contains("wrong checksums") && matrix.stdout.contains("1 of 2 ways are bad"),
        "{matrix}"
    );

    two.sh(line);
    println!("no longer named after {:?}", await_fault(two, 0.0));
    eventually(PATIENCE, "status is well again", || (!two.problems().contains("checksums")).then_some(()));
    assert!(calls(two));
    assert_eq!(one.sealane(&["check", "--peers"]).code(), 0);
}
