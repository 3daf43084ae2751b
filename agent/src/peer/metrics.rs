//! Counts of the channel between hosts.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// The series.
#[derive(Clone, Debug)]
pub(crate) struct PeerMetrics {
    /// Hosts that share a network with this one.
    pub(super) peers: IntGauge,
    /// Peers to which the channel stands.
    pub(super) connected: IntGauge,
    /// Parts of facts, by direction.
    facts: IntCounterVec,
    /// Octets inside TLS, by direction.
    bytes: IntCounterVec,
    /// Workloads that a peer told of and that are not its own.
    pub(super) facts_refused: IntCounter,
    /// Networks of which a peer had heard something else than it was told.
    pub(super) disagreements: IntCounter,
    refused: IntCounterVec,
    ended: IntCounterVec,
}

/// Direction of what a connection carries.
#[derive(Clone, Copy, Debug)]
pub(super) enum Direction {
    Sent,
    Received,
}

impl Direction {
    fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Received => "received",
        }
    }
}

impl PeerMetrics {
    /// Registers the series.
    ///
    /// # Errors
    /// Never in practice: the names are registered once.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let vec = |name: &str, help: &str, label: &str| -> Result<IntCounterVec, prometheus::Error> {
            let family = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(family.clone()))?;
            Ok(family)
        };
        let (peers, connected) = (
            IntGauge::new("sealane_agent_peers", "Hosts that share a network with this one.")?,
            IntGauge::new(
                "sealane_agent_peer_connected",
                "Hosts to which the channel between hosts stands.",
            )?,
        );
        let (facts_refused, disagreements) = (
            IntCounter::new(
                "sealane_agent_peer_facts_refused_total",
                "Workloads that a host told of and that are not its own.",
            )?,
            IntCounter::new(
                "sealane_agent_peer_disagreements_total",
                "Networks of which a host had heard something else than it was told; all is told anew then.",
            )?,
        );
        registry.register(Box::new(peers.clone()))?;
        registry.register(Box::new(connected.clone()))?;
        registry.register(Box::new(facts_refused.clone()))?;
        registry.register(Box::new(disagreements.clone()))?;
        let metrics = Self {
            peers,
            connected,
            facts_refused,
            disagreements,
            facts: vec(
                "sealane_agent_peer_facts_total",
                "Parts of facts that hosts tell each other, by direction (sent, received).",
                "direction",
            )?,
            bytes: vec(
                "sealane_agent_peer_bytes_total",
                "Bytes of the channels between hosts, inside TLS, by direction (sent, received).",
                "direction",
            )?,
            refused: vec(
                "sealane_agent_peer_refused_total",
                "Connections of the channel between hosts that were refused, by reason.",
                "reason",
            )?,
            ended: vec(
                "sealane_agent_peer_ended_total",
                "Connections of the channel between hosts that ended, by reason.",
                "reason",
            )?,
        };
        for direction in [Direction::Sent, Direction::Received] {
            metrics.count_bytes(direction, 0);
            metrics.facts.with_label_values(&[direction.as_str()]).inc_by(0);
        }
        Ok(metrics)
    }

    pub(super) fn count_facts(&self, direction: Direction) {
        self.facts.with_label_values(&[direction.as_str()]).inc();
    }

    pub(super) fn count_bytes(&self, direction: Direction, bytes: usize) {
        self.bytes.with_label_values(&[direction.as_str()]).inc_by(bytes as u64);
    }

    /// Counts a connection that was not taken.
    pub(super) fn refuse(&self, reason: &'static str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    /// Counts a connection that ended.
    pub(super) fn end(&self, reason: &'static str) {
        self.ended.with_label_values(&[reason]).inc();
    }
}
