//! Metrics of the sidecar's bounds.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use super::traffic::OpenConnection;
use super::{counter, gauge};

/// Bounds that were reached, and how far it is to those of connections.
#[derive(Debug)]
pub(crate) struct BoundMetrics {
    /// Answers of applications that were not passed on, by what was wrong.
    pub(crate) answers_refused: IntCounterVec,
    /// Connections from peers that made room for others, by the bound that was reached.
    pub(crate) evicted: IntCounterVec,
    /// Streams of tunnels that were refused, since their peer had as many as it may.
    pub(crate) streams_refused: IntCounter,
    /// Tunnels that ended since their peer flooded them. Copied from what tunnels count.
    pub(crate) floods: IntCounter,
    /// Streams that ended since their peer did not answer.
    pub(crate) abandoned: IntCounter,
    /// Number of times that a connection of the workload had to wait for a place.
    pub(crate) outbound_full: IntCounter,
    /// Number of times that a connection closed without waiting for the rest of a request that was answered already.
    pub(crate) lingering_full: IntCounter,
    held: [IntGauge; 2],
}

impl BoundMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let one = |name, help| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let held = gauge(
            registry,
            "sealane_connections_held",
            "Connections that have a place: of the workload, or from peers.",
            &["direction"],
        )?;
        Ok(Self {
            answers_refused: counter(
                registry,
                "sealane_answers_refused_total",
                "Answers of applications that were not passed on.",
                &["reason"],
            )?,
            evicted: counter(
                registry,
                "sealane_connections_evicted_total",
                "Connections from peers that made room for others.",
                &["reason"],
            )?,
            streams_refused: one(
                "sealane_streams_refused_total",
                "Streams of tunnels that were refused, since their peer had as many as it may.",
            )?,
            floods: one(
                "sealane_tunnel_floods_total",
                "Tunnels that ended since their peer did more of something than anybody has use for.",
            )?,
            abandoned: one(
                "sealane_streams_abandoned_total",
                "Calls under way that ended, or went on elsewhere, since their peer did not answer.",
            )?,
            outbound_full: one(
                "sealane_outbound_full_total",
                "Times that connections of the workload waited for a place.",
            )?,
            lingering_full: one(
                "sealane_lingering_full_total",
                "Connections that were closed at once behind an early answer, since too many waited.",
            )?,
            held: ["outbound", "inbound"].map(|direction| held.with_label_values(&[direction])),
        })
    }

    /// Counts a connection of the workload as one that has a place, until what this returns is dropped.
    pub(crate) fn hold_outbound(&self) -> OpenConnection {
        OpenConnection::count(&self.held[0])
    }

    /// As [`Self::hold_outbound`], for a connection from a peer.
    pub(crate) fn hold_inbound(&self) -> OpenConnection {
        OpenConnection::count(&self.held[1])
    }
}
