//! Overlay networks in the kernel: per network one namespace with a bridge, a VXLAN device and a port per local
//! workload.
//!
//! Everything is level-triggered: a pass reads what the kernel has, compares it with what it should have
//! ([`plan`], pure) and mends the difference with replace semantics. Safe to repeat, and after kill -9 at any
//! instruction: nothing is remembered that the next pass needs. Main type: [`Overlay`].

mod announce;
mod applied;
mod arrivals;
mod cache;
mod choice;
mod doubt;
mod drift;
mod ears;
mod echo;
mod egress;
mod error;
mod gate;
mod hearing;
mod kernel;
mod look;
mod mesh;
mod metrics;
mod narrow;
mod obstacle;
mod offer;
mod pass;
pub mod plan;
pub mod planned;
mod port;
pub mod preflight;
mod relocation;
mod rows;
mod rules;
mod settled;
mod shape;
mod tunnel;
mod underlay;
mod watch;
mod ways;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use sealane_base::mutex::lock;
use sealane_base::task;
use sealane_proto::resource::{Network, NetworkSnapshot};
use sealane_proto::types::{NetworkName, NodeName, UnderlayAddrs, WorkloadName};
use sealane_sys::hop::Hopper;
use sealane_sys::{NetNs, NetNsError, RunDir};

use crate::{Attachment, AttachmentId};
pub use applied::{Applied, Table};
pub use choice::{ParseChoiceError, UnderlayChoice, UnderlayChoices, is_of_one_host};
pub use ears::RulesWatch;
pub use echo::{EchoAddr, EchoDevice, EchoEar, EchoPeers};
pub use error::OverlayError;
pub use gate::remove_gate;
pub use narrow::{NarrowHosts, remove_narrow_ways};
pub use offer::InterfaceOffer;
pub use underlay::{Underlay, UnderlayError, narrow_remedy, overhead, source_towards};
pub use watch::HostError;

use cache::NetworkCache;
use ears::Ears;
use gate::HostGate;
use kernel::KernelAccess;
use metrics::Metrics;
use narrow::NarrowWays;
use plan::{Base, Port};

/// Places of the overlay on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayConfig {
    /// Run directory, whose `netns/` folder holds the handles of the namespaces.
    pub run_dir: RunDir,
    /// Addresses of this host on the network beneath at the start.
    pub underlay: UnderlayAddrs,
    /// The UDP port of the tunnels, the same on every host.
    pub vxlan_port: u16,
    /// The port of this host's metrics, and of others' most likely.
    pub metrics_port: u16,
    /// The TCP port at which hosts call each other.
    pub peer_port: u16,
}

/// Reason for a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Desired state changed: differences are expected.
    Change,
    /// Nothing changed: a difference is drift and counted as such.
    Audit,
}

/// The overlay networks of one host.
#[derive(Debug)]
pub struct Overlay {
    kernel: Arc<KernelAccess>,
    carried: Mutex<HashMap<NetworkName, Arc<Mutex<NetworkCache>>>>,
    metrics: Metrics,
    ears: Arc<Ears>,
}

/// The overlay could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The namespace of the caller cannot be opened.
    #[error(transparent)]
    Namespace(#[from] NetNsError),
    /// The series are registered already.
    #[error("cannot register the overlay's metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Overlay {
    /// The overlay of the host whose network namespace the calling thread is in.
    ///
    /// # Errors
    /// When that namespace cannot be opened, or `registry` has an overlay's series already.
    pub fn new(
        config: OverlayConfig,
        hopper: Arc<Hopper>,
        registry: &prometheus::Registry,
    ) -> Result<Self, StartError> {
        let host = NetNs::current()?;
        let metrics = Metrics::new(registry)?;
        let gate = Mutex::new(HostGate::new(&config.run_dir, config.vxlan_port));
        let underlay = tokio::sync::watch::Sender::new(config.underlay);
        let narrow = Mutex::new(NarrowWays::new(&config.run_dir, config.vxlan_port));
        let kernel = Arc::new(KernelAccess {
            config,
            metrics: metrics.clone(),
            underlay,
            hopper,
            host,
            egress: Mutex::default(),
            links: Mutex::default(),
            gate,
            control: Mutex::default(),
            ways: Mutex::default(),
            handles: Mutex::default(),
            echo: Mutex::default(),
            echoed: Mutex::default(),
            narrow,
            obstacles: Default::default(),
        });
        let ears = Arc::new(Ears::new(kernel.clone(), metrics.clone()));
        Ok(Self { kernel, carried: Mutex::default(), metrics, ears })
    }

    /// Brings the kernel to the snapshot's state: by a whole pass, or, where a change follows one, by what that changes.
    /// `local` is every workload of this host that has a port or
    /// shall have one: others' ports are removed, missing ones are made again where the workload's namespace
    /// is bound at [`Overlay::workload_path`].
    ///
    /// # Errors
    /// With the first thing that could not be mended; the next pass takes up the rest.
    ///
    /// # Cancel safety
    /// A pass that has begun runs to its end; the next one waits for it.
    pub async fn ensure_network(
        &self,
        snapshot: &Arc<NetworkSnapshot>,
        node: &NodeName,
        attachments: &[Attachment],
        reason: Reason,
    ) -> Result<Applied, OverlayError> {
        let (kernel, metrics, ears) = (self.kernel.clone(), self.metrics.clone(), self.ears.clone());
        let carried = self.carried(&snapshot.network.name);
        let (snapshot, node, attachments) = (snapshot.clone(), node.clone(), attachments.to_vec());
        blocking(move || {
            let mut guard = lock(&carried);
            let started = Instant::now();
            if reason == Reason::Audit {
                ears.settle(&snapshot.network.name);
            }
            let (snapshot, shared) = underlay::without_shared(snapshot, kernel.beneath());
            let here = (&node, kernel.underlay());
            kernel.note_peers(&snapshot.network.name, plan::carriers(&snapshot, here));
            guard.told = ways::least_told(&snapshot);
            let mtu = kernel.mtu(&snapshot.network, guard.told)?;
            let desired = guard.plan(&snapshot, here, &attachments, mtu);
            kernel.admit_carriers(&snapshot.network, &desired)?;
            // The neighbours of a pass that got to its end are known.
            let before = guard.settled.as_ref().map(|settled| settled.desired.neighbours.clone());
            // Also before a look: what is new is no drift.
            let mut applied = match guard.advance(&kernel, &snapshot, &desired) {
                Some(applied) if reason == Reason::Change => applied,
                Some(_) | None => guard.pass(&kernel, &metrics, &snapshot.network, &desired, reason)?,
            };
            ears.attend(&mut guard, &carried);
            applied.too_long = kernel.too_long(&snapshot.network);
            applied.refused_rows = applied.refused_rows.or(shared);
            metrics.observe(&snapshot.network.name, &desired, started.elapsed().as_secs_f64());
            let changed = guard.known.observe(announce::visible(&desired, &before.unwrap_or_default()));
            guard.announce(kernel, &snapshot.network, &carried, changed);
            Ok(applied)
        })
        .await
    }

    /// Gives the workload in `netns` its interface, before or without a full pass; makes the network's own
    /// devices where they are missing.
    ///
    /// # Errors
    /// [`OverlayError::InterfaceTaken`] when the namespace has another interface of that name.
    ///
    /// # Cancel safety
    /// As [`Overlay::ensure_network`].
    pub async fn ensure_workload(
        &self,
        network: &Network,
        attachment: &Attachment,
        netns: &NetNs,
    ) -> Result<Applied, OverlayError> {
        let (kernel, ears, netns) = (self.kernel.clone(), self.ears.clone(), netns.try_clone()?);
        let carried = self.carried(&network.name);
        let (network, port) = (network.clone(), Port::of(attachment));
        blocking(move || {
            let mut guard = lock(&carried);
            let base = Base::of(&network, kernel.mtu(&network, guard.told)?);
            kernel.close_to_strangers(&network)?;
            ears.attend_seat(&mut guard, &carried, &network.name, port.name.clone(), &netns);
            let applied = guard.attach(&kernel, &network, &base, &port, &netns)?;
            let changed = guard.known.observe([(port.address, port.mac)]);
            guard.announce(kernel, &network, &carried, changed);
            Ok(applied)
        })
        .await
    }

    /// Takes the workload's interface away. One that is gone already is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove_workload(
        &self,
        network: &NetworkName,
        workload: &WorkloadName,
    ) -> Result<(), OverlayError> {
        let (kernel, carried) = (self.kernel.clone(), self.carried(network));
        let (path, name) = (self.network_path(network), plan::port_name(workload));
        let id = AttachmentId { network: network.clone(), workload: workload.clone() };
        blocking(move || {
            let mut guard = lock(&carried);
            guard.seats.remove(&name);
            kernel.obstacles.forget(&id);
            if let Some(settled) = &mut guard.settled {
                settled.leave(&name);
            }
            pass::remove_link(&kernel, &path, &name)
        })
        .await
    }

    /// Takes the network off this host: first its devices, so that its VNI is free at once, then the handle of
    /// its namespace. Sockets that the caller has in it keep the empty namespace alive until they are closed.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove_network(&self, network: &NetworkName) -> Result<(), OverlayError> {
        let (kernel, carried) = (self.kernel.clone(), self.carried(network));
        let (path, name) = (self.network_path(network), network.clone());
        blocking(move || {
            let mut guard = lock(&carried);
            guard.announcing.clear();
            (guard.settled, guard.planned, guard.watch) = (None, None, None);
            guard.seats.clear();
            kernel.obstacles.forget_network(&name);
            if let Some(handle) = lock(&kernel.handles).get(&name) {
                handle.bind_at(&path)?;
            }
            pass::remove_links(&kernel, &path, |link| link.kind.is_some())?;
            // Its devices are gone: whatever comes for it now is nobody's.
            kernel.forget_carriers(|kept| *kept != name)?;
            kernel.forget_peers(&name);
            if let Err(error) = kernel.release_host_egress() {
                tracing::error!(%error, "cannot take back what egress needed of the host");
            }
            lock(&kernel.handles).remove(&name);
            Ok(NetNs::remove_at(&path)?)
        })
        .await?;
        self.metrics.forget(network);
        lock(&self.carried).remove(network);
        Ok(())
    }

    /// Counts the rules of `workload` that somebody changed and that were mended.
    pub fn count_rules_drift(&self, workload: &dyn std::fmt::Display) {
        self.metrics.count_one(&format!("workload {workload}"), Table::Rules);
    }

    /// Counts a workload's handle that was made again, and has its network looked at as a whole: a port that was gone meanwhile can be
    /// made again only by it.
    pub fn handle_drifted(&self, network: &NetworkName, workload: &dyn std::fmt::Display) {
        self.metrics.count_one(&format!("workload {workload}"), Table::Handle);
        self.ears.doubt([network.clone()]);
    }

    /// Tells when another program changes rules in `netns`, the namespace of a workload.
    ///
    /// # Errors
    /// At the limit of open files.
    pub fn rules_watch(&self, netns: &NetNs) -> io::Result<RulesWatch> {
        self.ears.rules_in(netns)
    }

    /// Describes the workloads whose namespaces do not let this host mend them, a sentence each.
    #[must_use]
    pub fn obstacles(&self) -> Vec<String> {
        self.kernel.obstacles.sentences()
    }

    /// Counts the sockets of the sidecar of `workload` that somebody closed and that were made again.
    pub fn count_listener_drift(&self, workload: &dyn std::fmt::Display) {
        self.metrics.count_one(&format!("workload {workload}"), Table::Listener);
    }

    /// Describes changes by others that were mended lately, a sentence each.
    #[must_use]
    pub fn recent_drift(&self) -> Vec<String> {
        self.metrics.recent.sentences(false, Instant::now())
    }

    /// Describes changes that others make again and again, a sentence each.
    #[must_use]
    pub fn lasting_drift(&self) -> Vec<String> {
        self.metrics.recent.sentences(true, Instant::now())
    }

    /// The namespace of a network that this host carries.
    ///
    /// # Errors
    /// When it was not made yet.
    pub fn network_netns(&self, network: &NetworkName) -> Result<NetNs, NetNsError> {
        let path = self.network_path(network);
        match lock(&self.kernel.handles).get(network) {
            Some(known) => known.try_clone().map_err(|source| NetNsError::Open { path, source }),
            None => NetNs::open(path),
        }
    }

    /// `handle` is the namespace of a network that an agent of before made, whatever is bound in its place by now.
    pub fn recognise(&self, network: &NetworkName, handle: NetNs) {
        lock(&self.kernel.handles).insert(network.clone(), handle);
    }

    /// Binds the network's namespace again where somebody removed its name; answers whether that was so.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub fn ensure_handle(&self, network: &NetworkName) -> Result<bool, NetNsError> {
        let path = self.network_path(network);
        let handles = lock(&self.kernel.handles);
        let rebind = |known: &NetNs| self.kernel.rebind(known, &path, || format!("network {network}"));
        handles.get(network).map_or(Ok(false), rebind)
    }

    /// Writes down again what the host is to get back when the last network goes, if somebody has removed it.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn ensure_memory(&self) -> io::Result<()> {
        match self.kernel.egress.try_lock() {
            Ok(egress) => egress.remember(&self.kernel.config.run_dir),
            // Somebody is about to look at it.
            Err(_) => Ok(()),
        }
    }

    /// Returns the path at which the network's namespace is bound.
    #[must_use]
    pub fn network_path(&self, network: &NetworkName) -> PathBuf {
        self.kernel.network_path(network)
    }

    /// Returns the path at which the namespace of a workload is looked for when its port is missing.
    #[must_use]
    pub fn workload_path(&self, network: &NetworkName, workload: &WorkloadName) -> PathBuf {
        self.kernel.workload_path(network, workload)
    }

    /// The networks whose namespaces are on this host, wanted or not: what an agent finds after kill -9.
    ///
    /// # Errors
    /// When the folder is there but cannot be read.
    pub fn networks_on_disk(&self) -> io::Result<Vec<NetworkName>> {
        self.kernel.networks_on_disk()
    }

    fn carried(&self, network: &NetworkName) -> Arc<Mutex<NetworkCache>> {
        lock(&self.carried).entry(network.clone()).or_default().clone()
    }
}

/// Runs work that waits for the kernel away from the event loop.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OverlayError> + Send + 'static,
) -> Result<T, OverlayError> {
    task::blocking(work).await?
}
