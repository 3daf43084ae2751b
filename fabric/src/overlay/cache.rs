//! Knowledge of one network that is kept between its passes, and the passes that use it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use sealane_base::task::{self, Task};
use sealane_proto::resource::{Network, NetworkSnapshot};
use sealane_proto::types::{MacAddr, Mtu, NodeName, OverlayIp, Subnet, UnderlayAddrs};
use sealane_sys::NetNs;
use tokio::sync::watch;

use super::announce::{self, Known};
use super::ears::SeatWatch;
use super::kernel::KernelAccess;
use super::look::Look;
use super::metrics::Metrics;
use super::pass::Pass;
use super::plan::{Base, Desired, Port};
use super::planned::Planned;
use super::settled::Settled;
use super::{Applied, OverlayError, Reason};
use crate::Attachment;
use crate::nft;

/// Knowledge that is kept of a network between passes: it makes announcements right, and saves a look at the rules.
#[derive(Debug, Default)]
pub(super) struct NetworkCache {
    pub(super) known: Known,
    pub(super) rules: nft::RulesCache,
    pub(super) settled: Option<Settled>,
    /// The desired state of the last pass, by which the next one's is found.
    pub(super) planned: Option<Planned>,
    /// Subnet of the last pass that got to its end: all workloads' interfaces have addresses of it.
    pub(super) subnet: Option<Subnet>,
    /// The least that other hosts allow, as they told.
    pub(super) told: Option<Mtu>,
    pub(super) announcing: Vec<Task>,
    /// The last look at everything, for who asked for it.
    pub(super) looked: watch::Sender<Look>,
    /// The task that listens in the network's namespace.
    pub(super) watch: Option<Task>,
    /// Watches over workloads, by the names of their ports.
    pub(super) seats: BTreeMap<String, SeatWatch>,
}

impl NetworkCache {
    /// Plans the kernel's state for a state of the network, by the plan before.
    pub(super) fn plan(
        &mut self,
        snapshot: &Arc<NetworkSnapshot>,
        here: (&NodeName, UnderlayAddrs),
        attachments: &[Attachment],
        mtu: u32,
    ) -> Desired {
        let planned = match self.planned.take() {
            Some(mut planned) => {
                planned.follow(snapshot.clone(), here, attachments, mtu);
                planned
            }
            None => Planned::new(snapshot.clone(), here, attachments, mtu),
        };
        self.planned.insert(planned).desired().clone()
    }

    /// Looks at everything, and mends it.
    pub(super) fn pass(
        &mut self,
        kernel: &KernelAccess,
        metrics: &Metrics,
        network: &Network,
        desired: &Desired,
        reason: Reason,
    ) -> Result<Applied, OverlayError> {
        let began = Instant::now();
        let settled = self.settled.take();
        let known = settled.is_some();
        let standing = settled.map_or_else(|| desired.clone(), |settled| settled.standing(desired));
        let mut pass = Pass::open(kernel, network)?;
        // A network that has grown is another one to each workload, also to those of which nothing else has changed.
        let has_grown = self.subnet.is_some_and(|subnet| subnet != desired.base.subnet);
        let outcome = pass.run(&standing, if has_grown { Reason::Audit } else { reason }, self);
        let is_coming = |port: &Port| !standing.ports.contains(port);
        pass.applied.unattached.extend(kernel.nowhere(&network.name, desired, is_coming));
        pass.settle_host_egress(&desired.base);
        if reason == Reason::Audit {
            metrics.count_drift(&format!("network {}", network.name), &pass.applied);
            let mended = outcome.is_err() || pass.applied.total() > 0;
            self.looked.send_replace(Look { took: began.elapsed(), mended });
        }
        self.settled = Settled::of(&pass, desired.clone(), outcome?);
        if let Some(settled) = self.settled.as_mut().filter(|_| known) {
            settled.miss(&standing);
        }
        self.subnet = Some(desired.base.subnet);
        Ok(pass.applied)
    }

    /// Gives a workload its port; what stands already is looked at only where nothing is known of it.
    pub(super) fn attach(
        &mut self,
        kernel: &KernelAccess,
        network: &Network,
        base: &Base,
        port: &Port,
        netns: &NetNs,
    ) -> Result<Applied, OverlayError> {
        let mut settled = self.settled.take();
        let (mut pass, devices) = match settled.as_ref().and_then(|settled| settled.devices(base)) {
            Some(devices) => (Pass::resume(kernel, network, &[&port.name])?, devices),
            None => {
                settled = None;
                let mut pass = Pass::open(kernel, network)?;
                let devices = pass.ensure_base(base, None, &mut self.rules)?;
                (pass, devices)
            }
        };
        pass.ensure_port(base, devices, port, netns, &mut self.rules)?;
        pass.ensure_rules_with(base, port, &mut self.rules)?;
        pass.ensure_port_row(base, port)?;
        if let Some(settled) = &mut settled {
            settled.enter(port.clone(), pass.index(&port.name)?);
        }
        self.settled = settled;
        Ok(pass.applied)
    }

    pub(super) fn announce(
        &mut self,
        kernel: Arc<KernelAccess>,
        network: &Network,
        carried: &Arc<Mutex<Self>>,
        changed: Vec<(OverlayIp, MacAddr)>,
    ) {
        self.announcing.retain(|task| !task.is_finished());
        if changed.is_empty() {
            return;
        }
        tracing::debug!(network = %network.name, addresses = changed.len(), "announcing changed MACs");
        let (path, carried) = (kernel.network_path(&network.name), Arc::downgrade(carried));
        let run = announce::run(kernel, path, carried, changed, network.subnet6);
        self.announcing.push(task::spawn_fallible("announce", run));
    }
}
