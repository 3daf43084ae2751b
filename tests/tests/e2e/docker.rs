//! Docker's own networks in ours: a real dockerd on each host, with containers of nothing but busybox.

use sealane_lab::isolated;
use sealane_tests::{Finished, Mesh, PATIENCE, Running, Site, eventually};

/// How long a dockerd may take to start, which waits for a plugin that does not answer.
const STARTING: std::time::Duration = std::time::Duration::from_secs(60);
const CREATE: [&str; 9] =
    ["network", "create", "-d", "sealane", "--ipam-driver", "sealane", "-o", "sealane.network=shop", "shop"];

/// A host with an agent that is Docker's plugin, and a dockerd.
struct Engine {
    dockerd: Running,
}

fn docker(site: &Site, words: &[&str]) -> Finished {
    site.command("docker", words)
}

/// The machine's control groups, as a host of its own has them: those of version 1 that are in use, or else version 2.
const CGROUPS: &str = "mount -t tmpfs cgroups /sys/fs/cgroup
    cut -d: -f2 /proc/self/cgroup | while read -r group; do
        case $group in
            '') continue;;
            name=*) options=none,$group;;
            *) options=$group;;
        esac
        folder=/sys/fs/cgroup/${group#name=}
        mkdir $folder && mount -t cgroup -o $options cgroup $folder || exit
    done
    ls /sys/fs/cgroup | grep -q . || mount -t cgroup2 cgroup /sys/fs/cgroup";

fn start(site: &Site) -> Engine {
    let _ = site.command("sh", &["-c", CGROUPS]).ok();
    let mut dockerd = site.host.command("dockerd");
    dockerd.args(["--userland-proxy=false", "--storage-driver=vfs", "--data-root=/var/lib/docker"]);
    let dockerd = Running::start(dockerd);
    eventually(STARTING, "dockerd answers", || (docker(site, &["version"]).code() == 0).then_some(()));
    Engine { dockerd }
}

/// The image `bb`: busybox and the links that lead to it.
fn import(site: &Site) {
    let script = "mkdir -p /run/bb/bin /run/bb/etc && cd /run/bb && cp /bin/busybox bin/ && \
                  for name in sh httpd sleep mkdir; do ln -sf busybox bin/$name; done && \
                  tar -c . | docker import - bb:1";
    let _ = site.command("sh", &["-c", script]).ok();
}

fn mesh(hosts: usize) -> (Mesh, Vec<Engine>) {
    let mut mesh = Mesh::shop(hosts);
    for number in 1..=hosts {
        mesh.site_mut(number).agent.terminate();
        mesh.restart_agent(number, &["--docker-plugin"]);
        mesh.site_mut(number).await_ready();
    }
    let engines = (1..=hosts).map(|number| {
        let engine = start(mesh.site(number));
        import(mesh.site(number));
        engine
    });
    let engines = engines.collect();
    (mesh, engines)
}

const SERVE: &str = "mkdir -p /www; echo hello >/www/index.html; exec httpd -f -p 8080 -h /www";

/// What a container gets, asked by the host's curl in its network and with its resolv.conf: a static busybox cannot look
/// names up.
fn fetch(site: &Site, container: &str, url: &str) -> Finished {
    let script = format!(
        "pid=$(docker inspect -f '{{{{.State.Pid}}}}' {container}) && exec nsenter -t $pid -n unshare -m sh -c \
         'cat /proc/'$pid'/root/etc/resolv.conf >/run/asked.conf && mount --bind /run/asked.conf /etc/resolv.conf && \
         exec curl -sS --max-time 5 {url}'"
    );
    site.command("sh", &["-c", &script])
}

#[test]
fn containers_of_two_hosts_find_and_call_each_other_by_docker_s_own_commands() {
    if !isolated() {
        return;
    }
    let (mut mesh, mut engines) = mesh(2);
    for number in 1..=2 {
        let _ = docker(mesh.site(number), &CREATE).ok();
    }
    let labels =
        ["--label", "sealane.service=api", "--label", "sealane.port=8080", "--network-alias", "backend"];
    let api =
        [&["run", "-d", "--network", "shop", "--name", "api-1"][..], &labels, &["bb:1", "sh", "-c", SERVE]];
    let _ = docker(mesh.site(1), &api.concat()).ok();
    let client = ["run", "-d", "--network", "shop", "--name", "client", "bb:1", "sleep", "100000"];
    let _ = docker(mesh.site(2), &client).ok();
    mesh.await_instances("api", 1);
    let calls = |mesh: &Mesh, name: &str| {
        let what = format!("{name} answers");
        eventually(PATIENCE, &what, || {
            let got = fetch(mesh.site(2), "client", &format!("http://{name}:8080/"));
            (got.stdout == "hello\n").then_some(())
        });
    };
    calls(&mesh, "api");
    calls(&mesh, "api-1");
    calls(&mesh, "backend");

    // An agent that ends and comes back disturbs nothing.
    mesh.site_mut(1).agent.kill9();
    mesh.site_mut(1).agent.start();
    mesh.site_mut(1).await_ready();
    calls(&mesh, "api");

    let _ = docker(mesh.site(1), &["restart", "-t", "0", "api-1"]).ok();
    calls(&mesh, "api");
    let _ = docker(mesh.site(1), &["rm", "-f", "api-1"]).ok();
    eventually(PATIENCE, "it is gone", || mesh.site(1).workload("api-1").is_none().then_some(()));
    let links = mesh.site(1).command("ip", &["-br", "link"]).ok().stdout;
    assert!(!links.contains("sli") && !links.contains("slo"), "{links}");
    // A container that is removed while no agent is there leaves nothing behind.
    mesh.site_mut(2).agent.kill9();
    let _ = docker(mesh.site(2), &["rm", "-f", "client"]);
    mesh.site_mut(2).agent.start();
    mesh.site_mut(2).await_ready();
    eventually(PATIENCE, "it is gone", || mesh.site(2).workload("client").is_none().then_some(()));
    for engine in &mut engines {
        engine.dockerd.kill9();
    }
}
