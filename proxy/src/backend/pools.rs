//! Connections that one worker's calls share.

use sealane_proto::sidecar::SidecarPorts;

use crate::dial::{Dialer, IdleConnections};
use crate::snapshot::Snapshot;
use crate::tunnel::TunnelPool;

/// Connections to endpoints that outlive a call.
#[derive(Debug)]
pub(crate) struct Pools {
    /// Tunnels to other sidecars.
    pub(crate) tunnels: TunnelPool,
    /// Plain connections between two requests: to the own application, and to instances without sidecar.
    pub(crate) idle: IdleConnections,
    /// Maker of plain connections.
    pub(crate) dialer: Dialer,
    /// The port at which sidecars take tunnels.
    pub(super) tunnel_port: u16,
}

impl Pools {
    /// Pools without connections.
    pub(crate) fn new(tunnels: TunnelPool, ports: SidecarPorts) -> Self {
        Self {
            tunnels,
            idle: IdleConnections::default(),
            dialer: Dialer::default(),
            tunnel_port: ports.tunnel,
        }
    }

    /// Closes the tunnels to sidecars that this snapshot does not have, and doubts those that are leaving.
    pub(crate) fn update(&self, snapshot: &Snapshot) {
        let routes = &snapshot.routes;
        self.tunnels.doubt(|peer| routes.is_leaving(peer.address.ip()));
        self.tunnels.retain(|peer| routes.has_sidecar(peer.address.ip(), &peer.expected));
    }
}
