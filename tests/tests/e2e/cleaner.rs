//! Somebody cleans up below /run: what was removed is made again, and what cannot work meanwhile is named.

use std::fs;

use sealane_lab::isolated;
use sealane_sys::Process;
use sealane_tests::{Mesh, PATIENCE, Site, eventually};

fn await_file(site: &Site, path: &str) {
    let there = || site.host.within(|| fs::exists(path).unwrap()).unwrap().then_some(());
    eventually(PATIENCE, &format!("{path} is made again"), there);
}

fn await_problem(site: &Site, words: &str) {
    eventually(PATIENCE, &format!("status says {words:?}"), || site.problems().contains(words).then_some(()));
}

fn await_no_problem(site: &Site) {
    eventually(PATIENCE, "status says that all is well", || (site.problems() == "[]").then_some(()));
}

fn kill_sidecars(site: &Site) {
    for pid in site.processes("proxy") {
        Process::open(pid).unwrap().kill().unwrap();
    }
}

#[test]
fn removed_sockets_pid_files_and_resolv_conf_come_back_and_nothing_restarts() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(2, 2);
    let load = mesh.site(1).load("web", &["http://api:8080/"]);
    let (keeps, sidecars) = (mesh.site(2).processes("keep"), mesh.site(2).processes("proxy"));
    mesh.site(2).sh("cd /run/sealane; rm -rf *.sock *.pid channel/* resolv sidecars");
    for name in
        ["agent.sock", "agent.pid", "channel/sidecar.sock", "keep.sock", "keep.pid", "resolv/shop.api-2.conf"]
    {
        await_file(mesh.site(2), &format!("/run/sealane/{name}"));
    }
    mesh.site(1).sh("rm /run/sealane/control.sock /run/sealane/control.pid");
    await_file(mesh.site(1), "/run/sealane/control.sock");
    mesh.await_instances("api", 2);

    mesh.site_mut(2).agent.kill9();
    mesh.site_mut(2).agent.start();
    mesh.site_mut(2).await_ready();
    assert_eq!(mesh.site(2).processes("keep"), keeps, "the keep was reached again");
    assert_eq!(mesh.site(2).processes("proxy"), sidecars, "sidecars are known without their records");
    load.await_further(200);
    let _ = load.stop().ok();

    kill_sidecars(mesh.site(2));
    mesh.site(2).await_instances("api", 2);
    let call = mesh.site(1).curl("http://api-2:8080/").ok();
    assert_eq!(call.stdout, "api-2");
    await_no_problem(mesh.site(2));
}

#[test]
fn sidecars_whose_folder_is_removed_are_followed_by_others_with_this_agent_and_the_next() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(2, 2);
    let call = |mesh: &Mesh| {
        let call = mesh.site(1).shop(&["curl", "-sS", "--max-time", "20", "http://api-2:8080/"]).wait().ok();
        assert_eq!(call.stdout, "api-2");
    };
    let load = mesh.site(1).load("web", &["http://api:8080/"]);
    let followed = |mesh: &Mesh, before: &[u32]| {
        eventually(PATIENCE, "another sidecar takes over", || {
            let now = mesh.site(2).processes("proxy");
            now.iter().any(|pid| !before.contains(pid)).then_some(())
        });
    };
    let sidecars = mesh.site(2).processes("proxy");
    mesh.site(2).sh("rm -rf /run/sealane/channel");
    followed(&mesh, &sidecars);
    load.await_further(200);
    let _ = load.stop().ok();

    mesh.site_mut(2).agent.kill9();
    let sidecars = mesh.site(2).processes("proxy");
    mesh.site(2).sh("rm -rf /run/sealane/channel");
    mesh.site_mut(2).agent.start();
    mesh.site_mut(2).await_ready();
    followed(&mesh, &sidecars);
    mesh.site(2).await_instances("api", 2);
    call(&mesh);
    await_no_problem(mesh.site(2));
    eventually(PATIENCE, "sidecars are replaced on demand", || {
        mesh.site(2).sealane(&["sidecar", "restart", "--all"]).status.success().then_some(())
    });
}

#[test]
fn clean_ends_sidecars_and_gives_forwarding_back_also_when_their_files_were_removed() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::start(1);
    let forwarding = |site: &Site| site.command("sysctl", &["-n", "net.ipv4.ip_forward"]).ok().stdout;
    let _ = mesh.site(1).command("sysctl", &["-qw", "net.ipv4.ip_forward=0"]).ok();
    mesh.create_shop();
    let _server = mesh.site(1).serve("api", "api");
    assert_eq!(forwarding(mesh.site(1)).trim(), "1");
    mesh.site(1).sh("cd /run/sealane; rm -r sidecars ip_forward-was-off");
    await_file(mesh.site(1), "/run/sealane/sidecars/shop.api.pid");
    await_file(mesh.site(1), "/run/sealane/ip_forward-was-off");
    mesh.site_mut(1).agent.kill9();
    mesh.site(1).sh("rm -r /run/sealane/sidecars");
    let _ = mesh.site(1).sealane(&["clean", "--yes"]).ok();
    assert_eq!(mesh.site(1).processes("proxy"), [] as [u32; 0]);
    assert_eq!(forwarding(mesh.site(1)).trim(), "0");
}

#[test]
fn an_agent_whose_keep_lost_its_socket_starts_and_finds_what_it_holds() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(1, 1);
    let keeps = mesh.site(1).processes("keep");
    mesh.site_mut(1).agent.kill9();
    mesh.site(1).sh("rm /run/sealane/keep.sock");
    mesh.site_mut(1).agent.start();
    mesh.site_mut(1).await_ready();
    assert_eq!(mesh.site(1).processes("keep"), keeps);
    mesh.await_instances("api", 1);
}

#[test]
fn a_network_whose_handle_is_removed_goes_on_also_with_the_next_agent() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(2, 2);
    let remove = "umount -l /run/sealane/netns/net-shop; rm /run/sealane/netns/net-shop";
    let call = |mesh: &Mesh, from: usize, name: &str| {
        let url = format!("http://{name}:8080/");
        let call = mesh.site(from).curl(&url).ok();
        assert_eq!(call.stdout, name);
    };
    mesh.site(2).sh(remove);
    let _added = mesh.site(1).serve("added", "added");
    mesh.site(2).await_instances("added", 1);
    call(&mesh, 2, "added");
    call(&mesh, 1, "api-2");
    await_file(mesh.site(2), "/run/sealane/netns/net-shop");

    mesh.site_mut(2).agent.kill9();
    mesh.site(2).sh(remove);
    mesh.site_mut(2).agent.start();
    mesh.site_mut(2).await_ready();
    let _later = mesh.site(2).serve("later", "later");
    mesh.site(1).await_instances("later", 1);
    call(&mesh, 1, "later");
    await_no_problem(mesh.site(2));
}

#[test]
fn a_workload_whose_sidecar_does_not_come_back_is_not_ready_and_named() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = Mesh::serving(2, 2);
    // Something that is there is not replaced.
    mesh.site(2).sh("cd /run/sealane/channel; rm sidecar.sock; touch sidecar.sock");
    kill_sidecars(mesh.site(2));
    await_problem(mesh.site(2), "workload shop/api-2 gets no calls, its sidecar does not work");
    mesh.await_instances("api", 1);
    let problem = mesh.site(2).workload("api-2").unwrap()["problem"].to_string();
    assert!(problem.contains("its sidecar does not work"), "{problem}");
    mesh.site(2).sh("rm /run/sealane/channel/sidecar.sock");
    mesh.await_instances("api", 2);
    await_no_problem(mesh.site(2));
}

#[test]
fn a_workload_that_cannot_be_taken_up_is_named_and_tried_again() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(2, 2);
    let load = mesh.site(1).load("web", &["http://api:8080/"]);
    mesh.site(2).kill9_keep();
    mesh.site_mut(2).agent.kill9();
    let script = "import socket, time\n\
                  s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                  s.bind(('127.0.0.11', 53))\n\
                  print('bound', flush=True)\n\
                  time.sleep(1000)";
    let inside = ["--net=/run/sealane/netns/shop.api-2", "/usr/bin/python3", "-c", script];
    let mut squatter = mesh.site(2).start("nsenter", &inside, "bound");
    mesh.site_mut(2).agent.start();
    mesh.site_mut(2).await_ready();
    await_problem(mesh.site(2), "this agent has not taken up workload shop/api-2 from the one before");
    mesh.await_instances("api", 1);
    load.await_further(200);
    squatter.kill9();
    mesh.await_instances("api", 2);
    await_no_problem(mesh.site(2));
    let _ = load.stop().ok();
}
