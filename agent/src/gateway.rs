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
use crate::held::Held;
use crate::host::Effective;
use crate::overlay::Overlay;
use crate::workload::Context;

/// Interval at which the name of a network's namespace is looked after.
const LOOK: Duration = Duration::from_secs(1);
/// Pause before a socket that could not be made is tried again.
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
            for key in [key(&name), handle_key(&name)] {
                if let Err(error) = context.held.remove(&key) {
                    tracing::error!(%error, network = %name, "cannot let go of the gateway's descriptors");
                }
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

fn handle_key(network: &NetworkName) -> String {
    format!("netns/{network}")
}

/// Tells the overlay of the namespaces that an agent of before had keep hold.
pub(crate) fn recognise(networks: &[NetworkName], held: &Held, overlay: &Overlay) {
    for network in networks {
        if let Some(handle) = held.copies(&handle_key(network)).and_then(|mut found| found.pop()) {
            overlay.recognise(network, handle.into());
        }
    }
}

/// Has keep hold the network's namespace for the next agent, and binds it again whenever its name is removed.
async fn hold(context: &Context, network: &NetworkName) {
    let mut look = tokio::time::interval(LOOK);
    let mut held = false;
    loop {
        look.tick().await;
        if !held && let Ok(handle) = context.overlay.network_netns(network) {
            held = context.held.put(&handle_key(network), vec![handle.into()]).is_ok();
        }
        if let Err(error) = context.overlay.ensure_memory() {
            tracing::debug!(%error, "cannot write down again what the host is to get back");
        }
        match context.overlay.ensure_handle(network) {
            Ok(false) => {}
            Ok(true) => {
                tracing::warn!(%network, "the handle of the network's namespace was removed; bound again")
            }
            Err(error) => tracing::error!(%error, %network, "cannot bind the network's namespace again"),
        }
    }
}

async fn serve(context: Arc<Context>, network: NetworkName, mut effective: watch::Receiver<Arc<Effective>>) {
    let gateway = effective.borrow().snapshot.network.subnet.gateway().to_ipv4();
    let sockets = loop {
        match sockets(&context, &network, gateway) {
            Ok(sockets) => break sockets,
            // What cannot be set up has no gateway yet.
            Err(_) if effective.borrow().hindrance.is_some() => {}
            Err(error) => {
                tracing::error!(%error, %network, "cannot serve DNS at the gateway address, trying again")
            }
        }
        tokio::time::sleep(RETRY).await;
    };
    let view = Arc::new(ArcSwap::from_pointee(view(&effective.borrow_and_update())));
    let metrics = context.dns_metrics.network(&network);
    let forwarder = context.forwarder.clone();
    let _server = match dns::serve(sockets, view.clone(), forwarder, metrics, Askers::Many, None) {
        Ok(server) => server,
        Err(error) => {
            tracing::error!(%error, %network, "cannot serve DNS at the gateway address");
            return;
        }
    };
    let follow = async {
        while effective.changed().await.is_ok() {
            view.store(Arc::new(self::view(&effective.borrow_and_update())));
        }
    };
    tokio::select! {
        () = follow => {}
        () = hold(&context, &network) => {}
    }
}

/// Builds the view of askers at the gateway, who may have no sidecar: services answer with their instances.
fn view(effective: &Effective) -> View {
    View { zones: vec![effective.zone.clone()], own: Vec::new(), balanced: false }
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
