//! Docker's own networks in ours: a real dockerd on each host, with containers of nothing but busybox.

mod attached;
mod health;
mod several;
mod survival;
mod words;

use sealane_lab::isolated;
use sealane_tests::{CREATE, Mesh, PATIENCE, Release, SERVE, Site, eventually};

/// The flags of a container that is healthy while /ok is there.
const HEALTH: [&str; 6] =
    ["--health-cmd", "[ -e /ok ]", "--health-interval", "200ms", "--health-retries", "1"];

/// The word of `docker inspect` on something.
fn inspect(site: &Site, name: &str, format: &str) -> String {
    site.docker(&["inspect", "-f", format, name]).ok().stdout.trim().to_owned()
}

/// Waits until a container gets this answer.
fn await_answer(site: &Site, container: &str, url: &str, expected: &str) {
    let what = format!("{container} gets {url}");
    eventually(PATIENCE, &what, || (site.fetch(container, url).stdout == expected).then_some(()));
}

/// Makes a container that was started with [`HEALTH`], the only instance of `api`, healthy, and pauses it for a while.
fn follow_health(mesh: &Mesh, site: &Site, container: &str) {
    eventually(PATIENCE, "an unhealthy container is named", || {
        site.problems().contains("health check fails").then_some(())
    });
    mesh.await_instances("api", 0);
    let _ = site.docker(&["exec", container, "sh", "-c", ": >/ok"]).ok();
    mesh.await_instances("api", 1);
    assert!(!site.problems().contains("health"), "{}", site.problems());
    let _ = site.docker(&["pause", container]).ok();
    mesh.await_instances("api", 0);
    let _ = site.docker(&["unpause", container]).ok();
    mesh.await_instances("api", 1);
}

/// Waits until nothing of containers is left on a host.
pub(super) fn await_nothing_left(site: &Site) {
    eventually(PATIENCE, "nothing is left", || {
        let links = site.command("ip", &["-br", "link"]).ok().stdout;
        let none = site.json(&["workload", "ls"]).as_array().unwrap().is_empty();
        let records = "ls /var/lib/sealane/docker | grep endpoint; ls /var/lib/sealane/reservations";
        let kept = site.command("sh", &["-c", records]);
        (none && kept.stdout.is_empty() && !links.contains("sli") && !links.contains("slo")).then_some(())
    });
}

#[test]
fn containers_of_two_hosts_find_and_call_each_other_by_docker_s_own_commands() {
    if isolated() {
        call_across_hosts([Release::Machine; 2]);
    }
}

#[test]
fn containers_of_hosts_with_different_dockers_find_and_call_each_other() {
    if isolated() {
        call_across_hosts([Release::Trixie, Release::Machine]);
    }
}

#[test]
fn containers_of_hosts_with_the_newest_docker_find_and_call_each_other() {
    if isolated() {
        call_across_hosts([Release::Forky; 2]);
    }
}

fn call_across_hosts(releases: [Release; 2]) {
    let (mut mesh, mut dockerds) = Mesh::docker(&releases);
    for site in mesh.sites() {
        // Docker's own addresses would be the same ones on every host.
        let refused =
            site.docker(&["network", "create", "-d", "sealane", "-o", "sealane.network=shop", "shop"]);
        assert!(refused.stderr.contains(&format!("type: docker {}", CREATE.join(" "))), "{refused}");
        let _ = site.docker(&CREATE).ok();
    }
    let labels = [
        "--label",
        "sealane.service=api",
        "--label",
        "sealane.port=8080",
        "--network-alias",
        "backend",
        "-p",
        "8091:8080",
    ];
    let api =
        [&["run", "-d", "--network", "shop", "--name", "api-1"][..], &labels, &["bb:1", "sh", "-c", SERVE]];
    let _ = mesh.site(1).docker(&api.concat()).ok();
    let client = ["run", "-d", "--network", "shop", "--name", "client", "bb:1", "sleep", "100000"];
    let _ = mesh.site(2).docker(&client).ok();
    mesh.await_instances("api", 1);
    let calls = |mesh: &Mesh, name: &str| {
        await_answer(mesh.site(2), "client", &format!("http://{name}:8080/"), "hello\n");
    };
    calls(&mesh, "api");
    calls(&mesh, "api-1");
    calls(&mesh, "backend");

    // An agent that ends and comes back disturbs nothing.
    mesh.site_mut(1).agent.kill9();
    mesh.site_mut(1).agent.start();
    mesh.site_mut(1).await_ready();
    calls(&mesh, "api");

    let _ = mesh.site(1).docker(&["restart", "-t", "0", "api-1"]).ok();
    calls(&mesh, "api");
    let outside = format!("http://{}:8091/", mesh.site(1).host.address());
    let published = mesh.site(2).command("curl", &["-sS", "--max-time", "5", &outside]).ok();
    assert_eq!(published.stdout, "hello\n", "Docker publishes ports by its own bridge");
    let _ = mesh.site(1).docker(&["rm", "-f", "api-1"]).ok();
    mesh.site(1).await_gone("api-1");
    let links = mesh.site(1).command("ip", &["-br", "link"]).ok().stdout;
    assert!(!links.contains("sli") && !links.contains("slo"), "{links}");
    // A container that is removed while no agent is there waits for the next one, and leaves nothing behind.
    mesh.site_mut(2).agent.kill9();
    let removed = mesh.site(2).begin("docker", &["rm", "-f", "client"]);
    mesh.site_mut(2).agent.start();
    let _ = removed.wait().ok();
    mesh.site_mut(2).await_ready();
    mesh.site(2).await_gone("client");
    for dockerd in &mut dockerds {
        dockerd.kill9();
    }
}
