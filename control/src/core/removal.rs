//! Hosts that leave the mesh, by their own will or by somebody else's.

use std::collections::BTreeSet;
use std::time::Duration;

use sealane_proto::identity::SerialPrefix;
use sealane_proto::types::{NetworkName, NodeName};

use super::{Change, Command, Decision, NodeRecord, Removal, Report, Rest, State, Timestamp};

/// A host that was part of the mesh: its key admits it no more, and its certificates are good for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedNode {
    /// What it was called; another host may have the name by now.
    pub name: NodeName,
    /// SHA-256 of its public key.
    pub key: [u8; 32],
    /// Since when.
    pub removed: Timestamp,
    /// The networks whose sidecars must refuse its certificates: those that it carried. Empty when the last
    /// of them has ended.
    pub networks: BTreeSet<NetworkName>,
}

impl RemovedNode {
    /// How the serial numbers of its certificates begin.
    #[must_use]
    pub fn serials(&self) -> SerialPrefix {
        SerialPrefix::of_key(&self.key)
    }
}

/// A host is no part of the mesh any more. Its workloads leave names and balancing, its blocks rest.
///
/// The outcome has how the serial numbers of its certificates begin, all of which are revoked: `None` for a host
/// that others have told of after a restoration, whose key nobody knows. It is not taken in when it comes, and
/// revoked then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoveNode {
    /// The host.
    pub name: NodeName,
    /// Whether it is there right now: then its workloads are in use.
    pub connected: bool,
    /// Even so.
    pub force: bool,
}

/// Why a host is not removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemoveNodeRefusal {
    /// There is none.
    #[error("there is no node {0}; see `sealane node ls`")]
    NotFound(NodeName),
    /// It works.
    #[error(
        "node {name} is connected and runs {}; `sealane node drain {name}` sends their services' calls elsewhere; \
         then end them, or remove the node with --force",
        workloads(*.count, .examples)
    )]
    InUse {
        /// The host.
        name: NodeName,
        /// How many workloads it has.
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

impl Command for RemoveNode {
    type Outcome = Option<SerialPrefix>;
    type Refusal = RemoveNodeRefusal;

    fn decide(
        self,
        state: &State,
        now: Timestamp,
    ) -> Result<Decision<Option<SerialPrefix>>, RemoveNodeRefusal> {
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
        // What the host would report without workloads: services keep the ports of other hosts' instances.
        let ended = Report { node: name.clone(), workloads: vec![] }.decide(state, now);
        let mut changes = ended.map(|decision| decision.changes).unwrap_or_default();
        changes.extend(resting(state, node, now));
        changes.push(Change::RemoveNode(name.clone()));
        let networks: BTreeSet<NetworkName> = state.carried_by(&name).cloned().collect();
        if let Some(recovery) = state.recovery.as_ref().filter(|recovery| !recovery.is_over(now)) {
            let mut recovery = recovery.clone();
            recovery.removed.insert(name.clone(), Removal { at: now, networks: networks.clone() });
            changes.push(Change::PutRecovery(recovery));
        }
        let removed = RemovedNode { name, key: node.key, removed: now, networks };
        let serials = node.is_admitted().then(|| removed.serials());
        if serials.is_some() {
            changes.push(Change::PutRemoved(removed));
        }
        Ok(Decision { changes, outcome: serials })
    }
}

/// Lets a host's blocks rest, and the addresses of its workloads that lie outside of them.
fn resting(state: &State, node: &NodeRecord, now: Timestamp) -> Vec<Change> {
    let name = &node.node.name;
    let mut changes = vec![];
    for (network, known) in &state.networks {
        let rest = Rest { after: known.changed, since: now };
        let own = known.blocks.iter().filter(|(_, holder)| holder.as_ref() == Some(name));
        let own: Vec<_> = own.map(|(&range, _)| range).collect();
        for &range in &own {
            changes.push(Change::RemoveBlock { network: network.clone(), range });
            changes.push(Change::PutRest { network: network.clone(), range, rest });
        }
        let outside = known.workloads_of(name).map(|workload| workload.address.to_ipv4());
        let outside = outside.filter(|address| !own.iter().any(|block| block.contains(address)));
        changes.extend(outside.map(|address| Change::PutRest {
            network: network.clone(),
            range: address.into(),
            rest,
        }));
    }
    changes
}

/// Forgets what nobody asks for any more of removed hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurgeRemoved {
    /// How long a certificate of a workload may be good.
    pub workload_lifetime: Duration,
    /// How long a host's own may be.
    pub host_lifetime: Duration,
}

impl Command for PurgeRemoved {
    type Outcome = ();
    type Refusal = std::convert::Infallible;

    fn decide(self, state: &State, now: Timestamp) -> Result<Decision<()>, Self::Refusal> {
        let changes = state.removed.values().filter_map(|removed| {
            let past = |lifetime| removed.removed.after(lifetime) < now;
            if past(self.host_lifetime.max(self.workload_lifetime)) {
                Some(Change::ForgetRemoved(removed.serials()))
            } else if past(self.workload_lifetime) && !removed.networks.is_empty() {
                let networks = BTreeSet::new();
                Some(Change::PutRemoved(RemovedNode { networks, ..removed.clone() }))
            } else {
                None
            }
        });
        Ok(Decision { changes: changes.collect(), outcome: () })
    }
}

/// A host's services get no new calls from now on, or get them again. Safe to repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainNode {
    /// The host.
    pub name: NodeName,
    /// Whether it is to be drained.
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
        let changes = if record == *node { vec![] } else { vec![Change::PutNode(record)] };
        Ok(Decision { changes, outcome: () })
    }
}

#[cfg(test)]
mod tests;
