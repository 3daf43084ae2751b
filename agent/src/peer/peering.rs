//! The task of one peer: one connection at a time, dialled or taken, and what was heard from one to the next.
//!
//! Of two hosts, the one with the smaller name dials; the other one does as well when nothing has come for a while. When both have,
//! the connection of the smaller name stays.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealane_base::backoff::Backoff;
use sealane_proto::types::NodeName;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::asked::{Asked, RowAnswer};
use super::conversation::{Conversation, Ended};
use super::credentials::{Credentials, Secured};
use super::metrics::PeerMetrics;
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
    /// Address of the peer, and the networks that both carry.
    pub(super) peer: watch::Receiver<Peer>,
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
    /// Takes the peer's words.
    pub(super) words: mpsc::Sender<(NodeName, PeerWord)>,
    /// Place in which the state is shown.
    pub(super) shown: Shown,
    /// Counts.
    pub(super) metrics: PeerMetrics,
}

/// A connection, and who has dialled it.
struct Connected {
    secured: Secured,
    by_smaller: bool,
}

impl Peering {
    /// Goes on until the task is dropped.
    pub(super) async fn run(mut self) {
        let mut heard = Heard::of(self.name.clone());
        let mut backoff = Backoff::new(WAITS.0, WAITS.1);
        let mut wait = if self.is_smaller() { Duration::ZERO } else { PATIENCE };
        let mut next = None;
        loop {
            let connected = match next.take() {
                Some(connected) => connected,
                None => self.connection(wait, &mut backoff).await,
            };
            let begun = Instant::now();
            let ended;
            (heard, ended) = self.converse(connected, heard).await;
            match ended {
                Ok(newer) => next = Some(newer),
                Err(ended) => {
                    tracing::debug!(peer = %self.name, %ended, "the channel to a host ended");
                    self.metrics.end(ended.as_str());
                    self.shown.down(&self.name, Obstacle::new(ObstacleKind::of(&ended), ended.to_string()));
                    // An error means that the agent ends.
                    let _ = self.words.send((self.name.clone(), PeerWord::Silent)).await;
                    if begun.elapsed() >= LASTING {
                        backoff.reset();
                    }
                    wait = if self.is_smaller() { backoff.next_wait(rand::random()) } else { PATIENCE };
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
        let mut is_up = false;
        self.said.mark_changed();
        let ended = loop {
            if !is_up && talk.session.is_greeted() {
                is_up = true;
                self.shown.up(&self.name);
            }
            if is_up && let Some(acknowledged) = talk.session.take_acknowledged() {
                // An error means that the agent ends.
                let _ = self.words.send((self.name.clone(), PeerWord::Acknowledged(acknowledged))).await;
            }
            asked.follow(&mut talk.session, &self.looks);
            tokio::select! {
                stepped = talk.step() => if let Err(ended) = stepped {
                    break Err(ended);
                },
                Ok(()) = self.said.changed() => self.tell(&mut talk),
                Ok(()) = self.peer.changed() => self.tell(&mut talk),
                Some(about) = self.hints.recv() => talk.session.give_hint(about),
                Some(answer) = self.asks.recv() => asked.ask(&mut talk.session, answer),
                (token, cells) = asked.looked() => talk.session.answer(token, &cells),
                Ok(()) = self.credentials.changed() => {
                    if self.credentials.borrow_and_update().revokes(&serial) {
                        break Err(Ended::Revoked);
                    }
                }
                Some(secured) = self.calls.recv() => {
                    let is_silent = talk.session.silence(Instant::now()) >= PATIENCE;
                    let takes_over = !by_smaller || !self.is_smaller() || is_silent;
                    match self.accepted(secured) {
                        Some(secured) if takes_over => {
                            self.metrics.end("replaced");
                            break Ok(Connected { secured, by_smaller: !self.is_smaller() });
                        }
                        Some(_) => self.metrics.refuse("second"),
                        None => {}
                    }
                }
            }
        };
        (talk.session.into_heard(), ended)
    }

    fn tell(&mut self, talk: &mut Conversation) {
        let (said, peer) = (self.said.borrow_and_update().clone(), self.peer.borrow_and_update().clone());
        talk.session.handle_facts(said, &peer.networks);
    }
}

/// Calls a host.
async fn dial(
    name: &NodeName,
    peer: &Peer,
    port: u16,
    credentials: &Credentials,
) -> Result<Secured, Obstacle> {
    let address = (peer.underlay.first().to_ip(), port).into();
    let connecting = timeout(CONNECT, TcpStream::connect(address)).await;
    let stream = connecting
        .unwrap_or_else(|late| Err(late.into()))
        .map_err(|error| words::of_connecting(address, &error))?;
    let shaking = timeout(HANDSHAKE, credentials.connect(name, stream)).await;
    shaking.unwrap_or_else(|late| Err(late.into())).map_err(|error| words::of_handshake(address, &error))
}
