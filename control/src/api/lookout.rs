//! Words for hosts about the control planes that share a store.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{self, Stream};
use sealane_base::drain::Draining;
use sealane_proto::wire::v1;
use sealane_proto::wire::v1::lookout_server::LookoutServer;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::control::peer;
use crate::registry::Registry;
use crate::roster::Roster;

/// Largest request, which has nothing in it.
const LARGEST: usize = 1 << 10;

/// Tells hosts which control planes there are, and which one leads.
#[derive(Clone)]
pub(crate) struct LookoutApi {
    roster: watch::Receiver<Roster>,
    registry: Arc<Registry>,
    draining: Draining,
}

impl LookoutApi {
    pub(crate) fn new(
        roster: watch::Receiver<Roster>,
        registry: Arc<Registry>,
        draining: Draining,
    ) -> LookoutServer<Self> {
        LookoutServer::new(Self { roster, registry, draining }).max_decoding_message_size(LARGEST)
    }
}

#[tonic::async_trait]
impl v1::lookout_server::Lookout for LookoutApi {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::Controls, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<v1::WatchControlsRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let peer = peer(&request)?;
        peer.spoke.note();
        // One that a standby has not heard of yet has a good certificate all the same.
        if !peer.is_control() {
            peer.host(&self.registry.directory())?;
        }
        let mut roster = self.roster.clone();
        roster.mark_changed();
        let words =
            stream::unfold((roster, self.draining.clone()), |(mut roster, mut draining)| async move {
                tokio::select! {
                    biased;
                    changed = roster.changed() => changed.ok()?,
                    () = draining.begun() => return None,
                }
                let word = v1::Controls::from(&*roster.borrow_and_update());
                Some((Ok(word), (roster, draining)))
            });
        Ok(Response::new(Box::pin(words)))
    }
}
