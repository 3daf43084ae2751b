//! Docker's swarms in our networks: services of several nodes by a plugin that Docker manages.

use sealane_lab::isolated;
use sealane_tests::{Dockerd, Mesh, PATIENCE, Release, Site, eventually};

use super::docker::await_nothing_left;

/// A replica that answers with its version, and ends when it is told to.
const REPLICA: &str = "trap exit TERM; testapp http 8080 $VERSION & wait";

#[test]
fn a_swarm_s_service_is_updated_under_load_without_a_failed_request() {
    if isolated() {
        roll(&[Release::Trixie; 3]);
    }
}

#[test]
fn a_swarm_s_service_is_updated_under_load_without_a_failed_request_with_the_newest_docker() {
    if isolated() {
        roll(&[Release::Forky, Release::Trixie]);
    }
}

/// The first node manages the swarm; each has the plugin and its part of the network.
fn swarm(releases: &[Release]) -> (Mesh, Vec<Dockerd>) {
    let (mesh, dockerds) = Mesh::docker(releases);
    let manager = mesh.site(1);
    let address = manager.host.address().to_string();
    let _ = manager.docker(&["swarm", "init", "--advertise-addr", &address]).ok();
    let token = manager.docker(&["swarm", "join-token", "-q", "worker"]).ok().stdout;
    for (site, number) in mesh.sites().zip(1..) {
        let _ = site.sealane(&["docker", "plugin", "build", "/run/plugin"]).ok();
        let _ = site.docker(&["plugin", "create", "sealane-swarm", "/run/plugin"]).ok();
        let _ = site.docker(&["plugin", "enable", "sealane-swarm"]).ok();
        if number > 1 {
            let _ = site.docker(&["swarm", "join", "--token", token.trim(), &format!("{address}:2377")]).ok();
        }
        let part = ["network", "create", "--config-only", "--ipam-driver", "sealane-swarm:latest"];
        let _ = site.docker(&[&part[..], &["-o", "sealane.network=shop", "shop-here"]].concat()).ok();
    }
    let whole =
        ["network", "create", "-d", "sealane-swarm:latest", "--scope", "swarm", "--config-from", "shop-here"];
    let _ = manager.docker(&[&whole[..], &["shop"]].concat()).ok();
    (mesh, dockerds)
}

fn roll(releases: &[Release]) {
    let (mesh, _dockerds) = swarm(releases);
    let manager = mesh.site(1);
    let last = releases.len();
    let service = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        let _ = manager.docker(&[&["service"], &words[..]].concat()).ok();
    };
    let create = "create --detach --no-resolve-image --name api --replicas 3 --network shop --env VERSION=one \
                  --update-order start-first --update-parallelism 2 --update-monitor 1s --rollback-parallelism 2 --rollback-monitor 1s \
                  --container-label sealane.port=8080 bb:1 sh -c";
    let _ = manager
        .docker(&[&["service"], &create.split_whitespace().collect::<Vec<_>>()[..], &[REPLICA]].concat())
        .ok();
    service(
        "create --detach --no-resolve-image --name client --mode global --network shop bb:1 sleep 100000",
    );
    mesh.await_instances("api", 3);
    for name in ["api", "tasks.api"] {
        eventually(PATIENCE, name, || (fetch(mesh.site(last), name) == "one").then_some(()));
    }

    let mut load = mesh.site(last).load("load", &["http://api:8080/", "--pause-ms", "5"]);
    service("update --detach -q --no-resolve-image --env-add VERSION=two api");
    await_update(manager, "completed");
    load.await_answer("two");
    service("scale --detach api=5");
    mesh.await_instances("api", 5);
    service("scale --detach api=2");
    mesh.await_instances("api", 2);
    // Swarm goes back to the service as it was before its last change: to five of them.
    service("update --detach -q --rollback api");
    await_update(manager, "rollback_completed");
    mesh.await_instances("api", 5);
    service("update --detach -q --no-resolve-image --update-order stop-first --env-add VERSION=three api");
    await_update(manager, "completed");
    load.await_answer("three");
    let _ = manager.docker(&["node", "update", "--availability", "drain", mesh.site(last).host.name()]).ok();
    let on = |site: &Site| site.docker(&["ps", "-q", "--filter", "name=api"]).ok().stdout.lines().count();
    eventually(PATIENCE, "the drained node runs none", || (on(mesh.site(last)) == 0).then_some(()));
    mesh.await_instances("api", 5);
    load.await_further(200);
    let report = load.stop();
    assert_eq!(report.failures, 0, "{report:?}");

    service("rm api client");
    mesh.sites().for_each(await_nothing_left);
    let _ = manager.docker(&["network", "rm", "shop"]).ok();
}

/// Waits until Swarm says so of its last change of the service.
fn await_update(manager: &Site, state: &str) {
    eventually(PATIENCE * 3, &format!("the update is {state}"), || {
        let words = ["service", "inspect", "-f", "{{.UpdateStatus.State}}", "api"];
        (manager.docker(&words).ok().stdout.trim() == state).then_some(())
    });
}

/// The answer to a name, as the client on this node hears it.
fn fetch(site: &Site, name: &str) -> String {
    let client = site.docker(&["ps", "-q", "--filter", "name=client"]).ok().stdout;
    if client.trim().is_empty() {
        return String::new();
    }
    site.fetch(client.trim(), &format!("http://{name}:8080/")).stdout
}
