//! Metrics of the kernel's balancing.

use prometheus::{Histogram, HistogramOpts, IntCounter, Registry};

/// The series of service addresses.
#[derive(Clone, Debug)]
pub struct ServiceMetrics {
    program_seconds: Histogram,
    freed: IntCounter,
}

impl ServiceMetrics {
    /// Registers the series.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let program_seconds = HistogramOpts::new(
            "sealane_service_program_seconds",
            "Time to bring the service addresses in one workload's namespace to a new state.",
        );
        let buckets = vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];
        let program_seconds = Histogram::with_opts(program_seconds.buckets(buckets))?;
        registry.register(Box::new(program_seconds.clone()))?;
        let freed = IntCounter::new(
            "sealane_service_flows_freed_total",
            "Flows of datagrams that were taken from an endpoint that does not serve them any more.",
        )?;
        registry.register(Box::new(freed.clone()))?;
        Ok(Self { program_seconds, freed })
    }

    pub(super) fn observe(&self, seconds: f64) {
        self.program_seconds.observe(seconds);
    }

    pub(super) fn count_freed(&self, flows: usize) {
        self.freed.inc_by(flows as u64);
    }
}
