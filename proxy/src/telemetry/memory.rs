//! Metrics of the sidecar's memory.

use prometheus::{IntCounter, IntGauge, Registry};

/// The sidecar's memory.
#[derive(Debug)]
pub(crate) struct MemoryMetrics {
    /// Number of refusals because too much is held.
    pub(crate) refusals: IntCounter,
    /// The heap in use.
    pub(crate) held: IntGauge,
    /// Limit of the workers' memory.
    pub(crate) limit: IntGauge,
}

impl MemoryMetrics {
    /// Metrics in this registry.
    ///
    /// # Errors
    /// Never, with the names that are written here; what prometheus says otherwise.
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let level = |name, help| -> prometheus::Result<IntGauge> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let refusals = IntCounter::new(
            "sealane_memory_refusals_total",
            "Requests and connections that were refused because the sidecar holds too much memory.",
        )?;
        registry.register(Box::new(refusals.clone()))?;
        Ok(Self {
            refusals,
            held: level("sealane_memory_bytes", "Memory of the sidecar that is in use.")?,
            limit: level(
                "sealane_memory_limit_bytes",
                "Memory beyond which the sidecar refuses requests and connections.",
            )?,
        })
    }
}
