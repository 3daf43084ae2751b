//! The lab with a real kernel. Needs root.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sealane_lab::{Lab, Root, isolate, isolated};
use sealane_sys::Process;

#[test]
fn hosts_reach_each_other_over_the_underlay_until_one_is_cut() {
    if !isolated() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let (one, two) = (lab.host("host-1").unwrap(), lab.host("host-2").unwrap());
    assert_eq!(one.address(), Ipv4Addr::new(192, 0, 2, 11));
    let listener = two.within(|| TcpListener::bind("0.0.0.0:80").unwrap()).unwrap();
    let to = SocketAddr::from((two.address(), 80));
    let mut call = one.within(|| TcpStream::connect(to).unwrap()).unwrap();
    call.write_all(b"over").unwrap();
    let (mut accepted, from) = listener.accept().unwrap();
    assert_eq!(from.ip(), one.address());
    let mut four = [0; 4];
    accepted.read_exact(&mut four).unwrap();
    assert_eq!(&four, b"over");

    two.cut().unwrap();
    let wait = Duration::from_millis(300);
    assert!(one.within(|| TcpStream::connect_timeout(&to, wait).is_err()).unwrap());
    two.heal().unwrap();
    let started = Instant::now();
    while one.within(|| TcpStream::connect_timeout(&to, wait).is_err()).unwrap() {
        assert!(started.elapsed() < Duration::from_secs(30), "the host did not come back");
    }
}

#[test]
fn a_host_with_the_files_of_another_system_leaves_them_as_they_are() {
    if !isolated() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    // Another system like this one.
    let root = Root { folder: "/".into(), shared: vec!["/proc/sys/kernel".into()] };
    let host = lab.host_of("host-1", &root).unwrap();
    let script = "set -e; hostname; touch /etc/written /run/written; ls /var/lib /proc/sys/kernel/ostype; test ! -e /mnt/proc; ls /sys/class/net; \
                  cat /proc/$$/comm";
    let said = host.command("sh").args(["-c", script]).output().unwrap();
    let expected = "host-1\n/proc/sys/kernel/ostype\n\n/var/lib:\neth0\nlo\nsh\n";
    assert_eq!(String::from_utf8(said.stdout).unwrap(), expected, "{:?}", String::from_utf8(said.stderr));
    assert!(!fs::exists("/etc/written").unwrap() && !fs::exists("/run/written").unwrap());
    // Who enters its mounts is where its processes are: its root is that of its mounts.
    assert!(!host.within(|| sealane_sys::mounts::is_root_changed().unwrap()).unwrap());
}

#[test]
fn control_groups_of_an_isolation_end_with_it() {
    let script = "{ mount -t cgroup -o freezer none /mnt || mount -t cgroup2 none /mnt; } 2>/dev/null && \
                  mkdir -p /mnt/$SEALANE_LAB_GROUP/below && echo $SEALANE_LAB_GROUP";
    let (reader, writer) = std::io::pipe().unwrap();
    let mut make = Command::new("sh");
    make.args(["-c", script]).stdout(writer);
    let isolated = isolate::start(make, "test").unwrap();
    let mut name = String::new();
    BufReader::new(reader).read_line(&mut name).unwrap();
    isolated.wait().unwrap();
    let name = name.trim();
    assert!(name.starts_with("sealane-lab-"), "{name:?}");
    let find = "awk '$3 ~ /^cgroup/ {print $2}' /proc/self/mounts | xargs -I@ find @ -maxdepth 1 -name";
    let found = Command::new("sh").args(["-c", &format!("{find} {name}")]).output().unwrap();
    assert_eq!(String::from_utf8(found.stdout).unwrap(), "");
}

#[test]
fn every_host_has_its_own_files_name_and_interfaces() {
    if !isolated() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let (one, two) = (lab.host("host-1").unwrap(), lab.host("host-2").unwrap());
    one.within(|| {
        fs::create_dir_all("/run/sealane").unwrap();
        fs::create_dir_all("/var/lib/sealane").unwrap();
    })
    .unwrap();
    one.set_nameservers(&["192.0.2.53".parse().unwrap()]).unwrap();
    let said = |host: &sealane_lab::Host| {
        let script =
            "hostname; ls -d /run/sealane /var/lib/sealane; cat /etc/resolv.conf; ls /sys/class/net; id -u";
        let output = host.command("sh").args(["-c", script]).stderr(Stdio::null()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let expected = "host-1\n/run/sealane\n/var/lib/sealane\nnameserver 192.0.2.53\neth0\nlo\n0\n";
    assert_eq!(said(&one), expected);
    assert_eq!(said(&two), "host-2\nnameserver 192.0.2.1\neth0\nlo\n0\n");
    assert!(!fs::exists("/run/sealane").unwrap());
}

#[test]
fn a_namespace_bound_on_a_host_is_seen_by_all_its_processes_and_by_no_other_host() {
    if !isolated() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let (one, two) = (lab.host("host-1").unwrap(), lab.host("host-2").unwrap());
    let path = "/run/sealane/netns/shop";
    one.within(|| sealane_sys::NetNs::ensure_at(path).unwrap()).unwrap();
    let enters = |host: &sealane_lab::Host| {
        let mut nsenter = host.command("nsenter");
        nsenter.arg(format!("--net={path}")).args(["ip", "-br", "link"]).output().unwrap()
    };
    let seen = enters(&one);
    assert!(seen.status.success());
    assert!(String::from_utf8(seen.stdout).unwrap().starts_with("lo "));
    assert!(!enters(&two).status.success());
    one.within(|| sealane_sys::NetNs::remove_at(path).unwrap()).unwrap();
    assert!(!enters(&one).status.success());
}

#[test]
fn a_capture_shows_what_crosses_the_underlay() {
    if !isolated() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let (one, two) = (lab.host("host-1").unwrap(), lab.host("host-2").unwrap());
    let receiver = two.within(|| UdpSocket::bind("0.0.0.0:4789").unwrap()).unwrap();
    let sender = one.within(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    let capture = lab.capture().unwrap();
    let mut packet = vec![0x08, 0, 0, 0, 0x10, 0, 0x07, 0];
    packet.extend(b"in the clear");
    sender.send_to(&packet, (two.address(), 4789)).unwrap();
    receiver.recv(&mut [0; 100]).unwrap();
    let frames = capture.stop().unwrap();
    let vxlan = frames.vxlan().next().unwrap();
    assert_eq!((vxlan.vni, vxlan.inner), (0x10_0007, b"in the clear".as_slice()));
    assert!(frames.contain(b"the clear") && !frames.contain(b"sealed"));
}

#[test]
fn inside_is_a_machine_of_its_own() {
    if !isolated() {
        return;
    }
    assert!(isolate::label().unwrap().ends_with("inside_is_a_machine_of_its_own"));
    assert_eq!(fs::read_dir("/sys/class/net").unwrap().count(), 1, "lo alone");
    let processes = fs::read_dir("/proc").unwrap().filter(|entry| {
        entry.as_ref().unwrap().file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit())
    });
    assert_eq!(processes.count(), 2, "the reaper and this process");
    // An orphan's end is noticed by the reaper, and nothing of it stays.
    let mut shell =
        Command::new("sh").args(["-c", "sleep 0 & echo $!"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
    shell.wait().unwrap();
    let started = Instant::now();
    while fs::exists(format!("/proc/{}", line.trim())).unwrap() {
        assert!(started.elapsed() < Duration::from_secs(30), "the orphan is still there");
        std::thread::yield_now();
    }
}

#[test]
fn the_exit_status_comes_out_and_a_kill_ends_everything_inside() {
    let mut seven = Command::new("sh");
    seven.args(["-c", "exit 7"]);
    assert_eq!(isolate::start(seven, "test").unwrap().wait().unwrap().code(), Some(7));

    let mut signalled = Command::new("sh");
    signalled.args(["-c", "kill -TERM $$"]);
    assert_eq!(isolate::start(signalled, "test").unwrap().wait().unwrap().code(), Some(128 + 15));

    // Whoever holds the writing end is inside; its end is seen when all are gone.
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut many = Command::new("sh");
    many.args(["-c", "setsid sleep 1000 & setsid sleep 1000 & echo started; wait"]).stdout(writer);
    let isolated = isolate::start(many, "test").unwrap();
    let mut started = [0; 8];
    reader.read_exact(&mut started).unwrap();
    isolated.first_process().kill().unwrap();
    isolated.wait().unwrap();
    assert_eq!(reader.read(&mut started).unwrap(), 0, "nobody holds the pipe any more");
}

#[test]
fn the_death_of_the_owner_ends_everything_inside() {
    // This test's program, started as the owner of an isolated one, is killed without a chance to clean up.
    const OWNER: &str = "SEALANE_LAB_TEST_OWNER";
    if std::env::var_os(OWNER).is_some() {
        let mut inside = Command::new("sh");
        inside.args(["-c", "setsid sleep 1000 & echo inside; wait"]);
        isolate::start(inside, "test").unwrap().wait().unwrap();
        return;
    }
    let (reader, writer) = std::io::pipe().unwrap();
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["the_death_of_the_owner_ends_everything_inside", "--exact", "--nocapture"])
        .env(OWNER, "1")
        .stdout(writer)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.ends_with("inside")));
    Process::open(owner.id()).unwrap().kill().unwrap();
    owner.wait().unwrap();
    // The pipe ends when the last process inside does.
    lines.for_each(drop);
}
