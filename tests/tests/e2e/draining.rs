//! Single instances get no new calls, or another share of them, while they run.

use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sealane_lab::isolated;
use sealane_tests::{Finished, Load, Mesh, PATIENCE, Running, Site, eventually, testapp};

/// Bodies that a load from a new workload of this host gets.
fn answers(mesh: &Mesh, site: usize, name: &str) -> Vec<String> {
    let load = mesh.site(site).load(name, &["http://api:8080/", "--requests", "200"]);
    load.stop().ok().answers.into_keys().collect()
}

#[test]
fn a_drained_instance_gets_no_new_calls_wherever_they_come_from_until_it_is_undrained() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(2, 2);
    let loads: Vec<Load> =
        (1..=2).map(|n| mesh.site(n).load(&format!("web-{n}"), &["http://api:8080/"])).collect();
    loads.iter().for_each(|load| load.await_further(100));

    let wrong = mesh.site(1).sealane(&["workload", "drain", "api-2"]);
    assert!(wrong.code() == 1 && wrong.stderr.contains("type the same on host host-2"), "{wrong}");
    let drained = mesh.site(2).sealane(&["workload", "drain", "api-2", "--wait"]).ok();
    assert!(drained.stderr.contains("`sealane workload undrain api-2.shop` ends that"), "{drained}");
    // Every host works by it already.
    assert_eq!(answers(&mesh, 1, "late-1"), ["api-1"]);
    assert_eq!(answers(&mesh, 2, "late-2"), ["api-1"]);
    for view in [mesh.site(1).workload("api-2").unwrap(), mesh.site(2).workload("api-2").unwrap()] {
        assert_eq!(
            (&view["weight"], &view["kept_weight"], &view["ready"]),
            (&0.into(), &1.into(), &true.into())
        );
        assert!(view["problem"].as_str().unwrap().contains("workload undrain api-2"), "{view}");
    }
    let own = mesh.site(1).sealane(&["dns", "query", "api-2", "--from", "web-1"]);
    assert!(!own.stdout.contains("10.42."), "{own}");
    assert!(mesh.site(2).sealane(&["status"]).stdout.contains("workload api-2: drained"));

    mesh.site_mut(2).agent.kill9();
    mesh.site_mut(2).agent.start();
    mesh.site_mut(2).await_ready();
    assert_eq!(mesh.site(2).workload("api-2").unwrap()["kept_weight"], 1, "the next agent knows it");
    assert_eq!(answers(&mesh, 2, "later"), ["api-1"]);

    let _ = mesh.site(2).sealane(&["workload", "set", "api-2", "--weight", "3"]).ok();
    eventually(PATIENCE, "a weight is kept, and does not end a drain", || {
        let known = mesh.site(2).workload("api-2")?;
        (known["kept_weight"] == 3).then_some(())
    });
    let _ = mesh.site(2).sealane(&["workload", "undrain", "api-2.shop", "--wait"]).ok();
    assert_eq!(mesh.site(1).workload("api-2").unwrap()["weight"], 3);
    assert!(answers(&mesh, 1, "last").contains(&"api-2".to_owned()));
    for load in loads {
        load.await_further(100);
        let _ = load.stop().ok();
    }
}

/// Two hosts with an instance each, and a workload of the first that calls them.
fn called() -> (Mesh, Vec<Running>, Load) {
    let (mesh, servers) = Mesh::serving(2, 2);
    let web = mesh.site(1).load("web", &["http://api:8080/", "--pause-ms", "2"]);
    web.await_further(50);
    (mesh, servers, web)
}

/// Drains the second host's instance and waits so long for the hosts.
fn drain(mesh: &Mesh, patience: &str) -> Finished {
    mesh.site(2).sealane(&["workload", "drain", "api-2", "--wait", "--timeout", patience])
}

#[test]
fn a_drain_waits_for_a_host_whose_agent_is_away_and_names_it() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers, web) = called();
    mesh.site_mut(1).agent.kill9();
    let early = drain(&mesh, "1s");
    assert!(early.code() == 1 && early.stderr.contains("nothing is heard of the agent of host-1"), "{early}");
    mesh.site_mut(1).agent.start();
    let _ = drain(&mesh, "20s").ok();
    assert!(!answers_some("api-2", mesh.site(1), "web"));
    web.await_further(100);
    let _ = web.stop().ok();
}

#[test]
fn a_drain_waits_for_a_host_whose_agent_is_stopped_though_control_has_given_it_up() {
    if !isolated() {
        return;
    }
    let (mesh, _servers, web) = called();
    let [agent] = mesh.site(1).processes("agent").try_into().unwrap();
    let signal = |signal| kill(Pid::from_raw(i32::try_from(agent).unwrap()), signal).unwrap();
    signal(Signal::SIGSTOP);
    // Control ends a silent stream after some 10 s.
    let early = drain(&mesh, "16s");
    assert!(early.code() == 1 && early.stderr.contains("nothing is heard of the agent of host-1"), "{early}");
    signal(Signal::SIGCONT);
    let _ = drain(&mesh, "30s").ok();
    assert!(!answers_some("api-2", mesh.site(1), "web"));
    web.await_further(100);
    let _ = web.stop().ok();
}

#[test]
fn a_drain_waits_for_a_sidecar_that_is_stopped_and_names_it() {
    if !isolated() {
        return;
    }
    let (mesh, _servers, web) = called();
    let sidecars = mesh.site(1).processes("proxy");
    let signal = |signal| {
        sidecars.iter().for_each(|pid| kill(Pid::from_raw(pid.cast_signed()), signal).unwrap());
    };
    signal(Signal::SIGSTOP);
    // Another one takes its place after 15 s.
    let early = drain(&mesh, "12s");
    let named =
        ["host host-1 says: its process", "kill -CONT"].iter().all(|words| early.stderr.contains(words));
    assert!(early.code() == 1 && named, "{early}");
    signal(Signal::SIGCONT);
    let _ = drain(&mesh, "30s").ok();
    assert!(!answers_some("api-2", mesh.site(1), "web"));
    web.await_further(100);
}

#[test]
fn open_calls_to_what_is_detached_have_the_time_that_it_is_given() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(2);
    let (one, program) = (mesh.site(1), testapp());
    let _ = one.command("ip", &["netns", "add", "box"]).ok();
    let netns = "/run/netns/box";
    let serve =
        ["netns", "exec", "box", program.to_str().unwrap(), "http", "8080", "slow-1", "--delay-ms", "2500"];
    let _server = one.start("ip", &serve, "listening");
    let attach =
        ["attach", netns, "--network", "shop", "--service", "slow", "--port", "8080", "--name", "slow-1"];
    let _ = one.sealane(&attach).ok();
    mesh.await_instances("slow", 1);
    let load = mesh.site(2).load("web", &["http://slow:8080/", "--post", "--pause-ms", "1"]);
    // Another one that begins when its first calls have ended, and is there when its second have: its third are under way then.
    let other = mesh.site(2).load("late", &["http://slow:8080/", "--post", "--pause-ms", "1"]);
    let began = Instant::now();
    let detached = one.sealane(&["detach", "slow-1", "--drain", "10s"]).ok();
    println!("detached after {:?}: {}", began.elapsed(), detached.stderr.trim());
    one.await_gone("slow-1");
    let (report, other) = (load.stop(), other.stop());
    assert!(
        report.requests - report.failures >= 12,
        "eight that were answered, and four that were open: {report:#?}"
    );
    let nobody = |error: &String| error.contains("503") || error.contains("cannot resolve");
    for report in [report, other] {
        assert!(report.errors.iter().all(nobody), "none was cut off: {report:#?}");
    }
}

/// Returns true if this instance answers one of forty calls of a workload.
fn answers_some(instance: &str, site: &Site, workload: &str) -> bool {
    (0..40).any(|_| site.curl_as(workload, "http://api:8080/").ok().stdout == instance)
}

#[test]
fn without_control_a_drain_waits_until_the_other_hosts_have_heard_it_from_this_one_and_so_does_an_end() {
    if !isolated() {
        return;
    }
    let (mut mesh, mut servers) = Mesh::serving(3, 3);
    let load = mesh.site(1).load("web", &["http://api:8080/", "--post", "--pause-ms", "2"]);
    let _far = mesh.site(3).load("far", &["http://api:8080/", "--pause-ms", "20"]);
    load.await_further(100);
    mesh.control.kill9();
    eventually(PATIENCE, "control is missed", || mesh.site(2).problems().contains("control").then_some(()));
    let began = Instant::now();
    let _ = mesh.site(2).sealane(&["workload", "drain", "api-2", "--wait", "--timeout", "20s"]).ok();
    println!("drained on all hosts without control after {:?}", began.elapsed());
    for site in [1, 2, 3] {
        assert_eq!(mesh.site(site).workload("api-2").unwrap()["weight"], 0, "host-{site} knows it");
    }
    assert!(!answers_some("api-2", mesh.site(1), "web"));
    assert!(!answers_some("api-2", mesh.site(3), "far"));
    let _ = mesh.site(2).sealane(&["workload", "undrain", "api-2", "--wait", "--timeout", "20s"]).ok();
    // Calls go where answers come fastest: not each round of them meets each instance.
    eventually(PATIENCE, "calls come to it again", || {
        answers_some("api-2", mesh.site(1), "web").then_some(())
    });
    // An end is heard of as well: nobody waits for hosts that have said so.
    let began = Instant::now();
    let _ = mesh.site(3).sealane(&["workload", "drain", "api-3", "--wait", "--timeout", "20s"]).ok();
    servers.remove(2).kill9();
    mesh.site(3).await_gone("api-3");
    println!("gone after {:?}", began.elapsed());
    load.await_further(100);
    let _ = load.stop().ok();
    // A host that nobody can tell is named.
    mesh.site_mut(3).agent.kill9();
    let named = || {
        let drained = mesh.site(2).sealane(&["workload", "drain", "api-2", "--wait", "--timeout", "100ms"]);
        (drained.code() == 1 && drained.stderr.contains("no channel to host-3")).then_some(())
    };
    eventually(PATIENCE, "the host without an agent is named", named);
}

/// Starts an instance of `api` that answers what is open before it ends.
fn serve(site: &Site, name: &str) -> Running {
    let program = testapp();
    let flags = ["--network", "shop", "--service", "api", "--port", "8080", "--name", name];
    let mut server = site.run(&flags, &[program.to_str().unwrap(), "http", "8080", name, "--finish"]);
    server.wait_for("listening");
    server
}

#[test]
fn an_application_is_rolled_over_without_a_failed_request() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(2).permissive();
    let mut old: Vec<Running> = (1..=2).map(|n| serve(mesh.site(n), &format!("api-0-{n}"))).collect();
    mesh.await_instances("api", 2);
    let program = testapp();
    let load = |site: usize, name: &str, flags: &[&str], arguments: &[&str]| {
        let flags = [&["--network", "shop", "--name", name], flags].concat();
        let command = [&[program.to_str().unwrap(), "load", "http://api:8080/"], arguments].concat();
        let mut load = mesh.site(site).run(&flags, &command);
        load.wait_for("running");
        load
    };
    let loads: Vec<(String, Running)> = (1..=2)
        .flat_map(|site| {
            let kinds: [(&str, &[&str], &[&str]); 4] = [
                ("get", &[], &[]),
                ("post", &[], &["--post", "--pause-ms", "1"]),
                ("direct", &["--no-sidecar"], &["--post", "--pause-ms", "1"]),
                ("fresh", &["--no-sidecar"], &["--post", "--fresh", "--pause-ms", "2"]),
            ];
            let load = &load;
            kinds.map(move |(kind, flags, arguments)| {
                let name = format!("{kind}-{site}");
                (name.clone(), load(site, &name, flags, arguments))
            })
        })
        .collect();
    for round in 1..=3 {
        for site in 1..=2 {
            let host = mesh.site(site);
            let new = serve(host, &format!("api-{round}-{site}"));
            mesh.await_instances("api", 3);
            let before = format!("api-{}-{site}", round - 1);
            let _ = host.sealane(&["workload", "drain", &before, "--wait"]).ok();
            let ending = std::mem::replace(&mut old[site - 1], new);
            ending.signal(Signal::SIGTERM);
            let _ = ending.wait().ok();
            host.await_gone(&before);
        }
    }
    for (name, load) in loads {
        let report = sealane_tests::LoadReport::of(&load.wait()).ok();
        println!("{name}: {} requests, none failed, the slowest took {} ms", report.requests, report.max_ms);
    }
}
