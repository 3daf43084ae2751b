//! Liveness of the hosts that share a network with this one: each is sent echoes over the way that their packets take, through
//! the port and the gate of every tunnel, and its kernel answers. Instances on a host that does not answer leave the names and
//! the balancing of this host's workloads.
//!
//! What follows from echoes and answers is decided by a pure core ([`core`]). This is the shell around it.

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
use sealane_fabric::overlay::{EchoAddr, EchoDevice, EchoPeers, OverlayError, Reason, overhead};
use sealane_proto::client::CarriedNetworks;
pub(crate) use sealane_proto::peer::Reach;
use sealane_proto::types::{IpFamily, Mtu, NetworkName, NodeName, UnderlayAddrs, Vni};
use tokio::sync::watch;

use crate::peer::HintEnd;
use crate::workload::Workloads;
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
            look: None,
            wanted: None,
            looked: None,
            shown: Instant::now(),
            verdicts: 0,
            problem: None,
        };
        watch.ways.recall(&watch.liveness.workloads).await;
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
                put = over(&mut self.ways.putting) => self.ways.take(put, Instant::now()),
                _ = audit.tick() => self.wanted = self.wanted.or(Some(Reason::Audit)),
                () = sleep_until(due) => {}
                () = sleep_until(again) => {}
            }
            self.step().await;
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
        if self.look.is_some() || rests {
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

/// The hosts that share one of these networks with `own`; nobody where a network has the VNI of echoes, which is named.
fn peers_of(carried: &CarriedNetworks, own: &NodeName) -> (EchoPeers, Option<NetworkName>) {
    let taken = carried.iter().find(|(_, snapshot)| snapshot.network.vni == Vni::ECHO);
    if let Some((network, _)) = taken {
        return (EchoPeers::new(), Some(network.clone()));
    }
    let nodes = carried.values().flat_map(|snapshot| &snapshot.nodes);
    let others = nodes.filter(|node| node.name != *own);
    (others.map(|node| (node.name.clone(), node.underlay)).collect(), None)
}

/// Joins what control tells of these peers.
fn watched_of(carried: &CarriedNetworks, peers: &EchoPeers) -> BTreeMap<NodeName, Watched> {
    let mut watched: BTreeMap<NodeName, Watched> =
        peers.keys().map(|name| (name.clone(), Watched::default())).collect();
    for (network, snapshot) in carried {
        for node in &snapshot.nodes {
            if let Some(watched) = watched.get_mut(&node.name) {
                watched.networks.insert(network.clone());
                // Of an older control plane, which does not say, nothing follows.
                watched.speaks |= snapshot.mute.as_ref().is_some_and(|mute| !mute.contains(&node.name));
            }
        }
    }
    watched
}

/// Lengths of packets from `own` to each host, with the outer headers: the longest are those of the networks that it carries, each
/// as it was created with, or the least that any of its hosts has told.
fn lengths_of(carried: &CarriedNetworks, own: UnderlayAddrs) -> BTreeMap<NodeName, Lengths> {
    let mut lengths: BTreeMap<NodeName, Lengths> = BTreeMap::new();
    for snapshot in carried.values() {
        let told = snapshot.nodes.iter().filter_map(|node| node.mtu).min();
        let Some(length) = snapshot.network.mtu.or(told) else { continue };
        for node in &snapshot.nodes {
            let Some(way) = own.way_to(node.underlay) else { continue };
            let family = way.peer.family();
            let most = u32::from(length) + overhead(family);
            let known = lengths.entry(node.name.clone()).or_insert(Lengths { least: least(family), most });
            known.most = most.max(known.most);
        }
    }
    lengths
}

/// The length that every way of a family takes: an IPv6 packet of RFC 8200, section 5, or one of RFC 791 in a tunnel.
fn least(family: IpFamily) -> u32 {
    match family {
        IpFamily::V4 => u32::from(Mtu::MIN) + overhead(family),
        IpFamily::V6 => Mtu::MIN_IPV6.into(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::snapshot;
    use sealane_proto::resource::Node;

    #[test]
    fn hosts_of_all_networks_are_watched_and_nobody_where_a_network_has_the_vni_of_echoes() {
        let node = |name: &str, last: u8| Node {
            name: name.parse().unwrap(),
            underlay: format!("192.0.2.{last}").parse().unwrap(),
            mtu: None,
        };
        let (mut shop, mut lab) = (snapshot(), snapshot());
        lab.content.network.name = "lab".parse().unwrap();
        shop.content.nodes = vec![node("host-1", 1), node("host-2", 2)];
        lab.content.nodes = vec![node("host-1", 1), node("host-2", 2), node("host-3", 3)];
        let own = "host-1".parse().unwrap();
        let both = |shop: &_, lab: &_| -> CarriedNetworks {
            [shop, lab]
                .map(|snapshot: &sealane_proto::resource::NetworkSnapshot| {
                    (snapshot.network.name.clone(), Arc::new(snapshot.clone()))
                })
                .into()
        };
        let (peers, taken) = peers_of(&both(&shop, &lab), &own);
        assert_eq!(peers.keys().map(NodeName::as_str).collect::<Vec<_>>(), ["host-2", "host-3"]);
        assert_eq!(taken, None);
        let at = "192.0.2.1".parse().unwrap();
        assert!(lengths_of(&both(&shop, &lab), at).is_empty(), "nobody has told any");
        shop.content.nodes[1].mtu = "1400".parse().ok();
        lab.content.network.mtu = "1300".parse().ok();
        let lengths = lengths_of(&both(&shop, &lab), at);
        let of = |most| Lengths { least: 626, most };
        assert_eq!(lengths.values().copied().collect::<Vec<_>>(), [of(1450), of(1450), of(1350)]);
        assert!(
            lengths_of(&both(&shop, &lab), "2001:db8::1".parse().unwrap()).is_empty(),
            "no way leads there"
        );
        let speak = |shop: &_, lab: &_| -> Vec<bool> {
            let carried = both(shop, lab);
            watched_of(&carried, &peers).values().map(|watched| watched.speaks).collect()
        };
        assert_eq!(speak(&shop, &lab), [false, false], "control does not say");
        shop.content.mute = Some(vec!["host-2".parse().unwrap()]);
        lab.content.mute = shop.content.mute.clone();
        assert_eq!(speak(&shop, &lab), [false, true]);
        lab.content.network.vni = Vni::ECHO;
        assert_eq!(peers_of(&both(&shop, &lab), &own), (EchoPeers::new(), Some("lab".parse().unwrap())));
    }
}
