//! containerd and our CNI plugin: by `ctr`, and by CRI as the kubelet speaks it.

use sealane_lab::isolated;
use sealane_tests::{BUSYBOX, Finished, Mesh, PATIENCE, Running, SERVE, Site, eventually, sealane};
use serde_json::{Value, json};

const SOCKET: &str = "/run/containerd.sock";
/// Every container's root is a copy, for lack of what overlays need; nothing of the machine's is limited.
const SETTINGS: &str = "version = 2
root = \"/var/lib/containerd\"
state = \"/run/containerd\"
[grpc]
address = \"/run/containerd.sock\"
[plugins.\"io.containerd.grpc.v1.cri\"]
sandbox_image = \"localhost/pod:1\"
restrict_oom_score_adj = true
disable_apparmor = true
disable_cgroup = true
[plugins.\"io.containerd.grpc.v1.cri\".containerd]
snapshotter = \"native\"
";

/// The configuration of a network `mesh` in our network `shop`, in /run/net.d.
pub(super) fn configure(site: &Site, more: &Value) {
    let capabilities =
        json!({ "ips": true, "mac": true, "aliases": true, "io.kubernetes.cri.pod-annotations": true });
    let mut conf = json!({ "type": "sealane", "network": "shop", "capabilities": capabilities });
    conf.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let list = json!({ "cniVersion": "0.4.0", "name": "mesh", "plugins": [conf] });
    let script = format!("mkdir -p /run/net.d && printf '%s' '{list}' >/run/net.d/10-mesh.conflist");
    let _ = site.command("sh", &["-c", &script]).ok();
}

/// A containerd whose network is that of this configuration.
fn start(site: &Site, more: &Value) -> Running {
    site.control_groups();
    configure(site, more);
    let script = format!(
        "for folder in /opt/cni/bin /etc/cni/net.d; do mkdir -p $folder && mount -t tmpfs tmpfs $folder; done && \
         ln -sf {} /opt/cni/bin/sealane && ln -s /usr/lib/cni/loopback /opt/cni/bin/ && cp /run/net.d/* /etc/cni/net.d/ && \
         printf '%s' '{SETTINGS}' >/run/containerd.toml && mkdir -p /run/pods && {BUSYBOX}",
        sealane().display()
    );
    let _ = site.command("sh", &["-c", &script]).ok();
    let containerd = site.begin("containerd", &["--config", "/run/containerd.toml"]);
    eventually(PATIENCE, "containerd answers", || ctr(site, &["version"]).status.success().then_some(()));
    containerd
}

fn ctr(site: &Site, words: &[&str]) -> Finished {
    site.command("ctr", &[&["--address", SOCKET], words].concat())
}

fn answers(site: &Site, workload: &str, name: &str) {
    let url = format!("http://{name}:8080/");
    eventually(PATIENCE, &format!("{name} answers"), || {
        (site.curl_as(workload, &url).stdout == "hello\n").then_some(())
    });
}

#[test]
fn containers_of_ctr_join_and_leave_by_cni() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(2);
    let site = mesh.site(1);
    let _containerd = start(site, &json!({ "service": "web", "ports": ["8080/http"] }));
    let _ = ctr(site, &["run", "-d", "--cni", "--rootfs", "/run/bb", "k1", "/bin/sh", "-c", SERVE]).ok();
    mesh.await_instances("web", 1);
    let _client = mesh.site(2).run(&["--network", "shop", "--name", "client"], &["sleep", "100000"]);
    eventually(PATIENCE, "the client is there", || mesh.site(2).workload("client"));
    for name in ["web", "default-k1"] {
        answers(mesh.site(2), "client", name);
    }
    // `ctr` says nothing of the end of what it started with `-d`.
    let _ = ctr(site, &["task", "rm", "-f", "k1"]);
    site.await_gone("default-k1");
    let _ = ctr(site, &["run", "--rm", "--cni", "--rootfs", "/run/bb", "k2", "/bin/true"]).ok();
    site.await_gone("default-k2");
}

/// Runs a pod, or ends one.
fn cri(site: &Site, words: &[&str]) -> Finished {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/programs/cri_client.py");
    site.command("/usr/bin/python3", &[&[program, SOCKET], words].concat())
}

#[test]
fn pods_are_instances_of_what_their_annotations_say() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(2);
    let site = mesh.site(1);
    let _containerd = start(site, &json!({}));
    // The only container that a pod has by itself serves; its files cannot be written.
    let entry = json!(["/bin/httpd", "-f", "-p", "8080", "-h", "/www"]);
    let script = format!(
        "cd /run/bb && mkdir www && echo hello >www/index.html && tar -c . | podman --storage-driver vfs import -c 'ENTRYPOINT {entry}' - pod:1 && \
         podman --storage-driver vfs save -o /run/pod.tar pod:1"
    );
    let _ = site.command("sh", &["-c", &script]).ok();
    let import = ["-n", "k8s.io", "image", "import", "--snapshotter", "native", "/run/pod.tar"];
    let _ = ctr(site, &import).ok();

    let pod =
        cri(site, &["web-0", "sealane.service=web", "sealane.port=8080/http", "example.com/other=1"]).ok();
    mesh.await_instances("web", 1);
    let _client = mesh.site(2).run(&["--network", "shop", "--name", "client"], &["sleep", "100000"]);
    eventually(PATIENCE, "the client is there", || mesh.site(2).workload("client"));
    for name in ["web", "web-0", "web-0-prod"] {
        answers(mesh.site(2), "client", name);
    }
    let refused = cri(site, &["web-1", "sealane.prot=8080"]);
    assert!(
        refused.stderr.contains("there is no annotation sealane.prot; there are sealane.service"),
        "{refused}"
    );
    let _ = cri(site, &[&format!("-{}", pod.stdout.trim())]).ok();
    site.await_gone("web-0");
}
