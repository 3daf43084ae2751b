//! `run` under a service manager: the command stays where it was put, and nothing else is there with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use sealane_lab::isolated;
use sealane_tests::{Mesh, Running, sealane, testapp};

/// A new control group, in the memory hierarchy where there is one.
struct Group(PathBuf);

impl Group {
    fn new() -> Self {
        // The test's namespaces have a /sys of their own, without control groups.
        let script = "mkdir /run/groups && cd /run/groups && \
                      { mount -t cgroup -o memory none . || mount -t cgroup2 none .; } 2>/dev/null";
        let mounted = Command::new("sh").args(["-c", script]).status().unwrap();
        assert!(mounted.success(), "control groups can be mounted");
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let group = Path::new("/run/groups").join(format!("sealane-test-{nanos}"));
        fs::create_dir(&group).unwrap();
        Self(group)
    }

    /// The file of the memory limit, where this hierarchy has one.
    fn limit(&self) -> Option<PathBuf> {
        let files = ["memory.max", "memory.limit_in_bytes"].map(|name| self.0.join(name));
        files.into_iter().find(|file| file.exists())
    }

    fn holds(&self, pid: u32) -> bool {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let name = self.0.file_name().unwrap().to_str().unwrap();
        groups.lines().any(|line| line.ends_with(name))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its processes may just be ending; what stays is empty and harms nobody.
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_command_keeps_its_control_group_and_its_sidecar_is_not_in_it() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(1);
    let site = mesh.site(1);
    let group = Group::new();
    let limit = group.limit();
    if let Some(limit) = &limit {
        fs::write(limit, "268435456").unwrap();
    }
    let script = format!(
        "read go; exec '{}' run --network shop --name limited --service api --port 8080 -- '{}' http 8080 limited",
        sealane().display(),
        testapp().display()
    );
    let mut shell = site.host.command("sh");
    shell.args(["-c", &script]);
    let mut limited = Running::start(shell);
    fs::write(group.0.join("cgroup.procs"), limited.pid().to_string()).unwrap();
    limited.say("go\n");
    limited.wait_for("listening");
    assert!(group.holds(limited.pid()), "the command is where its manager put it");
    if let Some(limit) = &limit {
        assert_eq!(fs::read_to_string(limit).unwrap().trim(), "268435456");
    }
    let sidecars = site.processes("proxy");
    assert_eq!(sidecars.len(), 1);
    for helper in sidecars.into_iter().chain(site.processes("keep")) {
        assert!(!group.holds(helper), "process {helper} would be limited and killed with the command");
    }
    let members = fs::read_to_string(group.0.join("cgroup.procs")).unwrap();
    assert_eq!(members.lines().count(), 1, "{members}");
    limited.kill9();
    site.await_gone("limited");
}

#[test]
fn a_command_tells_its_service_manager_that_it_is_ready() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(1);
    let site = mesh.site(1);
    let script = "import socket,os\ns=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\n\
                  s.bind('/run/notify')\nprint('bound',flush=True)\nprint(s.recv(100).decode(),flush=True)";
    let mut manager = site.host.command("/usr/bin/python3");
    manager.args(["-c", script]);
    let mut manager = Running::start(manager);
    manager.wait_for("bound");
    let tell = "import socket,os\ns=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\n\
                s.sendto(b'READY=1',os.environ['NOTIFY_SOCKET'])";
    let mut run = site.host.command(sealane().to_str().unwrap());
    run.args(["run", "--network", "shop", "--", "/usr/bin/python3", "-c", tell])
        .env("NOTIFY_SOCKET", "/run/notify");
    let _ = Running::start(run).wait().ok();
    manager.wait_for("READY=1");
}
