//! Counters of the host's state.

use prometheus::{IntCounter, Registry};

/// Counters of the task that owns what this host knows.
#[derive(Clone, Debug)]
pub(crate) struct HostMetrics {
    /// Words of other hosts that were not taken.
    pub(super) refused_words: IntCounter,
}

impl HostMetrics {
    /// Registers the series.
    ///
    /// # Errors
    /// Never in practice: each name is registered once.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let help = "Facts told by other hosts that were not taken: too many of one host, or of hosts unknown to control.";
        let refused_words = IntCounter::new("sealane_peer_facts_refused_total", help)?;
        registry.register(Box::new(refused_words.clone()))?;
        Ok(Self { refused_words })
    }
}
