//! Calls from the networks' own addresses.

use std::io;

use sealane_proto::types::NetworkName;
use tokio::net::TcpSocket;

use super::Context;

impl Context {
    /// Makes sockets that call from a network's own address.
    pub(crate) fn caller(
        &self,
        network: &NetworkName,
    ) -> impl Fn() -> io::Result<TcpSocket> + Send + Sync + use<> {
        let (overlay, hopper, network) = (self.overlay.clone(), self.hopper.clone(), network.clone());
        move || {
            let netns = overlay.network_netns(&network).map_err(io::Error::other)?;
            hopper.run(&netns, TcpSocket::new_v4)?
        }
    }
}
