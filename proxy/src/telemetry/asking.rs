//! Metrics of what the sidecar asks its agent.

use prometheus::{Histogram, HistogramOpts, IntGauge, Registry};

/// Upper bounds of the time for which a call waits: most wait for less than 2 ms.
const BUCKETS: [f64; 11] = [0.000_25, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 2.0, 10.0];

/// Addresses of the network that the sidecar knows, and the way to know more.
#[derive(Debug)]
pub(crate) struct AskMetrics {
    /// Times for which calls waited until the sidecar was told of the called address.
    pub(crate) waits: Histogram,
    /// Addresses that it is told of.
    pub(crate) addresses: IntGauge,
}

impl AskMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let opts = HistogramOpts::new(
            "sealane_first_call_wait_seconds",
            "From a call to an address that the sidecar was not told of to its agent's answer.",
        );
        let waits = Histogram::with_opts(opts.buckets(BUCKETS.to_vec()))?;
        let addresses = IntGauge::new(
            "sealane_told_addresses",
            "Addresses of the network that the sidecar is told of; 0 also where it is told of all.",
        )?;
        registry.register(Box::new(waits.clone()))?;
        registry.register(Box::new(addresses.clone()))?;
        Ok(Self { waits, addresses })
    }
}
