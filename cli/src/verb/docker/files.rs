//! The files that `sealane docker install` writes. Pure.

use std::path::{Path, PathBuf};

/// The unit of the agent.
pub(super) const AGENT: &str = "sealane-agent.service";
/// The unit of the plugin's socket.
pub(super) const SOCKET: &str = "sealane-docker.socket";

/// A file to write.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) path: PathBuf,
    pub(super) text: String,
    /// True when it is for systemd alone.
    pub(super) of_systemd: bool,
}

/// All files, for the plugin at this socket.
pub(super) fn files(plugin: &Path) -> Vec<Written> {
    let name = plugin.file_stem().unwrap_or_default().to_string_lossy();
    let plugin = plugin.display();
    let file = |path: String, of_systemd, text| Written { path: path.into(), of_systemd, text };
    let spec = format!("unix://{plugin}\n");
    let socket = format!(
        "# Written by `sealane docker install`; `sealane docker uninstall` removes it.
[Unit]
Description=Docker's network plugin {name}, served by Sealane's agent
Before=docker.service docker.socket

[Socket]
ListenStream={plugin}
SocketMode=0600
DirectoryMode=0711
RemoveOnStop=yes
Service={AGENT}
# Dockerd calls as often as it likes.
TriggerLimitIntervalSec=0

[Install]
WantedBy=sockets.target docker.service
"
    );
    let agent = format!(
        "# Written by `sealane docker install`; `sealane docker uninstall` removes it.
[Unit]
Wants={SOCKET}
After={SOCKET}
# The socket ends for good with a service that is given up.
StartLimitIntervalSec=0

[Service]
Sockets={SOCKET}
Environment=SEALANE_DOCKER_PLUGIN={plugin}
"
    );
    vec![
        file(format!("/etc/docker/plugins/{name}.spec"), false, spec),
        file(format!("/etc/systemd/system/{SOCKET}"), true, socket),
        file(format!("/etc/systemd/system/{AGENT}.d/docker.conf"), true, agent),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_there_before_dockerd_and_the_agent_serves_it() {
        let files = files(Path::new("/run/docker/plugins/mesh.sock"));
        let text = |end: &str| &files.iter().find(|file| file.path.ends_with(end)).unwrap().text;
        assert_eq!(text("mesh.spec"), "unix:///run/docker/plugins/mesh.sock\n");
        let socket = text("sealane-docker.socket");
        assert!(
            socket.contains("Before=docker.service")
                && socket.contains("ListenStream=/run/docker/plugins/mesh.sock\n")
        );
        assert!(text("docker.conf").contains("SEALANE_DOCKER_PLUGIN=/run/docker/plugins/mesh.sock\n"));
        assert_eq!(files.iter().filter(|file| !file.of_systemd).count(), 1, "without systemd");
    }
}
