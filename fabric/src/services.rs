//! Service addresses inside a workload's namespace: the kernel chooses an endpoint per connection or flow.
//!
//! Without a sidecar it does so for TCP and UDP, beside one for UDP alone. DNAT on output, in a table of the network's
//! own; ports that lead nowhere are refused at once, pings are answered by the namespace itself. What is wanted is pure
//! ([`ServiceTable`]); changes travel as one nf_tables transaction over netlink that touches only the ports that changed.
//! Established connections are never touched; flows of datagrams, and connections that nobody has answered yet, leave an endpoint
//! that is gone, by conntrack.
//!
//! The kernel reads the rules for the first packet of a flow alone, and there are none before the network has a service.

mod freeing;
mod kernel;
mod metrics;
mod ruleset;
mod table;
mod walks;

use std::fmt;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use sealane_base::task;
use sealane_proto::types::NetworkName;
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};

use crate::netlink::NetlinkError;
use freeing::{Freeing, Walk};
use kernel::{Namespace, Present};
pub use metrics::ServiceMetrics;
pub use table::{ServiceTable, ServiceTables};

/// Turns of namespaces that follow a change at once: it concerns them all, and others wait for the kernel, too. Who
/// begins takes no turn: it does not wait until all others have followed the change before.
static TURNS: Semaphore = Semaphore::const_new(2);

/// A place in the queue of namespaces for a turn to follow a change. Who wants none any more gives it up: the queue hands turns
/// out in order, also to who does not look.
pub struct TurnQueue {
    turns: &'static Semaphore,
    place: Option<Place>,
}

type Place = Pin<Box<dyn Future<Output = Result<Turn, AcquireError>> + Send>>;

/// A turn, until it is dropped.
pub type Turn = SemaphorePermit<'static>;

impl Default for TurnQueue {
    fn default() -> Self {
        Self { turns: &TURNS, place: None }
    }
}

impl TurnQueue {
    /// Waits for a turn. `None` would say that there are none any more, which is never so.
    ///
    /// # Cancel safety
    /// The place in the queue stays until [`TurnQueue::leave`].
    pub async fn turn(&mut self) -> Option<Turn> {
        let turns = self.turns;
        let turn = self.place.get_or_insert_with(|| Box::pin(turns.acquire())).await.ok();
        self.place = None;
        turn
    }

    /// Gives the place up, with the turn that may have come meanwhile.
    pub fn leave(&mut self) {
        self.place = None;
    }
}

impl fmt::Debug for TurnQueue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TurnQueue").field("waits", &self.place.is_some()).finish_non_exhaustive()
    }
}

/// The rules of one network in one workload's namespace. It keeps no descriptor: the namespace is told each time.
#[derive(Debug)]
pub struct ServiceRules {
    hopper: Arc<Hopper>,
    network: NetworkName,
    metrics: Option<ServiceMetrics>,
    /// Table that the kernel has; nothing is known after a start or a failure.
    known: Option<Arc<ServiceTable>>,
    freeing: Freeing,
}

/// Reasons for which rules could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The kernel does not do it.
    #[error(
        "the service addresses of network {network} cannot be balanced: {source}; hint: it needs \
         `modprobe nf_tables nft_nat nft_numgen nft_redir nft_reject_inet nf_conntrack_netlink`"
    )]
    Kernel {
        /// The network.
        network: NetworkName,
        /// Error of the kernel.
        source: NetlinkError,
    },
    /// The work could not be done away from the event loop.
    #[error("cannot wait for the kernel: {0}")]
    Thread(#[source] std::io::Error),
    /// The namespace cannot be held.
    #[error("cannot enter the workload's namespace: {0}")]
    Namespace(#[from] std::io::Error),
}

impl ServiceRules {
    /// The rules of `network`, of which nothing is known yet.
    #[must_use]
    pub fn new(hopper: Arc<Hopper>, network: NetworkName) -> Self {
        Self { hopper, network, metrics: None, known: None, freeing: Freeing::default() }
    }

    /// The same, counted.
    #[must_use]
    pub fn counted(self, metrics: ServiceMetrics) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// Returns true if the rules are known to be those of `wanted`.
    pub fn are_of(&self, wanted: &Arc<ServiceTable>) -> bool {
        self.known.as_ref().is_some_and(|known| known == wanted)
    }

    /// Returns true if every port of `wanted` leads to somebody, and only to instances that serve it: names of that
    /// state can be told.
    pub fn lead_where(&self, wanted: &ServiceTable) -> bool {
        self.known.as_ref().is_some_and(|known| known.leads_where(wanted))
    }

    /// Makes the rules those of `wanted`; flows that may not go on are freed afterwards ([`ServiceRules::freed`]). What is so already
    /// is not touched. Answers whether anything was changed.
    ///
    /// # Errors
    /// When the kernel refuses; nothing is known of the rules then.
    ///
    /// # Cancel safety
    /// A change that has begun runs to its end; the next call looks at what is there.
    pub async fn ensure(&mut self, netns: &NetNs, wanted: &Arc<ServiceTable>) -> Result<bool, ServiceError> {
        if self.are_of(wanted) {
            return Ok(false);
        }
        let started = Instant::now();
        let (known, table) = (self.known.take(), wanted.clone());
        self.freeing.follow(wanted);
        let (changed, stranded) =
            self.blocking(netns, move |namespace| ensure(namespace, known, &table)).await?;
        self.known = Some(wanted.clone());
        if let Some(metrics) = self.metrics.as_ref().filter(|_| changed) {
            metrics.observe(started.elapsed().as_secs_f64());
        }
        self.free(netns, stranded)?;
        Ok(changed)
    }

    /// Returns true if no flows are to be freed.
    pub fn is_freed(&self) -> bool {
        self.freeing.is_idle()
    }

    /// Waits until the flows that may not go on by the rules of this moment have been freed. Connections that nobody answers have a
    /// quarter of a second more.
    pub fn freed(&self) -> impl Future<Output = ()> + use<> {
        self.freeing.ended()
    }

    fn free(&self, netns: &NetNs, stranded: Stranded) -> Result<(), ServiceError> {
        let datagrams = match stranded {
            Stranded::None => return Ok(()),
            Stranded::Connections => false,
            Stranded::Datagrams => true,
        };
        self.freeing.begin(Walk {
            hopper: self.hopper.clone(),
            netns: netns.try_clone()?,
            network: self.network.clone(),
            datagrams,
            metrics: self.metrics.clone(),
        });
        Ok(())
    }

    /// Looks at what the kernel has, and puts back what somebody else changed. Answers whether somebody did.
    ///
    /// # Errors
    /// When the kernel refuses.
    ///
    /// # Cancel safety
    /// As [`ServiceRules::ensure`].
    pub async fn audit(&mut self, netns: &NetNs) -> Result<bool, ServiceError> {
        let Some(wanted) = self.known.take() else { return Ok(false) };
        let table = wanted.clone();
        let (changed, stranded) =
            self.blocking(netns, move |namespace| ensure(namespace, None, &table)).await?;
        self.free(netns, stranded)?;
        self.known = Some(wanted);
        Ok(changed)
    }

    /// Takes the rules away; what is gone already is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove(&mut self, netns: &NetNs) -> Result<(), ServiceError> {
        self.known = None;
        self.freeing.forget();
        self.blocking(netns, |namespace| namespace.remove()).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        netns: &NetNs,
        work: impl FnOnce(&Namespace<'_>) -> Result<T, NetlinkError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        let (hopper, network) = (self.hopper.clone(), self.network.clone());
        let netns = netns.try_clone()?;
        let done =
            task::blocking(move || work(&Namespace { hopper: &hopper, netns: &netns, network: &network }));
        let done = done.await.map_err(ServiceError::Thread)?;
        done.map_err(|source| ServiceError::Kernel { network: self.network.clone(), source })
    }
}

/// Flows that may have to leave whom they lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stranded {
    None,
    /// Connections alone, which find out by themselves as well.
    Connections,
    Datagrams,
}

/// Programs the rules; returns true if anything was changed, and the flows that may not go on since. These are freed after the rules
/// have changed: a flow that is freed may begin anew at once.
fn ensure(
    namespace: &Namespace<'_>,
    known: Option<Arc<ServiceTable>>,
    wanted: &ServiceTable,
) -> Result<(bool, Stranded), NetlinkError> {
    let changed = match &known {
        Some(known) => namespace.put(Some(known), wanted).map(|()| true)?,
        None => match namespace.look(wanted)? {
            Present::Right => false,
            Present::Nothing => namespace.begin(wanted).map(|()| true)?,
            Present::Other => namespace.put(None, wanted).map(|()| true)?,
        },
    };
    let stranded = match &known {
        _ if wanted.is_idle() => Stranded::None,
        None => Stranded::Datagrams,
        Some(known) if wanted.strands(known) => Stranded::Datagrams,
        Some(known) if wanted.strands_connections(known) => Stranded::Connections,
        Some(_) => Stranded::None,
    };
    Ok((changed, stranded))
}

/// Tries in `netns` whether the kernel has everything that the rules use; leaves nothing behind.
///
/// # Errors
/// With what is missing.
pub fn probe(hopper: &Hopper, netns: &NetNs) -> Result<(), ServiceError> {
    let network: NetworkName = match "probe".parse() {
        Ok(network) => network,
        Err(_) => return Ok(()),
    };
    let namespace = Namespace { hopper, netns, network: &network };
    let table = Arc::new(ServiceTable::sample(Ipv4Addr::new(10, 255, 0, 1).into()));
    let tried = namespace.put(None, &table).and_then(|()| namespace.free_flows(|| table.clone()));
    let removed = namespace.remove();
    tried.and(removed).map_err(|source| ServiceError::Kernel { network, source })
}

/// Changes that make tables, by the names of what is in them.
#[cfg(test)]
pub(crate) fn examples() -> Vec<(&'static str, crate::nft::change::Changes)> {
    use table::tests::table;
    let name =
        crate::nft::ruleset::TableName::new(crate::nft::ruleset::Family::Inet, "sealane-services-shop");
    let services = ["api 10.42.255.1 80 53/udp", "db 10.42.255.2 5432"];
    let workloads =
        ["api-1 10.42.0.1 api 1 80 53/udp", "api-2 10.42.0.3 api 5 80", "db-1 10.42.0.2 db 1 5432"];
    let served = table(&services, &workloads, false);
    let mut blocks = served.clone();
    for block in ["10.43.0.0/16", "10.44.0.0/20"] {
        blocks.blocks.insert(block.parse().unwrap());
    }
    let idle = table(&[], &[], false);
    let unserved = table(&services, &[], false);
    [("idle", idle), ("unserved", unserved), ("served", served), ("blocks", blocks)]
        .map(|(what, table)| (what, ruleset::replacement(&name, &table)))
        .into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    async fn has_turn(queue: &mut TurnQueue) -> bool {
        timeout(Duration::ZERO, queue.turn()).await.is_ok()
    }

    #[tokio::test]
    async fn a_turn_is_nobodys_who_does_not_want_it_any_more() {
        let turns: &Semaphore = Box::leak(Box::new(Semaphore::new(1)));
        let [mut first, mut second, mut third] = [(); 3].map(|()| TurnQueue { turns, place: None });
        let taken = first.turn().await;
        assert!(!has_turn(&mut second).await && !has_turn(&mut third).await);
        drop(taken);
        assert!(!has_turn(&mut third).await, "it is the second one's");
        second.leave();
        assert!(has_turn(&mut third).await);
    }
}
