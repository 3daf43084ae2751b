//! The way to the kernel, and where on disk the namespaces of networks and workloads are held.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use sealane_base::disk;
use sealane_proto::types::{NetworkName, UnderlayAddrs, WorkloadName};
use sealane_sys::hop::Hopper;
use sealane_sys::{NetNs, NetNsError, RunDir};
use tokio::sync::watch;

use super::applied::Table;
use super::gate::HostGate;
use super::metrics::Metrics;
use super::narrow::NarrowWays;
use super::obstacle::Obstacles;
use super::ways::Ways;
use super::{OverlayConfig, lock};

/// Handles by which the kernel is reached.
#[derive(Debug)]
pub(super) struct KernelAccess {
    pub(super) config: OverlayConfig,
    pub(super) metrics: Metrics,
    /// Underlay addresses of this host as they are now.
    pub(super) underlay: watch::Sender<UnderlayAddrs>,
    pub(super) hopper: Arc<Hopper>,
    /// Namespace of the underlay: the outer sockets of the VXLAN devices live there.
    pub(super) host: NetNs,
    /// Settings that the host needs so that packets of its networks leave.
    pub(super) egress: Mutex<crate::egress::HostEgress>,
    /// Held while addresses of a way out are chosen.
    pub(super) links: Mutex<()>,
    /// Gate of its networks' senders.
    pub(super) gate: Mutex<HostGate>,
    /// Addresses of control, as far as this host knows.
    pub(super) control: Mutex<BTreeSet<SocketAddr>>,
    /// Sizes of packets to the other hosts.
    pub(super) ways: Mutex<Ways>,
    /// The networks' namespaces: whoever removes a handle's name removes nothing else.
    pub(super) handles: Mutex<HashMap<NetworkName, NetNs>>,
    /// Workloads that cannot be mended.
    pub(super) obstacles: Obstacles,
    /// Ways to other hosts that take shorter packets than their devices.
    pub(super) narrow: Mutex<NarrowWays>,
    /// Namespace of the echo device, while there is one.
    pub(super) echo: Mutex<Option<NetNs>>,
    /// Underlay addresses by which echo devices were looked at last: what a move makes wrong is nobody's doing.
    pub(super) echoed: Mutex<Option<UnderlayAddrs>>,
}

impl KernelAccess {
    pub(super) fn networks_on_disk(&self) -> io::Result<Vec<NetworkName>> {
        let entries = disk::listed(&self.config.run_dir.namespaces())?;
        let names = entries.iter().filter_map(|path| RunDir::network_of(path.file_name()?.to_str()?));
        let mut networks: Vec<NetworkName> = names.filter_map(|name| name.parse().ok()).collect();
        networks.sort();
        Ok(networks)
    }

    pub(super) fn network_path(&self, network: &NetworkName) -> PathBuf {
        self.config.run_dir.network_namespace(network.as_str())
    }

    pub(super) fn workload_path(&self, network: &NetworkName, workload: &WorkloadName) -> PathBuf {
        self.config.run_dir.workload_namespace(&format!("{network}.{workload}"))
    }

    /// Binds a namespace of this agent's again where somebody removed its name, and counts that; answers whether it was so.
    pub(super) fn rebind(
        &self,
        known: &NetNs,
        path: &Path,
        whose: impl Fn() -> String,
    ) -> Result<bool, NetNsError> {
        if known.is_bound_at(path) {
            return Ok(false);
        }
        known.bind_at(path)?;
        self.metrics.count_one(&whose(), Table::Handle);
        Ok(true)
    }

    /// The network's namespace: known, or found where it is bound, or made. It is bound there afterwards.
    pub(super) fn ensure_netns(&self, network: &NetworkName) -> Result<NetNs, NetNsError> {
        let path = self.network_path(network);
        let mut handles = lock(&self.handles);
        if let Some(known) = handles.get(network) {
            self.rebind(known, &path, || format!("network {network}"))?;
            return known.try_clone().map_err(|source| NetNsError::Open { path, source });
        }
        let found = NetNs::ensure_at(&path)?;
        let handle = found.try_clone().map_err(|source| NetNsError::Open { path, source })?;
        handles.insert(network.clone(), handle);
        Ok(found)
    }
}
