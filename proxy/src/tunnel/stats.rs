//! What tunnels count. Shared by workers: relaxed atomics, touched once per system call or stream, not per frame.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that parts of a process count together.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// What it is now.
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
    /// Encrypted bytes received.
    pub bytes_received: Count,
    /// Encrypted bytes sent.
    pub bytes_sent: Count,
}
