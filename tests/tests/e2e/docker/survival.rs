//! Whatever ends and comes back, containers, names and addresses are as Docker has them.

use std::time::Duration;

use sealane_lab::isolated;
use sealane_tests::{CREATE, Dockerd, Finished, Mesh, PATIENCE, SERVE, Site, eventually};

use super::{await_nothing_left, inspect};

fn address(site: &Site, container: &str) -> String {
    inspect(site, container, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
}

/// Waits until a container answers a workload of its own host by its name.
fn await_answer(site: &Site, container: &str) {
    let what = format!("{container} answers");
    eventually(PATIENCE, &what, || {
        let url = format!("http://{container}:8080/");
        let got = site.shop(&["curl", "-sS", "--max-time", "2", &url]).wait();
        (got.stdout == "hello\n").then_some(())
    });
}

fn run(site: &Site, flags: &[&str]) -> Finished {
    site.docker(&[&["run", "-d", "--network", "shop"], flags, &["bb:1", "sh", "-c", SERVE]].concat())
}

#[test]
fn containers_and_their_addresses_outlive_dockerd_and_the_agent() {
    if !isolated() {
        return;
    }
    let (mut mesh, mut engines) = Mesh::shop(1).permissive().with_docker(1);
    let _ = mesh.site(1).docker(&CREATE).ok();
    let _ = run(mesh.site(1), &["--name", "db", "--restart", "always"]).ok();
    await_answer(mesh.site(1), "db");
    let had = address(mesh.site(1), "db");
    let _ = mesh.site(1).docker(&["restart", "-t", "0", "db"]).ok();
    await_answer(mesh.site(1), "db");
    assert_eq!(address(mesh.site(1), "db"), had, "where it is free, a container has its address again");
    assert!(mesh.site(1).workload("db").is_some(), "and its name");

    // A dockerd that was killed starts its containers anew.
    engines.iter_mut().for_each(Dockerd::kill9);
    let mut dockerd = Dockerd::start(mesh.site(1), &["--live-restore"]);
    await_answer(mesh.site(1), "db");

    // With live-restore they go on without it.
    let pid = inspect(mesh.site(1), "db", "{{.State.Pid}}");
    dockerd.kill9();
    await_answer(mesh.site(1), "db");
    mesh.site_mut(1).agent.kill9();
    mesh.site_mut(1).agent.start();
    mesh.site_mut(1).await_ready();
    let _dockerd = Dockerd::start(mesh.site(1), &["--live-restore"]);
    await_answer(mesh.site(1), "db");
    assert_eq!(inspect(mesh.site(1), "db", "{{.State.Pid}}"), pid);

    // Nothing of a container is left, whenever the agent ends while it starts.
    for delay in [0, 100, 250, 450] {
        let run = ["run", "-d", "--network", "shop", "--name", "cut", "bb:1", "sleep", "1000"];
        let started = mesh.site(1).begin("docker", &run);
        std::thread::sleep(Duration::from_millis(delay));
        mesh.site_mut(1).agent.kill9();
        mesh.site_mut(1).agent.start();
        // It starts, or Docker is told why not.
        let _ = started.wait();
        mesh.site_mut(1).await_ready();
        let _ = mesh.site(1).docker(&["rm", "-f", "cut"]);
    }
    // What dockerd asks while there is no agent is answered by the next one.
    let _ = mesh.site(1).docker(&["rm", "-f", "db"]).ok();
    mesh.site_mut(1).agent.kill9();
    let removed = mesh.site(1).begin("docker", &["network", "rm", "shop"]);
    mesh.site_mut(1).agent.start();
    let _ = removed.wait().ok();
    mesh.site_mut(1).await_ready();
    let _ = mesh.site(1).docker(&CREATE).ok();
    await_nothing_left(mesh.site(1));
    assert_eq!(mesh.site(1).problems(), "[]");
}

#[test]
fn a_network_and_its_containers_are_known_again_when_what_was_written_down_is_lost() {
    if !isolated() {
        return;
    }
    let (mut mesh, _engines) = Mesh::shop(1).permissive().with_docker(1);
    let _ = mesh.site(1).docker(&CREATE).ok();
    let _ = run(mesh.site(1), &["--name", "db"]).ok();
    await_answer(mesh.site(1), "db");
    mesh.site_mut(1).agent.kill9();
    let _ = mesh.site(1).command("sh", &["-c", "rm /var/lib/sealane/docker/network.*"]).ok();
    mesh.site_mut(1).agent.start();
    mesh.site_mut(1).await_ready();
    eventually(PATIENCE, "the network is known again", || {
        let run = run(mesh.site(1), &["--name", "web"]);
        let _ = mesh.site(1).docker(&["rm", "-f", "web"]);
        (run.code() == 0).then_some(())
    });
}

#[test]
fn a_container_whose_end_was_forgotten_is_named_until_it_is_started_anew() {
    if !isolated() {
        return;
    }
    let (mut mesh, _engines) = Mesh::shop(1).permissive().with_docker(1);
    let _ = mesh.site(1).docker(&CREATE).ok();
    let _ = run(mesh.site(1), &["--name", "db"]).ok();
    let other = ["run", "-d", "--network", "bridge", "--name", "other", "bb:1", "sleep", "1000"];
    let _ = mesh.site(1).docker(&other).ok();
    await_answer(mesh.site(1), "db");
    mesh.site_mut(1).agent.kill9();
    let _ = mesh.site(1).command("sh", &["-c", "rm /var/lib/sealane/docker/endpoint.*"]).ok();
    mesh.site_mut(1).agent.start();
    mesh.site_mut(1).await_ready();
    let said = eventually(PATIENCE, "the container is named", || {
        let said = mesh.site(1).problems();
        said.contains("container db runs in Docker's network shop without Sealane").then_some(said)
    });
    assert!(!said.contains("container other"), "{said}");
    let _ = mesh.site(1).docker(&["restart", "-t", "0", "db"]).ok();
    await_answer(mesh.site(1), "db");
    eventually(PATIENCE, "it is named no more", || (mesh.site(1).problems() == "[]").then_some(()));
}

#[test]
fn an_end_that_waits_for_control_to_be_taken_back_holds_up_no_word_of_other_containers() {
    if !isolated() {
        return;
    }
    let (mut mesh, _engines) = Mesh::shop(1).permissive().with_docker(1);
    let _ = mesh.site(1).docker(&CREATE).ok();
    let _ = run(mesh.site(1), &["--name", "lost"]).ok();
    await_answer(mesh.site(1), "lost");
    let check = ["--health-cmd", "[ ! -e /ill ]", "--health-interval", "200ms", "--health-retries", "1"];
    let _ = run(mesh.site(1), &[&["--name", "web"][..], &check].concat()).ok();
    await_answer(mesh.site(1), "web");
    // What an agent has on disk that has not heard of the container's end.
    let shell = |mesh: &Mesh, script: &str| mesh.site(1).command("sh", &["-c", script]).ok();
    let records = "cd /var/lib/sealane && cp --parents workloads/shop.lost $(grep -l name...lost docker/endpoint.*) /run/saved";
    let _ = shell(&mesh, &format!("mkdir /run/saved && {records}"));
    let _ = mesh.site(1).docker(&["rm", "-f", "lost"]).ok();
    eventually(PATIENCE, "it is gone", || mesh.site(1).workload("lost").is_none().then_some(()));
    mesh.site_mut(1).agent.kill9();
    mesh.control.kill9();
    let _ = shell(&mesh, "cp -r /run/saved/* /var/lib/sealane/");
    mesh.site_mut(1).agent.start();
    eventually(PATIENCE, "its end is to be taken back", || {
        let log = mesh.site(1).agent.log();
        log.contains("no container of Docker's has this end any more").then_some(())
    });
    let _ = mesh.site(1).docker(&["exec", "web", "sh", "-c", ": >/ill"]).ok();
    eventually(PATIENCE, "an unhealthy container is named", || {
        mesh.site(1).problems().contains("health check fails").then_some(())
    });
}
