//! The ways between hosts, as each host sees its own: a row per host, asked for when somebody wants to know.
//!
//! Every agent knows its own row. Those of others are asked for on the channels, so that it works without control. A look listens
//! for a second for the echoes of other hosts: with the rows of both ends, that tells which direction of a way is blocked
//! ([`judge`], pure).

mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealane_fabric::overlay::{Overlay, OverlayError};
use sealane_proto::peer::PeerCell;
use sealane_proto::types::{Finding, MacAddr, NodeName};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use crate::liveness::{PeerViews, SAMPLE};
use crate::peer::{Channels, PeerQuestion, RowAnswer};
use judge::problems;
pub(crate) use judge::{Ports, Rows};

/// Time for which a look listens: each host sends several echoes in it, also to one that does not answer.
const LISTENING: Duration = Duration::from_secs(1);
/// Time for which a look is good for others who ask.
const FRESH: Duration = Duration::from_secs(1);
/// Longest wait for another host's row.
const PATIENCE: Duration = Duration::from_secs(4);
/// Number of hosts of which more is told at once.
const MOST_TOLD: usize = 8;

/// The way to every peer, and the means to ask for the other rows.
#[derive(Debug)]
pub(crate) struct Matrix {
    /// Name of this host.
    pub(crate) node: NodeName,
    /// The kernel.
    pub(crate) overlay: Arc<Overlay>,
    /// The channels to other hosts.
    pub(crate) channels: watch::Receiver<Channels>,
    /// The other hosts as echoes show them.
    pub(crate) peers: watch::Receiver<Arc<PeerViews>>,
    /// Takes questions to other hosts.
    pub(crate) asks: mpsc::Sender<PeerQuestion>,
    /// Ports of both ways between hosts, for words.
    pub(crate) ports: Ports,
    /// The last look. Who wants another one meanwhile waits for this one.
    pub(crate) last: Mutex<Option<(Instant, Vec<PeerCell>)>>,
}

/// More about hosts whose echoes fail.
#[derive(Debug, Default)]
pub(crate) struct WaysTold {
    /// Of each host.
    pub(crate) each: BTreeMap<NodeName, String>,
    /// Of all that have a channel, where the same keeps this host from each.
    pub(crate) all: Option<String>,
}

impl Matrix {
    /// Answers other hosts until nobody can ask any more.
    pub(crate) async fn serve(self: Arc<Self>, mut questions: mpsc::Receiver<RowAnswer>) {
        while let Some(question) = questions.recv().await {
            // Who waits no more has gone.
            let _ = question.send(self.own().await);
        }
    }

    /// Looks at the ways from this host.
    pub(crate) async fn own(&self) -> Vec<PeerCell> {
        let mut last = self.last.lock().await;
        if let Some((at, cells)) = &*last
            && at.elapsed() < FRESH
        {
            return cells.clone();
        }
        let heard = self.listen().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "echoes of other hosts cannot be counted");
            None
        });
        let cells = cells(&self.channels.borrow(), &self.peers.borrow(), heard.as_ref());
        *last = Some((Instant::now(), cells.clone()));
        cells
    }

    /// Looks at the ways from every host that can be asked.
    pub(crate) async fn all(&self) -> Rows {
        let peers: Vec<NodeName> = self.channels.borrow().peers.keys().cloned().collect();
        self.rows(peers).await
    }

    /// Tells more of hosts whose echoes fail, as far as their channels say it: that they are down, or which direction is blocked.
    pub(crate) async fn ways_to(&self, hosts: &[NodeName]) -> WaysTold {
        let channels = self.channels.borrow().clone();
        let obstacle = |name: &NodeName| channels.peers.get(name).and_then(|state| state.down.as_ref());
        let (down, there): (Vec<&NodeName>, Vec<&NodeName>) =
            hosts.iter().take(MOST_TOLD).partition(|name| obstacle(name).is_some());
        let told = down.into_iter().filter_map(|name| {
            let obstacle = obstacle(name)?;
            Some((name.clone(), judge::without_channel(obstacle.kind, &obstacle.words, self.ports)))
        });
        let mut told = WaysTold { each: told.collect(), all: None };
        if !there.is_empty() {
            let rows = self.rows(there.iter().copied().cloned().collect()).await;
            told.all = judge::alone(&rows, &self.node, &there, self.ports.tunnels);
            let more = there.into_iter().filter_map(|name| {
                Some((name.clone(), judge::blocked(&rows, (&self.node, name), self.ports)?))
            });
            told.each.extend(more);
        }
        told
    }

    /// Names what is wrong between hosts.
    pub(crate) fn problems(&self, rows: &Rows) -> Vec<String> {
        problems(rows, self.ports)
    }

    async fn rows(&self, peers: Vec<NodeName>) -> Rows {
        let asked = peers.into_iter().map(async |peer| {
            let row = self.ask(&peer).await;
            (peer, row)
        });
        let (own, others) = tokio::join!(self.own(), futures_util::future::join_all(asked));
        let own = (self.node.clone(), Ok(own));
        others.into_iter().chain([own]).collect()
    }

    /// Asks a host for its row.
    async fn ask(&self, peer: &NodeName) -> Result<Vec<PeerCell>, String> {
        let down = self.channels.borrow().peers.get(peer).and_then(|state| state.down.clone());
        if let Some(obstacle) = down {
            return Err(format!("there is no channel to it: {}", obstacle.words));
        }
        let (answer, row) = oneshot::channel();
        if self.asks.send((peer.clone(), answer)).await.is_err() {
            return Err("this agent is ending".to_owned());
        }
        match tokio::time::timeout(PATIENCE, row).await {
            Ok(Ok(cells)) => Ok(judge::credible(peer, cells, &self.known())),
            Ok(Err(_)) => Err("the channel to it has just ended".to_owned()),
            Err(_) => Err(format!(
                "it has not answered within {} s: its agent is busy or of an older version",
                PATIENCE.as_secs()
            )),
        }
    }

    /// The hosts of which rows may tell: this one, and those that share a network with it.
    fn known(&self) -> BTreeSet<NodeName> {
        let channels = self.channels.borrow();
        let peers = self.peers.borrow();
        channels.peers.keys().chain(peers.keys()).chain([&self.node]).cloned().collect()
    }

    /// Listens for the echoes of others; `None` where there is no device for them.
    async fn listen(&self) -> Result<Option<BTreeMap<Ipv6Addr, u32>>, OverlayError> {
        let Some(counter) = self.overlay.request_counter()? else { return Ok(None) };
        tokio::time::sleep(LISTENING).await;
        Ok(Some(counter.count()?))
    }
}

/// The row of this host.
fn cells(channels: &Channels, peers: &PeerViews, heard: Option<&BTreeMap<Ipv6Addr, u32>>) -> Vec<PeerCell> {
    // Of more, some are sent no echo within a look, and their absence says nothing.
    let heard = heard.filter(|_| peers.len() <= SAMPLE);
    let cell = |(name, view): (&NodeName, &crate::liveness::PeerView)| {
        let state = channels.peers.get(name);
        let obstacle = match state {
            Some(state) => state.down.as_ref().map(|obstacle| Finding::new(&obstacle.words)),
            None => Some(Finding::new("it is beyond the number of hosts that get a channel")),
        };
        let of = |heard: &BTreeMap<Ipv6Addr, u32>| {
            heard.get(&MacAddr::of_host(name).link_local()).copied().unwrap_or_default()
        };
        PeerCell { channel_problem: obstacle, heard: heard.map(of), ..view.cell(name) }
    };
    peers.iter().map(cell).collect()
}
