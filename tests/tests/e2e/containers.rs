//! Containers as the kernel sees them: a process that is the first of its namespaces, in a control group that its runtime has
//! named after it.

use std::time::{SystemTime, UNIX_EPOCH};

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, Running, Site, eventually, testapp};

/// Hierarchies in which groups may be made: place, kind, and the file that freezes one.
const HIERARCHIES: [(&str, &str, &str, [&str; 2]); 2] = [
    ("/sys/fs/cgroup/freezer", "cgroup -o freezer", "freezer.state", ["FROZEN", "THAWED"]),
    ("/sys/fs/cgroup/unified", "cgroup2", "cgroup.freeze", ["1", "0"]),
];

struct Container {
    id: String,
    group: String,
    freezer: (&'static str, [&'static str; 2]),
    process: Option<Running>,
}

impl Container {
    /// Makes one in each hierarchy of this machine that can be frozen, none of which runs.
    fn all(site: &Site) -> Vec<Self> {
        // A host of the lab has none of these mounted.
        let _ = site.command("mount", &["-t", "tmpfs", "cgroups", "/sys/fs/cgroup"]).ok();
        // Groups are the machine's, and process ids are each test's own.
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let made = HIERARCHIES.into_iter().enumerate().filter_map(|(number, (mount, kind, file, words))| {
            let id = format!("{:064x}", nanos * 4 + number as u128);
            let group = format!("{mount}/sealane-test-{id}");
            let script = format!(
                "mkdir {mount} && mount -t {kind} none {mount} && mkdir {group} && test -e {group}/{file}"
            );
            let usable = site.command("sh", &["-c", &script]).status.success();
            usable.then_some(Self { id, group, freezer: (file, words), process: None })
        });
        let all: Vec<Self> = made.collect();
        assert!(!all.is_empty(), "no control groups can be frozen on this machine");
        all
    }

    /// Starts a server that answers with `name` on port 8080.
    fn start(&mut self, site: &Site, name: &str) {
        let script = format!(
            "echo $$ > {}/cgroup.procs && exec unshare -n -p -f --kill-child -- {} http 8080 {name}",
            self.group,
            testapp().display()
        );
        let mut command = site.host.command("sh");
        command.args(["-c", &script]);
        let mut process = Running::start(command);
        process.wait_for("listening");
        self.process = Some(process);
    }

    fn stop(&mut self, site: &Site) {
        if let Some(mut process) = self.process.take() {
            process.kill9();
        }
        let pids = || site.command("cat", &[&format!("{}/cgroup.procs", self.group)]).ok().stdout;
        eventually(PATIENCE, "nothing of it runs", || pids().is_empty().then_some(()));
    }

    fn freeze(&self, site: &Site, frozen: bool) {
        let (file, [freeze, thaw]) = self.freezer;
        let word = if frozen { freeze } else { thaw };
        let _ = site.command("sh", &["-c", &format!("echo {word} > {}/{file}", self.group)]).ok();
    }

    /// Nothing of it is left on the machine.
    fn remove(mut self, site: &Site) {
        self.stop(site);
        let _ = site.command("rmdir", &[&self.group]).ok();
    }

    fn attach(&self, site: &Site) {
        let words = ["--container", &self.id, "--network", "shop", "--service", "web", "--port", "8080"];
        let told = site.sealane(&[&["attach"], &words[..], &["--name", "web"]].concat()).ok();
        assert!(told.stderr.contains("found by its control group"), "{told}");
    }
}

fn call(mesh: &Mesh, expected: &str) {
    let answered = || {
        let call = mesh.site(2).shop(&["curl", "-sS", "--max-time", "5", "http://web:8080/"]).wait();
        (call.stdout == expected).then_some(())
    };
    eventually(PATIENCE, &format!("{expected} answers"), answered);
}

#[test]
fn a_container_that_starts_again_is_attached_again_until_it_is_detached() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::shop(2);
    let mut container = Container::all(mesh.site(1)).remove(0);
    container.start(mesh.site(1), "first");
    container.attach(mesh.site(1));
    call(&mesh, "first");

    container.stop(mesh.site(1));
    mesh.await_instances("web", 0);
    container.start(mesh.site(1), "second");
    mesh.await_instances("web", 1);
    call(&mesh, "second");
    assert!(mesh.site(1).workload("web").is_some(), "by its name");

    mesh.site_mut(1).agent.kill9();
    container.stop(mesh.site(1));
    container.start(mesh.site(1), "third");
    mesh.site_mut(1).agent.start();
    mesh.site_mut(1).await_ready();
    call(&mesh, "third");

    let _ = mesh.site(1).sealane(&["detach", "web"]).ok();
    mesh.site(1).await_gone("web");
    let remembered = mesh.site(1).command("ls", &["/var/lib/sealane/containers"]).ok();
    assert_eq!(remembered.stdout, "", "nobody attaches it again");
    container.remove(mesh.site(1));
}

#[test]
fn a_container_that_is_paused_gets_no_calls_and_is_named() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(2);
    for mut container in Container::all(mesh.site(1)) {
        container.start(mesh.site(1), "paused");
        container.attach(mesh.site(1));
        mesh.await_instances("web", 1);
        container.freeze(mesh.site(1), true);
        mesh.await_instances("web", 0);
        let problems = mesh.site(1).problems();
        assert!(problems.contains("workload shop/web gets no calls: its container is paused"), "{problems}");
        container.freeze(mesh.site(1), false);
        mesh.await_instances("web", 1);
        let _ = mesh.site(1).sealane(&["detach", "web"]).ok();
        mesh.site(1).await_gone("web");
        container.remove(mesh.site(1));
    }
}
