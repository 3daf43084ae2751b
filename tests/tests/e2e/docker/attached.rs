//! `attach --container` with a real dockerd, whose word counts there too.

use sealane_lab::isolated;
use sealane_tests::{CREATE, Mesh, SERVE};

use super::{HEALTH, follow_health};

#[test]
fn an_attached_container_has_its_name_and_gets_calls_while_it_runs_and_is_healthy() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(1);
    let site = mesh.site(1);
    let _engine = site.dockerd();
    let run = ["run", "-d", "--name", "web", "--network", "none", "--dns", "127.0.0.11"];
    let _ = site.docker(&[&run[..], &HEALTH, &["bb:1", "sh", "-c", SERVE]].concat()).ok();
    let attach = ["attach", "--container", "web", "--network", "shop", "--service", "api", "--port", "8080"];
    let _ = site.sealane(&attach).ok();
    assert!(site.workload("web").is_some());
    follow_health(&mesh, site, "web");
    // It follows its container, whose files stay.
    let _ = site.docker(&["restart", "-t", "0", "web"]).ok();
    mesh.await_instances("api", 1);
    let answer = site.curl("http://api:8080/").ok();
    assert_eq!(answer.stdout, "hello\n");
    let _ = site.docker(&["kill", "web"]).ok();
    mesh.await_instances("api", 0);
}

#[test]
fn a_container_is_drained_by_its_name_and_gets_calls_again() {
    if !isolated() {
        return;
    }
    let (mesh, _engines) = Mesh::shop(2).with_docker(1);
    let site = mesh.site(1);
    let _ = site.docker(&CREATE).ok();
    let labels = ["--label", "sealane.service=api", "--label", "sealane.port=8080"];
    let run = [&["run", "-d", "--name", "web", "--network", "shop"], &labels[..]].concat();
    let _ = site.docker(&[&run[..], &["bb:1", "sh", "-c", SERVE]].concat()).ok();
    let _other = mesh.site(2).serve("api", "api-1");
    mesh.await_instances("api", 2);
    let answers = |name: &str| {
        let load = mesh.site(2).load(name, &["http://api:8080/", "--fresh", "--requests", "200"]);
        load.stop().ok().answers.into_keys().collect::<Vec<String>>()
    };
    assert_eq!(answers("before"), ["api-1", "hello\n"]);
    let drained = site.sealane(&["workload", "drain", "web", "--wait", "--timeout", "10s"]).ok();
    assert!(drained.stderr.contains("`sealane workload undrain web.shop` ends that"), "{drained}");
    assert_eq!(answers("meanwhile"), ["api-1"]);
    let _ = site.sealane(&["workload", "undrain", "web", "--wait"]).ok();
    assert_eq!(answers("after"), ["api-1", "hello\n"]);
    // As docs say: drained, then stopped.
    let load = mesh.site(2).load("load", &["http://api:8080/", "--fresh", "--pause-ms", "2"]);
    load.await_further(50);
    let _ = site.sealane(&["workload", "drain", "web", "--wait"]).ok();
    let _ = site.docker(&["stop", "-t", "1", "web"]).ok();
    load.await_further(50);
    let _ = load.stop().ok();
}
