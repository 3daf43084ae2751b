//! Bounds of the checks of a host, and their metrics.

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use sealane_proto::types::{Check, Probe};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Questions over the network that are under way at once.
const ASKED: usize = 64;
/// Commands that run at once.
const COMMANDS: usize = 4;

/// Places for what is under way, and counters of what came of it.
#[derive(Clone, Debug)]
pub(crate) struct CheckLimits {
    asked: Arc<Semaphore>,
    commands: Arc<Semaphore>,
    answers: IntCounterVec,
    waits: IntCounter,
}

/// Words of the kinds of probes in series.
const KINDS: [&str; 4] = ["tcp", "http", "grpc", "exec"];

fn kind(check: &Check) -> &'static str {
    let [tcp, http, grpc, exec] = KINDS;
    match check.probe {
        Probe::Tcp => tcp,
        Probe::Http(..) => http,
        Probe::Grpc(_) => grpc,
        Probe::Exec(_) => exec,
    }
}

impl CheckLimits {
    /// Registers the series.
    ///
    /// # Errors
    /// When they are registered already.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let help =
            "Checks of workloads of this host, by probe (tcp, http, grpc, exec) and result (good, bad).";
        let answers =
            IntCounterVec::new(Opts::new("sealane_health_checks_total", help), &["probe", "result"])?;
        registry.register(Box::new(answers.clone()))?;
        for (kind, result) in KINDS.into_iter().flat_map(|kind| [(kind, "good"), (kind, "bad")]) {
            // So that the first one counts as an increase.
            let _ = answers.with_label_values(&[kind, result]);
        }
        let waits = IntCounter::new(
            "sealane_health_check_waits_total",
            "Checks of workloads that waited because as many were under way as may be.",
        )?;
        registry.register(Box::new(waits.clone()))?;
        let (asked, commands) = (Semaphore::new(ASKED).into(), Semaphore::new(COMMANDS).into());
        Ok(Self { asked, commands, answers, waits })
    }

    /// Waits for a place for this check. Cancel safe.
    pub(super) async fn place(&self, check: &Check) -> Option<SemaphorePermit<'_>> {
        let places = match check.probe {
            Probe::Exec(_) => &self.commands,
            Probe::Tcp | Probe::Http(..) | Probe::Grpc(_) => &self.asked,
        };
        if let Ok(place) = places.try_acquire() {
            return Some(place);
        }
        self.waits.inc();
        places.acquire().await.ok()
    }

    /// Counts an answer.
    pub(super) fn count(&self, check: &Check, good: bool) {
        self.answers.with_label_values(&[kind(check), if good { "good" } else { "bad" }]).inc();
    }
}
