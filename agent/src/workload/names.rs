//! Names that a workload's DNS answers: those of all its networks, in the order in which it joined them. Workloads that share
//! a namespace, as those of a container in several networks of its runtime's, answer there together.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use sealane_base::mutex::lock;
use sealane_proto::types::WorkloadName;

use crate::dns::{NameView, Zone};

/// The view, made anew whenever one of its networks changes.
#[derive(Debug)]
pub(super) struct Names {
    view: Arc<ArcSwap<NameView>>,
    own: Vec<WorkloadName>,
    zones: Mutex<Vec<Arc<Zone>>>,
    room: OnceLock<Membership>,
}

/// A namespace in which several workloads answer together.
#[derive(Debug, Default)]
pub(super) struct SharedNamespace {
    view: Arc<ArcSwap<NameView>>,
    /// The zones of each workload, by the name of its interface.
    zones: Mutex<BTreeMap<String, SharedNames>>,
    /// Told when the one that answered has left.
    free: Notify,
}

/// The part of a workload: its names, and the zones that it brings.
type SharedNames = (Vec<WorkloadName>, Vec<Arc<Zone>>);

#[derive(Debug)]
struct Membership {
    room: Arc<SharedNamespace>,
    place: String,
}

/// The namespaces in which workloads answer together, by what names them as long as they live.
#[derive(Debug, Default)]
pub(super) struct SharedNamespaces(Mutex<BTreeMap<u64, Weak<SharedNamespace>>>);

fn view(own: Vec<WorkloadName>, zones: Vec<Arc<Zone>>) -> NameView {
    NameView { zones, own, balanced: true }
}

fn view_of_all(workloads: &BTreeMap<String, SharedNames>) -> NameView {
    let zones = workloads.values().flat_map(|(_, zones)| zones).cloned().collect();
    view(workloads.values().flat_map(|(own, _)| own).cloned().collect(), zones)
}

impl Names {
    /// The names of these networks, as the workload of these names asks for them.
    pub(super) fn new(own: Vec<WorkloadName>, zones: Vec<Arc<Zone>>) -> Arc<Self> {
        let view = Arc::new(ArcSwap::from_pointee(view(own.clone(), zones.clone())));
        Arc::new(Self { view, own, zones: Mutex::new(zones), room: OnceLock::new() })
    }

    /// Returns the view that is served.
    pub(super) fn view(&self) -> Arc<ArcSwap<NameView>> {
        self.room.get().map_or(&self.view, |membership| &membership.room.view).clone()
    }

    /// The network at this place has these names from now on.
    pub(super) fn publish(&self, place: usize, zone: Arc<Zone>) {
        let mut zones = lock(&self.zones);
        if let Some(known) = zones.get_mut(place) {
            *known = zone;
        }
        self.view.store(Arc::new(view(self.own.clone(), zones.clone())));
        if let Some(Membership { room, place }) = self.room.get() {
            room.put(place, &self.own, zones.clone());
        }
    }

    /// Answers together with whoever is in the namespace with this inode, in the order of their interfaces. Once is enough.
    pub(super) fn join(&self, rooms: &SharedNamespaces, inode: u64, interface: &str) -> Arc<SharedNamespace> {
        let join = || Membership { room: rooms.of(inode), place: interface.to_owned() };
        let Membership { room, place } = self.room.get_or_init(join);
        room.put(place, &self.own, lock(&self.zones).clone());
        room.clone()
    }

    /// Is answered no more.
    pub(super) fn leave(&self) {
        if let Some(Membership { room, place }) = self.room.get() {
            room.take(place);
        }
    }

    /// Leaves the room, as its sockets are closed: those who are left may answer.
    pub(super) fn make_room(&self) {
        if let Some(Membership { room, .. }) = self.room.get() {
            room.free.notify_waiters();
        }
    }
}

impl SharedNamespace {
    fn put(&self, place: &str, own: &[WorkloadName], its: Vec<Arc<Zone>>) {
        let mut zones = lock(&self.zones);
        zones.insert(place.to_owned(), (own.to_vec(), its));
        self.view.store(Arc::new(view_of_all(&zones)));
    }

    fn take(&self, place: &str) {
        let mut zones = lock(&self.zones);
        zones.remove(place);
        self.view.store(Arc::new(view_of_all(&zones)));
    }

    /// Returns true if nobody is in it.
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.zones).is_empty()
    }

    /// Returns when somebody has left. Cancel safe.
    pub(super) async fn freed(&self) {
        self.free.notified().await;
    }
}

impl SharedNamespaces {
    fn of(&self, inode: u64) -> Arc<SharedNamespace> {
        let mut known = lock(&self.0);
        known.retain(|_, room| room.strong_count() > 0);
        let found = known.get(&inode).and_then(Weak::upgrade);
        found.unwrap_or_else(|| {
            let room = Arc::default();
            known.insert(inode, Arc::downgrade(&room));
            room
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn zone() -> Arc<Zone> {
        Arc::new(Zone::build(&testing::snapshot()))
    }

    #[test]
    fn workloads_of_a_namespace_answer_together_in_the_order_of_their_interfaces() {
        let rooms = SharedNamespaces::default();
        let [first, second, other] = [(); 3].map(|()| Names::new(Vec::new(), vec![zone()]));
        let room = second.join(&rooms, 7, "eth1");
        let _ = (first.join(&rooms, 7, "eth0"), other.join(&rooms, 8, "eth0"));
        assert!(Arc::ptr_eq(&first.view(), &second.view()) && !Arc::ptr_eq(&first.view(), &other.view()));
        let newest = zone();
        first.publish(0, newest.clone());
        let served = second.view().load_full();
        assert!(served.zones.len() == 2 && Arc::ptr_eq(&served.zones[0], &newest));
        first.leave();
        assert_eq!(second.view().load().zones.len(), 1);
        second.leave();
        assert!(room.is_empty());
    }
}
