//! Podman in our networks by its own commands, on two hosts: by netavark, and by CNI.

use sealane_lab::isolated;
use sealane_tests::{BUSYBOX, Finished, Mesh, PATIENCE, Release, Running, SERVE, Site, eventually, sealane};
use serde_json::json;

use super::containerd::configure;

/// The settings that every podman here needs: limits that a container of this machine may have, and control groups by hand.
const SETTINGS: &str = "[containers]
default_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]
[engine]
runtime = \"runc\"
cgroup_manager = \"cgroupfs\"
events_logger = \"none\"
";
fn podman(site: &Site, words: &[&str]) -> Finished {
    let mut command = site.host.command("podman");
    command.args(["--storage-driver", "vfs"]).args(words).env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1");
    command.env("CONTAINERS_CONF", "/run/containers.conf");
    Running::start(command).wait()
}

/// Makes a host ready for podman, with the plugin at `place`, these lines of its settings, and the image `bb:1`.
fn prepare(site: &Site, place: &str, network: &str) {
    site.control_groups();
    let script = format!(
        "mkdir -p {place} && ln -sf {} {place}/sealane && printf '%s' '{SETTINGS}[network]\n{network}' >/run/containers.conf && \
         {BUSYBOX} && tar -c . >/run/bb.tar",
        sealane().display()
    );
    let _ = site.command("sh", &["-c", &script]).ok();
    let _ = podman(site, &["import", "/run/bb.tar", "bb:1"]).ok();
}

/// A container of one host is called by its names from a container of the other, however often it starts.
fn call_across_hosts(mesh: &Mesh, networks: [&str; 2], names: &[&str]) {
    let web = ["run", "-d", "--network", networks[0], "--name", "Web_1", "bb:1", "sh", "-c", SERVE];
    let _ = podman(mesh.site(1), &web).ok();
    mesh.await_instances("web", 1);
    let client = ["run", "-d", "--network", networks[1], "--name", "client", "bb:1", "sleep", "100000"];
    let _ = podman(mesh.site(2), &client).ok();
    let calls = || {
        for name in names {
            let (what, url) = (format!("{name} answers"), format!("http://{name}:8080/"));
            eventually(PATIENCE, &what, || {
                let got = podman(mesh.site(2), &["exec", "client", "timeout", "5", "wget", "-qO-", &url]);
                (got.stdout == "hello\n").then_some(())
            });
        }
    };
    calls();
    let _ = podman(mesh.site(1), &["restart", "-t", "0", "Web_1"]).ok();
    calls();
    for (number, name) in [(1, "Web_1"), (2, "client")] {
        let _ = podman(mesh.site(number), &["rm", "-f", "-t", "0", name]).ok();
    }
    mesh.site(1).await_gone("web-1");
    let links = mesh.site(1).command("ip", &["netns"]).ok().stdout;
    assert_eq!(links.lines().filter(|line| line.starts_with("netns-")).count(), 0, "{links}");
}

#[test]
fn containers_of_podman_5_call_each_other_across_hosts() {
    if !isolated() {
        return;
    }
    across_by_netavark([Release::Trixie; 2]);
}

#[test]
fn containers_of_the_newest_podman_call_each_other_across_hosts() {
    if !isolated() {
        return;
    }
    across_by_netavark([Release::Forky; 2]);
}

fn across_by_netavark(releases: [Release; 2]) {
    let mut mesh = Mesh::on(&releases).up();
    mesh.create_shop();
    for site in mesh.sites() {
        prepare(site, "/run/netavark", "netavark_plugin_dirs = [\"/run/netavark\"]\n");
    }
    refuses_by_netavark(mesh.site(1));
    for site in mesh.sites() {
        let _ =
            podman(site, &["network", "create", "-d", "sealane", "--opt", "sealane.network=shop", "shop"])
                .ok();
    }
    call_across_hosts(
        &mesh,
        ["shop:sealane.service=web,sealane.port=8080/http,alias=front", "shop"],
        &["web", "web_1", "front"],
    );
    // Nothing of a container is in anybody's way that ends while no agent is there.
    let idle = ["run", "-d", "--network", "shop", "--name", "idle", "bb:1", "sleep", "100000"];
    let _ = podman(mesh.site(1), &idle).ok();
    mesh.site_mut(1).agent.kill9();
    let removed = podman(mesh.site(1), &["rm", "-f", "-t", "0", "idle"]).ok();
    assert!(removed.stderr.contains("a minute after the agent is back"), "{removed}");
    mesh.site_mut(1).agent.start();
    mesh.site_mut(1).await_ready();
    let _ = podman(mesh.site(1), &idle).ok();
}

/// Podman tells whole what cannot be, with the line to type, and changes nothing.
fn refuses_by_netavark(site: &Site) {
    let create = ["network", "create", "-d", "sealane"];
    for (words, expected) in [
        (&["shop"][..], "podman network create -d sealane --opt sealane.network=NETWORK shop"),
        (&["--opt", "sealane.network=nowhere", "shop"], "sealane network create nowhere"),
        (
            &["--opt", "sealane.network=shop", "--subnet", "10.89.0.0/24", "shop"],
            "podman network create -d sealane --opt sealane.network=shop shop",
        ),
        (&["--opt", "sealane.network=shop", "--internal", "shop"], "--egress deny"),
        (&["--opt", "sealane.network=shop", "--opt", "mtu=1400", "shop"], "option mtu"),
    ] {
        let refused = podman(site, &[&create[..], words].concat());
        assert!(!refused.status.success() && refused.stderr.contains(expected), "{refused}");
    }
    assert!(!podman(site, &["network", "exists", "shop"]).status.success());
}

#[test]
fn containers_of_podman_4_call_each_other_across_hosts() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(2);
    let settings =
        "network_backend = \"cni\"\ncni_plugin_dirs = [\"/run/cni\"]\nnetwork_config_dir = \"/run/net.d\"\n";
    for (site, more) in mesh.sites().zip([json!({ "service": "web", "ports": ["8080/http"] }), json!({})]) {
        prepare(site, "/run/cni", settings);
        configure(site, &more);
    }
    call_across_hosts(&mesh, ["mesh:alias=front", "mesh"], &["web", "web_1", "front"]);
}
