//! Networks that have refused addresses to hosts that needed some.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use sealane_base::mutex::lock;
use sealane_proto::types::{NetworkName, NodeName};

use super::Directory;
use crate::core::{Span, Timestamp};

/// Time for which a refusal is a problem: who waits for addresses asks again meanwhile.
const LASTS: Duration = Duration::from_secs(600);

/// The newest refusal of each network.
#[derive(Debug, Default)]
pub(crate) struct Shortages(Mutex<BTreeMap<NetworkName, Shortage>>);

#[derive(Debug)]
struct Shortage {
    node: NodeName,
    /// The reason, with what to do.
    why: String,
    /// Number of addresses that were in nobody's block: with more, the refusal is a thing of the past.
    free: usize,
    at: Timestamp,
}

impl Shortages {
    /// A host gets no more addresses of a network that is known.
    pub(crate) fn note(
        &self,
        directory: &Directory,
        network: NetworkName,
        (node, why): (NodeName, String),
        now: Timestamp,
    ) {
        let free = directory.networks.get(&network).map_or(0, |known| known.space().free());
        let mut shortages = lock(&self.0);
        shortages.retain(|_, shortage| now.since(shortage.at) < LASTS);
        shortages.insert(network, Shortage { node, why, free, at: now });
    }

    /// The host has got some after all.
    pub(crate) fn end(&self, network: &NetworkName, node: &NodeName) {
        let mut shortages = lock(&self.0);
        if shortages.get(network).is_some_and(|shortage| shortage.node == *node) {
            shortages.remove(network);
        }
    }

    /// Tells people of each network whose space tells nothing itself, and has not become larger since.
    pub(crate) fn problems(&self, directory: &Directory, now: Timestamp) -> Vec<String> {
        let shortages = lock(&self.0);
        let told = |network: &NetworkName, free: usize| {
            directory.networks.get(network).is_some_and(|known| {
                let space = known.space();
                space.free() <= free && space.shortage(known.network()).is_none()
            })
        };
        let lasting = shortages
            .iter()
            .filter(|(network, shortage)| now.since(shortage.at) < LASTS && told(network, shortage.free));
        let sentence = |(_, Shortage { node, why, at, .. }): (&NetworkName, &Shortage)| {
            format!("node {node} got no more addresses {} ago: {why}", Span(now.since(*at)))
        };
        lasting.map(sentence).collect()
    }
}
