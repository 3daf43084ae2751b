//! The signals that end a process: the first one in order, the second one at once.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::pidfile::{Claimed, hold};
use crate::failure::Failure;

/// Limit for an end in order.
const DEADLINE: Duration = Duration::from_secs(15);

/// SIGTERM and SIGINT.
#[derive(Debug)]
pub(super) struct Ending {
    terminate: Signal,
    interrupt: Signal,
}

impl Ending {
    /// From now on, these signals are waited for here and do nothing by themselves.
    pub(super) fn expect() -> Result<Self, Failure> {
        let listen = || -> io::Result<Self> {
            Ok(Self {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
            })
        };
        listen().map_err(Failure::of("cannot wait for signals"))
    }

    /// Returns at the next signal. Cancel safe.
    pub(super) async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// The same, of a process that holds these pid files.
    pub(super) async fn asked_of(&mut self, files: &mut [Claimed]) {
        tokio::select! {
            () = self.asked() => {}
            () = hold(files) => {}
        }
    }

    /// Waits for a start, unless the end is asked for before.
    pub(super) async fn unless_asked<T>(&mut self, start: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            started = start => Ok(started),
            () = self.asked() => Err(Failure::new("ended before it had started")),
        }
    }

    /// Ends in order, but not longer than the deadline and the user's patience.
    pub(super) async fn end(&mut self, shutdown: impl Future<Output = ()>) {
        tokio::select! {
            () = shutdown => {}
            () = self.asked() => tracing::warn!("ended at once, at the second signal"),
            () = tokio::time::sleep(DEADLINE) => tracing::warn!("not everything ended within {DEADLINE:?}"),
        }
    }
}
