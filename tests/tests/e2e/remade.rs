//! A network that is removed and made again while a host does not hear control, and goes on by the one before.

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, Running, Site, eventually, testapp};

const CUT: &str = "add table inet cut; \
    add chain inet cut out { type filter hook output priority 0; }; \
    add rule inet cut out tcp dport 7443 reject with tcp reset; \
    add rule inet cut out tcp sport 7443 reject with tcp reset";

fn create(mesh: &Mesh, subnet: &str) {
    let _ = mesh.sealane(&["network", "create", "tmp", "--subnet", subnet]).ok();
}

/// Starts an instance without a sidecar, which goes without control where the service was known.
fn serve(site: &Site, name: &str) -> Running {
    serve_at(site, name, &[])
}

fn serve_at(site: &Site, name: &str, more: &[&str]) -> Running {
    let program = testapp();
    let flags = ["--network", "tmp", "--service", "api", "--port", "8080", "--no-sidecar", "--name", name];
    let flags = [&flags[..], more].concat();
    let mut server = site.run(&flags, &[program.to_str().unwrap(), "http", "8080", name]);
    server.wait_for("listening");
    server
}

fn address(site: &Site, name: &str) -> String {
    eventually(PATIENCE, "the workload is known", || site.workload(name))["address"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Lets host-3 start `stale` in the network as it was before control made it again, with this subnet, and hear control then. Returns
/// the address, and the reason that its status gives.
fn evicted(subnet: &str) -> (Mesh, Vec<Running>, String, String) {
    let mesh = Mesh::start(3);
    create(&mesh, "10.50.0.0/24");
    let first = serve(mesh.site(3), "first");
    // Host-3 goes on by that the service is there.
    let known = serve(mesh.site(1), "known");
    eventually(PATIENCE, "host-3 knows the other instance", || mesh.site(3).workload("known"));
    drop(first);
    mesh.site(3).await_gone("first");
    let _ = mesh.site(3).command("nft", &[CUT]).ok();
    eventually(PATIENCE, "host-3 does not hear control", || {
        mesh.site(3).problems().contains("control").then_some(())
    });
    drop(known);
    mesh.site(1).await_gone("known");
    let _ = mesh.sealane(&["network", "rm", "tmp"]).ok();
    create(&mesh, subnet);
    let stale = serve(mesh.site(3), "stale");
    let old = address(mesh.site(3), "stale");
    let at: &[&str] = if subnet == "10.50.0.0/24" { &["--ip", &old] } else { &[] };
    let fresh = serve_at(mesh.site(2), "fresh", at);
    let client = serve(mesh.site(1), "client");
    let _ = mesh.site(3).command("nft", &["delete table inet cut"]).ok();
    let said = eventually(PATIENCE, "host-3 says that the workload is cut off", || {
        let problems = mesh.site(3).problems();
        let (_, said) = problems.split_once("was not heard here: stale (")?;
        Some(said.to_owned())
    });
    (mesh, vec![fresh, stale, client], old, said)
}

#[test]
fn an_address_that_a_network_made_again_gives_to_another_host_has_one_owner() {
    if !isolated() {
        return;
    }
    let (mesh, mut servers, old, said) = evicted("10.50.0.0/24");
    assert_eq!(address(mesh.site(2), "fresh"), old);
    assert!(
        said.starts_with(&format!("{old} lies in a block of host host-2); they are cut off: end them")),
        "{said}"
    );
    let url = format!("http://{old}:8080/");
    // Also from the host that had it.
    servers.push(serve(mesh.site(3), "local"));
    for (host, name) in [(1, "client"), (3, "local")] {
        eventually(PATIENCE, "the owner answers", || {
            (mesh.site(host).curl_as(name, &url).stdout == "fresh").then_some(())
        });
        for _ in 0..20 {
            assert_eq!(mesh.site(host).curl_as(name, &url).ok().stdout, "fresh");
        }
    }
    for site in mesh.sites() {
        assert!(site.workload("stale").is_none(), "nobody is told of it");
    }
    let stale = servers.remove(1);
    drop(stale);
    eventually(PATIENCE, "with its end all is well", || (mesh.site(3).problems() == "[]").then_some(()));
    servers.push(serve(mesh.site(3), "stale"));
    let url = format!("http://{}:8080/", address(mesh.site(3), "stale"));
    assert_eq!(mesh.site(1).curl_as("client", &url).ok().stdout, "stale");
}

#[test]
fn a_workload_whose_network_has_other_addresses_now_is_cut_off_and_named() {
    if !isolated() {
        return;
    }
    let (mut mesh, mut servers, old, said) = evicted("10.51.0.0/24");
    assert!(
        said.starts_with(&format!("{old} is outside 10.51.0.0/24); they are cut off: end them")),
        "{said}"
    );
    // Also by an agent that did not see it happen.
    mesh.site_mut(3).agent.kill9();
    mesh.site_mut(3).agent.start();
    mesh.site_mut(3).await_ready();
    eventually(PATIENCE, "the next agent says so, too", || {
        mesh.site(3).problems().contains(&format!("stale ({old} is outside")).then_some(())
    });
    servers.push(serve(mesh.site(3), "late"));
    let url = format!("http://{}:8080/", address(mesh.site(3), "late"));
    assert_eq!(mesh.site(1).curl_as("client", &url).ok().stdout, "late");
    drop(servers.remove(1));
    eventually(PATIENCE, "with its end all is well", || (mesh.site(3).problems() == "[]").then_some(()));
}
