//! Liveness of the hosts that share a network with this one: each is sent echoes over the way that their packets take, through
//! the port and the gate of every tunnel, and its kernel answers. Instances on a host that does not answer leave the names and
//! the balancing of this host's workloads.
//!
//! What follows from echoes and answers is decided by a pure core ([`core`]). This is the shell around it.

mod carried;
mod checksums;
mod core;
mod metrics;
mod show;
#[cfg(feature = "simulation")]
pub(crate) mod simulation;
mod ways;
mod words;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::pending;
use std::io;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use sealane_base::timer::sleep_until;
use sealane_fabric::netlink::{EchoRequest, EchoSocket};
use sealane_fabric::overlay::{EchoAddr, EchoDevice, EchoEar, EchoPeers, OverlayError, Reason, overhead};
use sealane_proto::client::CarriedNetworks;
pub(crate) use sealane_proto::peer::Reach;
use sealane_proto::types::{NodeName, UnderlayAddrs};
use tokio::sync::watch;

use crate::peer::HintEnd;
use crate::workload::Workloads;
use carried::{lengths_of, peers_of, watched_of};
use checksums::Checksums;
use core::{Echo, Lengths, LivenessCore, Watched};
pub(crate) use core::{PeerView, SAMPLE};
pub(crate) use metrics::LivenessMetrics;
pub(crate) use show::families;
use ways::Ways;
pub(crate) use words::ALONE;

/// Every peer as this host sees it.
pub(crate) type PeerViews = BTreeMap<NodeName, PeerView>;

/// Interval at which the device is compared with what it should be.
const AUDIT: Duration = Duration::from_secs(60);
/// Least time between two looks at the device, and interval at which views are shown.
const SECOND: Duration = Duration::from_secs(1);
/// Echoes that are sent by one call, and have the time of the first of them.
const TOGETHER: usize = 16;

/// Settings of the watch over other hosts.
pub(crate) struct Liveness {
    /// Workloads of this host, with the host and its kernel.
    pub(crate) workloads: Arc<Workloads>,
    /// Control's word on the networks that this host carries.
    pub(crate) carried: watch::Receiver<CarriedNetworks>,
    /// Time within which a dead host is to be known.
    pub(crate) timeout: Duration,
    /// The UDP port of tunnels, for words.
    pub(crate) port: u16,
    /// Every peer, shown at each verdict and each second.
    pub(crate) views: watch::Sender<Arc<PeerViews>>,
    /// Hints of peers that others have changed, and the channels' place for this host's own.
    pub(crate) hints: HintEnd,
    /// Counts.
    pub(crate) metrics: LivenessMetrics,
}

impl Liveness {
    /// Watches the others, until the agent ends.
    pub(crate) async fn run(self) {
        let (before, _) = peers_of(&self.carried.borrow(), self.workloads.node());
        let before = before.into_keys().map(|name| (name, Reach::Unknown)).collect();
        let core = LivenessCore::new(self.timeout, rand::random(), before, Instant::now());
        let own = self.workloads.kernel().overlay.underlay();
        let mut watch = Watch {
            liveness: self,
            own,
            core,
            peers: EchoPeers::new(),
            watched: BTreeMap::new(),
            lengths: BTreeMap::new(),
            ways: Ways::new(),
            checksums: Checksums::default(),
            device: EchoDevice::default(),
            names: HashMap::new(),
            socket: None,
            ear: None,
            held: None,
            look: None,
            wanted: None,
            looked: None,
            shown: Instant::now(),
            verdicts: 0,
            problem: None,
        };
        watch.ways.recall(&watch.liveness.workloads).await;
        watch.hold();
        watch.follow();
        watch.run().await;
    }
}

type Looked = Result<EchoDevice, OverlayError>;
/// Work under way.
type Work<T> = BoxFuture<'static, T>;

/// The watch under way.
struct Watch {
    liveness: Liveness,
    /// This host's underlay address, from which the device sends.
    own: watch::Receiver<UnderlayAddrs>,
    core: LivenessCore,
    /// The hosts that share a network with this one.
    peers: EchoPeers,
    watched: BTreeMap<NodeName, Watched>,
    /// Lengths of packets to them, as far as hosts have told how long those of their networks may be.
    lengths: BTreeMap<NodeName, Lengths>,
    /// The routes to those whose ways take less.
    ways: Ways,
    checksums: Checksums,
    /// The device as the last look has left it.
    device: EchoDevice,
    /// The peers by their addresses on the device.
    names: HashMap<Ipv6Addr, NodeName>,
    socket: Option<EchoSocket>,
    /// Hears of rules that others have changed where the device is.
    ear: Option<EchoEar>,
    /// Ends when this host, which has just been started, may be seen by others.
    held: Option<Work<()>>,
    /// A look at the device that is under way.
    look: Option<Work<Looked>>,
    /// Reason for the next one.
    wanted: Option<Reason>,
    /// Time of the last one.
    looked: Option<Instant>,
    shown: Instant,
    /// Verdicts that the host has been told of.
    verdicts: u64,
    /// Reason for which nobody is watched.
    problem: Option<String>,
}

impl Watch {
    async fn run(&mut self) {
        let mut audit = tokio::time::interval_at(tokio::time::Instant::now() + AUDIT, AUDIT);
        loop {
            self.begin_look();
            let due = self.core.poll_timeout();
            let waits = self.wanted.is_some() && self.look.is_none();
            let again = self.looked.filter(|_| waits).map(|looked| looked + SECOND);
            tokio::select! {
                changed = self.liveness.carried.changed() => match changed {
                    Ok(()) => self.follow(),
                    Err(_) => return,
                },
                Some((from, about)) = self.liveness.hints.0.recv() => {
                    self.liveness.metrics.count_hint_received();
                    self.core.handle_hint(&from, &about);
                }
                Ok(()) = self.own.changed() => self.follow_own(),
                looked = over(&mut self.look) => self.take(looked),
                () = over(&mut self.held) => {}
                changed = rules_changed(self.ear.as_ref()) => self.handle_rules(changed),
                put = over(&mut self.ways.putting) => self.ways.take(put, Instant::now()),
                _ = audit.tick() => self.wanted = self.wanted.or(Some(Reason::Audit)),
                () = sleep_until(due) => {}
                () = sleep_until(again) => {}
            }
            self.step().await;
        }
    }

    /// Others would take this host for what it was before the machine was started again, with all of its workloads: they see no device
    /// before they have heard what is left of them, or some time has passed.
    fn hold(&mut self) {
        let workloads = self.liveness.workloads.clone();
        if !workloads.kernel().overlay.has_echo() && !self.liveness.carried.borrow().is_empty() {
            self.held = Some(Box::pin(async move { workloads.have_told(SECOND).await }));
        }
    }

    /// Takes in that another program has changed rules in the namespace of echoes.
    fn handle_rules(&mut self, changed: io::Result<()>) {
        self.wanted = self.wanted.or(Some(Reason::Audit));
        if let Err(error) = changed {
            note_deaf(&error);
            self.ear = None;
        }
    }

    /// Takes in who shares a network with this host.
    fn follow(&mut self) {
        let own = self.liveness.workloads.node().clone();
        let carried = self.liveness.carried.borrow_and_update().clone();
        let (peers, taken) = peers_of(&carried, &own);
        self.watched = watched_of(&carried, &peers);
        self.lengths = lengths_of(&carried, *self.own.borrow());
        self.problem = taken.map(|network| words::taken(&network));
        if self.peers != peers {
            self.peers = peers;
            self.wanted = Some(Reason::Change);
            self.looked = None;
        }
        self.watch();
        self.complain();
    }

    /// Takes in where this host is: the device is another one, and ways to the others may be of another family.
    fn follow_own(&mut self) {
        (self.wanted, self.looked) = (Some(Reason::Change), None);
        self.lengths = lengths_of(&self.liveness.carried.borrow(), *self.own.borrow());
        self.core.handle_lengths(&self.lengths, Instant::now());
    }

    /// Has those peers watched that have an address on the device.
    fn watch(&mut self) {
        let known = self.watched.iter().filter(|(name, _)| self.device.peers.contains_key(*name));
        self.core.handle_peers(&known.map(|(name, watched)| (name.clone(), watched.clone())).collect());
        self.core.handle_lengths(&self.lengths, Instant::now());
    }

    /// Begins a look at the device, if one is wanted and the last one was not just now.
    fn begin_look(&mut self) {
        let rests = self.looked.is_some_and(|looked| looked.elapsed() < SECOND);
        if self.look.is_some() || self.held.is_some() || rests {
            return;
        }
        let Some(reason) = self.wanted.take() else { return };
        let workloads = self.liveness.workloads.clone();
        let peers = self.peers.clone();
        self.looked = Some(Instant::now());
        self.look = Some(Box::pin(async move {
            workloads.kernel().overlay.ensure_echo(workloads.node(), &peers, reason).await
        }));
    }

    fn take(&mut self, looked: Looked) {
        let device = match looked {
            Ok(device) => device,
            Err(error) => {
                self.problem = Some(words::blind(&error));
                self.wanted = self.wanted.or(Some(Reason::Change));
                return self.complain();
            }
        };
        if device.peers != self.device.peers {
            self.names = device.peers.iter().map(|(name, at)| (at.address, name.clone())).collect();
        }
        let is_new = device.peers.is_empty() == self.socket.is_some();
        let others = device.peers != self.device.peers;
        self.device = device;
        self.watch();
        if others {
            for (name, passes) in self.ways.remember(&self.device.peers) {
                self.core.handle_known(name, passes, Instant::now());
            }
        }
        if is_new {
            self.open();
        }
        if !self.device.peers.is_empty() && self.socket.is_some() {
            self.problem = None;
        }
        self.complain();
    }

    /// Opens the socket where there is a device, and closes it where there is none.
    fn open(&mut self) {
        self.checksums.renew();
        let opened = match self.device.peers.is_empty() {
            false => self.liveness.workloads.kernel().overlay.echo_socket(),
            true => Ok(None),
        };
        self.ear = self.liveness.workloads.kernel().overlay.echo_ear().unwrap_or_else(|error| {
            note_deaf(&error);
            None
        });
        self.socket = opened.unwrap_or_else(|error| {
            self.problem = Some(words::blind(&error));
            self.wanted = Some(Reason::Change);
            None
        });
    }

    fn reopen(&mut self, error: &io::Error) {
        tracing::warn!(%error, "the socket of echoes has failed, another one is opened");
        self.socket = None;
        self.wanted = Some(Reason::Audit);
    }

    /// Takes in the answers that have come.
    fn hear(&mut self) {
        let answers = self.socket.as_ref().map(EchoSocket::receive).transpose();
        let (answers, now) = match answers {
            Ok(answers) => (answers.unwrap_or_default(), Instant::now()),
            Err(error) => return self.reopen(&error),
        };
        for answer in answers {
            let at = now.checked_sub(answer.age).unwrap_or(now);
            if let Some(name) = self.names.get(&answer.from) {
                self.core.handle_answer(name, answer.token, at);
            }
        }
    }

    /// Hears all answers that are there, before anybody is found to owe one; sends what is due; says what is new.
    async fn step(&mut self) {
        let now = Instant::now();
        self.hear();
        self.core.handle_time(now);
        self.send();
        while let Some(hint) = self.core.poll_hint() {
            self.liveness.metrics.count_hint_sent();
            // One that is not taken is missed by nobody: others are told, too.
            let _ = self.liveness.hints.1.try_send(hint);
        }
        if self.core.is_in_doubt() {
            // It may be this host's own rows that somebody has removed.
            self.wanted = self.wanted.or(Some(Reason::Audit));
        }
        let place = |name| Some(self.device.peers.get(name)?.underlay.to_ip());
        let narrow = self.core.settled().filter_map(|(name, length)| Some((place(name)?, length)));
        self.ways.put(&self.liveness.workloads, narrow, now);
        let is_verdict = self.core.verdicts() != self.verdicts;
        if is_verdict {
            self.verdicts = self.core.verdicts();
            let (lost, returned) = self.core.take_changes();
            self.liveness.metrics.count_changes(lost, returned);
            self.judge().await;
        }
        if is_verdict || now >= self.shown + SECOND {
            self.shown = now;
            let (workloads, peers) = (&self.liveness.workloads, &self.device.peers);
            if self.checksums.step(workloads, (peers, &self.names), self.core.answering(), now) {
                self.checksums.find_devices(workloads, peers).await;
                self.complain();
            }
            self.liveness.views.send_replace(Arc::new(self.checksums.show(self.core.views())));
        }
    }

    /// Sends all echoes that are due.
    fn send(&mut self) {
        loop {
            let now = Instant::now();
            let echoes: Vec<Echo> = std::iter::from_fn(|| self.core.poll_echo(now)).take(TOGETHER).collect();
            if echoes.is_empty() {
                return;
            }
            for (echo, too_long) in self.send_together(echoes) {
                self.core.handle_unsent(&echo, too_long, now);
                if echo.length.is_none() {
                    self.wanted = self.wanted.or(Some(Reason::Audit));
                }
            }
        }
    }

    /// Sends these echoes; returns those that could not be sent, and whether that is as they are too long for their device.
    fn send_together(&self, echoes: Vec<Echo>) -> Vec<(Echo, bool)> {
        let Some(socket) = &self.socket else {
            return echoes.into_iter().map(|echo| (echo, false)).collect();
        };
        let request = |echo: &Echo| {
            let EchoAddr { address, device, underlay } = *self.device.peers.get(&echo.to)?;
            let length = echo.length.map_or(0, |length| length.saturating_sub(overhead(underlay.family())));
            let length = usize::try_from(length).ok()?;
            Some(EchoRequest { to: address, device, token: echo.token, length })
        };
        let (mut sent, mut requests, mut unsent) = (Vec::new(), Vec::new(), Vec::new());
        for echo in echoes {
            match request(&echo) {
                Some(request) => {
                    requests.push(request);
                    sent.push(echo);
                }
                None => unsent.push((echo, false)),
            }
        }
        let failed = socket.send(&requests);
        unsent.extend(
            failed.into_iter().filter_map(|echo| Some((sent.get(echo.place)?.clone(), echo.too_long))),
        );
        unsent
    }

    /// Tells the host which others cannot be reached, and people.
    async fn judge(&mut self) {
        let unreachable: BTreeSet<NodeName> = self.core.unreachable().cloned().collect();
        self.liveness.workloads.host().set_unreachable(unreachable).await;
        self.complain();
    }

    fn complain(&self) {
        let (all, port) = (self.device.peers.len(), self.liveness.port);
        let place = |name| Some((name, self.peers.get(name)?));
        let mut sentences =
            words::unreachable(&self.core.unreachable().filter_map(place).collect::<Vec<_>>(), all, port);
        sentences.extend(words::silent(self.core.silent().filter_map(place), port));
        let narrow = self
            .core
            .narrow()
            .filter_map(|(name, narrow)| Some(((name, self.device.peers.get(name)?.underlay), narrow)));
        sentences.extend(words::narrow(narrow));
        sentences.extend(self.ways.problem().map(|problem| ("liveness/ways".to_owned(), problem)));
        sentences.extend(self.checksums.sentences());
        sentences.extend(words::colliding(&self.device.colliding));
        sentences.extend(self.problem.clone().map(|problem| ("liveness".to_owned(), problem)));
        self.liveness.workloads.complain_all("liveness", sentences);
    }
}

/// Waits for the end of work under way; for ever without any.
async fn over<T>(work: &mut Option<Work<T>>) -> T {
    let outcome = match work {
        Some(work) => work.await,
        None => pending().await,
    };
    *work = None;
    outcome
}

/// Waits until another program has changed rules where echoes are; for ever where nobody listens.
async fn rules_changed(ear: Option<&EchoEar>) -> io::Result<()> {
    match ear {
        Some(ear) => ear.rules_changed().await,
        None => pending().await,
    }
}

fn note_deaf(error: &io::Error) {
    tracing::warn!(%error, "changes that others make to the rules of echoes are found once a minute only");
}
