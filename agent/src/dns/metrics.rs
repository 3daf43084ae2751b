//! Counters of DNS.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};
use sealane_proto::types::NetworkName;

use super::message::Rcode;

/// The counters of all networks, registered once.
#[derive(Clone, Debug)]
pub struct DnsMetrics {
    queries: IntCounterVec,
    pub(crate) forward_duration: Histogram,
    forward_failures: IntCounterVec,
    looked_up: IntCounterVec,
    /// Answers that had to go for others.
    pub(crate) cache_evicted: IntCounter,
    replaced: IntCounterVec,
    unread: IntCounterVec,
}

/// The counters of one network's askers: handles, so that no label is looked up per query.
#[derive(Clone, Debug)]
pub struct NetworkMetrics {
    own: [IntCounter; Rcode::ALL.len()],
    forwarded: [IntCounter; Rcode::ALL.len()],
    /// TCP connections that made room for others.
    pub(super) replaced: IntCounter,
    /// Connections that were closed as the host has no room for answers that nobody takes.
    pub(super) unread: IntCounter,
}

/// Outcome of a look for a foreign name in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CacheResult {
    /// The answer was there.
    Hit,
    /// The host's resolvers were asked, and had to answer.
    Miss,
    /// An answer was there that holds no longer, and nobody gave a newer one.
    Stale,
}

/// Reasons for which a foreign name could not be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ForwardFailure {
    /// The host has no resolver.
    NoServer,
    /// No server answered in time.
    Timeout,
    /// The network said that no server is there.
    Network,
    /// Too many questions wait already.
    Overload,
}

impl DnsMetrics {
    /// Registers the families.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let queries = Opts::new("sealane_dns_queries_total", "DNS queries answered, by the asker's network.");
        let duration = HistogramOpts::new(
            "sealane_dns_forward_duration_seconds",
            "How long foreign names took to be answered, from the cache or by the host's resolvers.",
        );
        let buckets = vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
        let failures = Opts::new(
            "sealane_dns_forward_failures_total",
            "Foreign names that none of the host's resolvers answered.",
        );
        let looked_up = Opts::new(
            "sealane_dns_cache_lookups_total",
            "Foreign names looked for in the cache; stale: answered by what held before, as nobody said anything newer.",
        );
        let evicted = Opts::new(
            "sealane_dns_cache_evicted_total",
            "Answers that were forgotten before their time, to make room for others.",
        );
        let replaced = Opts::new(
            "sealane_dns_connections_replaced_total",
            "TCP connections of askers that were closed while they were silent, to make room for others.",
        );
        let unread = Opts::new(
            "sealane_dns_connections_unread_total",
            "TCP connections of askers that were closed because answers that nobody takes fill the host's room for them.",
        );
        let metrics = Self {
            queries: IntCounterVec::new(queries, &["network", "kind", "rcode"])?,
            forward_duration: Histogram::with_opts(duration.buckets(buckets))?,
            forward_failures: IntCounterVec::new(failures, &["reason"])?,
            looked_up: IntCounterVec::new(looked_up, &["result"])?,
            cache_evicted: IntCounter::with_opts(evicted)?,
            replaced: IntCounterVec::new(replaced, &["network"])?,
            unread: IntCounterVec::new(unread, &["network"])?,
        };
        registry.register(Box::new(metrics.queries.clone()))?;
        registry.register(Box::new(metrics.forward_duration.clone()))?;
        registry.register(Box::new(metrics.forward_failures.clone()))?;
        registry.register(Box::new(metrics.looked_up.clone()))?;
        registry.register(Box::new(metrics.cache_evicted.clone()))?;
        registry.register(Box::new(metrics.replaced.clone()))?;
        registry.register(Box::new(metrics.unread.clone()))?;
        Ok(metrics)
    }

    /// The handles for the askers of `network`.
    #[must_use]
    pub fn network(&self, network: &NetworkName) -> NetworkMetrics {
        let of = |kind| {
            Rcode::ALL.map(|rcode| self.queries.with_label_values(&[network.as_str(), kind, rcode.as_str()]))
        };
        let replaced = self.replaced.with_label_values(&[network.as_str()]);
        let unread = self.unread.with_label_values(&[network.as_str()]);
        NetworkMetrics { own: of("own"), forwarded: of("forwarded"), replaced, unread }
    }

    /// Forgets the series of a network that this host no longer carries.
    pub fn remove(&self, network: &NetworkName) {
        // They may never have been there.
        let _ = self.replaced.remove_label_values(&[network.as_str()]);
        let _ = self.unread.remove_label_values(&[network.as_str()]);
        for kind in ["own", "forwarded"] {
            for rcode in Rcode::ALL {
                let _ = self.queries.remove_label_values(&[network.as_str(), kind, rcode.as_str()]);
            }
        }
    }

    pub(crate) fn looked_up(&self, result: CacheResult) {
        self.looked_up.with_label_values(&[result.as_str()]).inc();
    }

    pub(crate) fn forward_failed(&self, failure: ForwardFailure) {
        self.forward_failures.with_label_values(&[failure.as_str()]).inc();
    }
}

impl NetworkMetrics {
    pub(crate) fn answered(&self, rcode: Rcode) {
        count(&self.own, rcode);
    }

    pub(crate) fn forwarded(&self, rcode: Rcode) {
        count(&self.forwarded, rcode);
    }
}

fn count(counters: &[IntCounter; Rcode::ALL.len()], rcode: Rcode) {
    // Rcode::ALL is in the order of the variants.
    if let Some(counter) = counters.get(rcode as usize) {
        counter.inc();
    }
}

impl CacheResult {
    fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
        }
    }
}

impl ForwardFailure {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NoServer => "no_server",
            Self::Timeout => "timeout",
            Self::Network => "network",
            Self::Overload => "overload",
        }
    }

    /// The Extended DNS Error (RFC 8914, section 4) that says so to the asker.
    pub(crate) fn extended_error(self) -> (u16, &'static str) {
        match self {
            Self::NoServer => (22, "the host has no resolver"),
            Self::Timeout => (22, "the host's resolvers do not answer"),
            Self::Network => (23, "the host's resolvers cannot be reached"),
            Self::Overload => (0, "too many questions wait for the host's resolvers"),
        }
    }
}
