//! Counters of the configurations that sidecars are told.

use prometheus::{IntCounterVec, Opts, Registry};
use sealane_proto::sidecar::Down;

/// The series of what is told.
#[derive(Clone, Debug)]
pub(crate) struct ToldMetrics {
    messages: IntCounterVec,
    bytes: IntCounterVec,
}

impl ToldMetrics {
    /// Registers the series.
    ///
    /// # Errors
    /// When they are registered already.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name, help| -> Result<IntCounterVec, prometheus::Error> {
            let counter = IntCounterVec::new(Opts::new(name, help), &["kind"])?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        Ok(Self {
            messages: counter(
                "sealane_sidecar_told_total",
                "Configurations that sidecars were told: a network's whole state, or what has changed in it.",
            )?,
            bytes: counter("sealane_sidecar_told_bytes_total", "The bytes of these.")?,
        })
    }

    /// Counts a message of so many bytes; one that is no configuration does not count.
    pub(super) fn count(&self, kind: Option<&str>, bytes: usize) {
        if let Some(kind) = kind {
            self.messages.with_label_values(&[kind]).inc();
            self.bytes.with_label_values(&[kind]).inc_by(bytes as u64);
        }
    }
}

/// Names the kind of a configuration in metrics.
pub(super) fn kind(message: &Down) -> Option<&'static str> {
    match message {
        Down::Config(_) => Some("state"),
        Down::Change(_) => Some("change"),
        Down::Listeners(_)
        | Down::Identity(_)
        | Down::Away(_)
        | Down::Collect
        | Down::Ping
        | Down::Drain { .. }
        | Down::Leave { .. } => None,
    }
}
