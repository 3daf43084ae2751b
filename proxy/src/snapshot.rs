//! Snapshot of a configuration, arranged for the workload's calls and for those to it; and the newest one of a worker.

use std::cell::RefCell;
use std::collections::HashSet;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use sealane_proto::sidecar::{Change, Config};
use tokio::sync::Notify;

use crate::policy::{Call, Denial, Policy};
use crate::route::{self, Routes};
use crate::scope::Scope;

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
    /// Addresses that it speaks of.
    pub(crate) scope: Scope,
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
            scope: Scope::new(config),
        }
    }

    /// The same after a change that does not concern the own workload.
    pub(crate) fn after(&self, change: &Change) -> Self {
        let mut snapshot = self.clone();
        snapshot.routes.change(&change.change);
        snapshot.scope.change(change);
        snapshot
    }

    /// Returns true if it says nothing of this address of the network: something may be there all the same.
    pub(crate) fn lacks(&self, address: IpAddr) -> bool {
        self.scope.lacks(address) && !self.routes.know(address)
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
    /// Addresses of its scope that were looked up since somebody asked which.
    used: RefCell<HashSet<Ipv4Addr>>,
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

    /// Returns true if the sidecar was not told of this address of the network; not before the first snapshot, when it knows nothing.
    pub(crate) fn lacks(&self, address: IpAddr) -> bool {
        self.with(|snapshot| snapshot.lacks(address)).unwrap_or_default()
    }

    /// Returns when there is another snapshot than at the time of this call.
    pub(crate) fn replaced(&self) -> impl Future<Output = ()> {
        self.replaced.notified()
    }

    /// Notes that an address matters, if it is one that the sidecar is told of for that.
    pub(crate) fn note_use(&self, address: IpAddr) {
        if let IpAddr::V4(address) = address
            && self.with(|snapshot| snapshot.scope.has(address)).unwrap_or_default()
        {
            self.used.borrow_mut().insert(address);
        }
    }

    /// The addresses that were noted since the last call.
    pub(crate) fn take_used(&self) -> HashSet<Ipv4Addr> {
        self.used.take()
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
            let replaced = self.replaced();
            let denied = self.get().and_then(|snapshot| snapshot.policy.decide(call).err());
            match denied {
                Some(denial) => return denial,
                None => replaced.await,
            }
        }
    }
}
