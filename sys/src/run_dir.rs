//! Layout of the run directory: a name for each thing that control, agent, keep and sidecars leave there, spelled in this file
//! alone.

use std::fmt;
use std::path::{Path, PathBuf};

/// Control's socket, for people and for the agent beside it.
pub const CONTROL_SOCKET: &str = "control.sock";
/// The agent's socket, for people and for runtimes.
pub const AGENT_SOCKET: &str = "agent.sock";
/// Keep's socket, for the agent.
pub const KEEP_SOCKET: &str = "keep.sock";
/// The agent's socket for sidecars.
pub const SIDECAR_SOCKET: &str = "sidecar.sock";
/// The folder that has the socket for sidecars, and nothing else: all of the file system that a sidecar sees. (Sidecars of before
/// know the socket in the run directory itself.)
pub const CHANNEL: &str = "channel";

const NAMESPACES: &str = "netns";
const NETWORK_PREFIX: &str = "net-";
const ECHO: &str = "echo";
const SIDECARS: &str = "sidecars";
const RESOLV: &str = "resolv";
const TAPS: &str = "taps";
const UNITS: &str = "units";
const NODE: &str = "node";
const DOCKER_PLUGIN: &str = "docker-plugin";
const FORWARDING: &str = "ip_forward-was-off";

/// A process of which one runs per run directory, with a pid file there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// The control plane.
    Control,
    /// The host's agent.
    Agent,
    /// The keeper of descriptors.
    Keep,
}

/// Directory of sockets, pid files and namespace handles. It does not outlive the boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir(PathBuf);

impl Daemon {
    /// Every daemon.
    pub const ALL: [Self; 3] = [Self::Control, Self::Agent, Self::Keep];

    /// The verb that starts it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Agent => "agent",
            Self::Keep => "keep",
        }
    }

    fn pid_file(self) -> String {
        format!("{}.pid", self.name())
    }
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl RunDir {
    /// The one that is used when nobody names another.
    pub const DEFAULT: &str = "/run/sealane";

    /// Returns the directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The socket of this name: [`CONTROL_SOCKET`] or another.
    #[must_use]
    pub fn socket(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The folder that holds the socket for sidecars.
    #[must_use]
    pub fn channel(&self) -> PathBuf {
        self.0.join(CHANNEL)
    }

    /// The agent's socket for sidecars.
    #[must_use]
    pub fn sidecar_socket(&self) -> PathBuf {
        self.channel().join(SIDECAR_SOCKET)
    }

    /// The same socket where sidecars of before look for it.
    #[must_use]
    pub fn former_sidecar_socket(&self) -> PathBuf {
        self.0.join(SIDECAR_SOCKET)
    }

    /// The pid file of a process.
    #[must_use]
    pub fn pid_file(&self, daemon: Daemon) -> PathBuf {
        self.0.join(daemon.pid_file())
    }

    /// The folder with a handle per namespace of a network or a workload.
    #[must_use]
    pub fn namespaces(&self) -> PathBuf {
        self.0.join(NAMESPACES)
    }

    /// The handle of a network's namespace.
    #[must_use]
    pub fn network_namespace(&self, network: &str) -> PathBuf {
        self.namespaces().join(format!("{NETWORK_PREFIX}{network}"))
    }

    /// The network whose namespace has a handle of this name; `None` for a workload's.
    #[must_use]
    pub fn network_of(handle: &str) -> Option<&str> {
        handle.strip_prefix(NETWORK_PREFIX)
    }

    /// The handle of a workload's namespace (`<network>.<workload>`): its name has a dot, which no network's has.
    #[must_use]
    pub fn workload_namespace(&self, workload: &str) -> PathBuf {
        self.namespaces().join(workload)
    }

    /// The handle of the namespace with the host's echo device: its name is neither a network's nor a workload's.
    #[must_use]
    pub fn echo_namespace(&self) -> PathBuf {
        self.namespaces().join(ECHO)
    }

    /// The folder with a pid file per sidecar.
    #[must_use]
    pub fn sidecars(&self) -> PathBuf {
        self.0.join(SIDECARS)
    }

    /// The pid file of a sidecar (`<network>.<workload>`).
    #[must_use]
    pub fn sidecar_record(&self, workload: &str) -> PathBuf {
        self.sidecars().join(format!("{workload}.pid"))
    }

    /// The resolv.conf of a workload (`<network>.<workload>`).
    #[must_use]
    pub fn resolv_conf(&self, workload: &str) -> PathBuf {
        self.0.join(RESOLV).join(format!("{workload}.conf"))
    }

    /// The folder with a namespace per virtual machine.
    #[must_use]
    pub fn taps(&self) -> PathBuf {
        self.0.join(TAPS)
    }

    /// The folder of a service of systemd: its namespace and its resolv.conf.
    #[must_use]
    pub fn unit(&self, name: &str) -> PathBuf {
        self.0.join(UNITS).join(name)
    }

    /// The file that says which socket Docker calls its plugin at, for the next agent and for whoever removes it.
    #[must_use]
    pub fn docker_plugin(&self) -> PathBuf {
        self.0.join(DOCKER_PLUGIN)
    }

    /// The folder with what the host's identity should have on disk, while the disk cannot be written.
    #[must_use]
    pub fn node(&self) -> PathBuf {
        self.0.join(NODE)
    }

    /// The file that is there while forwarding is on that was off before.
    #[must_use]
    pub fn forwarding(&self) -> PathBuf {
        self.0.join(FORWARDING)
    }

    /// The names that an agent leaves however it ended, and whoever else of the host's was killed with it.
    #[must_use]
    pub fn traces(&self) -> [PathBuf; 3] {
        [self.pid_file(Daemon::Keep), self.pid_file(Daemon::Agent), self.namespaces()]
    }

    /// Returns true if Sealane makes an entry of this name in its run directory. A socket may have a name beside its own while it
    /// is being put in another one's place.
    #[must_use]
    pub fn has(name: &str) -> bool {
        const ENTRIES: [&str; 9] =
            [CHANNEL, DOCKER_PLUGIN, FORWARDING, NAMESPACES, NODE, RESOLV, SIDECARS, TAPS, UNITS];
        const SOCKETS: [&str; 4] = [AGENT_SOCKET, CONTROL_SOCKET, KEEP_SOCKET, SIDECAR_SOCKET];
        let is_beside =
            |of: &str| name.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        ENTRIES.contains(&name)
            || Daemon::ALL.iter().any(|daemon| daemon.pid_file() == name)
            || SOCKETS.into_iter().any(is_beside)
    }
}

impl From<PathBuf> for RunDir {
    fn from(path: PathBuf) -> Self {
        Self(path)
    }
}

impl From<&Path> for RunDir {
    fn from(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl From<&str> for RunDir {
    fn from(path: &str) -> Self {
        Self(path.into())
    }
}

impl fmt::Display for RunDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_of_an_entry_that_the_directory_may_have() {
        let dir = RunDir::from(RunDir::DEFAULT);
        let paths = [
            dir.socket(CONTROL_SOCKET),
            dir.socket(AGENT_SOCKET),
            dir.socket(KEEP_SOCKET),
            dir.sidecar_socket(),
            dir.former_sidecar_socket(),
            dir.network_namespace("shop"),
            dir.workload_namespace("shop.api-1"),
            dir.echo_namespace(),
            dir.sidecar_record("shop.api-1"),
            dir.resolv_conf("shop.api-1"),
            dir.taps(),
            dir.unit("web"),
            dir.docker_plugin(),
            dir.node(),
            dir.forwarding(),
        ];
        for path in
            paths.into_iter().chain(dir.traces()).chain(Daemon::ALL.map(|daemon| dir.pid_file(daemon)))
        {
            let below = path.strip_prefix("/run/sealane").unwrap();
            let entry = below.components().next().unwrap().as_os_str().to_str().unwrap();
            assert!(RunDir::has(entry), "{entry}");
        }
        assert!(RunDir::has("agent.sock.new") && !RunDir::has("agent.socket"));
        assert!(!RunDir::has("systemd") && !RunDir::has("other.pid"));
    }

    #[test]
    fn handles_of_networks_and_workloads_are_told_apart() {
        let dir = RunDir::from("/run/sealane");
        let handle = dir.network_namespace("shop");
        assert_eq!(handle.to_str(), Some("/run/sealane/netns/net-shop"));
        assert_eq!(RunDir::network_of("net-shop"), Some("shop"));
        assert_eq!(RunDir::network_of("shop.api-1"), None);
        assert_eq!(RunDir::network_of("echo"), None);
    }
}
