//! The channel between hosts that share a network: each tells the others what it owns, whether control is there or not.
//!
//! The conversation is pure ([`session`]). Around it are thin shells: [`hub`] knows the peers and who may come, [`peering`] is the task of
//! one peer, which dials, takes the connection that the other side has dialled, and carries frames.

mod asked;
mod conversation;
mod credentials;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod hub;
mod intake;
mod listener;
mod metrics;
mod peering;
mod proof;
mod session;
#[cfg(feature = "simulation")]
pub(crate) mod simulation;
mod states;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use sealane_base::task::{self, Task};
use sealane_proto::client::TlsIdentity;
use sealane_proto::identity::SerialPrefix;
use sealane_proto::resource::{HostPlaces, OwnerFacts, Whereabouts};
use sealane_proto::types::{NetworkName, NodeName, UnderlayAddrs};
use tokio::sync::{mpsc, watch};

use crate::host::{Acknowledged, HostHandle, Peer, Works};
pub(crate) use asked::RowAnswer;
use hub::Hub;
pub(crate) use metrics::PeerMetrics;
#[cfg(test)]
pub(crate) use states::Obstacle;
use states::Shown;
pub(crate) use states::{Channels, ObstacleKind, PeerState};

/// Inputs of the channel.
#[derive(Debug)]
pub(crate) struct PeerInputs {
    /// This host.
    pub(crate) node: NodeName,
    /// Addresses to listen at.
    pub(crate) underlay: watch::Receiver<UnderlayAddrs>,
    /// TCP port of all hosts.
    pub(crate) port: u16,
    /// Identity of this host, renewed from time to time.
    pub(crate) identity: watch::Receiver<Arc<TlsIdentity>>,
    /// Cryptography.
    pub(crate) provider: Arc<CryptoProvider>,
    /// Hosts that share a network with this one.
    pub(crate) peers: watch::Receiver<Arc<BTreeMap<NodeName, Peer>>>,
    /// Hosts whose certificates nobody accepts any more.
    pub(crate) revoked: watch::Receiver<Arc<BTreeSet<SerialPrefix>>>,
    /// This host's own facts.
    pub(crate) facts: watch::Receiver<Arc<BTreeMap<NetworkName, Arc<OwnerFacts>>>>,
    /// Editions of other hosts' words by which this host works.
    pub(crate) works: watch::Receiver<Works>,
    /// Places of this host and of others, as they are told.
    pub(crate) places: watch::Receiver<Arc<HostPlaces>>,
    /// Takes what peers say of themselves.
    pub(crate) words: mpsc::Sender<(NodeName, PeerWord)>,
    /// Hints to give to peers.
    pub(crate) hints: mpsc::Receiver<PeerHint>,
    /// Takes the hints of peers.
    pub(crate) hinted: mpsc::Sender<PeerHint>,
    /// Questions to peers about how they see theirs.
    pub(crate) asks: mpsc::Receiver<PeerQuestion>,
    /// Takes peers' questions about how this host sees them.
    pub(crate) looks: mpsc::Sender<RowAnswer>,
    /// Counts.
    pub(crate) metrics: PeerMetrics,
}

/// News of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PeerWord {
    /// The peer says this of its own workloads.
    Facts(OwnerFacts),
    /// The peer has acknowledged this of this host's words.
    Acknowledged(Acknowledged),
    /// The peer is not heard any more.
    Silent,
    /// The peer is there, which is proven.
    Placed(Whereabouts),
    /// The peer has found other hosts there.
    Found(HostPlaces),
}

/// A peer, and the hosts of which it says, or is told, that they have changed.
pub(crate) type PeerHint = (NodeName, BTreeSet<NodeName>);

/// A peer, and the place of its answer to how it sees its own peers.
pub(crate) type PeerQuestion = (NodeName, RowAnswer);

/// The hints that come to a room of this program, and its place for those that go.
pub(crate) type HintEnd = (mpsc::Receiver<PeerHint>, mpsc::Sender<PeerHint>);

/// Hints that wait between two rooms; more are left out.
const HINTS: usize = 1_024;

/// Makes the two ends between the channels and those who watch the hosts.
pub(crate) fn hint_ends() -> (HintEnd, HintEnd) {
    let ((given, going), (coming, taken)) = (mpsc::channel(HINTS), mpsc::channel(HINTS));
    ((going, coming), (taken, given))
}

/// Passes on what peers say, until the agent ends.
pub(crate) async fn pass_on(mut words: mpsc::Receiver<(NodeName, PeerWord)>, host: HostHandle) {
    while let Some((owner, word)) = words.recv().await {
        match word {
            PeerWord::Facts(facts) => host.heard(owner, facts).await,
            PeerWord::Acknowledged(acknowledged) => host.acknowledged(owner, acknowledged).await,
            PeerWord::Silent => host.silent(owner).await,
            PeerWord::Placed(place) => host.placed(owner, place).await,
            PeerWord::Found(places) => host.found(places).await,
        }
    }
}

/// Starts the channel to every peer.
pub(crate) fn start(inputs: PeerInputs) -> (watch::Receiver<Channels>, Task) {
    let (shown, channels) = Shown::new(inputs.metrics.clone());
    (channels, task::spawn("peers", Hub::new(inputs, shown).run()))
}
