//! Channels between hosts: each says what it has of its own workloads to those that share a network with it.
//!
//! What is under way arrives late, is lost with its channel, and is said again by the next one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use sealane_proto::resource::{Edition, OwnerFacts};
use sealane_proto::types::NetworkName;

/// Channels by who speaks and who hears.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    pub(crate) open: BTreeMap<(u8, u8), Channel>,
    /// Pairs of hosts that cannot reach each other.
    pub(crate) apart: BTreeSet<(u8, u8)>,
}

/// One direction of a channel.
#[derive(Debug, Default)]
pub(crate) struct Channel {
    pub(crate) said: BTreeMap<NetworkName, Edition>,
    /// Words that have arrived: they are not said again, however often the channel breaks.
    pub(crate) heard: BTreeMap<NetworkName, Edition>,
    pub(crate) under_way: VecDeque<Arc<OwnerFacts>>,
}

/// A pair in one order, whichever it is named in.
pub(crate) fn pair(a: u8, b: u8) -> (u8, u8) {
    (a.min(b), a.max(b))
}

impl Channels {
    /// Two hosts cannot reach each other from now on, or can again.
    pub(crate) fn part(&mut self, a: u8, b: u8, apart: bool) {
        if apart {
            self.apart.insert(pair(a, b))
        } else {
            self.apart.remove(&pair(a, b))
        };
    }

    /// All hosts can reach each other.
    pub(crate) fn mend(&mut self) {
        self.apart.clear();
    }

    /// The number of words under way to or from a host.
    pub(crate) fn queued(&self) -> usize {
        self.open.values().map(|channel| channel.under_way.len()).sum()
    }
}
