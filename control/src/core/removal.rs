//! Hosts that leave the mesh, by their own will or by somebody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sealane_proto::identity::SerialPrefix;
use sealane_proto::types::NodeName;

use super::{
    Change, Command, Decision, NodeRecord, Removal, Report, State, Timestamp, TokenStanding, edition,
    external,
};

/// A host that was part of the mesh: its key admits it no more, and its certificates are good for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedNode {
    /// Former name; another host may have it by now.
    pub name: NodeName,
    /// SHA-256 of its public key.
    pub key: [u8; 32],
    /// Since when.
    pub removed: Timestamp,
}

impl RemovedNode {
    /// Returns the beginning of the serial numbers of its certificates.
    #[must_use]
    pub fn serials(&self) -> SerialPrefix {
        SerialPrefix::of_key(&self.key)
    }
}

/// A host is no part of the mesh any more. Its workloads leave names and balancing, its blocks rest.
///
/// The outcome has how the serial numbers of its certificates begin, all of which are revoked: `None` for a host
/// that others have told of after a restoration, whose key nobody knows. It is not taken in when it comes, and
/// revoked then. The token that it came by admits nobody else: whoever has the host's disk may have that as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoveNode {
    /// The host.
    pub name: NodeName,
    /// True if it is there right now: then its workloads are in use.
    pub connected: bool,
    /// Even so.
    pub force: bool,
}

/// Reasons for which a host is not removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemoveNodeRefusal {
    /// There is none.
    #[error("there is no node {0}; see `sealane node ls`")]
    NotFound(NodeName),
    /// The host works.
    #[error(
        "node {name} is connected and runs {}; `sealane node drain {name}` sends their services' calls elsewhere; \
         then end them, or remove the node with --force",
        workloads(*.count, .examples)
    )]
    InUse {
        /// The host.
        name: NodeName,
        /// Number of its workloads.
        count: usize,
        /// Some of them.
        examples: String,
    },
}

fn workloads(count: usize, examples: &str) -> String {
    if count == 1 {
        format!("1 workload, {examples}")
    } else {
        format!("{count} workloads, such as {examples}")
    }
}

/// Outcome of a host's removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRemoved {
    /// Beginning of the serial numbers of its certificates; `None`: nobody knows its key.
    pub serials: Option<SerialPrefix>,
    /// The token that it came by, if that admitted hosts until now.
    pub token: Option<String>,
}

impl Command for RemoveNode {
    type Outcome = NodeRemoved;
    type Refusal = RemoveNodeRefusal;

    fn decide(self, state: &State, now: Timestamp) -> Result<Decision<NodeRemoved>, RemoveNodeRefusal> {
        let Self { name, connected, force } = self;
        let Some(node) = state.nodes.get(&name) else {
            return Err(RemoveNodeRefusal::NotFound(name));
        };
        let own: Vec<_> = state.networks.values().flat_map(|network| network.workloads_of(&name)).collect();
        if connected && !force && !own.is_empty() {
            let some = own.iter().take(3).map(|workload| format!("{}/{}", workload.network, workload.name));
            let examples = some.collect::<Vec<_>>().join(", ");
            return Err(RemoveNodeRefusal::InUse { name, count: own.len(), examples });
        }
        let mut changes = leaving(state, node, now);
        if let Some(recovery) = state.recovery.as_ref().filter(|recovery| !recovery.is_over(now)) {
            let mut recovery = recovery.clone();
            recovery.removed.insert(name.clone(), Removal { at: now });
            changes.push(Change::put(recovery));
        }
        let token = node.token.as_ref().and_then(|id| state.tokens.get(id));
        let token = token.filter(|token| token.standing(now) == TokenStanding::Good);
        changes.extend(token.map(|token| Change::put(token.revoked_at(now))));
        let token = token.map(|token| token.id.clone());
        let removed = RemovedNode { name, key: node.key, removed: now };
        let serials = node.is_admitted().then(|| removed.serials());
        if serials.is_some() {
            changes.push(Change::put(removed));
        }
        Ok(Decision { changes, outcome: NodeRemoved { serials, token } })
    }
}

/// Ends a host's workloads and lets its addresses rest.
pub(super) fn leaving(state: &State, node: &NodeRecord, now: Timestamp) -> Vec<Change> {
    let name = &node.node.name;
    // What the host would report without workloads: services keep the ports of other hosts' instances.
    let ended =
        Report { node: name.clone(), workloads: vec![], editions: BTreeMap::new() }.decide(state, now);
    let mut changes = ended.map(|decision| decision.changes).unwrap_or_default();
    changes.extend(unregistered(state, name, &changes, now));
    changes.extend(resting(state, node, now));
    changes.push(Change::remove::<NodeRecord>(name.clone()));
    changes
}

/// Ends what a host has registered, once its workloads have left.
fn unregistered(state: &State, name: &NodeName, left: &[Change], now: Timestamp) -> Vec<Change> {
    let mut services = state.networks.values().flat_map(|network| network.services.values());
    if !services.any(|service| service.external.registrar.as_ref() == Some(name)) {
        return vec![];
    }
    let mut after = state.clone();
    left.iter().for_each(|change| after.apply(change));
    external::dismissed(&after, name, &BTreeSet::new(), now)
}

/// Lets a host's blocks rest, and the addresses of its workloads that lie outside of them.
fn resting(state: &State, node: &NodeRecord, now: Timestamp) -> Vec<Change> {
    let name = &node.node.name;
    let mut changes = vec![];
    for network in state.networks.values() {
        let own: Vec<_> = network.blocks.index().of(name).collect();
        changes.extend(own.iter().flat_map(|&range| network.give_back(range, now)));
        let outside = network.workloads_of(name).map(|workload| workload.address.to_ipv4());
        let outside = outside.filter(|address| !own.iter().any(|block| block.contains(address)));
        changes.extend(outside.map(|address| network.rest(address.into(), now)));
    }
    changes
}

/// Forgets hosts that were removed so long ago that no certificate of theirs can be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurgeRemoved {
    /// Longest time for which any certificate may be good, by any host's clock.
    pub longest_lifetime: Duration,
}

impl Command for PurgeRemoved {
    type Outcome = ();
    type Refusal = std::convert::Infallible;

    fn decide(self, state: &State, now: Timestamp) -> Result<Decision<()>, Self::Refusal> {
        let past = |removed: &&RemovedNode| removed.removed.after(self.longest_lifetime) < now;
        let (gone, kept): (Vec<&RemovedNode>, Vec<_>) = state.removed.values().partition(past);
        let gone = gone.into_iter().map(|removed| Change::remove::<RemovedNode>(removed.serials()));
        let kept = kept.into_iter().map(|removed| &removed.name).collect();
        let changes = gone.chain(edition::forgotten(state, &kept)).collect();
        Ok(Decision { changes, outcome: () })
    }
}

/// A host's services get no new calls from now on, or get them again. Safe to repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainNode {
    /// The host.
    pub name: NodeName,
    /// True if it is to be drained.
    pub drained: bool,
}

impl Command for DrainNode {
    type Outcome = ();
    type Refusal = RemoveNodeRefusal;

    fn decide(self, state: &State, _now: Timestamp) -> Result<Decision<()>, RemoveNodeRefusal> {
        let Some(node) = state.nodes.get(&self.name) else {
            return Err(RemoveNodeRefusal::NotFound(self.name));
        };
        let record = NodeRecord { drained: self.drained, ..node.clone() };
        let changes = if record == *node { vec![] } else { vec![Change::put(record)] };
        Ok(Decision { changes, outcome: () })
    }
}

#[cfg(test)]
mod tests;
