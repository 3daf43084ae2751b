//! Services of systemd in a network, by a drop-in: the commands of the units, and a real systemd that runs them.

use std::path::Path;
use std::process::Command;

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, Running, Site, eventually, sealane, testapp};

/// Starts systemd as the first process of namespaces of its own on a host: its units are those that `make install` has put below
/// $1 and those of $2, its settings are there too; its control groups end with it.
const BOOT: &str = r#"
set -e
group=$1/cgroup/sealane-test-$$
mkdir -p "$1/cgroup" && mount -t cgroup2 none "$1/cgroup" && mkdir "$group"
trap 'echo 1 >"$group/cgroup.kill"; while ! find "$group" -depth -type d -exec rmdir {} + 2>/dev/null; do sleep 0.1; done; umount "$1/cgroup"' EXIT
echo $$ >"$group/cgroup.procs"
unshare --mount --propagation private --pid --fork --kill-child --mount-proc --cgroup --ipc sh -ec '
    umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup
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
        /lib/systemd/systemd --system --unit=basic.target' sh "$1" "$2" &
echo $$ >/dev/null; wait $!
"#;

/// Runs a command beside the systemd that is the first process of its namespaces.
fn beside(init: u32, arguments: &[&str]) -> sealane_tests::Finished {
    let mut command = Command::new("nsenter");
    command.args(["-t", &init.to_string(), "-a", "--"]).args(arguments);
    Running::start(command).wait()
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
                let up = beside(pid, &["systemctl", "is-active", "basic.target"]);
                return up.status.success().then_some(pid);
            }
            below.extend(children(pid));
        }
        None
    })
}

fn curl(site: &Site, url: &str) -> String {
    site.shop(&["curl", "-sS", "--max-time", "10", url]).wait().stdout
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
    let serve = |site: &Site| {
        let mut server = site.host.command("nsenter");
        let net = format!("--net={netns}");
        server.args([net.as_str(), testapp().to_str().unwrap(), "http", "8080", "one"]);
        let mut server = Running::start(server);
        server.wait_for("listening");
        server
    };
    let server = serve(mesh.site(1));
    mesh.await_instances("api", 1);
    assert_eq!(curl(mesh.site(2), "http://api:8080/"), "one");
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
    let _server = serve(mesh.site(1));
    mesh.await_instances("api", 1);
    assert_eq!(curl(mesh.site(2), "http://api:8080/"), "one");

    let refused = mesh.site(1).sealane(&["attach", "--unit", "web", "--network", "none"]);
    assert!(!refused.status.success() && refused.stderr.contains("network none"), "{refused}");
    for _ in 0..2 {
        let _ = mesh.site(1).sealane(&["detach", "--unit", "api@1.service"]).ok();
    }
    eventually(PATIENCE, "nobody lists it", || mesh.site(1).workload("api-1").is_none().then_some(()));
    let left = mesh.site(1).command("ls", &["/run/sealane/units"]).ok().stdout;
    assert_eq!(left, "", "neither of the two has left anything");
}

#[test]
fn a_service_of_systemd_is_in_a_network_by_a_drop_in_and_leaves_it_when_it_stops() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::hosts(2).up_to(1);
    let _ = mesh.sealane(&["network", "create", "shop", "--subnet", "10.42.0.0/16"]).ok();
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut make = Command::new("make");
    make.arg("-C").arg(folder).arg("install").arg(format!("DESTDIR={}", root.path().display()));
    let _ = Running::start({
        make.arg(format!("BINARY={}", sealane().display()));
        make
    })
    .wait()
    .ok();
    let write = |path: &str, text: &str| {
        std::fs::create_dir_all(at(path).parent().unwrap()).unwrap();
        std::fs::write(at(path), text).unwrap();
    };
    write("etc/token", &mesh.token());
    write("etc/default/sealane", "SEALANE_CONTROL=192.0.2.11:7443\nSEALANE_TOKEN_FILE=/etc/token\n");
    write("etc/sealane/units/api@1", "SEALANE_ATTACH=\"--network shop --service api --port 8080\"\n");
    let program = testapp().display().to_string();
    write("units/api@.service", &format!("[Service]\nExecStart={program} http 8080 one\nDynamicUser=yes\n"));
    write("layers/of-etc", "");
    std::fs::create_dir_all(at("units/api@.service.d")).unwrap();
    let drop_in = "/usr/local/share/sealane/service.conf";
    std::os::unix::fs::symlink(drop_in, at("units/api@.service.d/sealane.conf")).unwrap();

    let mut boot = mesh.site(2).host.command("sh");
    boot.args(["-c", BOOT, "sh", root.path().to_str().unwrap(), at("units").to_str().unwrap()]);
    let boot = Running::start(boot);
    let init = init_of(&boot);
    let systemctl = |arguments: &[&str]| beside(init, &[&["systemctl"], arguments].concat());
    let state = |unit: &str| systemctl(&["is-active", unit]).stdout.trim().to_owned();
    let started = systemctl(&["start", "api@1"]);
    assert!(started.status.success(), "{started}\n{}", boot.stderr());
    assert_eq!((state("sealane-agent"), state("sealane-attach@api@1")), ("active".into(), "active".into()));
    mesh.await_instances("api", 1);
    assert_eq!(curl(mesh.site(1), "http://api:8080/"), "one");
    let names = beside(init, &["systemctl", "show", "-P", "MainPID", "api@1"]).stdout;
    let resolv = beside(init, &["cat", &format!("/proc/{}/root/etc/resolv.conf", names.trim())]).ok().stdout;
    assert!(resolv.starts_with("nameserver 127.0.0.11"), "{resolv}");

    // Neither a restart of the agent nor one of the service is the end of the attachment.
    let address = || mesh.json(&["workload", "ls"])[0]["address"].clone();
    let before = address();
    let _ = systemctl(&["restart", "sealane-agent"]).ok();
    let _ = systemctl(&["restart", "api@1"]).ok();
    mesh.await_instances("api", 1);
    assert_eq!((curl(mesh.site(1), "http://api:8080/"), address()), ("one".into(), before));

    let _ = systemctl(&["stop", "api@1"]).ok();
    eventually(PATIENCE, "nobody lists it", || {
        mesh.json(&["workload", "ls"]).as_array().unwrap().is_empty().then_some(())
    });
    assert_eq!(state("sealane-attach@api@1"), "inactive");

    // Outside its network it is not started.
    write("etc/sealane/units/api@2", "SEALANE_ATTACH=\"--network none\"\n");
    let _ = beside(init, &["sh", "-c", "echo 'SEALANE_ATTACH=\"--network none\"' >/etc/sealane/units/api@2"]).ok();
    assert!(!systemctl(&["start", "api@2"]).status.success());
    assert_eq!(state("api@2"), "inactive");
    mesh.site_mut(1).agent.start();
}
