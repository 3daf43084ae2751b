//! What a workload's DNS answers: the names of all its networks, in the order in which it joined them.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::dns::{View, Zone};

/// The view, made anew whenever one of its networks changes.
#[derive(Debug)]
pub(super) struct Names {
    view: Arc<ArcSwap<View>>,
    zones: Mutex<Vec<Arc<Zone>>>,
}

impl Names {
    /// The names of these networks.
    pub(super) fn new(zones: Vec<Arc<Zone>>) -> Arc<Self> {
        let view = View { zones: zones.clone(), balanced: true };
        Arc::new(Self { view: Arc::new(ArcSwap::from_pointee(view)), zones: Mutex::new(zones) })
    }

    /// What is served.
    pub(super) fn view(&self) -> Arc<ArcSwap<View>> {
        self.view.clone()
    }

    /// The network at this place has these names from now on.
    pub(super) fn publish(&self, place: usize, zone: Arc<Zone>) {
        let mut zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = zones.get_mut(place) {
            *known = zone;
        }
        self.view.store(Arc::new(View { zones: zones.clone(), balanced: true }));
    }
}
