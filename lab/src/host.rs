//! Host of a lab: a network, mount and UTS namespace of its own, with a link to the underlay.

mod namespaces;
mod root;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;

use sealane_sys::spawn::SpawnExt;

use crate::{Lab, LabError, ip};
use namespaces::Namespaces;
pub use root::Root;

/// A host. Its processes are started with [`Host::command`]; /run and /var/lib are its own and empty at first, so
/// that default folders do not meet those of other hosts, and its host name is the one it was made with.
#[derive(Debug)]
pub struct Host {
    name: String,
    address: Ipv4Addr,
    port: String,
    namespaces: Namespaces,
}

impl Host {
    pub(crate) fn join(name: &str, number: u8, bridge: &str, root: Option<&Root>) -> Result<Self, LabError> {
        let namespaces = Namespaces::new(name, root)?;
        let address = Ipv4Addr::new(192, 0, 2, 10 + number);
        let host = Self { name: name.to_owned(), address, port: format!("u{number}"), namespaces };
        host.set_nameservers(&[Lab::ADDRESS.into()])?;
        let (port, netns) = (&host.port, host.namespaces.network_path());
        ip::batch(
            Command::new("ip"),
            &format!(
                "link add {port} mtu 1500 type veth peer name eth0 mtu 1500 netns {netns}\n\
                 link set {port} master {bridge}\n\
                 link set {port} up\n"
            ),
        )?;
        ip::batch(
            host.command("ip"),
            &format!(
                "link set lo up\n\
                 address add {address}/24 dev eth0\n\
                 link set eth0 up\n\
                 route add default via {}\n",
                Lab::ADDRESS
            ),
        )?;
        Ok(host)
    }

    /// The host's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the address on the underlay.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A command that runs on this host, in the folder `/` (a working folder that the caller sets has no effect:
    /// entering a mount namespace leaves it).
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.enter(self.namespaces.handles());
        command
    }

    /// Runs `work` on this host, on a thread of its own: sockets made there live in the host's network, paths are
    /// the host's.
    ///
    /// # Errors
    /// When the namespaces cannot be entered.
    ///
    /// # Panics
    /// When `work` does.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| -> io::Result<T> {
                self.namespaces.enter()?;
                Ok(work())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
        .map_err(LabError::system(format!("enter the namespaces of {}", self.name)))
    }

    /// Sets the servers in the host's /etc/resolv.conf; at first the lab's address, where nobody answers.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_nameservers(&self, servers: &[IpAddr]) -> Result<(), LabError> {
        let text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        self.namespaces
            .write_resolv_conf(&text)
            .map_err(LabError::system(format!("write /etc/resolv.conf of {}", self.name)))
    }

    /// Cuts the host off the underlay, as if its cable were pulled.
    ///
    /// # Errors
    /// When iproute2 refuses.
    pub fn cut(&self) -> Result<(), LabError> {
        ip::batch(Command::new("ip"), &format!("link set {} down\n", self.port))
    }

    /// Undoes [`Host::cut`].
    ///
    /// # Errors
    /// When iproute2 refuses.
    pub fn heal(&self) -> Result<(), LabError> {
        ip::batch(Command::new("ip"), &format!("link set {} up\n", self.port))
    }

    /// The host's network namespace.
    #[must_use]
    pub fn network(&self) -> BorrowedFd<'_> {
        self.namespaces.network()
    }

    /// All of the host's namespaces, in the order in which a process of the lab enters them.
    #[must_use]
    pub fn namespaces(&self) -> Vec<Arc<OwnedFd>> {
        self.namespaces.handles()
    }
}

impl AsFd for Host {
    /// The network namespace.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.network()
    }
}
