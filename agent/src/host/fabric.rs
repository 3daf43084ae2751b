//! The kernel's networks as the host's task needs them; tests have others in its place.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use sealane_fabric::overlay::{Applied, Overlay, OverlayError};
use sealane_proto::types::{Mtu, NetworkName, NodeName, UnderlayAddrs};
use tokio::sync::watch;

use super::core::Pass;

/// Networks of this host's kernel.
pub(crate) trait Fabric: Send + Sync + 'static {
    /// Makes the kernel have what a pass says.
    fn program(
        &self,
        pass: Pass,
        node: NodeName,
    ) -> impl Future<Output = Result<Applied, OverlayError>> + Send;

    /// Takes a network off the host.
    fn remove(&self, network: NetworkName) -> impl Future<Output = Result<(), OverlayError>> + Send;

    /// Looks at what the host itself needs, and mends it; a sentence when it cannot.
    fn audit(&self) -> impl Future<Output = Result<(), String>> + Send;

    /// Control is at these addresses as well: workloads do not reach it there.
    fn learn_control(&self, addresses: Vec<SocketAddr>);

    /// The largest packet that this host's ways to the others allow.
    fn mtu(&self) -> watch::Receiver<Option<Mtu>>;

    /// Underlay addresses of this host, from which its tunnels start.
    fn underlay(&self) -> watch::Receiver<UnderlayAddrs>;

    /// Networks that should be looked at as a whole.
    fn doubted(&self) -> watch::Receiver<BTreeSet<NetworkName>>;
}

impl Fabric for Overlay {
    async fn program(&self, pass: Pass, node: NodeName) -> Result<Applied, OverlayError> {
        let Pass { snapshot, attachments, reason } = pass;
        self.ensure_network(&snapshot, &node, &attachments, reason).await
    }

    async fn remove(&self, network: NetworkName) -> Result<(), OverlayError> {
        self.remove_network(&network).await
    }

    async fn audit(&self) -> Result<(), String> {
        self.audit_host().await.map_err(|error| error.to_string())
    }

    fn learn_control(&self, addresses: Vec<SocketAddr>) {
        Self::learn_control(self, addresses);
    }

    fn mtu(&self) -> watch::Receiver<Option<Mtu>> {
        Self::mtu(self)
    }

    fn underlay(&self) -> watch::Receiver<UnderlayAddrs> {
        Self::underlay(self)
    }

    fn doubted(&self) -> watch::Receiver<BTreeSet<NetworkName>> {
        Self::doubted(self)
    }
}
