//! Virtual machines at a TAP device: one that boots, and for what takes more than a look a namespace with a client of DHCP, whose frames a
//! program carries to and from the device as an emulator does.

use sealane_lab::isolated;
use sealane_tests::{Finished, Mesh, PATIENCE, Running, Site, eventually, kernel};
use serde_json::Value;

/// The emulator: opens the device and carries frames between it and `wire0` in the namespace `vm`.
const EMULATOR: &str = r#"
import ctypes, fcntl, os, select, socket, struct, sys
tap = os.open('/dev/net/tun', os.O_RDWR)
fcntl.ioctl(tap, 0x400454ca, struct.pack('16sH22x', sys.argv[1].encode(), 0x1002))
assert ctypes.CDLL(None).setns(os.open('/run/netns/vm', os.O_RDONLY), 0) == 0
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind(('wire0', 0))
print('carries', flush=True)
while True:
    for ready in select.select([tap, wire], [], [])[0]:
        if ready is wire:
            frame, where = wire.recvfrom(65536)
            if where[2] != socket.PACKET_OUTGOING:
                os.write(tap, frame)
        else:
            wire.send(os.read(tap, 65536))
"#;

/// The script by which the client of DHCP does what it is told.
const BOUND: &str = r#"#!/bin/sh
case $1 in
deconfig) ip address flush dev $interface ;;
bound | renew)
    echo "$1 $ip/$mask router $router dns $dns mtu $mtu domain $domain lease $lease"
    ip address replace $ip/$mask dev $interface
    ip link set $interface mtu $mtu
    ip route replace default via $router ;;
nak) echo "nak $message" ;;
esac
"#;

struct Machine<'a> {
    site: &'a Site,
}

impl Machine<'_> {
    fn new<'a>(site: &'a Site, mac: &str) -> (Machine<'a>, Running) {
        let script = format!(
            "ip netns add vm && ip -n vm link set lo up && ip -n vm link add nic0 address {mac} type veth peer name wire0 && \
             ip netns exec vm ethtool -K nic0 tx off >/dev/null && ip -n vm link set wire0 up && ip -n vm link set nic0 up"
        );
        let _ = site.command("sh", &["-c", &script]).ok();
        site.host.within(|| std::fs::write("/run/bound", BOUND).unwrap()).unwrap();
        let _ = site.command("chmod", &["755", "/run/bound"]).ok();
        (Machine { site }, Self::emulate(site))
    }

    fn emulate(site: &Site) -> Running {
        site.start("/usr/bin/python3", &["-c", EMULATOR, "vm1"], "carries")
    }

    fn run(&self, command: &[&str]) -> Finished {
        self.site.command("ip", &[&["netns", "exec", "vm"], command].concat())
    }

    fn ask_for_address(&self) -> Finished {
        self.run(&["busybox", "udhcpc", "-i", "nic0", "-n", "-q", "-t", "4", "-T", "1", "-s", "/run/bound"])
    }
}

fn attach(site: &Site, device: &str) -> Finished {
    attach_as(site, device, &[])
}

fn attach_as(site: &Site, device: &str, flags: &[&str]) -> Finished {
    site.sealane(&[&["attach", "--tap", device, "--network", "shop", "-o", "json"], flags].concat())
}

#[test]
fn a_machine_that_boots_gets_its_address_and_reaches_a_service_by_name() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(2, 1);
    mesh = mesh.permissive();
    let site = mesh.site(2);
    let attached = site.sealane(&["attach", "--tap", "vm1", "--network", "shop"]).ok();
    let words = attached.stderr.split_once("start the machine with: ").unwrap().1;
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/programs/boot.sh");
    let kernel = kernel().display().to_string();
    let boot = [&[program, &kernel, "http://api:8080/"], &words.split_whitespace().collect::<Vec<_>>()[..]];
    let console = site.command("sh", &boot.concat()).ok().stdout;
    let address = site.workload("vm1").unwrap()["address"].as_str().unwrap().to_owned();
    let expected = format!("bound {address}/16 router 10.42.0.1");
    assert!(console.contains(&expected) && console.contains("answer api-1"), "{console}");
}

#[test]
fn a_machine_gets_its_address_by_dhcp_reaches_a_service_by_name_and_is_reached_by_its_own() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(2, 2);
    mesh = mesh.permissive();
    let attached: Value = attach(mesh.site(1), "vm1").ok().json();
    let word = |field: &str| attached[field].as_str().unwrap().to_owned();
    let (mac, address) = (word("mac"), word("address"));
    assert_eq!((word("workload").as_str(), word("gateway").as_str()), ("vm1", "10.42.0.1"));
    let (machine, emulator) = Machine::new(mesh.site(1), &mac);
    let told = machine.ask_for_address().ok().stdout;
    let expected =
        format!("bound {address}/16 router 10.42.0.1 dns 10.42.0.1 mtu 1450 domain shop lease 3600");
    assert!(told.contains(&expected), "{told}");

    let found = machine.run(&["dig", "+short", "@10.42.0.1", "api.shop"]).ok().stdout;
    let instances: Vec<&str> = found.lines().collect();
    assert_eq!(instances.len(), 2, "{found}");
    for instance in instances {
        let answer =
            machine.run(&["curl", "-sS", "--max-time", "5", &format!("http://{instance}:8080/")]).ok();
        assert!(answer.stdout.starts_with("api-"), "{answer}");
    }
    let _server = mesh.site(1).serve_in("/run/netns/vm", "9000", "machine");
    let call = |mesh: &Mesh| mesh.site(2).curl("http://vm1:9000/").stdout;
    assert_eq!(call(&mesh), "machine");
    let longest = ["ping", "-c", "1", "-W", "5", "-M", "do", "-s", "1422", "vm1"];
    let _ = mesh.site(2).shop(&longest).wait().ok();

    // From an address that is not its own, nothing passes.
    let forged = "ip address add 10.42.0.250/16 dev nic0; ping -c 1 -W 1 -I 10.42.0.250 10.42.0.1";
    assert!(!machine.run(&["sh", "-c", forged]).status.success());
    assert!(machine.run(&["ping", "-c", "1", "-W", "2", "-I", &address, "10.42.0.1"]).status.success());

    // Neither the agent's nor the emulator's end is the machine's.
    drop(emulator);
    mesh.site_mut(1).agent.kill9();
    mesh.site_mut(1).agent.start();
    mesh.site_mut(1).await_ready();
    let machine = Machine { site: mesh.site(1) };
    let _emulator = Machine::emulate(mesh.site(1));
    assert!(machine.ask_for_address().ok().stdout.contains(&expected));
    assert_eq!(call(&mesh), "machine");
    let twice = attach(mesh.site(1), "vm1");
    assert!(twice.stderr.contains("tap/vm1 holds workload shop/vm1 already"), "{twice}");
    assert!(twice.stderr.contains("`sealane detach vm1`"), "{twice}");
}

#[test]
fn a_machine_is_an_instance_of_a_service_while_it_listens() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(2).permissive();
    let flags = ["--service", "db", "--port", "9000", "--mac", "02:00:00:00:00:07"];
    let _ = attach_as(mesh.site(1), "vm1", &flags).ok();
    let (machine, _emulator) = Machine::new(mesh.site(1), "02:00:00:00:00:07");
    let _ = machine.ask_for_address().ok();
    mesh.await_instances("db", 0);
    let why = mesh.site(1).workload("vm1").unwrap()["problem"].to_string();
    assert!(why.contains("takes no connections from the network's own address at its port 9000"), "{why}");

    let server = mesh.site(1).serve_in("/run/netns/vm", "9000", "machine");
    mesh.await_instances("db", 1);
    assert_eq!(mesh.site(2).curl("http://db:9000/").ok().stdout, "machine");
    drop(server);
    mesh.await_instances("db", 0);
}

#[test]
fn a_machine_with_another_ethernet_address_is_named_and_detach_leaves_nothing() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(1);
    let site = mesh.site(1);
    for (flags, why) in [
        (&["--tap", "eth0", "--network", "shop"][..], "there is a device eth0"),
        (&["--tap", "a/b", "--network", "shop"], "no name of an interface"),
        (&["--tap", "vm1", "--network", "none"], "network none"),
    ] {
        let refused = site.sealane(&[&["attach"], flags].concat());
        assert!(!refused.status.success() && refused.stderr.contains(why), "{refused}");
    }
    let devices = || site.command("ip", &["-br", "link"]).ok().stdout;
    let tables = || site.command("nft", &["list", "tables"]).ok().stdout;
    assert!(!devices().contains("vm1"), "{}", devices());

    let _ = attach(site, "vm1").ok();
    assert!(devices().contains("vm1") && tables().contains("sealane-tap"), "{}", tables());
    let (machine, emulator) = Machine::new(site, "02:00:00:00:00:99");
    assert!(!machine.ask_for_address().status.success());
    let said = site.sealane(&["status"]);
    let said = said.stdout + &said.stderr;
    assert!(said.contains("has the Ethernet address 02:00:00:00:00:99"), "{said}");
    drop(emulator);

    // Somebody takes the device away: it stands again.
    let _ = site.command("ip", &["link", "del", "vm1"]).ok();
    eventually(PATIENCE, "the device is made again", || devices().contains("vm1").then_some(()));

    let _ = site.sealane(&["detach", "vm1"]).ok();
    eventually(PATIENCE, "nothing is left", || {
        let rooms = site.command("ls", &["/run/sealane/taps"]).stdout;
        let left = devices().contains("vm1") || devices().contains("slt") || tables().contains("sealane-tap");
        (!left && rooms.is_empty()).then_some(())
    });
}
