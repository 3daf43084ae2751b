//! The lab itself: a network beneath, and the hosts on it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use sealane_sys::mounts;

use crate::{Capture, Host, LabError, Root, ip, isolate};

/// The bridge that joins the hosts.
const BRIDGE: &str = "underlay";
/// Number of hosts that the addresses suffice for.
const MAX_HOSTS: u8 = 200;

/// A network beneath (192.0.2.0/24, RFC 5737) with the lab itself at .1 and hosts from .11 on.
#[derive(Debug)]
pub struct Lab {
    directory: PathBuf,
    hosts: u8,
}

impl Lab {
    /// Builds the underlay in the calling process's namespaces and puts empty tmpfs on /run and /var/lib, so
    /// that no file of the lab reaches a disk.
    ///
    /// # Errors
    /// [`LabError::NotIsolated`] in the machine's own namespaces.
    pub fn new() -> Result<Self, LabError> {
        if isolate::label().is_none() {
            return Err(LabError::NotIsolated);
        }
        for folder in ["/run", "/var/lib"] {
            mounts::tmpfs(Path::new(folder), "mode=0755")
                .map_err(LabError::system(format!("mount tmpfs on {folder}")))?;
        }
        let directory = PathBuf::from("/run/lab");
        fs::create_dir_all(&directory)
            .map_err(LabError::system(format!("create {}", directory.display())))?;
        ip::batch(
            Command::new("ip"),
            &format!(
                "link set lo up\n\
                 link add {BRIDGE} mtu 1500 type bridge stp_state 0 forward_delay 0\n\
                 address add {}/24 dev {BRIDGE}\n\
                 link set {BRIDGE} up\n",
                Self::ADDRESS
            ),
        )?;
        // The lab has no firewall, so frames between hosts need not pass one; absent without br_netfilter.
        let _ = fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0");
        Ok(Self { directory, hosts: 0 })
    }

    /// The lab's own address on the underlay.
    pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    /// A folder for logs and the like, gone with the lab. Hosts do not see it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A new host on the underlay.
    ///
    /// # Errors
    /// When the kernel or iproute2 refuses.
    pub fn host(&mut self, name: &str) -> Result<Host, LabError> {
        self.join(name, None)
    }

    /// The same, with the files of another system.
    ///
    /// # Errors
    /// As [`Lab::host`].
    pub fn host_of(&mut self, name: &str, root: &Root) -> Result<Host, LabError> {
        self.join(name, Some(root))
    }

    fn join(&mut self, name: &str, root: Option<&Root>) -> Result<Host, LabError> {
        if self.hosts == MAX_HOSTS {
            return Err(LabError::TooManyHosts(name.to_owned()));
        }
        self.hosts += 1;
        Host::join(name, self.hosts, BRIDGE, root)
    }

    /// Records every frame that crosses the underlay from now on.
    ///
    /// # Errors
    /// Without CAP_NET_RAW.
    pub fn capture(&self) -> Result<Capture, LabError> {
        Capture::start().map_err(LabError::system("capture packets on the underlay"))
    }
}
