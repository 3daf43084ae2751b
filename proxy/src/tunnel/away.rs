//! Peers whose hosts cannot be reached, as this host's agent knows.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// The addresses of those peers.
pub type AwayPeers = Arc<BTreeSet<IpAddr>>;

/// The newest word of the agent, for the connections of one worker.
#[derive(Debug, Default)]
pub(crate) struct Away(watch::Sender<AwayPeers>);

/// Watches for another word of the agent.
pub(crate) struct AwayWatch(watch::Receiver<AwayPeers>);

impl Away {
    /// Replaces the word.
    pub(crate) fn set(&self, peers: AwayPeers) {
        self.0.send_replace(peers);
    }

    /// Returns true if the peer's host cannot be reached.
    pub(crate) fn has(&self, peer: IpAddr) -> bool {
        self.0.borrow().contains(&peer)
    }

    /// A watch that begins with the present word.
    pub(crate) fn watch(&self) -> AwayWatch {
        AwayWatch(self.0.subscribe())
    }
}

impl AwayWatch {
    /// Returns true if the peer's host cannot be reached now.
    pub(crate) fn has(&mut self, peer: IpAddr) -> bool {
        self.0.borrow_and_update().contains(&peer)
    }

    /// Returns true if any peer's host cannot be reached now.
    pub(crate) fn has_any(&mut self) -> bool {
        !self.0.borrow_and_update().is_empty()
    }

    /// Returns when a peer has had its time since `began`: true if that was `away`, since its host cannot be reached, and false after `usual`.
    /// Cancel safe.
    pub(crate) async fn expire(
        &mut self,
        peer: IpAddr,
        began: Instant,
        [usual, away]: [Duration; 2],
    ) -> bool {
        loop {
            let is_away = self.has(peer);
            let limit = if is_away { away } else { usual };
            tokio::select! {
                () = tokio::time::sleep_until(began + limit) => return is_away,
                () = self.changed() => {}
            }
        }
    }

    /// Returns when there is another word. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // There will be none.
            std::future::pending().await
        }
    }
}
