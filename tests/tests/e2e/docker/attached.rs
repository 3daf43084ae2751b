//! `attach --container` with a real dockerd, whose word counts there too.

use sealane_lab::isolated;
use sealane_tests::{Mesh, SERVE};

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
