//! Metrics of the overlay.

use std::sync::Arc;
use std::time::Instant;

use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGaugeVec, Opts, Registry};
use sealane_proto::types::NetworkName;

use super::applied::{Applied, Table};
use super::drift::Drift;
use super::plan::Desired;

/// The overlay's series.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    drift: IntCounterVec,
    looks: IntCounterVec,
    peers: IntGaugeVec,
    fdb_rows: IntGaugeVec,
    neighbours: IntGaugeVec,
    apply_seconds: Histogram,
    /// Recent mendings.
    pub(super) recent: Arc<Drift>,
}

impl Metrics {
    /// Registers the series; of drift, every table from the start, so that a rate has a beginning.
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let of_network = |name: &str, help: &str| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &["network"])?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let drift = Opts::new(
            "sealane_kernel_drift_total",
            "Kernel state that somebody else had changed and that was mended.",
        );
        let drift = IntCounterVec::new(drift, &["table"])?;
        registry.register(Box::new(drift.clone()))?;
        for table in Table::ALL {
            drift.with_label_values(&[table.label()]).reset();
        }
        let looks = Opts::new(
            "sealane_kernel_looks_total",
            "Looks at a network or a workload because the kernel told of changes that this host has not made.",
        );
        let looks = IntCounterVec::new(looks, &["scope"])?;
        registry.register(Box::new(looks.clone()))?;
        for scope in ["network", "workload"] {
            looks.with_label_values(&[scope]).reset();
        }
        let buckets = vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
        let apply_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "sealane_overlay_apply_seconds",
                "Time to bring the kernel to a network's state.",
            )
            .buckets(buckets),
        )?;
        registry.register(Box::new(apply_seconds.clone()))?;
        Ok(Self {
            drift,
            looks,
            peers: of_network(
                "sealane_overlay_peers",
                "Other hosts that the network's packets are sent to.",
            )?,
            fdb_rows: of_network("sealane_overlay_fdb_rows", "Remote Ethernet addresses of the network.")?,
            neighbours: of_network("sealane_overlay_neighbours", "Remote IP addresses of the network.")?,
            apply_seconds,
            recent: Arc::default(),
        })
    }

    pub(super) fn observe(&self, network: &NetworkName, desired: &Desired, seconds: f64) {
        let set = |gauge: &IntGaugeVec, count: usize| {
            gauge.with_label_values(&[network.as_str()]).set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        set(&self.peers, desired.peers);
        set(&self.fdb_rows, desired.fdb.len());
        set(&self.neighbours, desired.neighbours.len());
        self.apply_seconds.observe(seconds);
    }

    /// Counts mendings; `whose` names the owner of the state, such as `network shop`.
    pub(super) fn count_drift(&self, whose: &str, applied: &Applied) {
        self.recent.handle(whose, applied, Instant::now());
        for table in Table::ALL {
            self.drift.with_label_values(&[table.label()]).inc_by(applied.changes(table));
        }
    }

    pub(super) fn count_one(&self, whose: &str, table: Table) {
        self.recent.handle_one(whose, table, 1, Instant::now());
        self.drift.with_label_values(&[table.label()]).inc();
    }

    /// Counts a look that notices led to; `scope` is network or workload.
    pub(super) fn count_look(&self, scope: &str) {
        self.looks.with_label_values(&[scope]).inc();
    }

    pub(super) fn forget(&self, network: &NetworkName) {
        for gauge in [&self.peers, &self.fdb_rows, &self.neighbours] {
            // An error means that the network never had a series.
            let _ = gauge.remove_label_values(&[network.as_str()]);
        }
    }
}
