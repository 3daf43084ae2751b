//! Counts of the watch over other hosts.

use prometheus::{IntCounterVec, Opts, Registry};

use super::Reach;

/// The series.
#[derive(Clone, Debug)]
pub(crate) struct LivenessMetrics {
    changes: IntCounterVec,
    hints: IntCounterVec,
}

impl LivenessMetrics {
    /// Registers the series.
    ///
    /// # Errors
    /// Never in practice: the names are registered once.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let vec = |name: &str, help: &str, label: &str, values: [&str; 2]| {
            let family = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(family.clone()))?;
            values.iter().for_each(|value| family.with_label_values(&[value]).inc_by(0));
            Ok::<_, prometheus::Error>(family)
        };
        Ok(Self {
            changes: vec(
                "sealane_agent_peer_reach_changes_total",
                "Hosts that became unreachable from this one, or reachable again, by what they became.",
                "reach",
                [Reach::Unreachable.word(), Reach::Reachable.word()],
            )?,
            hints: vec(
                "sealane_agent_peer_hints_total",
                "Words between hosts that another one has changed, by direction (sent, received).",
                "direction",
                ["sent", "received"],
            )?,
        })
    }

    /// Counts hosts that were lost, and that have come back.
    pub(super) fn count_changes(&self, lost: u64, returned: u64) {
        for (reach, count) in [(Reach::Unreachable, lost), (Reach::Reachable, returned)] {
            self.changes.with_label_values(&[reach.word()]).inc_by(count);
        }
    }

    pub(super) fn count_hint_sent(&self) {
        self.hints.with_label_values(&["sent"]).inc();
    }

    pub(super) fn count_hint_received(&self) {
        self.hints.with_label_values(&["received"]).inc();
    }
}
