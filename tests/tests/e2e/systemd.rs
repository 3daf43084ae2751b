//! Services of systemd in a network, by a drop-in: the commands of the units, and a real systemd that runs them.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sealane_lab::isolated;
use sealane_tests::{Finished, Mesh, PATIENCE, Running, Site, eventually, sealane, testapp};

/// Starts systemd as the first process of namespaces of its own on a host: its units are those that `make install` has put below
/// $1 and those of $2, its settings are there too; its control groups end with it.
const BOOT: &str = r#"
set -e
mkdir -p "$1/cgroup" && mount -t cgroup2 none "$1/cgroup"
group=$(mktemp -d "$1/cgroup/sealane-test-XXXXXX")
trap 'echo $$ >"$1/cgroup/cgroup.procs"; echo 1 >"$group/cgroup.kill"
    for try in $(seq 100); do find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break; sleep 0.1; done
    umount "$1/cgroup"' EXIT
echo $$ >"$group/cgroup.procs"
setpriv --pdeathsig KILL unshare --mount --propagation private --pid --fork --kill-child --mount-proc --cgroup --ipc sh -ec '
    mount -t cgroup2 none /sys/fs/cgroup
    mount -t tmpfs none /usr/lib/systemd/system; mount -t tmpfs none /usr/local
    cp -r "$1/usr/local/." /usr/local; mount --bind "$2" /etc/systemd/system
    mount -t tmpfs none "$1/layers"; mkdir "$1/layers/upper" "$1/layers/work"; cp -r "$1/etc/." "$1/layers/upper"
    cp -L /etc/resolv.conf "$1/layers/upper"
    mount -t overlay none -o "lowerdir=/etc,upperdir=$1/layers/upper,workdir=$1/layers/work" /etc
    mount --bind "$2" /etc/systemd/system
    for target in basic sysinit shutdown multi-user network-online; do
        printf "[Unit]\nDefaultDependencies=no\n" >/usr/lib/systemd/system/$target.target
    done
    exec env -i PATH="$PATH" container=sealane SYSTEMD_LOG_TARGET=console \
        /lib/systemd/systemd --system --unit=basic.target' sh "$1" "$2"
"#;

/// A systemd that runs.
struct Booted {
    boot: Option<Running>,
    init: u32,
}

impl Booted {
    /// Boots a host of the mesh with what [`install`] has put below `root`.
    fn on(site: &Site, root: &Path) -> Self {
        let (root, units) = (root.display().to_string(), root.join("units").display().to_string());
        let boot = site.begin("sh", &["-c", BOOT, "sh", &root, &units]);
        let init = init_of(&boot);
        Self { boot: Some(boot), init }
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init.to_string(), "-a", "--"]).args(arguments);
        Running::start(command).wait()
    }

    fn systemctl(&self, arguments: &[&str]) -> Finished {
        self.run(&[&["systemctl"], arguments].concat())
    }

    fn state(&self, unit: &str) -> String {
        self.systemctl(&["is-active", unit]).stdout.trim().to_owned()
    }
}

impl Drop for Booted {
    /// All of its processes end with the first one; what started it cleans up.
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.init.cast_signed()), Signal::SIGKILL);
        if let Some(boot) = self.boot.take().filter(|_| !std::thread::panicking()) {
            let _ = boot.wait();
        }
    }
}

/// The systemd below a process.
fn init_of(boot: &Running) -> u32 {
    let children = |pid: u32| {
        let path = format!("/proc/{pid}/task/{pid}/children");
        let listed = std::fs::read_to_string(path).unwrap_or_default();
        listed.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>()
    };
    eventually(PATIENCE, "systemd starts", || {
        let mut below = children(boot.pid());
        while let Some(pid) = below.pop() {
            let named = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if named.trim() == "systemd" {
                let mut asked = Command::new("nsenter");
                asked.args(["-t", &pid.to_string(), "-a", "systemctl", "is-active", "basic.target"]);
                return Running::start(asked).wait().status.success().then_some(pid);
            }
            below.extend(children(pid));
        }
        None
    })
}

#[test]
fn a_unit_s_namespace_is_made_attached_and_given_back_by_the_commands_of_its_units() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::shop(2);
    let attach = ["attach", "--unit", "api@1", "--network", "shop", "--service", "api", "--port", "8080"];
    let attached = mesh.site(1).sealane(&attach).ok().stdout;
    assert!(attached.contains("/run/sealane/units/api@1/resolv.conf"), "{attached}");
    let netns = "/run/sealane/units/api@1/netns";
    let server = mesh.site(1).serve_in(netns, "8080", "one");
    mesh.await_instances("api", 1);
    assert_eq!(mesh.site(2).curl("http://api:8080/").stdout, "one");
    let resolv = mesh.site(1).command("cat", &["/run/sealane/units/api@1/resolv.conf"]).ok().stdout;
    assert_eq!(resolv.lines().next(), Some("nameserver 127.0.0.11"));
    assert_eq!(mesh.site(1).workload("api-1").unwrap()["ready"], true);

    // The agent's end is not the service's, nor is a start that finds what an earlier one has left.
    mesh.site_mut(1).agent.kill9();
    mesh.site_mut(1).agent.start();
    mesh.site_mut(1).await_ready();
    mesh.await_instances("api", 1);
    drop(server);
    let _ = mesh.site(1).sealane(&attach).ok();
    let _server = mesh.site(1).serve_in(netns, "8080", "one");
    mesh.await_instances("api", 1);
    assert_eq!(mesh.site(2).curl("http://api:8080/").stdout, "one");

    let refused = mesh.site(1).sealane(&["attach", "--unit", "web", "--network", "none"]);
    assert!(!refused.status.success() && refused.stderr.contains("network none"), "{refused}");
    for _ in 0..2 {
        let _ = mesh.site(1).sealane(&["detach", "--unit", "api@1.service"]).ok();
    }
    mesh.site(1).await_gone("api-1");
    let left = mesh.site(1).command("ls", &["/run/sealane/units"]).ok().stdout;
    assert_eq!(left, "", "neither of the two has left anything");
}

/// Installs and sets what a host has that joins by a token, below `root`: units in `units`, the rest as below /.
fn install(root: &Path, token: &str) {
    let at = |path: &str| root.join(path);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut make = Command::new("make");
    make.arg("-C").arg(folder).arg("install").arg(format!("DESTDIR={}", root.display()));
    make.arg(format!("BINARY={}", sealane().display()));
    let _ = Running::start(make).wait().ok();
    let write = |path: &str, text: &str| {
        std::fs::create_dir_all(at(path).parent().unwrap()).unwrap();
        std::fs::write(at(path), text).unwrap();
    };
    write("etc/token", token);
    write("etc/default/sealane", "SEALANE_CONTROL=192.0.2.11:7443\nSEALANE_TOKEN_FILE=/etc/token\n");
    write("etc/sealane/units/api@1", "SEALANE_ATTACH=\"--network shop --service api --port 8080\"\n");
    // Where a service without /tmp of the host finds it, wherever the checkout lies.
    let _ = std::fs::copy(testapp(), at("usr/local/bin/testapp")).unwrap();
    let unit = "[Service]\nExecStart=/usr/local/bin/testapp http 8080 one\nDynamicUser=yes\n";
    write("units/api@.service", unit);
    std::fs::create_dir(at("layers")).unwrap();
    std::fs::create_dir_all(at("units/api@.service.d")).unwrap();
    let drop_in = "/usr/local/share/sealane/service.conf";
    std::os::unix::fs::symlink(drop_in, at("units/api@.service.d/sealane.conf")).unwrap();
}

#[test]
fn a_service_of_systemd_is_in_a_network_by_a_drop_in_and_leaves_it_when_it_stops() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::hosts(2).up_to(1);
    mesh.create_shop();
    let root = tempfile::tempdir().unwrap();
    install(root.path(), &mesh.token());
    let host = Booted::on(mesh.site(2), root.path());
    let started = host.systemctl(&["start", "api@1"]);
    assert!(started.status.success(), "{started}");
    for unit in ["sealane-agent", "sealane-attach@api@1"] {
        assert_eq!(host.state(unit), "active", "{unit}");
    }
    mesh.await_instances("api", 1);
    assert_eq!(mesh.site(1).curl("http://api:8080/").stdout, "one");
    let main = host.systemctl(&["show", "-P", "MainPID", "api@1"]).stdout;
    let resolv = host.run(&["cat", &format!("/proc/{}/root/etc/resolv.conf", main.trim())]).ok().stdout;
    assert!(resolv.starts_with("nameserver 127.0.0.11"), "{resolv}");

    // Neither a restart of the agent nor one of the service is the end of the attachment.
    let address = || mesh.json(&["workload", "ls"])[0]["address"].clone();
    let before = address();
    let _ = host.systemctl(&["restart", "sealane-agent"]).ok();
    let _ = host.systemctl(&["restart", "api@1"]).ok();
    mesh.await_instances("api", 1);
    assert_eq!((mesh.site(1).curl("http://api:8080/").stdout, address()), ("one".into(), before));

    let _ = host.systemctl(&["stop", "api@1"]).ok();
    eventually(PATIENCE, "nobody lists it", || {
        mesh.json(&["workload", "ls"]).as_array().unwrap().is_empty().then_some(())
    });
    eventually(PATIENCE, "its attachment has ended", || {
        (host.state("sealane-attach@api@1") == "inactive").then_some(())
    });

    // Outside its network it is not started.
    let settings = "echo 'SEALANE_ATTACH=\"--network none\"' >/etc/sealane/units/api@2";
    let _ = host.run(&["sh", "-c", settings]).ok();
    assert!(!host.systemctl(&["start", "api@2"]).status.success());
    assert_eq!(host.state("api@2"), "inactive");
}

/// A unit as docs/operations.md describes it: an instance of `api` that is drained before it gets SIGTERM.
const ROLLED: &str = "[Unit]\nRequires=sealane-agent.service\nAfter=sealane-agent.service\n[Service]\n\
    ExecStart=/usr/local/bin/sealane run --network shop --service api --port 8080 --name roll-%i -- \
    /usr/local/bin/testapp http 8080 roll-%i --finish\n\
    ExecStop=-/usr/local/bin/sealane workload drain roll-%i --wait --timeout 10s\n";

#[test]
fn an_application_under_systemd_is_restarted_instance_by_instance_without_a_failed_request() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::hosts(2).up_to(1);
    mesh.create_shop();
    let mesh = mesh.permissive();
    let root = tempfile::tempdir().unwrap();
    install(root.path(), &mesh.token());
    std::fs::write(root.path().join("units/roll@.service"), ROLLED).unwrap();
    let host = Booted::on(mesh.site(2), root.path());
    for unit in ["roll@1", "roll@2"] {
        let started = host.systemctl(&["start", unit]);
        assert!(started.status.success(), "{started}");
    }
    mesh.await_instances("api", 2);
    let program = testapp();
    let loads: Vec<(&str, Running)> = [("sidecar", &[][..]), ("direct", &["--no-sidecar"])]
        .into_iter()
        .map(|(name, flags)| {
            let flags = [&["--network", "shop", "--name", name], flags].concat();
            let command =
                [program.to_str().unwrap(), "load", "http://api:8080/", "--post", "--pause-ms", "2"];
            let mut load = mesh.site(1).run(&flags, &command);
            load.wait_for("seen posted");
            (name, load)
        })
        .collect();
    let main = |unit: &str| host.systemctl(&["show", "-P", "MainPID", unit]).ok().stdout;
    for unit in ["roll@1", "roll@2", "roll@1"] {
        let before = main(unit);
        let restarted = host.systemctl(&["restart", unit]);
        assert!(restarted.status.success(), "{restarted}");
        assert_ne!(main(unit), before);
        mesh.await_instances("api", 2);
        assert_eq!(
            mesh.site(1).workload(&unit.replace('@', "-")).unwrap()["weight"],
            1,
            "a drain ends with it"
        );
    }
    for (name, load) in loads {
        let report = sealane_tests::LoadReport::of(&load.wait()).ok();
        println!("{name}: {} requests, none failed, the slowest took {} ms", report.requests, report.max_ms);
    }
    // One that ended by itself has nothing to drain, and nobody is told that its unit failed to stop. It is no
    // part of the recipe: a POST that it has not taken yet would fail.
    let _ = host.systemctl(&["kill", "--signal=TERM", "roll@2"]).ok();
    eventually(PATIENCE, "it has ended", || (host.state("roll@2") == "inactive").then_some(()));
}

#[test]
fn dockerd_finds_its_plugin_at_once_at_every_boot_and_uninstall_leaves_no_trace() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::hosts(2).up_to(1);
    mesh.create_shop();
    let root = tempfile::tempdir().unwrap();
    install(root.path(), &mesh.token());
    let unit =
        "[Service]\nType=notify\nExecStart=/usr/sbin/dockerd --userland-proxy=false --storage-driver=vfs\n";
    std::fs::write(root.path().join("units/docker.service"), unit).unwrap();
    let host = Booted::on(mesh.site(2), root.path());
    let _ = host.systemctl(&["enable", "--now", "sealane-agent"]).ok();
    // The folder of sockets itself is dockerd's.
    let look = "find /etc/systemd/system /etc/docker /run/docker/plugins/* 2>/dev/null | sort; systemctl list-unit-files --no-legend 'sealane*'";
    let traces = || host.run(&["sh", "-c", look]).stdout;
    let before = traces();
    let install = |verb: &str| {
        let done = host.run(&["/usr/local/bin/sealane", "docker", verb]);
        assert!(done.status.success(), "{done}");
    };
    let docker = |words: &[&str]| host.run(&[&["docker"], words].concat());
    // Dockerd waits 15 s for each call of a plugin that is not there.
    let start = |what: &str| {
        let began = Instant::now();
        let started = host.systemctl(&["start", "docker"]);
        assert!(started.status.success() && began.elapsed() < Duration::from_secs(12), "{what}: {started}");
    };
    install("install");
    assert_eq!(
        (host.state("sealane-docker.socket"), host.state("sealane-agent")),
        ("active".into(), "active".into())
    );
    start("with the agent");
    let create = [
        "network",
        "create",
        "-d",
        "sealane",
        "--ipam-driver",
        "sealane",
        "-o",
        "sealane.network=shop",
        "shop",
    ];
    let _ = docker(&create).ok();

    // As at a boot: dockerd comes when no agent has come yet, and calls it.
    let _ = host.systemctl(&["stop", "docker", "sealane-agent"]).ok();
    assert_eq!(host.state("sealane-agent"), "inactive");
    start("before the agent");
    assert_eq!(docker(&["network", "inspect", "-f", "{{.Driver}}", "shop"]).ok().stdout.trim(), "sealane");
    let _ = docker(&["network", "rm", "shop"]).ok();
    assert_eq!(host.state("sealane-agent"), "active", "the first call has started it");

    let _ = host.systemctl(&["stop", "docker"]).ok();
    install("uninstall");
    assert_eq!(traces(), before);
    assert_eq!(host.state("sealane-agent"), "active");
}
