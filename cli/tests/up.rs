//! `sealane up` on one host of a lab: from nothing to a running workload, and back to nothing. Needs root.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use sealane_lab::{Host, Lab, isolated};
use sealane_sys::Process;
use serde_json::Value;

const SEALANE: &str = env!("CARGO_BIN_EXE_sealane");
const PATIENCE: Duration = Duration::from_secs(60);

fn sealane(host: &Host, line: &str) -> Command {
    let mut command = host.command(SEALANE);
    command.args(line.split(' ')).stdin(Stdio::null());
    command
}

fn output(host: &Host, line: &str) -> Output {
    sealane(host, line).output().unwrap()
}

fn said(host: &Host, line: &str) -> String {
    let output = output(host, line);
    assert!(output.status.success(), "sealane {line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json(host: &Host, line: &str) -> Value {
    serde_json::from_str(&said(host, &format!("{line} -o json"))).unwrap()
}

/// A host with a mesh of its own and the network `shop`.
fn up() -> (Lab, Host, Child) {
    let mut lab = Lab::new().unwrap();
    let host = lab.host("host-1").unwrap();
    let mut child = sealane(&host, "up").spawn().unwrap();
    let started = Instant::now();
    while !output(&host, "status --socket /run/sealane/agent.sock").status.success() {
        assert!(child.try_wait().unwrap().is_none(), "up has ended");
        assert!(started.elapsed() < PATIENCE, "up does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
    said(&host, "network create shop --subnet 10.42.0.0/16");
    (lab, host, child)
}

#[test]
fn a_command_run_in_a_network_keeps_its_exit_status_its_signals_and_its_output() {
    if !isolated() {
        return;
    }
    let (_lab, host, _up) = up();
    let run = |script: &str| {
        let mut command = sealane(&host, "run --network shop --name web -- sh -c");
        command.arg(script).output().unwrap()
    };
    let seven = run("echo data; echo talk >&2; exit 7");
    assert_eq!((seven.status.code(), seven.stdout.as_slice()), (Some(7), b"data\n".as_slice()));
    assert!(seven.stderr.ends_with(b"talk\n"));
    assert_eq!(run("kill -INT $$").status.signal(), Some(2));
    assert_eq!(output(&host, "run --network shop -- /nonexistent").status.code(), Some(127));
    assert_eq!(output(&host, "run --network shop -- /etc/passwd").status.code(), Some(126));
    let missing = output(&host, "run --network other -- true");
    assert_eq!(missing.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("there is no network other"));
}

#[test]
fn what_is_started_in_the_background_is_waited_for_and_what_just_ended_too() {
    if !isolated() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let host = lab.host("host-1").unwrap();
    let mut control = sealane(&host, "control").spawn().unwrap();
    let token = said(&host, "token create");
    let agent = format!("agent --control {}:7443 --token {}", host.address(), token.trim());
    let mut agent = sealane(&host, &agent).spawn().unwrap();
    said(&host, "network create shop --subnet 10.42.0.0/16");
    said(&host, "run --network shop -- true");
    said(&host, "network rm shop");
    for process in [&mut agent, &mut control] {
        Process::open(process.id()).unwrap().terminate().unwrap();
        assert_eq!(process.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_workload_is_known_and_entered_as_long_as_its_command_runs() {
    if !isolated() {
        return;
    }
    let (_lab, host, _up) = up();
    let (mut web, _stdout) = web(&host);
    let workloads = json(&host, "workload ls --network shop");
    let address = workloads[0]["address"].as_str().unwrap();
    assert_eq!((&workloads[0]["name"], &workloads[0]["node"]), (&Value::from("web"), &Value::from("host-1")));
    let inside = said(&host, "exec web -- ip -o -4 addr show");
    assert!(inside.contains(address), "{inside} is not {address}");
    assert_eq!(output(&host, "exec web -- false").status.code(), Some(1));
    assert!(said(&host, "exec web -- cat /etc/resolv.conf").contains("nameserver"));
    assert!(said(&host, "workload ls").contains("web"));

    web.kill().unwrap();
    web.wait().unwrap();
    let started = Instant::now();
    while json(&host, "workload ls") != Value::Array(vec![]) {
        assert!(started.elapsed() < PATIENCE, "the workload is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(output(&host, "exec web -- true").status.code(), Some(125));
}

#[test]
fn data_is_machine_readable_and_talk_goes_elsewhere() {
    if !isolated() {
        return;
    }
    let (_lab, host, _up) = up();
    let networks = json(&host, "network ls");
    assert_eq!((&networks[0]["name"], &networks[0]["mtu"]), (&Value::from("shop"), &Value::Null));
    assert_eq!(json(&host, "network inspect shop")["subnet"], "10.42.0.0/16");
    assert_eq!(json(&host, "service ls"), Value::Array(vec![]));
    assert_eq!(json(&host, "node ls")[0]["connected"], Value::Bool(true));
    assert_eq!(json(&host, "status")["role"], "control");
    assert_eq!(json(&host, "status --socket /run/sealane/agent.sock")["node"], "host-1");
    assert!(said(&host, "network ls -o yaml").starts_with("- name: shop\n"));
    assert!(said(&host, "network ls").starts_with("NAME"));
    assert_eq!(said(&host, "service ls"), "", "that there is none is said on standard error");

    let token = said(&host, "token create --ttl 10m");
    assert!(token.starts_with("slt1.") && token.lines().count() == 1, "{token}");
    let listed = said(&host, "token ls");
    let secret = token.trim().split('.').nth(2).unwrap();
    assert!(listed.contains(token.split('.').nth(1).unwrap()) && !listed.contains(secret), "{listed}");

    assert_eq!(output(&host, "network inspect other").status.code(), Some(1));
    assert_eq!(output(&host, "network create shop --subnet 10.43.0.0/16").status.code(), Some(1));
    let refused = output(&host, "token create --socket /run/sealane/agent.sock");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("hint: only control.sock"), "{refused:?}");
}

#[test]
fn a_second_one_in_the_same_folders_is_refused_and_the_first_ends_in_order() {
    if !isolated() {
        return;
    }
    let (_lab, host, mut up) = up();
    let second = output(&host, "up");
    let stderr = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr.contains(&format!("runs already in /run/sealane as process {}", up.id())), "{stderr}");
    assert!(stderr.contains("hint: "), "{stderr}");
    said(&host, "status");

    Process::open(up.id()).unwrap().terminate().unwrap();
    assert_eq!(up.wait().unwrap().code(), Some(0));
    let gone = host.within(|| !std::fs::exists("/run/sealane/control.pid").unwrap()).unwrap();
    assert!(gone, "its pid file stays");
    assert_eq!(output(&host, "status").status.code(), Some(3));
}

#[test]
fn a_first_start_that_fails_leaves_nothing_that_was_not_there() {
    if !isolated() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let [host, other] = ["host-1", "host-2"].map(|name| lab.host(name).unwrap());
    let traces = |host: &Host| {
        let listed = |folder: &str| {
            let read = std::fs::read_dir(folder).into_iter().flatten();
            read.map(|entry| entry.unwrap().path().display().to_string()).collect::<Vec<_>>()
        };
        host.within(|| [listed("/var/lib/sealane"), listed("/run/sealane")].concat()).unwrap()
    };
    let fails = |host: &Host, line: &str, why: &str| {
        let failed = output(host, line);
        let stderr = String::from_utf8_lossy(&failed.stderr);
        assert!(!failed.status.success() && stderr.contains(why), "sealane {line}: {stderr}");
        assert!(!stderr.contains("os error"), "{stderr}");
        assert_eq!(traces(host), [""; 0], "sealane {line}: {stderr}");
        let there =
            host.within(|| ["/run/sealane", "/var/lib/sealane"].map(|path| std::fs::exists(path).unwrap()));
        assert_eq!(there.unwrap(), [false, false], "sealane {line}");
    };
    for port in [7443, 9464, 9465] {
        let taken = host.within(|| std::net::TcpListener::bind(("127.0.0.1", port)).unwrap()).unwrap();
        fails(&host, "up", &port.to_string());
        drop(taken);
    }
    let taken = host.within(|| std::net::TcpListener::bind(("0.0.0.0", 7443)).unwrap()).unwrap();
    fails(&host, "control", "7443");
    drop(taken);
    let mut control = sealane(&host, "control").spawn().unwrap();
    let started = Instant::now();
    while !output(&host, "status").status.success() {
        assert!(started.elapsed() < PATIENCE, "control does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
    let token = said(&host, "token create");
    let id = token.split('.').nth(1).unwrap();
    let revoked = output(&host, &format!("token revoke {id}"));
    assert!(revoked.status.success(), "{revoked:?}");
    fails(&other, &format!("agent --control {}:7443 --token {}", host.address(), token.trim()), "token");
    fails(&other, &format!("agent --control {}:7443", host.address()), "hint: ");
    Process::open(control.id()).unwrap().terminate().unwrap();
    assert_eq!(control.wait().unwrap().code(), Some(0));
    // What it has made while it ran is kept when a later start fails.
    let taken = host.within(|| std::net::TcpListener::bind(("0.0.0.0", 7443)).unwrap()).unwrap();
    assert!(!output(&host, "control").status.success());
    drop(taken);
    assert!(host.within(|| std::fs::exists("/var/lib/sealane/control.redb").unwrap()).unwrap());
}

#[test]
fn clean_leaves_nothing_and_may_be_repeated() {
    if !isolated() {
        return;
    }
    let (_lab, host, mut up) = up();
    let (web, mut stdout) = web(&host);
    let cleaned = output(&host, "clean --yes");
    assert!(cleaned.status.success(), "{}", String::from_utf8_lossy(&cleaned.stderr));
    assert_eq!(up.wait().unwrap().code(), Some(0));
    host.within(|| {
        assert!(!std::fs::exists("/run/sealane").unwrap());
        assert!(!std::fs::exists("/var/lib/sealane").unwrap());
        let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert!(!mounts.contains("/run/sealane"), "{mounts}");
    })
    .unwrap();
    assert_eq!(sealanes(), [web.id().to_string()], "the workload's command is not Sealane's to end");
    assert!(output(&host, "clean --yes").status.success());
    // A host whose name is lost.
    host.within(|| {
        std::fs::create_dir_all("/var/lib/sealane/node").unwrap();
        std::fs::write("/var/lib/sealane/node/node", "no identity").unwrap();
    })
    .unwrap();
    let cleaned = output(&host, "clean --yes");
    let told = String::from_utf8(cleaned.stderr).unwrap();
    assert!(cleaned.status.success() && told.contains("`sealane node rm HOST`"), "{told}");
    Process::open(web.id()).unwrap().kill().unwrap();
    stdout.read_to_end(&mut Vec::new()).unwrap();
}

/// A workload that has begun.
fn web(host: &Host) -> (Child, BufReader<ChildStdout>) {
    let mut command = sealane(host, "run --network shop --name web -- sh -c");
    command.arg("echo began; exec sleep infinity");
    let mut web = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(web.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "began\n");
    (web, stdout)
}

/// Processes of this lab that were started from Sealane's program, but for those that ended.
fn sealanes() -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid = entry.ok()?.file_name().into_string().ok()?;
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        let ours = line.starts_with(SEALANE) || line.contains("infinity");
        (pid.bytes().all(|byte| byte.is_ascii_digit()) && ours && !line.is_empty()).then_some(pid)
    });
    processes.collect()
}
