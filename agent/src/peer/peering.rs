//! The task of one peer: one connection at a time, dialled or taken, and what was heard from one to the next.
//!
//! Of two hosts, the one with the smaller name dials; the other one does as well when nothing has come for a while. When both have,
//! the connection of the smaller name stays.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sealane_base::backoff::Backoff;
use sealane_proto::resource::{Edition, HostPlaces};
use sealane_proto::types::{NetworkName, NodeName, UnderlayAddr, UnderlayAddrs};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::asked::{Asked, RowAnswer};
use super::conversation::{Conversation, Ended};
use super::credentials::{Credentials, Secured};
use super::metrics::PeerMetrics;
use super::proof::Proof;
use super::session::{Heard, Said, Session};
use super::states::{Obstacle, ObstacleKind, Shown};
use super::words;
use super::{PeerHint, PeerWord};
use crate::VERSION;
use crate::host::Peer;

/// Limit for a connection to be made, and for its handshake.
const CONNECT: Duration = Duration::from_secs(2);
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Waits between attempts: a host that comes back is there again within two seconds.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Time for which the host with the greater name waits to be called, and for which a connection may be silent before another one
/// takes its place.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time for which it waits at first: the other one may not know that this host has been started again.
const AT_FIRST: Duration = Duration::from_millis(300);
/// Addresses at which a host is called together.
const MOST_ADDRESSES: usize = 4;
/// Age of a connection from which on a call from another address takes its place: the host has moved. Before, both may have called each
/// other at once.
const SETTLED: Duration = Duration::from_millis(300);
/// A connection that lasted so long was a success: what follows it begins again.
const LASTING: Duration = Duration::from_secs(2);

/// The task of one peer.
#[derive(Debug)]
pub(super) struct Peering {
    /// This host.
    pub(super) own: NodeName,
    /// The other one.
    pub(super) name: NodeName,
    /// TCP port of all hosts.
    pub(super) port: u16,
    /// Addresses of both, and the networks that both carry.
    pub(super) peer: watch::Receiver<Target>,
    /// Connections that the peer has dialled.
    pub(super) calls: mpsc::Receiver<Secured>,
    /// Hints to give to the peer.
    pub(super) hints: mpsc::Receiver<BTreeSet<NodeName>>,
    /// Takes the peer's hints.
    pub(super) hinted: mpsc::Sender<PeerHint>,
    /// Questions to the peer about how it sees its own peers.
    pub(super) asks: mpsc::Receiver<RowAnswer>,
    /// Takes the peer's questions.
    pub(super) looks: mpsc::Sender<RowAnswer>,
    /// Identity that this host shows, and the hosts it trusts.
    pub(super) credentials: watch::Receiver<Arc<Credentials>>,
    /// This host's own facts.
    pub(super) said: watch::Receiver<Said>,
    /// Editions of the peer's words by which this host works.
    pub(super) works: watch::Receiver<PeerWorks>,
    /// Places of this host and of others, as they are told.
    pub(super) places: watch::Receiver<Arc<HostPlaces>>,
    /// Takes the peer's words.
    pub(super) words: mpsc::Sender<(NodeName, PeerWord)>,
    /// Place in which the state is shown.
    pub(super) shown: Shown,
    /// Counts.
    pub(super) metrics: PeerMetrics,
}

/// Editions of a peer's words by which this host works, by network.
pub(super) type PeerWorks = Arc<BTreeMap<NetworkName, Edition>>;

/// The other host as this one calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Addresses at which it may be, the likeliest first; none of this host's own.
    addresses: Vec<IpAddr>,
    /// Underlay addresses of this host.
    here: UnderlayAddrs,
    networks: BTreeSet<NetworkName>,
}

/// A connection, and who has dialled it.
struct Connected {
    secured: Secured,
    by_smaller: bool,
}

impl Target {
    /// The peer as a host at `here` calls it: first at the one of its addresses to which there is a way.
    pub(super) fn of(peer: &Peer, here: UnderlayAddrs) -> Self {
        let way = here.way_to(peer.underlay).map_or(peer.underlay.first(), |way| way.peer);
        let further = peer.elsewhere.iter().copied().filter(|address| here.of(address.family()).is_some());
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in [way].into_iter().chain(further).filter(|address| !here.contains(*address)) {
            if !addresses.contains(&address.to_ip()) && addresses.len() < MOST_ADDRESSES {
                addresses.push(address.to_ip());
            }
        }
        Self { addresses, here, networks: peer.networks.clone() }
    }
}

impl Peering {
    /// Goes on until the task is dropped.
    pub(super) async fn run(mut self) {
        let mut heard = Heard::of(self.name.clone());
        let mut backoff = Backoff::new(WAITS.0, WAITS.1);
        let mut wait = if self.is_smaller() { Duration::ZERO } else { AT_FIRST };
        let mut next = None;
        self.works.mark_changed();
        loop {
            let connected = match next.take() {
                Some(connected) => connected,
                None => self.connection(wait, &mut backoff).await,
            };
            let begun = Instant::now();
            let ended;
            (heard, ended) = self.converse(connected, heard).await;
            match ended {
                Ok(newer) => {
                    self.works.mark_changed();
                    next = Some(newer);
                }
                Err(ended) => {
                    tracing::debug!(peer = %self.name, %ended, "the channel to a host ended");
                    self.metrics.end(ended.as_str());
                    self.shown.down(&self.name, Obstacle::new(ObstacleKind::of(&ended), ended.to_string()));
                    self.pass_on(PeerWord::Silent).await;
                    // What it said before is to be taken up once more.
                    self.works.mark_unchanged();
                    if begun.elapsed() >= LASTING {
                        backoff.reset();
                    }
                    wait = if matches!(ended, Ended::Moved) {
                        // Only this host knows, and the others wait to hear it.
                        Duration::ZERO
                    } else if self.is_smaller() {
                        backoff.next_wait(rand::random())
                    } else {
                        PATIENCE
                    };
                }
            }
        }
    }

    fn is_smaller(&self) -> bool {
        self.own < self.name
    }

    /// Waits for a call, and after a while calls again and again.
    async fn connection(&mut self, mut wait: Duration, backoff: &mut Backoff) -> Connected {
        let (by_us, by_them) = (self.is_smaller(), !self.is_smaller());
        loop {
            let peer = self.peer.borrow_and_update().clone();
            let credentials = self.credentials.borrow_and_update().clone();
            let dialling = async {
                tokio::time::sleep(wait).await;
                dial(&self.name, &peer, self.port, &credentials).await
            };
            tokio::select! {
                Some(secured) = self.calls.recv() => {
                    if let Some(secured) = self.accepted(secured) {
                        return Connected { secured, by_smaller: by_them };
                    }
                }
                dialled = dialling => match dialled {
                    Ok(secured) => return Connected { secured, by_smaller: by_us },
                    Err(obstacle) => {
                        tracing::debug!(peer = %self.name, obstacle = obstacle.words, "cannot call a host");
                        self.shown.down(&self.name, obstacle);
                        wait = backoff.next_wait(rand::random());
                    }
                },
                // It may be elsewhere.
                Ok(()) = self.peer.changed() => {
                    backoff.reset();
                    wait = backoff.next_wait(rand::random());
                }
            }
        }
    }

    /// A call that may be taken: its host may have been removed since its handshake.
    fn accepted(&self, secured: Secured) -> Option<Secured> {
        if self.credentials.borrow().revokes(&secured.serial) {
            self.metrics.refuse("revoked");
            return None;
        }
        Some(secured)
    }

    /// Carries one conversation to its end: until another connection takes its place, or it breaks.
    async fn converse(&mut self, connected: Connected, heard: Heard) -> (Heard, Result<Connected, Ended>) {
        let Connected { secured, by_smaller } = connected;
        let serial = secured.serial;
        let session = Session::new(VERSION, heard, Instant::now());
        let takers = (self.words.clone(), self.hinted.clone());
        let mut talk = Conversation::new(secured, session, takers, self.metrics.clone());
        // Those of before are of no use any more.
        while self.hints.try_recv().is_ok() {}
        let mut asked = Asked::default();
        let (mut is_up, mut proof) = (false, Proof::default());
        let here = self.peer.borrow().here;
        self.said.mark_changed();
        self.places.mark_changed();
        let ended = loop {
            if !is_up && talk.session.is_greeted() {
                is_up = true;
                self.shown.up(&self.name);
            }
            if is_up && let Some(acknowledged) = talk.session.take_acknowledged() {
                self.pass_on(PeerWord::Acknowledged(acknowledged)).await;
            }
            asked.follow(&mut talk.session, &self.looks);
            if proof.rests_until().is_none_or(|rest| rest <= Instant::now()) {
                self.hear_places(&mut talk, &mut proof).await;
            }
            let credentials = self.credentials.borrow().clone();
            let way = (talk.way.1, self.peer.borrow().here);
            tokio::select! {
                stepped = talk.step() => if let Err(ended) = stepped {
                    break Err(ended);
                },
                place = proof.proven(&self.name, way, (&credentials, self.port)) => {
                    self.pass_on(PeerWord::Placed(place)).await;
                }
                Ok(()) = self.said.changed() => self.tell(&mut talk),
                Ok(()) = self.works.changed() => talk.session.handle_works(&self.works.borrow_and_update()),
                Ok(()) = self.places.changed() => {
                    talk.session.handle_places(self.places.borrow_and_update().clone());
                }
                Ok(()) = self.peer.changed() => {
                    if self.has_moved(&talk, here) {
                        break Err(Ended::Moved);
                    }
                    self.tell(&mut talk);
                }
                Some(about) = self.hints.recv() => talk.session.give_hint(about),
                Some(answer) = self.asks.recv() => asked.ask(&mut talk.session, answer),
                (token, cells) = asked.looked() => talk.session.answer(token, &cells),
                Ok(()) = self.credentials.changed() => if self.credentials.borrow_and_update().revokes(&serial) {
                    break Err(Ended::Revoked);
                },
                Some(secured) = self.calls.recv() => {
                    if let Some(newer) = self.taken_over(&talk, by_smaller, secured) {
                        break Ok(newer);
                    }
                }
            }
        };
        (talk.session.into_heard(), ended)
    }

    /// Passes news of the peer on to the host.
    async fn pass_on(&self, word: PeerWord) {
        // An error means that the agent ends.
        let _ = self.words.send((self.name.clone(), word)).await;
    }

    /// The call, if it takes the place of the connection, which was dialled by the host with the smaller name or not.
    fn taken_over(&self, talk: &Conversation, by_smaller: bool, secured: Secured) -> Option<Connected> {
        let is_silent = talk.session.silence(Instant::now()) >= PATIENCE;
        let has_moved = secured.way.1 != talk.way.1 && talk.begun.elapsed() >= SETTLED;
        let takes_over = !by_smaller || !self.is_smaller() || is_silent || has_moved;
        let secured = self.accepted(secured)?;
        if !takes_over {
            self.metrics.refuse("second");
            return None;
        }
        self.metrics.end("replaced");
        Some(Connected { secured, by_smaller: !self.is_smaller() })
    }

    /// Returns true if this host, which was at `before`, has lost the address of the connection.
    fn has_moved(&self, talk: &Conversation, before: UnderlayAddrs) -> bool {
        let (now, own) = (self.peer.borrow().here, UnderlayAddr::from(talk.way.0));
        before.contains(own) && !now.contains(own)
    }

    /// Takes what the peer has said of where hosts are: its own place is to be proven, those of others are worth a call.
    async fn hear_places(&self, talk: &mut Conversation, proof: &mut Proof) {
        let Some(mut places) = talk.session.take_places() else { return };
        if let Some(own) = places.remove(&self.name) {
            proof.begin(own);
        }
        if !places.is_empty() {
            self.pass_on(PeerWord::Found(places)).await;
        }
    }

    fn tell(&mut self, talk: &mut Conversation) {
        let (said, peer) = (self.said.borrow_and_update().clone(), self.peer.borrow_and_update().clone());
        talk.session.handle_facts(said, &peer.networks);
    }
}

/// Calls a host at all addresses at which it may be: it is where it shows its certificate.
///
/// # Errors
/// The obstacle at the likeliest one.
async fn dial(
    name: &NodeName,
    peer: &Target,
    port: u16,
    credentials: &Credentials,
) -> Result<Secured, Obstacle> {
    let call = async |(place, address): (usize, &IpAddr)| {
        (place, dial_at(name, SocketAddr::new(*address, port), credentials).await)
    };
    let mut calls: FuturesUnordered<_> = peer.addresses.iter().enumerate().map(call).collect();
    let mut obstacles = BTreeMap::new();
    while let Some((place, called)) = calls.next().await {
        match called {
            Ok(secured) => return Ok(secured),
            Err(obstacle) => drop(obstacles.insert(place, obstacle)),
        }
    }
    Err(obstacles.into_values().next().unwrap_or_else(|| words::of_own_address(peer.here)))
}

async fn dial_at(
    name: &NodeName,
    address: SocketAddr,
    credentials: &Credentials,
) -> Result<Secured, Obstacle> {
    let connecting = timeout(CONNECT, sealane_base::dial::dial(address)).await;
    let stream = connecting
        .unwrap_or_else(|late| Err(late.into()))
        .map_err(|error| words::of_connecting(address, &error))?;
    let shaking = timeout(HANDSHAKE, credentials.connect(name, stream)).await;
    shaking.unwrap_or_else(|late| Err(late.into())).map_err(|error| words::of_handshake(address, &error))
}
