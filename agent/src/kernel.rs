//! Way of the agent's parts to this host's kernel: networks, namespaces, and descriptors that outlive the agent.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use sealane_fabric::overlay::Overlay;
use sealane_proto::types::NetworkName;
use sealane_sys::hop::Hopper;
use sealane_sys::{NetNs, RunDir};
use tokio::net::TcpSocket;

use crate::keeper::Keeper;

/// Handle of this host's kernel.
#[derive(Clone, Debug)]
pub(crate) struct KernelHandle {
    /// The agent's run directory.
    pub(crate) run_dir: RunDir,
    /// The thread that enters namespaces.
    pub(crate) hopper: Arc<Hopper>,
    /// The networks.
    pub(crate) overlay: Arc<Overlay>,
    /// Descriptors that outlive the agent.
    pub(crate) keeper: Arc<Keeper>,
}

impl KernelHandle {
    /// Returns the descriptors that are kept under `key`, or new ones made in `netns` and kept from now on.
    ///
    /// # Errors
    /// When they cannot be made, or no descriptors are left.
    pub(crate) fn kept(
        &self,
        netns: &NetNs,
        key: &str,
        make: impl FnOnce() -> io::Result<Vec<OwnedFd>> + Send + 'static,
    ) -> io::Result<Vec<OwnedFd>> {
        if let Some(found) = self.keeper.copies(key) {
            return Ok(found);
        }
        self.keep(netns, key, make)
    }

    /// Makes descriptors in `netns` and keeps them under `key`, in place of what was there; returns copies.
    ///
    /// # Errors
    /// When they cannot be made, or no descriptors are left.
    pub(crate) fn keep(
        &self,
        netns: &NetNs,
        key: &str,
        make: impl FnOnce() -> io::Result<Vec<OwnedFd>> + Send + 'static,
    ) -> io::Result<Vec<OwnedFd>> {
        let made = self.hopper.run(netns, make)??;
        self.keeper.put(key, made).map_err(io::Error::other)?;
        self.keeper.copies(key).ok_or_else(|| io::Error::other("too many open files"))
    }

    /// Makes sockets that call from a network's own address.
    pub(crate) fn caller(
        &self,
        network: &NetworkName,
    ) -> impl Fn(IpAddr) -> io::Result<TcpSocket> + Send + Sync + use<> {
        let (overlay, hopper, network) = (self.overlay.clone(), self.hopper.clone(), network.clone());
        move |called: IpAddr| {
            let netns = overlay.network_netns(&network).map_err(io::Error::other)?;
            let open = if called.is_ipv4() { TcpSocket::new_v4 } else { TcpSocket::new_v6 };
            hopper.run(&netns, open)?
        }
    }
}
