//! Metrics of the answers to machines' DHCP.

use prometheus::{IntCounterVec, Opts, Registry};

/// The series of DHCP.
#[derive(Clone, Debug)]
pub(crate) struct TapMetrics {
    answers: IntCounterVec,
    unanswered: IntCounterVec,
}

impl TapMetrics {
    /// Registers the series.
    ///
    /// # Errors
    /// When they are registered already.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let vec = |name: &str, help: &str, label: &str| {
            let vec = IntCounterVec::new(Opts::new(name, help), &["network", label])?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        Ok(Self {
            answers: vec(
                "sealane_dhcp_answers_total",
                "Answers to virtual machines that asked for their address.",
                "kind",
            )?,
            unanswered: vec(
                "sealane_dhcp_unanswered_total",
                "Questions of virtual machines for an address that got no answer, by reason (stranger, ignored, pace).",
                "reason",
            )?,
        })
    }

    pub(super) fn answered(&self, network: &str, kind: &str) {
        self.answers.with_label_values(&[network, kind]).inc();
    }

    pub(super) fn unanswered(&self, network: &str, reason: &str) {
        self.unanswered.with_label_values(&[network, reason]).inc();
    }
}
