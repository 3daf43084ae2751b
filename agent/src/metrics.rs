//! The host's /metrics: the agent's own series and all its sidecars'.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use sealane_base::admin::{self, Gather};
use sealane_base::metrics::{Family, Reading, Series, gather, merge};
use sealane_base::ready::Readiness;
use sealane_base::task::{self, Task};
use sealane_base::text::plain;
use sealane_proto::census;
use sealane_proto::client::TlsIdentity;
use sealane_proto::identity::peer_identity;
use sealane_proto::types::{NodeName, UnderlayAddr, UnderlayAddrs};
use sealane_proto::wire::v1::ServiceView;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::VERSION;
use crate::certs::{Certs, key::Validity};
use crate::error::StartError;
use crate::host::HostViews;
use crate::liveness::{self, PeerViews};
use crate::workload::{Disks, WorkloadContext};

/// Pause before an address that cannot be had is tried again.
const AGAIN: Duration = Duration::from_secs(2);

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

/// Counts renewals of certificates by `kind` and `result`.
///
/// # Errors
/// Never in practice: the name is registered once.
pub(crate) fn renewals(registry: &Registry) -> Result<IntCounterVec, prometheus::Error> {
    let help = "Renewals of certificates, by kind (node, workload) and result (renewed, failed).";
    let renewals =
        IntCounterVec::new(Opts::new("sealane_certificate_renewals_total", help), &["kind", "result"])?;
    registry.register(Box::new(renewals.clone()))?;
    for (kind, result) in
        ["node", "workload"].into_iter().flat_map(|kind| [(kind, "renewed"), (kind, "failed")])
    {
        // So that the first one counts as an increase.
        let _ = renewals.with_label_values(&[kind, result]);
    }
    Ok(renewals)
}

/// Gathers everything for one scrape.
#[must_use]
pub(crate) fn gatherer(
    registry: Registry,
    context: Arc<WorkloadContext>,
    node: watch::Receiver<Arc<TlsIdentity>>,
    peers: watch::Receiver<Arc<PeerViews>>,
) -> Gather {
    Arc::new(move || {
        let (registry, sidecars, overlay) =
            (registry.clone(), context.sidecars.registry.clone(), context.kernel.overlay.clone());
        let own = [
            expiries(&context.identities, &node.borrow()),
            connected(&context.host.views),
            clock(&context.host.views),
            workloads(&context.host.views, &context.node),
            service_ports(&context.host.views),
            writable(&context.disks),
        ];
        let services = services(&context.host.views);
        let peers = liveness::families(&peers.borrow());
        Box::pin(async move {
            let theirs = sidecars.collect().await;
            let counted = overlay.counted().await;
            merge(
                gather(&registry)
                    .into_iter()
                    .chain(own)
                    .chain(peers)
                    .chain(services)
                    .chain(counted)
                    .chain(theirs),
            )
        })
    })
}

/// Takes an address for metrics.
///
/// # Errors
/// When the address is taken.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| StartError::Metrics { address, source })
}

/// Serves /metrics, /live and /ready.
pub(crate) fn serve(listener: TcpListener, readiness: Readiness, gather: Gather) -> Task {
    task::spawn_fallible("metrics", admin::serve(listener, readiness, gather, Vec::new()))
}

/// Serves the same at the underlay addresses, wherever they are, and unless it is the loopback that is served anyway.
pub(crate) async fn serve_when_possible(
    (mut underlay, port): (watch::Receiver<UnderlayAddrs>, u16),
    readiness: Readiness,
    gather: Gather,
    problem: watch::Sender<Option<String>>,
) {
    loop {
        let addresses = *underlay.borrow_and_update();
        problem.send_replace(None);
        let other = watch::Sender::new(None);
        let serve =
            async |address: Option<UnderlayAddr>, problem: &watch::Sender<Option<String>>| match address
                .map(UnderlayAddr::to_ip)
                .filter(|address| *address != Ipv4Addr::LOCALHOST)
            {
                Some(address) => serve_at((address, port).into(), &readiness, &gather, problem).await,
                None => std::future::pending().await,
            };
        tokio::select! {
            () = serve(Some(addresses.first()), &problem) => {}
            // The log says what is wrong with this one.
            () = serve(addresses.other(), &other) => {}
            moved = underlay.changed() => if moved.is_err() { return },
        }
    }
}

/// Serves at an address that this host may not have yet, or not have any more: tried for as long as it takes; `problem` says
/// why it is not served meanwhile.
async fn serve_at(
    address: SocketAddr,
    readiness: &Readiness,
    gather: &Gather,
    problem: &watch::Sender<Option<String>>,
) {
    loop {
        let served = match TcpListener::bind(address).await {
            Ok(listener) => {
                problem.send_replace(None);
                admin::serve(listener, readiness.clone(), gather.clone(), Vec::new()).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            let said = unserved(address, &error);
            if problem.send_replace(Some(said.clone())).as_ref() != Some(&said) {
                tracing::warn!("{said}");
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn unserved(address: SocketAddr, error: &std::io::Error) -> String {
    let (why, fix) = if error.kind() == ErrorKind::AddrNotAvailable {
        let fix = "give one that `ip addr` shows to --underlay, others hear of it";
        ("no device of this host has that address".to_owned(), fix)
    } else if error.kind() == ErrorKind::AddrInUse {
        let fix = "`ss -ltnp` says which: end it, or choose another --metrics-port";
        ("another process listens there".to_owned(), fix)
    } else {
        (plain(error), "it is tried again")
    };
    format!("metrics are not served on {address}: {why}; {fix}")
}

fn connected(views: &HostViews) -> Family {
    let help = "Whether this host has its stream to control: 1 or 0.";
    Family::flag("sealane_control_connected", help, views.control.borrow().is_some())
}

fn clock(views: &HostViews) -> Family {
    let help = "Seconds by which this host's clock is ahead of control's, as far as messages can tell.";
    let pair = views.clocks.borrow().map(|pair| pair.ahead_seconds());
    let series = pair.map(|ahead| Series { labels: vec![], reading: Reading::Value(ahead) });
    Family::gauge("sealane_clock_ahead_seconds", help, series.into_iter().collect())
}

fn writable(disks: &Disks) -> Family {
    let help = "Whether the agent's data directory and its run directory can be written: 1 or 0.";
    let problem = disks.data.problem().or_else(|| disks.run.problem());
    Family::flag("sealane_data_directory_writable", help, problem.is_none())
}

fn workloads(views: &HostViews, node: &NodeName) -> Family {
    let networks = views.networks.borrow();
    let series = networks.iter().map(|(name, host_network)| {
        let own = host_network.borrow().snapshot.workloads.iter().filter(|known| known.node == *node).count();
        Series { labels: vec![("network".to_owned(), name.to_string())], reading: Reading::Value(own as f64) }
    });
    Family::gauge("sealane_workloads", "Workloads of this host.", series.collect())
}

/// The services of the networks that this host carries, as it knows them.
fn services(views: &HostViews) -> [Family; 2] {
    let networks = views.networks.borrow();
    let known = networks.values().map(|host_network| host_network.borrow().snapshot.clone());
    let all = known.flat_map(|snapshot| ServiceView::all(&snapshot, |one| one.ready).collect::<Vec<_>>());
    census::services("sealane", all)
}

fn service_ports(views: &HostViews) -> Family {
    let networks = views.networks.borrow();
    let series = networks.iter().map(|(name, host_network)| {
        let ports = host_network.borrow().services.of(false).len();
        let labels = vec![("network".to_owned(), name.to_string())];
        Series { labels, reading: Reading::Value(ports as f64) }
    });
    let help = "Ports of service addresses that lead to an endpoint.";
    Family::gauge("sealane_service_ports", help, series.collect())
}

fn expiries(certs: &Certs, node: &TlsIdentity) -> Family {
    let own =
        peer_identity(Some(&node.chain)).zip(node.chain.first().and_then(|leaf| Validity::of(leaf).ok()));
    let own = own.map(|(id, validity)| (id, validity.not_after));
    let series = own.into_iter().chain(certs.expiries()).map(|(id, end): (_, SystemTime)| Series {
        labels: vec![("identity".to_owned(), id.to_string())],
        reading: Reading::Value(end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as f64),
    });
    let help = "When a certificate of this host ends, in seconds since the epoch.";
    Family::gauge("sealane_certificate_expiry_timestamp_seconds", help, series.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_not_served_is_told_in_words_of_ours() {
        let address = "192.0.2.1:9464".parse().unwrap();
        // errno(3) of Linux: EADDRNOTAVAIL, EADDRINUSE, EACCES.
        for (number, expected) in [
            (99, "no device of this host has that address; give one that `ip addr` shows to --underlay"),
            (98, "another process listens there; `ss -ltnp` says which"),
            (13, "Permission denied; it is tried again"),
        ] {
            let said = unserved(address, &std::io::Error::from_raw_os_error(number));
            let start = format!("metrics are not served on 192.0.2.1:9464: {expected}");
            assert!(said.starts_with(&start) && !said.contains("os error"), "{said}");
        }
    }
}
