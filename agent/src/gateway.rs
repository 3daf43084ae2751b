//! DNS at every network's gateway address, for workloads that were not attached by this agent's `run`.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use sealane_base::task::{self, Task};
use sealane_fabric::overlay::Overlay;
use sealane_proto::types::NetworkName;
use tokio::sync::watch;

use crate::dns::{Askers, DnsSockets, NameService, NameView};
use crate::host::{HostHandle, HostNetwork};
use crate::keeper::Keeper;
use crate::kernel::KernelHandle;

/// Interval at which the name of a network's namespace is looked after.
const LOOK: Duration = Duration::from_secs(1);
/// Pause before a socket that could not be made is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Serves every network that this host carries, as they come and go.
pub(crate) async fn run(host: HostHandle, kernel: KernelHandle, names: NameService) {
    let mut networks = host.views.networks.clone();
    let mut serving: BTreeMap<NetworkName, Task> = BTreeMap::new();
    loop {
        let current = networks.borrow_and_update().clone();
        let gone: Vec<_> = serving.keys().filter(|name| !current.contains_key(name)).cloned().collect();
        for name in gone {
            serving.remove(&name);
            for key in [key(&name), handle_key(&name)] {
                if let Err(error) = kernel.keeper.remove(&key) {
                    tracing::error!(%error, network = %name, "cannot let go of the gateway's descriptors");
                }
            }
            names.metrics.remove(&name);
        }
        for (name, host_network) in current {
            let (kernel, names) = (kernel.clone(), names.clone());
            serving
                .entry(name.clone())
                .or_insert_with(|| task::spawn("gateway-dns", serve(kernel, names, name, host_network)));
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
pub(crate) fn recognise(networks: &[NetworkName], keeper: &Keeper, overlay: &Overlay) {
    for network in networks {
        if let Some(handle) = keeper.copies(&handle_key(network)).and_then(|mut found| found.pop()) {
            overlay.recognise(network, handle.into());
        }
    }
}

/// Has keep hold the network's namespace for the next agent, and binds it again whenever its name is removed.
async fn hold(kernel: &KernelHandle, network: &NetworkName) {
    let mut look = tokio::time::interval(LOOK);
    let mut held = false;
    loop {
        look.tick().await;
        if !held && let Ok(handle) = kernel.overlay.network_netns(network) {
            held = kernel.keeper.put(&handle_key(network), vec![handle.into()]).is_ok();
        }
        if let Err(error) = kernel.overlay.ensure_memory() {
            tracing::debug!(%error, "cannot write down again what the host is to get back");
        }
        match kernel.overlay.ensure_handle(network) {
            // What was bound again is counted and said there.
            Ok(_) => {}
            Err(error) => tracing::error!(%error, %network, "cannot bind the network's namespace again"),
        }
    }
}

async fn serve(
    kernel: KernelHandle,
    names: NameService,
    network: NetworkName,
    mut host_network: watch::Receiver<Arc<HostNetwork>>,
) {
    let gateway = host_network.borrow().snapshot.network.subnet.gateway().to_ipv4();
    let sockets = loop {
        match sockets(&kernel, &network, gateway) {
            Ok(sockets) => break sockets,
            // What cannot be set up has no gateway yet.
            Err(_) if host_network.borrow().hindrance.is_some() => {}
            Err(error) => {
                tracing::error!(%error, %network, "cannot serve DNS at the gateway address, trying again")
            }
        }
        tokio::time::sleep(RETRY).await;
    };
    let view = Arc::new(ArcSwap::from_pointee(view(&host_network.borrow_and_update())));
    let _server = match names.serve(&network, sockets, view.clone(), (Askers::Many, None)) {
        Ok(server) => server,
        Err(error) => {
            tracing::error!(%error, %network, "cannot serve DNS at the gateway address");
            return;
        }
    };
    let follow = async {
        while host_network.changed().await.is_ok() {
            view.store(Arc::new(self::view(&host_network.borrow_and_update())));
        }
    };
    tokio::select! {
        () = follow => {}
        () = hold(&kernel, &network) => {}
    }
}

/// Builds the view of askers at the gateway, who may have no sidecar: services answer with their instances.
fn view(host_network: &HostNetwork) -> NameView {
    NameView { zones: vec![host_network.zone.clone()], own: Vec::new(), balanced: false }
}

fn sockets(kernel: &KernelHandle, network: &NetworkName, gateway: Ipv4Addr) -> io::Result<DnsSockets> {
    let key = key(network);
    let kept = match kernel.keeper.copies(&key) {
        Some(kept) => kept,
        None => {
            let netns = kernel.overlay.network_netns(network).map_err(io::Error::other)?;
            kernel.kept(&netns, &key, move || DnsSockets::bind(gateway).map(Into::into))?
        }
    };
    kept.try_into().map_err(io::Error::other)
}
