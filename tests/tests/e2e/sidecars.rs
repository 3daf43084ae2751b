//! Sidecars: what they may do, and how one follows another.

use std::fs;

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, Running, eventually, sealane};

/// CAP_NET_ADMIN or CAP_NET_RAW, which is enough from Linux 5.17 on.
const MARKING: [u64; 2] = [1 << 12, 1 << 13];

/// A field of /proc/PID/status.
fn field(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).to_owned()
}

#[test]
fn a_sidecar_has_given_up_what_it_does_not_need() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(2, 2);
    let load = mesh.site(2).load("web", &["http://api:8080/"]);
    load.await_further(50);
    let sidecars = mesh.site(1).processes("proxy");
    assert!(!sidecars.is_empty());
    for &pid in &sidecars {
        let user = (0x7000_0000 + pid).to_string();
        let users = format!("{user}\t{user}\t{user}\t{user}");
        assert_eq!((field(pid, "Uid"), field(pid, "Gid")), (users.clone(), users));
        assert_eq!(field(pid, "Groups").trim(), "");
        for set in ["CapEff", "CapPrm"] {
            let capabilities = u64::from_str_radix(&field(pid, set), 16).unwrap();
            assert!(MARKING.contains(&capabilities), "{set} {capabilities:x}");
        }
        assert_eq!(["CapInh", "CapBnd", "CapAmb"].map(|set| field(pid, set)), ["0000000000000000"; 3]);
        assert_eq!((field(pid, "NoNewPrivs").as_str(), field(pid, "Seccomp").as_str()), ("1", "2"));
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_ascii_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
        let data = limits.lines().find(|line| line.starts_with("Max data size")).unwrap();
        let most = (2_u64 << 30).to_string();
        assert_eq!(data.split_ascii_whitespace().skip(3).take(2).collect::<Vec<_>>(), [&most; 2]);
        // All that it could find there is the agent's socket.
        let seen: Vec<_> = fs::read_dir(format!("/proc/{pid}/root/"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(seen, ["sidecar.sock"]);
    }

    // With all that, it finds the next agent, and so does its workload.
    mesh.site_mut(1).agent.kill9();
    mesh.site_mut(1).agent.start();
    mesh.site_mut(1).await_ready();
    assert_eq!(mesh.site(1).processes("proxy"), sidecars);
    let _third = mesh.site(2).serve("api", "api-3");
    mesh.await_instances("api", 3);
    load.await_further(200);
    let _ = load.stop().ok();
}

#[test]
fn a_sidecar_whose_sockets_somebody_closes_in_its_namespace_is_followed_by_one_with_others() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = Mesh::serving(2, 1);
    let site = mesh.site(1);
    let load = mesh.site(2).load("web", &["http://api:8080/"]);
    load.await_further(20);
    for round in 1..=2 {
        let before = site.processes("proxy");
        // Sockets that listen, but not the application's; connections stay.
        let close = "ss -K -lnt '( sport = :15001 or sport = :15006 or sport = :15008 or sport = :53 )'";
        let _ = site.exec("api-1", &["sh", "-c", close]).ok();
        eventually(PATIENCE, "all sockets are there again", || {
            let listening = site.exec("api-1", &["ss", "-Hlnt"]).stdout;
            [":15001", ":15006", ":15008", ":53"].iter().all(|port| listening.contains(port)).then_some(())
        });
        // The one before goes on with what it has.
        eventually(PATIENCE, "another sidecar is there", || {
            site.processes("proxy").iter().any(|pid| !before.contains(pid)).then_some(())
        });
        assert_eq!(mesh.site(2).curl("http://api:8080/").ok().stdout, "api-1");
        let drift = site.metrics().sum("sealane_kernel_drift_total", &[("table", "listener")]);
        assert_eq!(drift, f64::from(round));
    }
    let notes = site.json(&["status"])["notes"].to_string();
    assert!(notes.contains("listening sockets of the sidecar of workload shop/api-1"), "{notes}");
    drop(load);
}

#[test]
fn a_start_tells_other_sidecars_what_has_changed_and_no_more() {
    if !isolated() {
        return;
    }
    let (mesh, _first) = Mesh::serving(1, 1);
    let _others = ["api-2", "api-3"].map(|name| mesh.site(1).serve("api", name));
    mesh.await_instances("api", 3);
    for caller in ["api-1", "api-2", "api-3"] {
        let _ = mesh.site(1).curl_as(caller, "http://api:8080/").ok();
    }
    let told = |what: &str, kind| mesh.site(1).metrics().sum(what, &[("kind", kind)]);
    let count = |kind| told("sealane_sidecar_told_total", kind);
    let (states, changes) = (count("state"), count("change"));
    let bytes = told("sealane_sidecar_told_bytes_total", "change");
    let _fourth = mesh.site(1).serve("api", "api-4");
    mesh.await_instances("api", 4);
    eventually(PATIENCE, "each of the others has heard that it came and is ready", || {
        (count("change") >= changes + 6.0).then_some(())
    });
    assert!(count("state") < states + 3.0, "the new one alone is told whole states: {}", count("state"));
    let each = (told("sealane_sidecar_told_bytes_total", "change") - bytes) / (count("change") - changes);
    assert!(each < 200.0, "{each} bytes for one workload");
}

/// A download that takes some seconds.
fn download(mesh: &Mesh) -> Running {
    let curl =
        ["curl", "-sS", "--limit-rate", "4M", "-o", "/dev/null", "-w", "%{http_code} %{size_download}"];
    let curl = [&curl[..], &["http://api:8080/bytes/30000000"]].concat();
    mesh.site(2).run(&["--network", "shop", "--name", "fetch"], &curl)
}

#[test]
fn a_sidecar_follows_another_without_breaking_a_connection() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(2, 1);
    let kept = mesh.site(2).load("kept", &["http://api:8080/"]);
    let fresh = ["http://api:8080/", "--fresh", "--concurrency", "2", "--pause-ms", "2"];
    let fresh = mesh.site(2).load("fresh", &fresh);
    let download = download(&mesh);
    eventually(PATIENCE, "the download is under way", || {
        (mesh.site(2).processes("proxy").len() == 3).then_some(())
    });
    kept.await_further(50);
    fresh.await_further(50);
    let before = [1, 2].map(|number| mesh.site(number).processes("proxy"));
    for number in [1, 2] {
        let said = mesh.site(number).sealane(&["sidecar", "restart", "--all"]).ok();
        assert!(said.stderr.contains("replaced"), "{said}");
    }
    // Nor does the next agent.
    for number in [1, 2] {
        mesh.site_mut(number).agent.kill9();
        mesh.site_mut(number).agent.start();
        mesh.site_mut(number).await_ready();
    }
    kept.await_further(200);
    fresh.await_further(200);
    let fetched = download.wait();
    assert_eq!(fetched.stdout, "200 30000000", "{fetched}");
    let (kept, fresh) = (kept.stop(), fresh.stop());
    assert_eq!((kept.failures, fresh.failures), (0, 0), "{:?} {:?}", kept.errors, fresh.errors);
    eventually(PATIENCE, "the sidecars of before have ended", || {
        let pids = [1, 2].map(|number| mesh.site(number).processes("proxy"));
        let gone = pids.iter().zip(&before).all(|(now, before)| now.iter().all(|pid| !before.contains(pid)));
        (gone && !pids[0].is_empty()).then_some(())
    });
    let said = mesh.site(1).sealane(&["sidecar", "restart", "nobody"]);
    assert!(
        !said.status.success() && said.stderr.contains("workload nobody has no sidecar on host"),
        "{said}"
    );
}

#[test]
fn status_names_sidecars_of_another_build_until_they_are_replaced() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(1, 1);
    let named = |mesh: &Mesh| mesh.site(1).problems().contains("sidecar restart --all");
    assert!(!named(&mesh));
    mesh.site_mut(1).agent.kill9();
    let copy = std::env::temp_dir().join("sealane-of-another-build");
    fs::copy(sealane(), &copy).unwrap();
    let mut next = mesh.site(1).host.command(copy.to_str().unwrap());
    next.args(["agent", "--control", "192.0.2.11:7443"]);
    let _next = Running::start(next);
    eventually(PATIENCE, "the sidecar of the agent before is named", || {
        let status = mesh.site(1).sealane(&["status", "--socket", "/run/sealane/agent.sock"]);
        status.stdout.contains("sidecar restart --all").then_some(())
    });
    let _ = mesh.site(1).sealane(&["sidecar", "restart", "api-1"]).ok();
    eventually(PATIENCE, "the sidecar is of the agent's build", || (!named(&mesh)).then_some(()));
    fs::remove_file(copy).unwrap();
}

#[test]
fn a_workload_whose_sidecar_is_stopped_is_not_ready_and_named_until_it_goes_on_or_another_takes_its_place() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = Mesh::serving(2, 2);
    let signal = |signal: &str| {
        let sidecars = mesh.site(2).processes("proxy");
        for pid in &sidecars {
            let _ = mesh.site(2).command("sh", &["-c", &format!("kill {signal} {pid}")]).ok();
        }
        sidecars
    };
    let call = || {
        let call = mesh.site(1).shop(&["curl", "-sS", "--max-time", "20", "http://api-2:8080/"]).wait().ok();
        assert_eq!(call.stdout, "api-2");
    };
    let named = || {
        eventually(PATIENCE, "the workload is named", || {
            let problem = mesh.site(2).workload("api-2").unwrap()["problem"].to_string();
            problem.contains("has not answered for 5s").then_some(())
        });
    };
    let _ = signal("-STOP");
    named();
    mesh.await_instances("api", 1);
    let _ = signal("-CONT");
    mesh.await_instances("api", 2);
    assert_eq!(mesh.site(2).json(&["status"])["problems"].to_string(), "[]");

    let _ = signal("-STOP");
    named();
    mesh.await_instances("api", 2);
    call();

    // Whoever knows need not wait.
    let stopped = signal("-STOP");
    let _ = mesh.site(2).sealane(&["sidecar", "restart", "api-2"]).ok();
    call();
    eventually(PATIENCE, "those that do not answer are ended", || {
        let now = mesh.site(2).processes("proxy");
        (!now.iter().any(|pid| stopped.contains(pid))).then_some(())
    });
}
