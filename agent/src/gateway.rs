//! DNS at every network's gateway address, for workloads that were not attached by this agent's `run`.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use sealane_base::task::{self, Task};
use sealane_proto::types::NetworkName;
use tokio::sync::watch;

use crate::dns::{self, Askers, DnsSockets, View};
use crate::host::Effective;
use crate::workload::Context;

/// When a socket that could not be made is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Serves every network that this host carries, as they come and go.
pub(crate) async fn run(context: Arc<Context>) {
    let mut networks = context.host.views.networks.clone();
    let mut serving: BTreeMap<NetworkName, Task> = BTreeMap::new();
    loop {
        let current = networks.borrow_and_update().clone();
        let gone: Vec<_> = serving.keys().filter(|name| !current.contains_key(name)).cloned().collect();
        for name in gone {
            serving.remove(&name);
            if let Err(error) = context.held.remove(&key(&name)) {
                tracing::error!(%error, network = %name, "cannot let go of the gateway's DNS sockets");
            }
            context.dns_metrics.remove(&name);
        }
        for (name, effective) in current {
            let context = context.clone();
            serving
                .entry(name.clone())
                .or_insert_with(|| task::spawn("gateway-dns", serve(context, name, effective)));
        }
        if networks.changed().await.is_err() {
            return;
        }
    }
}

fn key(network: &NetworkName) -> String {
    format!("gateway/{network}")
}

async fn serve(context: Arc<Context>, network: NetworkName, mut effective: watch::Receiver<Arc<Effective>>) {
    let gateway = effective.borrow().snapshot.network.subnet.gateway().to_ipv4();
    let sockets = loop {
        match sockets(&context, &network, gateway) {
            Ok(sockets) => break sockets,
            Err(error) => {
                tracing::error!(%error, %network, "cannot serve DNS at the gateway address, trying again")
            }
        }
        tokio::time::sleep(RETRY).await;
    };
    let view = Arc::new(ArcSwap::from_pointee(view(&effective.borrow_and_update())));
    let metrics = context.dns_metrics.network(&network);
    let _server = match dns::serve(sockets, view.clone(), context.forwarder.clone(), metrics, Askers::Many) {
        Ok(server) => server,
        Err(error) => {
            tracing::error!(%error, %network, "cannot serve DNS at the gateway address");
            return;
        }
    };
    while effective.changed().await.is_ok() {
        view.store(Arc::new(self::view(&effective.borrow_and_update())));
    }
}

/// Who asks here may have no sidecar: services answer with their instances.
fn view(effective: &Effective) -> View {
    View { zones: vec![effective.zone.clone()], balanced: false }
}

fn sockets(context: &Context, network: &NetworkName, gateway: Ipv4Addr) -> io::Result<DnsSockets> {
    let key = key(network);
    if context.held.copies(&key).is_none() {
        let netns = context.overlay.network_netns(network).map_err(io::Error::other)?;
        let made = context.hopper.run(&netns, move || DnsSockets::bind(gateway))??;
        context.held.put(&key, made.into()).map_err(io::Error::other)?;
    }
    let copies = context.held.copies(&key).ok_or_else(|| io::Error::other("too many open files"))?;
    copies.try_into().map_err(io::Error::other)
}
