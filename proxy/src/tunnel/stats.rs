//! Counters of tunnels. Shared by workers: relaxed atomics, touched once per system call or stream, not per frame.

use std::sync::atomic::{AtomicU64, Ordering};

use sealane_base::metrics::{Family, MetricKind, Reading, Series};

/// A number that parts of a process count together.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Returns the present value.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn increment(&self) {
        self.add(1);
    }
}

/// Counters of one side (connecting or accepting) of all tunnels of a process.
#[derive(Debug, Default)]
pub struct TunnelStats {
    /// Tunnels that came up.
    pub tunnels_opened: Count,
    /// Tunnels that ended, in whatever way. Open now: the difference.
    pub tunnels_closed: Count,
    /// Tunnels that ended by an error.
    pub tunnels_lost: Count,
    /// Tunnels that ended since their peer did more of something than anybody has use for.
    pub floods: Count,
    /// TCP connections whose TLS handshake failed.
    pub handshakes_failed: Count,
    /// TCP connections that could not be made.
    pub connects_failed: Count,
    /// Streams opened.
    pub streams_opened: Count,
    /// Streams that ended. Open now: the difference.
    pub streams_closed: Count,
    /// Streams that were refused for being too many.
    pub streams_refused: Count,
    /// Streams that ended since their peer did not answer.
    pub streams_abandoned: Count,
    /// Encrypted bytes received.
    pub bytes_received: Count,
    /// Encrypted bytes sent.
    pub bytes_sent: Count,
}

impl TunnelStats {
    /// The counters as metric families, with the label `side` (`connecting` or `accepting`).
    #[must_use]
    pub fn families(&self, side: &str) -> Vec<Family> {
        let count = Count::value;
        let open = |opened, closed| count(opened).saturating_sub(count(closed));
        let table = [
            ("opened_total", "Tunnels that came up.", count(&self.tunnels_opened)),
            ("lost_total", "Tunnels that ended by an error.", count(&self.tunnels_lost)),
            ("floods_total", "Tunnels that ended since their peer flooded them.", count(&self.floods)),
            ("open", "Tunnels that are open.", open(&self.tunnels_opened, &self.tunnels_closed)),
            ("handshake_failures_total", "TLS handshakes that failed.", count(&self.handshakes_failed)),
            ("connect_failures_total", "Connections that were not made.", count(&self.connects_failed)),
            ("streams_opened_total", "Streams opened.", count(&self.streams_opened)),
            ("streams_refused_total", "Streams refused for being too many.", count(&self.streams_refused)),
            ("streams_abandoned_total", "Streams whose peer did not answer.", count(&self.streams_abandoned)),
            ("streams_open", "Streams that are open.", open(&self.streams_opened, &self.streams_closed)),
            ("received_bytes_total", "Encrypted bytes received.", count(&self.bytes_received)),
            ("sent_bytes_total", "Encrypted bytes sent.", count(&self.bytes_sent)),
        ];
        table.map(|(name, help, value)| family(name, help, side, value)).into()
    }
}

#[allow(clippy::cast_precision_loss, reason = "Prometheus has only floats")]
fn family(name: &str, help: &str, side: &str, value: u64) -> Family {
    let kind = if name.ends_with("_total") { MetricKind::Counter } else { MetricKind::Gauge };
    let labels = vec![("side".to_owned(), side.to_owned())];
    let series = vec![Series { labels, reading: Reading::Value(value as f64) }];
    Family { name: format!("sealane_tunnel_{name}"), help: help.to_owned(), kind, series }
}
