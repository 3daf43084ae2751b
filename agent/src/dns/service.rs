//! The means by which names are answered, whoever asks.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use sealane_proto::types::NetworkName;

use super::{Askers, DnsMetrics, DnsServer, DnsSockets, Forwarder, NameView, Neighbour, serve};

/// Handle of the agent's DNS: every server that it starts forwards and counts by the same.
#[derive(Clone, Debug)]
pub(crate) struct NameService {
    /// Forwarder of names that are not ours.
    pub(crate) forwarder: Arc<Forwarder>,
    /// The counters.
    pub(crate) metrics: DnsMetrics,
}

impl NameService {
    /// Answers at `sockets` for askers of `network`, by what `view` is at the time, until the server is dropped.
    ///
    /// # Errors
    /// When the runtime cannot take the sockets.
    pub(crate) fn serve(
        &self,
        network: &NetworkName,
        sockets: DnsSockets,
        view: Arc<ArcSwap<NameView>>,
        (askers, neighbour): (Askers, Option<Neighbour>),
    ) -> io::Result<DnsServer> {
        let metrics = self.metrics.network(network);
        serve(sockets, view, self.forwarder.clone(), metrics, askers, neighbour)
    }
}
