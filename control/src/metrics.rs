//! Metrics of control itself.

use std::time::Duration;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

/// All of control's series.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) registry: Registry,
    pub(crate) commits: CommitMetrics,
    pub(crate) agents_connected: IntGauge,
    /// By `kind` of message and `direction`.
    pub(crate) stream_messages: IntCounterVec,
    /// By `kind` of identity.
    pub(crate) certificates_signed: IntCounterVec,
    /// By `result`.
    pub(crate) handshakes: IntCounterVec,
    /// By `reason`: connections that control has ended.
    pub(crate) connections_ended: IntCounterVec,
    /// By `reason`: calls that went no further than the guard.
    pub(crate) calls_refused: IntCounterVec,
    /// By `result`: `joined`, or why not.
    pub(crate) joins: IntCounterVec,
    /// By `reason`: workloads that are not part of the mesh, each time that they are reported.
    pub(crate) workloads_refused: IntCounterVec,
    /// By `reason`: requests of hosts for addresses that they need.
    pub(crate) addresses_refused: IntCounterVec,
    /// Networks that a host began to carry.
    pub(crate) first_carries: IntCounter,
    /// By `kind` of what was taken back.
    pub(crate) revocations: IntCounterVec,
    certificate_expiry: GaugeVec,
}

/// The writer's part.
#[derive(Clone, Debug)]
pub(crate) struct CommitMetrics {
    commits: IntCounter,
    seconds: Histogram,
    generation: Gauge,
}

impl Metrics {
    /// All series, registered.
    ///
    /// # Errors
    /// Never for these names; they are checked when they are made.
    pub(crate) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        register_build(&registry)?;
        let register = |collector| registry.register(collector);
        let agents_connected =
            IntGauge::new("sealane_control_agents_connected", "Agents with a stream to this control plane.")?;
        register(Box::new(agents_connected.clone()))?;
        let stream_messages = counters(
            &registry,
            "sealane_control_stream_messages_total",
            "Messages on agents' streams.",
            &["kind", "direction"],
        )?;
        let certificates_signed = counters(
            &registry,
            "sealane_control_certificates_signed_total",
            "Certificates signed, by kind of identity.",
            &["kind"],
        )?;
        let [handshakes, connections_ended, calls_refused] = doors(&registry)?;
        let [joins, workloads_refused, addresses_refused, revocations] = outcomes(&registry)?;
        let first_carries = IntCounter::new(
            "sealane_control_first_carries_total",
            "Times that a host began to carry a network which it did not carry before.",
        )?;
        registry.register(Box::new(first_carries.clone()))?;
        let opts = Opts::new("sealane_certificate_expiry_timestamp_seconds", "When a certificate ends.");
        let certificate_expiry = GaugeVec::new(opts, &["identity"])?;
        register(Box::new(certificate_expiry.clone()))?;
        let commits = CommitMetrics::new(&registry)?;
        Ok(Self {
            registry,
            commits,
            agents_connected,
            stream_messages,
            certificates_signed,
            handshakes,
            connections_ended,
            calls_refused,
            joins,
            workloads_refused,
            addresses_refused,
            first_carries,
            revocations,
            certificate_expiry,
        })
    }

    /// Notes when a certificate ends.
    pub(crate) fn certificate(&self, identity: &str, expires: u64) {
        self.certificate_expiry.with_label_values(&[identity]).set(expires as f64);
    }

    /// Counts a message on an agent's stream.
    pub(crate) fn message(&self, kind: &'static str, direction: &'static str) {
        self.stream_messages.with_label_values(&[kind, direction]).inc();
    }
}

/// Makes counters and registers them.
fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(counters.clone()))?;
    Ok(counters)
}

/// Registers the counters of connections and calls before they are any host's: handshakes, connections, calls.
fn doors(registry: &Registry) -> prometheus::Result<[IntCounterVec; 3]> {
    let counters = |name, help, label| counters(registry, name, help, &[label]);
    Ok([
        counters("sealane_control_handshakes_total", "TLS handshakes by result.", "result")?,
        counters(
            "sealane_control_connections_ended_total",
            "Connections that control ended after their handshake, because of who or what they were.",
            "reason",
        )?,
        counters(
            "sealane_control_calls_refused_total",
            "Calls that were refused before they were read, or while.",
            "reason",
        )?,
    ])
}

/// Counters of what becomes of hosts and of what they report: joins, workloads that are refused, revocations.
fn outcomes(registry: &Registry) -> prometheus::Result<[IntCounterVec; 4]> {
    let counters = |name, help, label| counters(registry, name, help, &[label]);
    Ok([
        counters(
            "sealane_control_joins_total",
            "Hosts that asked to join: joined, or the reason for which they were refused.",
            "result",
        )?,
        counters(
            "sealane_control_workloads_refused_total",
            "Workloads that were reported and are not part of the mesh, by reason.",
            "reason",
        )?,
        counters(
            "sealane_control_addresses_refused_total",
            "Requests of hosts for addresses that they need and do not get, by reason: the last are kept for others, or there are none.",
            "reason",
        )?,
        counters(
            "sealane_control_revocations_total",
            "Tokens revoked and nodes removed with their certificates.",
            "kind",
        )?,
    ])
}

/// Says which build this is.
fn register_build(registry: &Registry) -> prometheus::Result<()> {
    let build = Opts::new("sealane_build_info", "The running build; always 1.");
    let build = build.const_label("version", env!("CARGO_PKG_VERSION")).const_label("component", "control");
    let build = IntGauge::with_opts(build)?;
    build.set(1);
    registry.register(Box::new(build))
}

impl CommitMetrics {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let commits =
            IntCounter::new("sealane_control_commits_total", "Transactions committed to the store.")?;
        let opts = HistogramOpts::new("sealane_control_commit_seconds", "How long a commit takes.");
        let seconds =
            Histogram::with_opts(opts.buckets(prometheus::exponential_buckets(0.000_25, 2.0, 14)?))?;
        let generation =
            Gauge::new("sealane_control_generation", "The revision of the newest committed state.")?;
        registry.register(Box::new(commits.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(generation.clone()))?;
        Ok(Self { commits, seconds, generation })
    }

    pub(crate) fn committed(&self, took: Duration, revision: u64) {
        self.commits.inc();
        self.seconds.observe(took.as_secs_f64());
        self.revision(revision);
    }

    pub(crate) fn revision(&self, revision: u64) {
        self.generation.set(revision as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_names_its_component_and_version() {
        let families = Metrics::new().unwrap().registry.gather();
        let build = families.iter().find(|family| family.name() == "sealane_build_info").unwrap();
        let labels = build.get_metric()[0].get_label();
        let labels: Vec<_> = labels.iter().map(|label| (label.name(), label.value())).collect();
        assert_eq!(labels, [("component", "control"), ("version", env!("CARGO_PKG_VERSION"))]);
    }
}
