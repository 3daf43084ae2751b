//! A real dockerd on a host, with the agent as its plugin, and an image to run.

use std::time::Duration;

use sealane_lab::control_group;

use crate::{Finished, Mesh, Release, Running, Site, eventually, testapp};

/// The time that a dockerd may take to start, which waits for a plugin that does not answer.
const STARTING: Duration = Duration::from_secs(60);
/// The words that make a network of Docker's in ours.
pub const CREATE: [&str; 9] =
    ["network", "create", "-d", "sealane", "--ipam-driver", "sealane", "-o", "sealane.network=shop", "shop"];
/// A script that makes a folder of busybox and the links that lead to it, /run/bb.
pub const BUSYBOX: &str = "mkdir -p /run/bb/bin /run/bb/etc && cd /run/bb && cp /bin/busybox bin/ && \
    for name in $(bin/busybox --list); do [ $name = busybox ] || ln -sf busybox bin/$name; done";
/// A container's command that answers `hello` on port 8080.
pub const SERVE: &str = "mkdir -p /www; echo hello >/www/index.html; exec httpd -f -p 8080 -h /www";

/// A dockerd that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Dockerd {
    process: Running,
}

impl Dockerd {
    /// Starts it on a host, with these flags beside its own, and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    #[track_caller]
    pub fn start(site: &Site, flags: &[&str]) -> Self {
        let mut dockerd = site.host.command("dockerd");
        dockerd.args(["--userland-proxy=false", "--storage-driver=vfs", "--data-root=/var/lib/docker"]);
        dockerd.args(control_group().map(|group| format!("--cgroup-parent=/{group}"))).args(flags);
        let process = Running::start(dockerd);
        eventually(STARTING, "dockerd answers", || (site.docker(&["version"]).code() == 0).then_some(()));
        Self { process }
    }

    /// Kills it.
    #[track_caller]
    pub fn kill9(&mut self) {
        self.process.kill9();
    }
}

impl Mesh {
    /// A mesh with the network `shop` whose hosts have dockerds of these releases, with agents as their plugins and the image `bb:1`.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    #[track_caller]
    pub fn docker(releases: &[Release]) -> (Self, Vec<Dockerd>) {
        let mesh = Self::on(releases).up();
        mesh.create_shop();
        mesh.with_docker(releases.len())
    }

    /// The same mesh with dockerds on its first hosts, whose agents are their plugins, and the image `bb:1`.
    ///
    /// # Panics
    /// When one does not start.
    #[must_use]
    #[track_caller]
    pub fn with_docker(mut self, hosts: usize) -> (Self, Vec<Dockerd>) {
        for number in 1..=hosts {
            self.site_mut(number).agent.terminate();
            self.restart_agent(number, &["--docker-plugin"]);
            self.site_mut(number).await_ready();
        }
        let dockerds = (1..=hosts).map(|number| self.site(number).dockerd()).collect();
        (self, dockerds)
    }
}

impl Site {
    /// Runs `docker` to its end.
    #[must_use]
    #[track_caller]
    pub fn docker(&self, words: &[&str]) -> Finished {
        self.command("docker", words)
    }

    /// Starts a dockerd that has the image `bb:1`.
    ///
    /// # Panics
    /// When it does not answer or take the image.
    #[must_use]
    #[track_caller]
    pub fn dockerd(&self) -> Dockerd {
        self.control_groups();
        let dockerd = Dockerd::start(self, &[]);
        self.import_busybox();
        dockerd
    }

    /// Makes the image `bb:1`: busybox, the links that lead to it, and the tests' application with its libraries.
    ///
    /// # Panics
    /// When Docker does not take it.
    #[track_caller]
    fn import_busybox(&self) {
        let script = format!(
            "{BUSYBOX} && cp {testapp} bin/ && \
             for file in $(ldd bin/testapp | grep -o '/[^ ]*'); do mkdir -p .$(dirname $file) && cp -L $file .$file; done && \
             tar -c . | docker import - bb:1",
            testapp = testapp().display()
        );
        let _ = self.command("sh", &["-c", &script]).ok();
    }

    /// Asks a URL as a container does, by the host's curl in its network and with its resolv.conf: a static busybox cannot look names up.
    #[must_use]
    #[track_caller]
    pub fn fetch(&self, container: &str, url: &str) -> Finished {
        let script = format!(
            "pid=$(docker inspect -f '{{{{.State.Pid}}}}' {container}) && exec nsenter -t $pid -n unshare -m sh -c \
             'cat /proc/'$pid'/root/etc/resolv.conf >/run/asked.conf && mount --bind /run/asked.conf /etc/resolv.conf && \
             exec curl -sS --max-time 5 {url}'"
        );
        self.command("sh", &["-c", &script])
    }
}
