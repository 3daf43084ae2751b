//! Reports of a host's workloads: all of them each time, so that the newest report replaces every older one.

mod bounds;
mod draft;
mod ports;
mod refusal;

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use sealane_proto::resource::{Edition, Workload};
use sealane_proto::types::{NetworkName, NodeName, WorkloadName};

use super::{Change, Command, Decision, NetworkState, State, Timestamp, hosts};
pub use bounds::Bound;
use draft::Draft;
pub(super) use ports::Ports;
pub use refusal::{AddressRefusal, WorkloadRefusal};

/// All workloads of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The reporting host.
    pub node: NodeName,
    /// Workloads of the host, in any order.
    pub workloads: Vec<Workload>,
    /// Age of what it says, per network that it carries; none of an older agent's.
    pub editions: BTreeMap<NetworkName, Edition>,
}

/// Outcome of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// The workloads that are not part of the mesh, each with the reason.
    pub refused: Vec<RefusedWorkload>,
    /// The networks that changed by its workloads.
    pub changed: BTreeSet<NetworkName>,
    /// The addresses that came back with it.
    pub returned: Vec<(NetworkName, Ipv4Net)>,
}

/// A workload that is not part of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedWorkload {
    /// Network of the workload.
    pub network: NetworkName,
    /// Name of the workload.
    pub workload: WorkloadName,
    /// Reason of the refusal.
    pub reason: WorkloadRefusal,
}

/// Reasons for which a report is refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportRefusal {
    /// The host is no part of the mesh.
    #[error(
        "node {0} is not known to this control plane; run `sealane clean` on it, then let it join with a new token"
    )]
    UnknownNode(NodeName),
    /// The word is one that none of the host's could follow.
    #[error(
        "node {node} says of network {network} what is of its agent's start {edition}, which is centuries ahead: see that its clock is right, \
         remove the file node/incarnation below its agent's --data-dir and start the agent again"
    )]
    Ahead {
        /// The host.
        node: NodeName,
        /// The network.
        network: NetworkName,
        /// Age of its word.
        edition: Edition,
    },
}

impl Reported {
    fn refuse_all(&mut self, workloads: Vec<Workload>, reason: &WorkloadRefusal) {
        self.refused.extend(workloads.into_iter().map(|workload| RefusedWorkload {
            network: workload.network,
            workload: workload.name,
            reason: reason.clone(),
        }));
    }
}

impl Command for Report {
    type Outcome = Reported;
    type Refusal = ReportRefusal;

    fn decide(self, state: &State, now: Timestamp) -> Result<Decision<Reported>, ReportRefusal> {
        let Self { node, workloads, editions } = self;
        let Some(record) = state.nodes.get(&node) else {
            return Err(ReportRefusal::UnknownNode(node));
        };
        let beyond = |(name, edition): &(&NetworkName, &Edition)| {
            state.networks.get(*name).is_some_and(|network| !network.believes(&node, **edition, now))
        };
        if let Some((network, edition)) = editions.iter().find(beyond) {
            return Err(ReportRefusal::Ahead { network: network.clone(), edition: *edition, node });
        }
        let (mut changes, mut outcome) = (vec![], Reported::default());
        for (name, mut workloads) in by_network(state, &node, workloads, &editions) {
            let Some(network) = state.networks.get(&name) else {
                outcome.refuse_all(workloads, &WorkloadRefusal::NoNetwork(name));
                continue;
            };
            if let Err(refusal) = hosts::check_network(record, network) {
                // What the host had there goes.
                outcome.refuse_all(std::mem::take(&mut workloads), &refusal.into());
            }
            let (mut drafted, refused) = place((state, network), &node, workloads, now);
            drafted.extend(network.told(&node, editions.get(&name).copied()));
            outcome.refused.extend(refused.into_iter().map(|(workload, reason)| RefusedWorkload {
                network: name.clone(),
                workload,
                reason,
            }));
            if !drafted.is_empty() {
                outcome.changed.insert(name);
                changes.extend(drafted);
            }
        }
        // From now on nobody else is believed what this host runs.
        if let Some(recovery) = state.recovery.as_ref().filter(|recovery| !recovery.heard.contains(&node)) {
            let mut recovery = recovery.clone();
            recovery.heard.insert(node);
            changes.push(Change::put(recovery));
        }
        Ok(Decision { changes, outcome })
    }
}

/// Computes the changes that lead to a network with these workloads of a host and no others, and the workloads that are
/// refused.
pub(super) fn place(
    (state, network): (&State, &NetworkState),
    node: &NodeName,
    workloads: Vec<Workload>,
    now: Timestamp,
) -> (Vec<Change>, Vec<(WorkloadName, WorkloadRefusal)>) {
    let (mut draft, mut refused) = (Draft::new(state, network, node), vec![]);
    for workload in draft.order(workloads) {
        let name = workload.name.clone();
        if let Err(reason) = draft.admit(workload) {
            refused.push((name, reason));
        }
    }
    (draft.changes(now), refused)
}

/// Sorts a report by network, with nothing for networks in which the host had workloads and has none now, or of which it says that
/// it has none.
fn by_network(
    state: &State,
    node: &NodeName,
    workloads: Vec<Workload>,
    editions: &BTreeMap<NetworkName, Edition>,
) -> BTreeMap<NetworkName, Vec<Workload>> {
    let speaks = |name: &NetworkName, network: &NetworkState| {
        editions.contains_key(name) && network.carried_by(node) || network.told.contains_key(node)
    };
    let had = |(name, network): &(&NetworkName, &NetworkState)| {
        network.workloads_of(node).next().is_some() || speaks(name, network)
    };
    let had = state.networks.iter().filter(had);
    let mut grouped: BTreeMap<NetworkName, Vec<Workload>> =
        had.map(|(name, _)| (name.clone(), vec![])).collect();
    for workload in workloads {
        grouped.entry(workload.network.clone()).or_default().push(workload);
    }
    grouped
}

#[cfg(test)]
mod tests;
