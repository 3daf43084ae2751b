//! Ears of this host in the namespaces of networks and workloads: two sockets each, and a task that follows what they hear.
//!
//! Each namespace has a pace of its own, so that whoever changes one all the time holds up no other. Looks into workloads take turns
//! besides, and a bounded share of a processor's time together.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use sealane_base::task::{self, Task};
use sealane_proto::types::NetworkName;
use sealane_sys::NetNs;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, sleep_until, timeout};

use super::look::{Told, Verdict, timed};
use super::metrics::Metrics;
use super::{KernelAccess, NetworkCache, OverlayError, lock};
use crate::netlink::Ear;
use crate::pace::LookPace;

/// Time within which changes count as one.
const TOGETHER: Duration = Duration::from_millis(50);
/// Time that a runtime has to say why it took an interface away.
const GRACE: Duration = Duration::from_secs(1);
/// The longest time that a pass is waited for which was asked for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Rest after looks into workloads, as a multiple of their time: all of them together take a fifth of a processor at most.
const SHARE: u32 = 4;
/// Bytes of a network's notices that are kept: those of some 10,000 rows that a pass sets.
const OF_NETWORK: usize = 8 << 20;
/// The same of a workload's namespace, where whoever likes may change something all the time.
const OF_WORKLOAD: usize = 32 << 10;
/// Notices of a workload's namespace that are taken at once.
const MOST: usize = 1_024;
/// Looks at changed rules rest for so many times as long as it takes to hear of them.
const REST: u32 = 10;

/// The ears of this host.
#[derive(Debug)]
pub(super) struct Ears {
    kernel: Arc<KernelAccess>,
    metrics: Metrics,
    /// Networks that are to be looked at as a whole.
    pub(super) doubted: watch::Sender<BTreeSet<NetworkName>>,
    /// Ears in workloads' namespaces by inode: several networks may share one.
    workloads: Mutex<HashMap<u64, Weak<WorkloadEar>>>,
    turns: Semaphore,
}

/// An ear in the namespace of a workload. Dropping it ends its task and closes its sockets.
#[derive(Debug)]
struct WorkloadEar {
    shared: Arc<Shared>,
    _task: Task,
}

#[derive(Debug)]
struct Shared {
    inode: u64,
    seats: Mutex<Vec<Seat>>,
    /// Counts times at which another program has changed rules.
    rules: watch::Sender<u64>,
}

/// A port whose workload is in a namespace.
#[derive(Clone, Debug)]
struct Seat {
    network: NetworkName,
    port: String,
    carried: Weak<Mutex<NetworkCache>>,
}

/// Watch over one port's workload, until it is dropped.
#[derive(Debug)]
pub(super) struct SeatWatch {
    ear: Arc<WorkloadEar>,
    network: NetworkName,
    port: String,
}

/// Tells when another program has changed rules in a workload's namespace.
#[derive(Debug)]
pub struct RulesWatch {
    _ear: Arc<WorkloadEar>,
    told: watch::Receiver<u64>,
}

impl Ears {
    pub(super) fn new(kernel: Arc<KernelAccess>, metrics: Metrics) -> Self {
        Self {
            kernel,
            metrics,
            doubted: watch::Sender::default(),
            workloads: Mutex::default(),
            turns: Semaphore::new(1),
        }
    }

    /// These networks are to be looked at as a whole.
    pub(super) fn doubt(&self, networks: impl IntoIterator<Item = NetworkName>) {
        self.doubted.send_modify(|doubted| doubted.extend(networks));
    }

    /// A look at the whole network begins.
    pub(super) fn settle(&self, network: &NetworkName) {
        self.doubted.send_if_modified(|doubted| {
            doubted.remove(network);
            false
        });
    }

    /// Listens in the namespaces of a network that stands, and of its workloads.
    pub(super) fn attend(self: &Arc<Self>, cache: &mut NetworkCache, carried: &Arc<Mutex<NetworkCache>>) {
        let Some(settled) = &cache.settled else { return };
        let network = settled.network.name.clone();
        let ports =
            settled.ports.iter().map(|(name, standing)| (name.clone(), standing.port.workload.clone()));
        let ports: HashMap<String, _> = ports.collect();
        let obstructed = settled.obstructed.clone();
        cache.seats.retain(|name, _| ports.contains_key(name) || obstructed.contains(name));
        if cache.watch.as_ref().is_none_or(Task::is_finished) {
            cache.watch = self.watch_network(&network, carried);
        }
        for (port, workload) in ports {
            if !cache.seats.contains_key(&port)
                && let Ok(netns) = NetNs::open(self.kernel.workload_path(&network, &workload))
            {
                self.attend_seat(cache, carried, &network, port, &netns);
            }
        }
    }

    /// Listens in the namespace of a port's workload.
    pub(super) fn attend_seat(
        self: &Arc<Self>,
        cache: &mut NetworkCache,
        carried: &Arc<Mutex<NetworkCache>>,
        network: &NetworkName,
        port: String,
        netns: &NetNs,
    ) {
        match self.ear_in(netns) {
            Ok(ear) => {
                // One that was there takes its seat along.
                drop(cache.seats.remove(&port));
                let (network, carried) = (network.clone(), Arc::downgrade(carried));
                let seat = Seat { network: network.clone(), port: port.clone(), carried };
                lock(&ear.shared.seats).push(seat);
                cache.seats.insert(port.clone(), SeatWatch { ear, network, port });
            }
            Err(error) => complain(&error, &format!("the workload of port {port} of network {network}")),
        }
    }

    /// Tells when another program changes rules in `netns`, the namespace of a workload.
    pub(super) fn rules_in(self: &Arc<Self>, netns: &NetNs) -> io::Result<RulesWatch> {
        let ear = self.ear_in(netns)?;
        let told = ear.shared.rules.subscribe();
        Ok(RulesWatch { _ear: ear, told })
    }

    /// The one ear in this namespace.
    fn ear_in(self: &Arc<Self>, netns: &NetNs) -> io::Result<Arc<WorkloadEar>> {
        let inode = netns.inode()?;
        let mut workloads = lock(&self.workloads);
        if let Some(known) = workloads.get(&inode).and_then(Weak::upgrade) {
            return Ok(known);
        }
        workloads.retain(|_, ear| ear.strong_count() > 0);
        let ear = Arc::new(Ear::open(&self.kernel.hopper, netns, OF_WORKLOAD)?);
        let shared = Arc::new(Shared { inode, seats: Mutex::default(), rules: watch::Sender::default() });
        let (ears, seats, rules_ear) = (self.clone(), shared.clone(), ear.clone());
        let follow = async move {
            let network = follow_workload(&ears, &seats, &ear);
            tokio::try_join!(network, follow_rules(&seats, &rules_ear)).map(drop)
        };
        let task = task::spawn_fallible("workload-ear", follow);
        let ear = Arc::new(WorkloadEar { shared, _task: task });
        workloads.insert(inode, Arc::downgrade(&ear));
        Ok(ear)
    }

    fn watch_network(
        self: &Arc<Self>,
        network: &NetworkName,
        carried: &Arc<Mutex<NetworkCache>>,
    ) -> Option<Task> {
        let ear = self.kernel.ensure_netns(network).map_err(io::Error::other);
        let ear = ear.and_then(|netns| Ear::open(&self.kernel.hopper, &netns, OF_NETWORK));
        match ear {
            Ok(ear) => {
                let follow = follow_network(self.clone(), network.clone(), Arc::downgrade(carried), ear);
                Some(task::spawn_fallible("network-ear", follow))
            }
            Err(error) => {
                complain(&error, &format!("network {network}"));
                None
            }
        }
    }

    /// Looks at what was told of a workload's namespace; answers what comes next, and how long it took.
    fn look(&self, shared: &Shared, ear: &Ear, waited: bool) -> io::Result<Round> {
        let (mut notices, mut round) = (Vec::new(), Round::default());
        let (lost, took) = timed(|| ear.drain_network(MOST, |notice| notices.push(notice)));
        round.took = took;
        let told = Told { notices, lost: lost?, waited, inode: shared.inode };
        let seats = lock(&shared.seats).clone();
        for seat in seats {
            let Some(carried) = seat.carried.upgrade() else { continue };
            let mut cache = lock(&carried);
            let heard = || cache.hear_inside((&self.kernel, &self.metrics), &seat.port, &told);
            let (heard, took) = timed(heard);
            round.took += took;
            match heard {
                Ok(Verdict::Right) => {}
                Ok(Verdict::Wrong) => round.mended = true,
                Ok(Verdict::Taken) => round.waits = true,
                Ok(Verdict::Obstructed) => {
                    round.mended = true;
                    self.doubt([seat.network]);
                }
                Err(error) => {
                    round.mended = true;
                    tracing::debug!(%error, network = %seat.network, "a network is looked at as a whole");
                    self.doubt([seat.network]);
                }
            }
        }
        Ok(round)
    }
}

/// Outcome of a look at a workload's namespace.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    took: Duration,
    /// True if there was something to mend, or to fail at.
    mended: bool,
    /// True if something is to be looked at again.
    waits: bool,
}

impl RulesWatch {
    /// Waits until another program than this one has changed rules since the last time. The kernel says whose thread it was.
    /// Never returns once the sockets have failed.
    ///
    /// # Cancel safety
    /// Nothing that was told is lost but when this has returned.
    pub async fn changed_by_others(&mut self) {
        if self.told.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl Drop for SeatWatch {
    fn drop(&mut self) {
        let is_own = |seat: &Seat| seat.network == self.network && seat.port == self.port;
        lock(&self.ear.shared.seats).retain(|seat| !is_own(seat));
    }
}

fn complain(error: &io::Error, place: &str) {
    tracing::warn!(%error, "changes that others make to {place} are found once a minute only");
}

/// Follows what is told of a network's namespace, as long as it is carried.
async fn follow_network(
    ears: Arc<Ears>,
    network: NetworkName,
    carried: Weak<Mutex<NetworkCache>>,
    ear: Ear,
) -> Result<(), OverlayError> {
    let (mut pace, mut taken) = (LookPace::new(Instant::now()), BTreeSet::new());
    let ear = Arc::new(ear);
    loop {
        if taken.is_empty() {
            tokio::select! {
                told = ear.network_told() => told?,
                told = ear.rules_told() => told?,
            }
            sleep(TOGETHER).await;
        } else {
            sleep(GRACE).await;
        }
        sleep_until(pace.earliest().into()).await;
        let Some(carried) = carried.upgrade() else { return Ok(()) };
        let (kernel, own_ear, mut waited) = (ears.kernel.clone(), ear.clone(), std::mem::take(&mut taken));
        let round = task::blocking(move || {
            let cache = lock(&carried);
            let looked = cache.looked.subscribe();
            let (verdict, took) = timed(|| cache.hear(&kernel, &own_ear, &mut waited));
            (verdict, took, waited, looked)
        });
        let (verdict, took, left, mut looked) = round.await?;
        taken = left;
        match verdict {
            Ok(Verdict::Right | Verdict::Taken) => pace.handle_look(took, false, Instant::now()),
            Ok(Verdict::Wrong | Verdict::Obstructed) => {
                taken.clear();
                ears.metrics.count_look("network");
                ears.doubt([network.clone()]);
                let look = match timeout(PATIENCE, looked.changed()).await {
                    Ok(Ok(())) => *looked.borrow(),
                    Ok(Err(_)) => return Ok(()),
                    Err(_) => super::look::Look { took, mended: true },
                };
                pace.handle_look(look.took, look.mended, Instant::now());
            }
            Err(error) => {
                tracing::debug!(%error, %network, "what was told of a network cannot be compared");
                ears.doubt([network.clone()]);
                pace.handle_look(took, true, Instant::now());
            }
        }
    }
}

/// Follows what is told of links, addresses and routes of a workload's namespace, for ever.
async fn follow_workload(ears: &Arc<Ears>, shared: &Arc<Shared>, ear: &Arc<Ear>) -> io::Result<()> {
    let (mut pace, mut waits) = (LookPace::new(Instant::now()), false);
    loop {
        if waits {
            sleep(GRACE).await;
        } else {
            ear.network_told().await?;
            sleep(TOGETHER).await;
        }
        sleep_until(pace.earliest().into()).await;
        // Nobody closes it.
        let _turn = ears.turns.acquire().await;
        let (own_ears, own, own_ear) = (ears.clone(), shared.clone(), ear.clone());
        let round = task::blocking(move || own_ears.look(&own, &own_ear, waits)).await??;
        pace.handle_look(round.took, round.mended, Instant::now());
        waits = round.waits;
        sleep(round.took * SHARE).await;
    }
}

/// Passes on what is told of rules of a workload's namespace, for ever.
async fn follow_rules(shared: &Shared, ear: &Ear) -> io::Result<()> {
    loop {
        ear.rules_told().await?;
        sleep(TOGETHER).await;
        let (heard, took) = timed(|| ear.drain_rules(MOST));
        let heard = heard?;
        if heard.rules || heard.lost {
            shared.rules.send_modify(|times| *times += 1);
        }
        sleep(took * REST).await;
    }
}
