//! A container that starts again has its address again: dockerd gives back what it had, and asks for another one without a word of
//! for whom. The address rests with its container for a while.

use std::sync::Arc;
use std::time::Duration;

use sealane_base::task;
use sealane_proto::types::NetworkName;

use super::book::{Endpoint, Past};
use super::{Docker, core};
use crate::attachment::{Claim, Hold, Reservation};

/// Time for which an address is kept for a container that does not run. Later it has it where it is free.
const KEPT: Duration = Duration::from_secs(300);
/// Number of containers that are looked at for the one that starts.
const MOST: usize = 16;

impl Docker {
    /// The end of a container is deleted, which may start again.
    pub(super) async fn remember(&self, endpoint: &Endpoint) {
        let Some(owner) = &endpoint.owner else { return };
        let past = Past {
            container: owner.container.clone(),
            network_id: endpoint.network_id.clone(),
            network: endpoint.network.clone(),
            address: endpoint.address,
            hold: Some(endpoint.hold.clone()),
        };
        if let Err(error) = self.book.lock().await.remember(past) {
            tracing::warn!(%error, "a container will have another address when it starts again");
        }
    }

    /// Keeps an address that dockerd gives back for its container, for a while; returns true if it does.
    pub(super) async fn keeps(self: &Arc<Self>, hold: &Hold) -> bool {
        let past =
            self.book.lock().await.past().find(|past| past.hold.as_deref() == Some(hold.as_str())).cloned();
        match past {
            Some(past) => {
                self.expire(past);
                true
            }
            None => false,
        }
    }

    /// Keeps an address no longer than for a while.
    pub(super) fn expire(self: &Arc<Self>, past: Past) {
        let this = Arc::downgrade(self);
        let expire = async move {
            tokio::time::sleep(KEPT).await;
            let Some(docker) = this.upgrade() else { return };
            let mut book = docker.book.lock().await;
            if book.past().any(|known| *known == past) {
                let later = Past { hold: None, ..past.clone() };
                if let Err(error) = book.remember(later) {
                    tracing::warn!(%error, "cannot write down that an address is free");
                }
                drop(book);
                docker.give_back_past(&past).await;
            }
        };
        // It ends by itself.
        task::spawn("docker-kept", expire).detach();
    }

    async fn give_back_past(&self, past: &Past) {
        if let Some(hold) = past.hold() {
            self.give_back(&hold).await;
        }
    }

    /// Gives an address back that nobody is to have any more.
    pub(super) async fn give_back(&self, hold: &Hold) {
        if let Err(failure) = self.workloads.release(hold).await {
            tracing::error!(%failure, holder = %hold, "cannot give an address back");
        }
    }

    /// Forgets those that are never had again.
    pub(super) async fn forget_past(&self, gone: impl Fn(&Past) -> bool) {
        let forgotten: Vec<Past> = self.book.lock().await.past().filter(|past| gone(past)).cloned().collect();
        for past in forgotten {
            if let Err(error) = self.book.lock().await.forget(&past) {
                tracing::error!(%error, "cannot forget an address of Docker's");
            }
            self.give_back_past(&past).await;
        }
    }

    /// Finds the reservation for the container that starts now in a network, if it is one that was there before.
    pub(super) async fn again(&self, network: &NetworkName) -> Option<Reservation> {
        let candidates: Vec<Past> =
            self.book.lock().await.past().filter(|past| past.network == *network).cloned().collect();
        let ids: Vec<String> = candidates.iter().take(MOST).map(|past| past.container.clone()).collect();
        if ids.is_empty() {
            return None;
        }
        // With several, nobody knows for whom this is.
        let [starting] = self.engine.held_up(&ids).await.try_into().ok()?;
        let past = candidates.into_iter().find(|past| past.container == starting)?;
        self.book.lock().await.forget(&past).ok()?;
        let (hold, from) = (core::hold(rand::random(), true).ok()?, past.hold());
        let claim = Claim { hold, network: past.network, address: Some(past.address), mac: None, from };
        // Somebody else may have it by now.
        self.reserve(claim).await.ok()
    }
}
