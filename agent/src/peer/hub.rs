//! All peers of this host: a task for each, the port at which they call, and what all of them share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use sealane_base::places::source_of;
use sealane_base::task::{self, Task};
use sealane_proto::types::NodeName;
use tokio::sync::{mpsc, watch};

use super::PeerInputs;
use super::asked::RowAnswer;
use super::credentials::{Credentials, Secured};
use super::listener::Listener;
use super::peering::{PeerWorks, Peering, Target};
use super::session::{Said, SaidFacts};
use super::states::Shown;

/// Number of peers to which there are channels: the first ones by name.
const MOST_PEERS: usize = 1_024;
/// Number of calls of one peer that wait.
const CALLS: usize = 4;
/// Number of hints to one peer that wait.
const HINTS: usize = 4;
/// Number of questions to one peer that wait.
const QUESTIONS: usize = 16;

/// The peers.
pub(super) struct Hub {
    inputs: PeerInputs,
    shown: Shown,
    credentials: Option<watch::Sender<Arc<Credentials>>>,
    said: watch::Sender<Said>,
    known: watch::Sender<Arc<BTreeSet<IpAddr>>>,
    peers: BTreeMap<NodeName, Peered>,
    ready: (mpsc::Sender<Secured>, mpsc::Receiver<Secured>),
    listening: BTreeMap<SocketAddr, Task>,
}

/// One peer.
struct Peered {
    peer: watch::Sender<Target>,
    works: watch::Sender<PeerWorks>,
    calls: mpsc::Sender<Secured>,
    hints: mpsc::Sender<BTreeSet<NodeName>>,
    asks: mpsc::Sender<RowAnswer>,
    _task: Task,
}

impl Hub {
    pub(super) fn new(inputs: PeerInputs, shown: Shown) -> Self {
        let (said, known) = Default::default();
        let (peers, ready) = (BTreeMap::new(), mpsc::channel(64));
        Self { inputs, shown, credentials: None, said, known, peers, ready, listening: BTreeMap::new() }
    }

    /// Follows everything until the task is dropped.
    pub(super) async fn run(mut self) {
        self.trust();
        self.say();
        self.follow();
        loop {
            tokio::select! {
                Ok(()) = self.inputs.identity.changed() => {
                    self.trust();
                    // The first one makes the port be served.
                    self.follow();
                }
                Ok(()) = self.inputs.revoked.changed() => self.trust(),
                Ok(()) = self.inputs.facts.changed() => self.say(),
                Ok(()) = self.inputs.works.changed() => self.acknowledge(),
                Ok(()) = self.inputs.peers.changed() => self.follow(),
                Ok(()) = self.inputs.underlay.changed() => self.follow(),
                Some(secured) = self.ready.1.recv() => self.route(secured),
                Some((to, about)) = self.inputs.hints.recv() => {
                    // One that is not taken is missed by nobody: others are told, too.
                    let _ = self.peers.get(&to).map(|peer| peer.hints.try_send(about));
                }
                Some((to, answer)) = self.inputs.asks.recv() => {
                    // One that finds no room is dropped, which its asker sees.
                    let _ = self.peers.get(&to).map(|peer| peer.asks.try_send(answer));
                }
            }
        }
    }

    /// Takes the newest identity and revocations: what connections show and whom they trust from now on.
    fn trust(&mut self) {
        let identity = self.inputs.identity.borrow_and_update().clone();
        let revoked = self.inputs.revoked.borrow_and_update().clone();
        match Credentials::new(identity, revoked, self.inputs.provider.clone()) {
            Ok(credentials) => {
                let credentials = Arc::new(credentials);
                match &self.credentials {
                    Some(known) => drop(known.send_replace(credentials)),
                    None => self.credentials = Some(watch::Sender::new(credentials)),
                }
            }
            Err(error) => tracing::error!(%error, "hosts cannot be called with this host's certificate"),
        }
    }

    fn say(&mut self) {
        let facts = self.inputs.facts.borrow_and_update().clone();
        self.said.send_if_modified(|said| {
            let now = SaidFacts::all(&facts, said);
            let news = *said != now;
            *said = now;
            news
        });
    }

    /// Has every peer told by which of its words this host works.
    fn acknowledge(&mut self) {
        let works = self.inputs.works.borrow_and_update();
        for (name, peer) in &self.peers {
            let now = works.get(name).cloned().unwrap_or_default();
            peer.works.send_if_modified(|known| {
                let news = !Arc::ptr_eq(known, &now) && *known != now;
                *known = now;
                news
            });
        }
    }

    /// Brings tasks and port to what the peers and this host's address are now.
    fn follow(&mut self) {
        let Some(credentials) = self.credentials.as_ref().map(watch::Sender::subscribe) else { return };
        let (wanted, here) = (self.inputs.peers.borrow_and_update().clone(), *self.inputs.underlay.borrow());
        let others = wanted.iter().filter(|(name, _)| **name != self.inputs.node).take(MOST_PEERS);
        let known: BTreeSet<IpAddr> = others
            .clone()
            .flat_map(|(_, peer)| peer.underlay.iter().chain(peer.elsewhere.iter().copied()))
            .map(|own| source_of(own.to_ip()))
            .collect();
        let wanted: BTreeMap<&NodeName, Target> =
            others.map(|(name, peer)| (name, Target::of(peer, here))).collect();
        self.peers.retain(|name, _| {
            let stays = wanted.contains_key(name);
            if !stays {
                self.shown.remove(name);
            }
            stays
        });
        for (name, peer) in &wanted {
            match self.peers.get(*name) {
                Some(known) => drop(known.peer.send_if_modified(|known| {
                    let news = *known != *peer;
                    known.clone_from(peer);
                    news
                })),
                None => {
                    let begun = self.begin(name, peer, credentials.clone());
                    self.peers.insert((*name).clone(), begun);
                }
            }
        }
        self.known.send_if_modified(|before| {
            let news = **before != known;
            *before = Arc::new(known);
            news
        });
        self.listen(credentials);
    }

    fn begin(
        &self,
        name: &NodeName,
        peer: &Target,
        credentials: watch::Receiver<Arc<Credentials>>,
    ) -> Peered {
        let (peer, (calls, taken)) = (watch::Sender::new(peer.clone()), mpsc::channel(CALLS));
        let ((hints, given), (asks, asked)) = (mpsc::channel(HINTS), mpsc::channel(QUESTIONS));
        let works = self.inputs.works.borrow().get(name).cloned().unwrap_or_default();
        let works = watch::Sender::new(works);
        self.shown.add(name);
        let peering = Peering {
            own: self.inputs.node.clone(),
            name: name.clone(),
            port: self.inputs.port,
            peer: peer.subscribe(),
            calls: taken,
            hints: given,
            hinted: self.inputs.hinted.clone(),
            asks: asked,
            looks: self.inputs.looks.clone(),
            credentials,
            said: self.said.subscribe(),
            works: works.subscribe(),
            places: self.inputs.places.clone(),
            words: self.inputs.words.clone(),
            shown: self.shown.clone(),
            metrics: self.inputs.metrics.clone(),
        };
        Peered { peer, works, calls, hints, asks, _task: task::spawn("peer", Box::pin(peering.run())) }
    }

    /// Listens where this host is, as long as there is somebody to call.
    fn listen(&mut self, credentials: watch::Receiver<Arc<Credentials>>) {
        let here = *self.inputs.underlay.borrow_and_update();
        let here = here.iter().map(|own| SocketAddr::new(own.to_ip(), self.inputs.port));
        let wanted: Vec<SocketAddr> = here.filter(|_| !self.peers.is_empty()).collect();
        self.listening.retain(|address, _| {
            let stays = wanted.contains(address);
            if !stays {
                self.shown.unserved(*address, None);
            }
            stays
        });
        for address in wanted {
            let listener = || Listener {
                credentials: credentials.clone(),
                known: self.known.subscribe(),
                ready: self.ready.0.clone(),
                shown: self.shown.clone(),
                metrics: self.inputs.metrics.clone(),
            };
            let listen = || task::spawn("peer-listener", Box::pin(listener().run(address)));
            self.listening.entry(address).or_insert_with(listen);
        }
    }

    /// Gives a connection to the task of its peer.
    fn route(&mut self, secured: Secured) {
        let Some(peer) = self.peers.get(&secured.peer) else {
            tracing::debug!(peer = %secured.peer, "a host that shares no network with this one has called");
            self.inputs.metrics.refuse("no_network");
            return;
        };
        if peer.calls.try_send(secured).is_err() {
            self.inputs.metrics.refuse("too_many");
        }
    }
}
