//! Breakage is told on every host that can see it.

use sealane_lab::isolated;
use sealane_tests::{Mesh, Metrics, PATIENCE, eventually};
use serde_json::Value;

/// Returns the problems that control and the agent beside it tell of.
fn problems_at_control(mesh: &Mesh) -> String {
    mesh.json(&["status"])["problems"].to_string()
}

/// Control's own metrics.
fn control_metrics(mesh: &Mesh) -> Metrics {
    let scraped = mesh.site(1).command("curl", &["-sS", "http://127.0.0.1:9465/metrics"]).ok();
    Metrics::parse(&scraped.stdout)
}

#[test]
fn a_service_that_nobody_serves_any_more_is_a_problem_and_a_metric_says_zero() {
    if !isolated() {
        return;
    }
    let (mesh, servers) = Mesh::serving(1, 1);
    let well = mesh.sealane(&["status"]).ok();
    assert!(well.stdout.contains("agent") && well.stdout.contains("host-1, version"), "{well}");
    drop(servers);
    eventually(PATIENCE, "status names the service", || {
        let status = mesh.sealane(&["status"]);
        let said = status.stdout.contains("service shop/api has no instance, so its calls are refused");
        (said && status.code() == 1).then_some(())
    });
    let labels = [("network", "shop"), ("service", "api")];
    let says_zero = |metrics: &Metrics, prefix: &str| {
        ["service_ready_instances", "service_instances"].iter().all(|family| {
            let name = format!("{prefix}_{family}");
            metrics.has(&name, &labels) && metrics.sum(&name, &labels) == 0.0
        })
    };
    eventually(PATIENCE, "the metrics say zero, the host's when it has heard of it", || {
        let host = says_zero(&mesh.site(1).metrics(), "sealane");
        (host && says_zero(&control_metrics(&mesh), "sealane_control")).then_some(())
    });
    let _ = mesh.sealane(&["service", "rm", "api", "--network", "shop"]).ok();
    let _ = mesh.sealane(&["status"]).ok();
}

#[test]
fn a_host_that_dies_is_named_by_control_and_by_the_hosts_that_called_it() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(3, 3);
    let load = mesh.site(2).load("web", &["http://api:8080/"]);
    load.await_further(20);
    mesh.site_mut(3).power_off();

    eventually(PATIENCE, "control counts only what it knows to be ready", || {
        let services = mesh.json(&["service", "ls"]);
        (services[0]["ready"] == 2 && services[0]["instances"] == 3).then_some(())
    });
    let workloads = mesh.json(&["workload", "ls"]);
    let lost = workloads.as_array().unwrap().iter().find(|one| one["name"] == "api-3").unwrap();
    assert_eq!(lost["ready"], false, "{lost}");
    assert!(lost["problem"].as_str().unwrap().contains("`sealane node drain host-3`"), "{lost}");
    assert!(problems_at_control(&mesh).contains("`sealane node rm host-3` ends it"));
    let metrics = control_metrics(&mesh);
    let hosts = |state| metrics.sum("sealane_control_hosts", &[("state", state)]);
    assert_eq!((hosts("connected"), hosts("lost")), (2.0, 1.0));

    eventually(PATIENCE, "a host that called it hears that control has lost it", || {
        let nodes = mesh.site(2).json(&["node", "ls"]);
        let lost = nodes.as_array().unwrap().iter().find(|node| node["name"] == "host-3").unwrap().clone();
        (lost["connected"] == false && lost["reach"] == "unreachable").then_some(())
    });
    // One cause, one sentence: that calls fail and that control has lost it follows from this.
    let said = mesh.site(2).problems();
    assert!(said.contains("node host-3 (192.0.2.13) cannot be reached from this host"), "{said}");
    assert!(said.matches("host-3").count() == 1, "{said}");
    let nodes = mesh.site(2).json(&["node", "ls"]);
    let state =
        |name: &str| nodes.as_array().unwrap().iter().find(|node| node["name"] == name).unwrap().clone();
    assert_eq!(
        (&state("host-1")["connected"], &state("host-3")["connected"]),
        (&Value::Bool(true), &Value::Bool(false))
    );
    assert_eq!(state("host-1")["unreached"], Value::Null);
    let _ = load.stop();
}

#[test]
fn an_instance_that_listens_on_loopback_alone_is_told_so() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(1);
    let flags = ["--network", "shop", "--service", "api", "--port", "8080", "--name", "api-1"];
    let serve = ["/usr/bin/python3", "-m", "http.server", "8080", "--bind", "127.0.0.1"];
    let _server = mesh.site(1).run(&flags, &serve);
    eventually(PATIENCE, "its host says where it listens", || {
        let problem = mesh.site(1).workload("api-1")?["problem"].as_str()?.to_owned();
        problem.contains("it listens on port 8080 at 127.0.0.1 alone").then_some(())
    });
}

#[test]
fn a_host_moves_to_another_address_and_the_others_follow() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(2, 2);
    let script = "dev=$(ip -o addr show to 192.0.2.12 | awk '{print $2}'); \
                  ip addr del 192.0.2.12/24 dev $dev; ip addr add 192.0.2.52/24 dev $dev";
    let _ = mesh.site(2).sh(script);
    mesh.site_mut(2).agent.kill9();
    mesh.site_mut(2).agent.start();
    eventually(PATIENCE, "the agent starts at its new address by itself", || {
        let nodes = mesh.json(&["node", "ls"]);
        (nodes[1]["underlay"] == "192.0.2.52" && nodes[1]["connected"] == true).then_some(())
    });
    mesh.site_mut(2).agent.kill9();
    let wrong = ["agent", "--control", "192.0.2.11:7443", "--underlay", "192.0.2.25"];
    let refused = mesh.site(2).sealane(&wrong);
    let said = "no device of this host has the underlay address 192.0.2.25";
    assert!(refused.code() == 1 && refused.stderr.contains(said), "{refused}");
    mesh.restart_agent(2, &["--underlay", "192.0.2.52"]);
    eventually(PATIENCE, "control knows where it is", || {
        let nodes = mesh.json(&["node", "ls"]);
        (nodes[1]["underlay"] == "192.0.2.52" && nodes[1]["connected"] == true).then_some(())
    });
    let mut load = mesh.site(1).load("web", &["http://api:8080/"]);
    load.await_answer("api-2");
    let _ = load.stop();
    mesh.site_mut(2).agent.kill9();
    mesh.restart_agent(2, &[]);
    eventually(PATIENCE, "the host is where control has taken it, without the flag", || {
        let nodes = mesh.json(&["node", "ls"]);
        (nodes[1]["underlay"] == "192.0.2.52" && nodes[1]["connected"] == true).then_some(())
    });
    let status = mesh.sealane(&["status"]);
    assert!(!status.stdout.contains("two agents"), "{status}");
}

#[test]
fn a_host_on_loopback_lets_nobody_in_until_it_says_where_it_is() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::hosts(2);
    mesh.control.start();
    mesh.await_control();
    let token = mesh.token();
    mesh.restart_agent(1, &["--control", "127.0.0.1:7443", "--token", &token]);
    mesh.site_mut(1).await_ready();
    let join = |mesh: &Mesh| {
        let token = mesh.token();
        mesh.site(2).sealane(&["agent", "--control", "192.0.2.11:7443", "--token", &token])
    };
    let refused = join(&mesh);
    let told = "node host-1 has the underlay address 127.0.0.1, where no other host reaches it";
    assert!(refused.code() == 1 && refused.stderr.contains(told), "{refused}");

    mesh.site_mut(1).agent.kill9();
    mesh.restart_agent(1, &["--control", "127.0.0.1:7443", "--underlay", "192.0.2.11"]);
    mesh.site_mut(1).await_ready();
    mesh.await_connected();
    mesh.join(2);
    mesh.site_mut(2).await_ready();
}
