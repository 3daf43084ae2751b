//! Proof of where a host is: nobody is believed to be at an address who does not answer from there.
//!
//! The address of a connection is proven by the connection, whoever has dialled it: packets go there and come back, and who is there
//! has shown its certificate. Any other address is called for a look.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use sealane_base::dial::dial;
use sealane_proto::resource::Whereabouts;
use sealane_proto::types::{NodeName, UnderlayAddrs};
use tokio::time::timeout;

use super::credentials::Credentials;

/// Limit for a look.
const LOOK: Duration = Duration::from_secs(3);
/// Least time between two words of one host about itself.
const PACE: Duration = Duration::from_millis(500);
/// Least time between two looks for it.
const AGAIN: Duration = Duration::from_secs(2);

/// A host's word that is being proven.
#[derive(Default)]
pub(super) struct Proof {
    /// The newest word that is not proven.
    open: Option<Whereabouts>,
    /// A look at its address.
    look: Option<BoxFuture<'static, bool>>,
    /// Time of the last proven word, and of the last look.
    last: Option<Instant>,
    looked: Option<Instant>,
}

impl Proof {
    /// The host says this from now on.
    pub(super) fn begin(&mut self, said: Whereabouts) {
        (self.open, self.look) = (Some(said), None);
    }

    /// Time from which on there may be another word.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        self.last.map(|last| last + PACE)
    }

    /// Returns the word once it is proven, for the host `name`, which is spoken to over `way`; looks at its address as often as that
    /// takes. Never returns while there is nothing to prove.
    ///
    /// # Cancel safety
    /// Safe: a look goes on with the next call.
    pub(super) async fn proven(
        &mut self,
        name: &NodeName,
        (way, here): (IpAddr, UnderlayAddrs),
        (credentials, port): (&Arc<Credentials>, u16),
    ) -> Whereabouts {
        loop {
            let Some(said) = self.open else { return std::future::pending().await };
            // Without a family in common, nothing is sent there.
            let Some(address) = here.way_to(said.underlay).map(|way| way.peer.to_ip()) else {
                return std::future::pending().await;
            };
            if address != way {
                if let Some(looked) = self.looked.filter(|_| self.look.is_none()) {
                    tokio::time::sleep_until((looked + AGAIN).into()).await;
                }
                let look = self.look.get_or_insert_with(|| {
                    Box::pin(look(name.clone(), (address, port).into(), credentials.clone()))
                });
                let found = look.await;
                (self.look, self.looked) = (None, Some(Instant::now()));
                if !found {
                    continue;
                }
            }
            (self.open, self.last) = (None, Some(Instant::now()));
            return said;
        }
    }
}

/// Looks whether this host is at an address.
async fn look(name: NodeName, address: std::net::SocketAddr, credentials: Arc<Credentials>) -> bool {
    let looking = async {
        let stream = dial(address).await?;
        credentials.look(&name, stream).await
    };
    let looked = timeout(LOOK, looking).await.unwrap_or_else(|late| Err(late.into()));
    looked
        .inspect_err(|error| tracing::debug!(peer = %name, %address, %error, "a host is not where it says"))
        .is_ok()
}
