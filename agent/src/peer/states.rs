//! The state of the channel to each peer, for people.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::SystemTime;

use sealane_proto::types::NodeName;
use tokio::sync::watch;

use super::metrics::PeerMetrics;

/// The channels of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Channels {
    /// The state of each peer's.
    pub(crate) peers: BTreeMap<NodeName, PeerState>,
    /// Addresses at which this host cannot be called, with the reasons.
    pub(crate) unserved: BTreeMap<SocketAddr, String>,
}

/// The state of the channel to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerState {
    /// Time of the last change between standing and not.
    pub(crate) since: SystemTime,
    /// The obstacle; `None` while the channel stands.
    pub(crate) down: Option<Obstacle>,
}

/// The obstacle to a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Obstacle {
    /// Kind of the obstacle.
    pub(crate) kind: ObstacleKind,
    /// Description for people.
    pub(crate) words: String,
}

/// Kinds of obstacles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ObstacleKind {
    /// The channel has not been tried yet.
    New,
    /// The host answers, and nobody listens there.
    Refused,
    /// Nobody answers.
    Silent,
    /// The two sides do not trust or do not understand each other.
    Distrust,
    /// The connection was lost.
    Lost,
}

impl Obstacle {
    pub(super) fn new(kind: ObstacleKind, words: String) -> Self {
        Self { kind, words }
    }
}

/// Shows the states to the rest of the agent.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    channels: watch::Sender<Channels>,
    metrics: PeerMetrics,
}

impl Shown {
    pub(super) fn new(metrics: PeerMetrics) -> (Self, watch::Receiver<Channels>) {
        let (channels, view) = watch::channel(Channels::default());
        (Self { channels, metrics }, view)
    }

    /// A host became a peer.
    pub(super) fn add(&self, peer: &NodeName) {
        let down = Some(Obstacle::new(ObstacleKind::New, "connecting".to_owned()));
        let state = PeerState { since: SystemTime::now(), down };
        self.change(|channels| drop(channels.peers.insert(peer.clone(), state)));
    }

    /// A host is no peer any more.
    pub(super) fn remove(&self, peer: &NodeName) {
        self.change(|channels| drop(channels.peers.remove(peer)));
    }

    /// The channel stands.
    pub(super) fn up(&self, peer: &NodeName) {
        self.set(peer, None);
    }

    /// The channel does not stand, for this reason.
    pub(super) fn down(&self, peer: &NodeName, obstacle: Obstacle) {
        self.set(peer, Some(obstacle));
    }

    /// Shows that this host cannot be called at an address, or can.
    pub(super) fn unserved(&self, address: SocketAddr, problem: Option<String>) {
        self.channels.send_if_modified(|channels| match problem {
            Some(problem) => channels.unserved.insert(address, problem.clone()) != Some(problem),
            None => channels.unserved.remove(&address).is_some(),
        });
    }

    fn set(&self, peer: &NodeName, down: Option<Obstacle>) {
        self.change(|channels| {
            if let Some(state) = channels.peers.get_mut(peer) {
                if state.down.is_some() != down.is_some() {
                    state.since = SystemTime::now();
                }
                state.down = down;
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Channels)) {
        self.channels.send_modify(change);
        let channels = self.channels.borrow();
        let connected = channels.peers.values().filter(|state| state.down.is_none()).count();
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.connected.set(gauge(connected));
        self.metrics.peers.set(gauge(channels.peers.len()));
    }
}
