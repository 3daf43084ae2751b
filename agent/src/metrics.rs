//! The host's /metrics: the agent's own series and all its sidecars'.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{IntGauge, Opts, Registry};
use sealane_base::admin::{self, Gather};
use sealane_base::metrics::{Family, Kind, Reading, Series, gather, merge};
use sealane_base::ready::Readiness;
use sealane_base::task::{self, Task};
use sealane_proto::client::TlsIdentity;
use sealane_proto::identity::peer_identity;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::agent::VERSION;
use crate::certs::{Certs, key::Validity};
use crate::error::StartError;
use crate::sidecar;

/// A registry that says which build this is.
///
/// # Errors
/// Never in practice: the name is registered once.
pub(crate) fn registry() -> Result<Registry, prometheus::Error> {
    let registry = Registry::new();
    let build =
        Opts::new("sealane_build_info", "The running build; always 1.").const_label("version", VERSION);
    let build = IntGauge::with_opts(build.const_label("component", "agent"))?;
    build.set(1);
    registry.register(Box::new(build))?;
    Ok(registry)
}

/// Gathers everything for one scrape.
#[must_use]
pub(crate) fn gatherer(
    registry: Registry,
    sidecars: Arc<sidecar::Registry>,
    certs: Arc<Certs>,
    node: watch::Receiver<Arc<TlsIdentity>>,
) -> Gather {
    Arc::new(move || {
        let (registry, sidecars) = (registry.clone(), sidecars.clone());
        let expiries = expiries(&certs, &node.borrow());
        Box::pin(async move {
            let theirs = sidecars.collect().await;
            merge(gather(&registry).into_iter().chain([expiries]).chain(theirs))
        })
    })
}

/// Serves /metrics, /live and /ready at `address`.
///
/// # Errors
/// When the address is taken.
pub(crate) async fn serve(
    address: SocketAddr,
    readiness: Readiness,
    gather: Gather,
) -> Result<Task, StartError> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|source| StartError::Metrics { address, source })?;
    Ok(task::spawn_fallible("metrics", admin::serve(listener, readiness, gather)))
}

fn expiries(certs: &Certs, node: &TlsIdentity) -> Family {
    let own =
        peer_identity(Some(&node.chain)).zip(node.chain.first().and_then(|leaf| Validity::of(leaf).ok()));
    let own = own.map(|(id, validity)| (id, validity.not_after));
    let series = own.into_iter().chain(certs.expiries()).map(|(id, end): (_, SystemTime)| Series {
        labels: vec![("identity".to_owned(), id.to_string())],
        reading: Reading::Value(end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as f64),
    });
    Family {
        name: "sealane_certificate_expiry_timestamp_seconds".to_owned(),
        help: "When a certificate of this host ends, in seconds since the epoch.".to_owned(),
        kind: Kind::Gauge,
        series: series.collect(),
    }
}
