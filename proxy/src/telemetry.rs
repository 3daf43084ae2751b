//! Metrics of the sidecar. Label values are names of the configuration, or `unknown`; handles are looked up once per
//! route and kept, so that a request costs no look-up. Shared by the workers.

mod asking;
mod bounds;
mod memory;
mod routes;
mod traffic;

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use sealane_base::metrics::{self, Family};
use sealane_base::rate_limit::RateLimit;
use sealane_proto::identity::SpiffeId;

use crate::trouble::Troubles;
use asking::AskMetrics;
use bounds::BoundMetrics;
use memory::MemoryMetrics;
use routes::RouteMetrics;
pub(crate) use routes::RouteTraffic;
use traffic::{CLASSES, OTHER};
pub(crate) use traffic::{Direction, Parties, Traffic};

/// The name of a party that no configuration knows.
pub(crate) const UNKNOWN: &str = "unknown";
/// The name that all callers without a service share: their own names come and go with each run. No service's or
/// workload's name has an underscore.
pub(crate) const NO_SERVICE: &str = "_none";
/// The most pairs of parties that have series of their own; further ones share those of `other`.
const MAX_PARTIES: usize = 2000;
/// Time for which a pair's series are kept when nothing passes between them any more and no route leads there.
const KEPT: Duration = Duration::from_secs(3600);
/// The most server names of applications' own TLS that have a series; further ones share `other`.
const MAX_SERVER_NAMES: usize = 100;
/// Time between two lines of the log of a kind that is worth saying, but not each time.
const PAUSE: Duration = Duration::from_secs(10);
const BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// All metrics of one sidecar.
#[derive(Debug)]
pub(crate) struct Telemetry {
    registry: Registry,
    families: Families,
    traffic: Mutex<HashMap<Parties, Entry>>,
    identity: Mutex<Option<String>>,
    tls_names: Mutex<HashSet<(String, String)>>,
    tls_connections: IntCounterVec,
    /// Requests sent again, by reason.
    pub(crate) retries: IntCounterVec,
    /// Endpoints left out for refusing.
    pub(crate) ejections: IntCounter,
    /// Attempts that failed at an endpoint, by reason.
    pub(crate) endpoint_failures: IntCounterVec,
    /// Protocols that connections of unknown protocol turned out to carry.
    pub(crate) detected: IntCounterVec,
    /// Connections that were not served, by reason.
    pub(crate) refused: IntCounterVec,
    /// Events at its bounds.
    pub(crate) bounds: BoundMetrics,
    /// Connections that were accepted, to see whether anything happens; not shown.
    pub(crate) accepted: IntCounter,
    /// Addresses that it knows, and asks about.
    pub(crate) asking: AskMetrics,
    /// The sidecar's memory.
    pub(crate) memory: MemoryMetrics,
    /// Routes of HTTP.
    pub(crate) routes: RouteMetrics,
    /// Tunnels that are up.
    pub(crate) tunnels_open: IntGauge,
    /// TLS handshakes that failed, on either side. A gauge to us, since it is copied; a counter to readers.
    pub(crate) handshake_failures: IntCounter,
    certificate_expiry: IntGaugeVec,
    /// Endpoints that fail now; not shown among metrics.
    pub(crate) troubles: Troubles,
    unreadable: RateLimit,
    without_port: RateLimit,
}

/// A pair of parties that has series.
#[derive(Debug)]
struct Entry {
    traffic: Arc<Traffic>,
    /// Count at the last look, and the time since when it has not moved.
    moved: u64,
    since: Instant,
}

/// Families whose series are made per pair of parties.
#[derive(Debug)]
struct Families {
    requests: IntCounterVec,
    first_byte: HistogramVec,
    duration: HistogramVec,
    connections: IntCounterVec,
    open: IntGaugeVec,
    bytes: IntCounterVec,
}

fn counter(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    let family = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

fn gauge(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
    let family = IntGaugeVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

impl Families {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        let parties = ["direction", "source_service", "destination_service", "tls"];
        let with = |label| [parties[0], parties[1], parties[2], parties[3], label];
        let histogram = |name, help| -> prometheus::Result<HistogramVec> {
            let opts = HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
            let family = HistogramVec::new(opts, &parties)?;
            registry.register(Box::new(family.clone()))?;
            Ok(family)
        };
        Ok(Self {
            requests: counter(
                registry,
                "sealane_requests_total",
                "HTTP requests that were answered.",
                &with("code_class"),
            )?,
            first_byte: histogram(
                "sealane_request_first_byte_seconds",
                "From a request's head to the first byte of its response.",
            )?,
            duration: histogram(
                "sealane_request_duration_seconds",
                "From a request's head to the last byte of its response; responses that broke off are left out.",
            )?,
            connections: counter(
                registry,
                "sealane_connections_total",
                "Connections of the workload that were accepted.",
                &with("protocol"),
            )?,
            open: gauge(
                registry,
                "sealane_connections_open",
                "Connections that are open.",
                &with("protocol"),
            )?,
            bytes: counter(
                registry,
                "sealane_bytes_total",
                "Application bytes, sent and received as the caller sees it in both directions: requests are sent, \
                 responses are received.",
                &with("flow"),
            )?,
        })
    }
}

impl Telemetry {
    /// Metrics that have counted nothing.
    ///
    /// # Errors
    /// Never, with the names that are written here; what prometheus says otherwise.
    pub(crate) fn new() -> prometheus::Result<Arc<Self>> {
        let registry = Registry::new();
        let one = |name, help| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let tunnels_open = IntGauge::new("sealane_tunnels_open", "Tunnels to and from other sidecars.")?;
        registry.register(Box::new(tunnels_open.clone()))?;
        let many = |name, help, label| counter(&registry, name, help, &[label]);
        let accepted = IntCounter::new("accepted", "Connections that were accepted.")?;
        Ok(Arc::new(Self {
            accepted,
            families: Families::new(&registry)?,
            retries: many("sealane_retries_total", "Requests that were sent again.", "reason")?,
            ejections: one("sealane_ejections_total", "Endpoints that were left out for refusing.")?,
            endpoint_failures: many(
                "sealane_endpoint_failures_total",
                "Attempts that failed at an endpoint.",
                "reason",
            )?,
            detected: many("sealane_detect_total", "Connections whose protocol was found out.", "outcome")?,
            refused: many(
                "sealane_connections_refused_total",
                "Connections that were not served.",
                "reason",
            )?,
            bounds: BoundMetrics::new(&registry)?,
            handshake_failures: one(
                "sealane_tunnel_handshake_failures_total",
                "TLS handshakes between sidecars that failed.",
            )?,
            certificate_expiry: gauge(
                &registry,
                "sealane_certificate_expiry_timestamp_seconds",
                "When the workload's certificate ends.",
                &["identity"],
            )?,
            asking: AskMetrics::new(&registry)?,
            memory: MemoryMetrics::new(&registry)?,
            routes: RouteMetrics::new(&registry)?,
            tunnels_open,
            troubles: Troubles::default(),
            unreadable: RateLimit::new(1, PAUSE),
            without_port: RateLimit::new(1, PAUSE),
            traffic: Mutex::default(),
            identity: Mutex::default(),
            tls_names: Mutex::default(),
            tls_connections: counter(
                &registry,
                "sealane_tls_connections_total",
                "Connections with TLS of the application's own, by the server name that its client asked for.",
                &["destination_service", "server_name"],
            )?,
            registry,
        }))
    }

    /// Sets the sidecar's identity from now on, and its end.
    pub(crate) fn set_identity(&self, identity: &SpiffeId, not_after: SystemTime) {
        let name = identity.to_string();
        let seconds = not_after.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let expiry = self.certificate_expiry.with_label_values(&[&name]);
        expiry.set(i64::try_from(seconds).unwrap_or(i64::MAX));
        let before = self.identity.lock().unwrap_or_else(PoisonError::into_inner).replace(name.clone());
        if let Some(before) = before.filter(|before| *before != name) {
            // Its series is gone already if it was never there.
            let _ = self.certificate_expiry.remove_label_values(&[&before]);
        }
    }

    /// The workload called this service with TLS of its own, for a server of this name.
    pub(crate) fn tls_connection(&self, destination: &str, server_name: Option<&str>) {
        let mut known = self.tls_names.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = (destination.to_owned(), server_name.unwrap_or("none").to_ascii_lowercase());
        if known.len() < MAX_SERVER_NAMES || known.contains(&pair) {
            self.tls_connections.with_label_values(&[&pair.0, &pair.1]).inc();
            known.insert(pair);
        } else {
            self.tls_connections.with_label_values(&["other", "other"]).inc();
        }
    }

    /// An application's answer was not passed on, for this reason.
    pub(crate) fn note_unreadable(&self, application: SocketAddr, reason: &'static str, what: &dyn Display) {
        self.bounds.answers_refused.with_label_values(&[reason]).inc();
        if let Some(unsaid) = self.unreadable.pass(Instant::now()) {
            tracing::warn!(%application, reason = %what, unsaid, "an application's answer is not passed on");
        }
    }

    /// There was no local port for a connection to this address.
    pub(crate) fn note_without_port(&self, address: SocketAddr) {
        self.refused.with_label_values(&["no_local_port"]).inc();
        if let Some(unsaid) = self.without_port.pass(Instant::now()) {
            tracing::warn!(
                %address, unsaid,
                "no local port is left for a connection: each is kept for a minute after its use; \
                 sysctl net.ipv4.tcp_tw_reuse=1 in the workload's namespace frees them sooner"
            );
        }
    }

    /// The handles for what passes between these parties; keep them.
    pub(crate) fn traffic(&self, parties: Parties) -> Arc<Traffic> {
        let mut known = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        let full = known.len() >= MAX_PARTIES && !known.contains_key(&parties);
        let parties = if full { parties.beyond_the_bound() } else { parties };
        let known = known.entry(parties).or_insert_with_key(|parties| Entry {
            traffic: Arc::new(Traffic::new(&self.families, parties)),
            moved: 0,
            since: Instant::now(),
        });
        known.traffic.clone()
    }

    /// Forgets pairs that nobody holds and between which nothing has passed for [`KEPT`].
    fn expire(&self, now: Instant) {
        let mut known = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, pair| {
            let moved = pair.traffic.moved();
            if pair.moved != moved {
                (pair.moved, pair.since) = (moved, now);
            }
            let held = Arc::strong_count(&pair.traffic) > 1;
            let stays = held || now.saturating_duration_since(pair.since) < KEPT;
            if !stays {
                pair.traffic.forget();
            }
            stays
        });
    }

    /// Everything that was counted.
    pub(crate) fn gather(&self) -> Vec<Family> {
        self.expire(Instant::now());
        metrics::gather(&self.registry)
    }
}
