//! Metrics of the workload's callers.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::telemetry::{Direction, Parties, Telemetry, Traffic, UNKNOWN};

/// Handles of what each caller sends to the workload, as long as its name stays.
#[derive(Debug)]
pub(super) struct Callers {
    telemetry: Arc<Telemetry>,
    /// Of plain calls, and of those by mutual TLS.
    known: RefCell<[HashMap<String, Arc<Traffic>>; 2]>,
}

impl Callers {
    /// Metrics without a caller so far.
    pub(super) fn new(telemetry: Arc<Telemetry>) -> Self {
        Self { telemetry, known: RefCell::default() }
    }

    /// The metrics of what this caller sends to the workload, by mutual TLS or plain; `own` is the workload's name.
    pub(super) fn traffic(&self, source: Option<&str>, tls: bool, own: &str) -> Arc<Traffic> {
        let source = source.unwrap_or(UNKNOWN);
        if let Some(traffic) = self.known.borrow()[usize::from(tls)].get(source) {
            return traffic.clone();
        }
        let (source, destination) = (source.to_owned(), own.to_owned());
        let parties = Parties { direction: Direction::Inbound { tls }, source: source.clone(), destination };
        let traffic = self.telemetry.traffic(parties);
        self.known.borrow_mut()[usize::from(tls)].insert(source, traffic.clone());
        traffic
    }

    /// Forgets everybody: the workload's own name may have changed.
    pub(super) fn forget(&self) {
        *self.known.borrow_mut() = Default::default();
    }
}
