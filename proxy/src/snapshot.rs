//! Snapshot of a configuration, arranged for the workload's calls and for those to it; and the newest one of a worker.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use sealane_proto::resource::NetworkChange;
use sealane_proto::sidecar::Config;
use tokio::sync::Notify;

use crate::policy::{Call, Denial, Policy};
use crate::route::{self, Routes};

/// A configuration, arranged for looking up. It never changes; one that is made by a change shares with the one before what has not
/// changed.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// The sidecar's own workload.
    pub(crate) own: Own,
    /// Policy on calls to it.
    pub(crate) policy: Arc<Policy>,
    /// Routes of its calls.
    pub(crate) routes: Routes,
}

/// The workload that the sidecar serves.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    /// Virtual address.
    pub(crate) address: Ipv4Addr,
    /// Name in metrics.
    pub(crate) label: String,
}

impl Snapshot {
    /// Arranges a configuration that comes after `before`.
    pub(crate) fn new(config: &Config, before: Option<&Self>) -> Self {
        let routes = Routes::new(&config.network);
        Self {
            own: Own {
                address: config.workload.address.to_ipv4(),
                label: route::party(config.workload.service.as_ref()).to_owned(),
            },
            policy: Arc::new(Policy::new(config)),
            routes: match before {
                Some(before) => routes.sharing(&before.routes),
                None => routes,
            },
        }
    }

    /// The same after a change that does not concern the own workload.
    pub(crate) fn after(&self, change: &NetworkChange) -> Self {
        let mut snapshot = self.clone();
        snapshot.routes.change(change);
        snapshot
    }

    /// The IPv6 address that is made from the workload's own one, where the network has that.
    pub(crate) fn own_ipv6(&self, address: IpAddr) -> Option<Ipv6Addr> {
        let own = self.own.address;
        if address == own { self.routes.ipv6_of(own) } else { None }
    }
}

/// The newest snapshot of one worker.
#[derive(Debug, Default)]
pub(crate) struct Current {
    snapshot: RefCell<Option<Arc<Snapshot>>>,
    /// Wakes whoever waits for another one.
    replaced: Notify,
}

impl Current {
    /// Replaces the snapshot.
    pub(crate) fn set(&self, snapshot: Arc<Snapshot>) {
        *self.snapshot.borrow_mut() = Some(snapshot);
        self.replaced.notify_waiters();
    }

    /// The snapshot, once there is one.
    pub(crate) fn get(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.borrow().clone()
    }

    /// Looks something up in the snapshot, once there is one.
    pub(crate) fn with<T>(&self, look_up: impl FnOnce(&Snapshot) -> T) -> Option<T> {
        self.snapshot.borrow().as_deref().map(look_up)
    }

    /// The IPv4 address of the network that this one is made from; any other as it is.
    pub(crate) fn twin(&self, address: SocketAddr) -> SocketAddr {
        let snapshot = self.snapshot.borrow();
        let twin = snapshot.as_ref().and_then(|snapshot| snapshot.routes.ipv4_of(address.ip()));
        SocketAddr::new(twin.map_or(address.ip(), Into::into), address.port())
    }

    /// Returns when a snapshot forbids what `call` began. Cancel safe.
    pub(crate) async fn denied(&self, call: Call<'_>) -> Denial {
        loop {
            let replaced = self.replaced.notified();
            let denied = self.get().and_then(|snapshot| snapshot.policy.decide(call).err());
            match denied {
                Some(denial) => return denial,
                None => replaced.await,
            }
        }
    }
}
