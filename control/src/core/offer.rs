//! Addresses that come back: their host has nothing there, and assigns them no more.
//!
//! The offer comes with the report of all workloads of the host, so nothing can be at such an address of which control does not
//! know yet. What a host has offered it never uses again before control's state says that it is not its own any more, and then
//! leases it to the host anew.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use sealane_proto::resource::Block;
use sealane_proto::types::{NetworkName, NodeName, OverlayIp};

use super::{
    Change, Command, Decision, NetworkState, Report, ReportRefusal, Reported, State, Timestamp, ipam,
};

/// A report, with the addresses that its host offers to give back: whole blocks or parts of them.
///
/// A host that carries a network does so as long as it wants: what it holds last stays its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferingReport {
    /// All workloads of the host.
    pub report: Report,
    /// The addresses, per network.
    pub offers: BTreeMap<NetworkName, BTreeSet<Ipv4Net>>,
}

impl Command for OfferingReport {
    type Outcome = Reported;
    type Refusal = ReportRefusal;

    fn decide(self, state: &State, now: Timestamp) -> Result<Decision<Reported>, ReportRefusal> {
        let Self { report, offers } = self;
        let node = report.node.clone();
        // Those that are refused run as well.
        let used: BTreeSet<(NetworkName, OverlayIp)> =
            report.workloads.iter().map(|workload| (workload.network.clone(), workload.address)).collect();
        let mut decision = report.decide(state, now)?;
        for (name, ranges) in offers {
            let Some(network) = state.networks.get(&name) else { continue };
            let is_empty = |range: &Ipv4Net| {
                let (first, last) = ipam::addresses(*range).into_inner();
                used.range((name.clone(), first)..=(name.clone(), last)).next().is_none()
            };
            let empty: Vec<Ipv4Net> = ranges.into_iter().filter(is_empty).collect();
            let (changes, returned) = take(network, &node, &empty, now);
            decision.changes.extend(changes);
            decision.outcome.returned.extend(returned.into_iter().map(|range| (name.clone(), range)));
        }
        Ok(decision)
    }
}

/// Takes ranges that lie in a host's blocks, as long as something is left of these; they rest.
fn take(
    network: &NetworkState,
    node: &NodeName,
    ranges: &[Ipv4Net],
    now: Timestamp,
) -> (Vec<Change>, Vec<Ipv4Net>) {
    let before: BTreeSet<Ipv4Net> = network.blocks.index().of(node).collect();
    let (mut left, mut taken) = (before.clone(), vec![]);
    for &range in ranges {
        let Some(block) = left.iter().copied().find(|block| block.contains(&range)) else { continue };
        let pieces = Block { node: Some(node.clone()), range: block }.without(range);
        if pieces.is_empty() && left.len() == 1 {
            continue;
        }
        left.remove(&block);
        left.extend(pieces);
        taken.push(range);
    }
    let name = &network.network.name;
    let gone = before.difference(&left).map(|&range| Change::remove_in::<Block>(name, range));
    let new = left.difference(&before);
    let new = new.map(|&range| Change::put_in(name, Block { node: Some(node.clone()), range }));
    let rests = taken.iter().map(|&range| network.rest(range, now));
    (gone.chain(new).chain(rests).collect(), taken)
}

#[cfg(test)]
mod tests {
    use sealane_proto::resource::{Egress, Node};

    use super::*;
    use crate::core::{CarryNetwork, CreateNetwork, NodeRecord, model};

    const NOW: Timestamp = Timestamp::from_unix(0);

    /// A host with the blocks 10.42.0.0/28 and 10.42.0.16/28, and another one with 10.42.0.32/28.
    fn state() -> State {
        let mut state = State::default();
        let network: NetworkName = "shop".parse().unwrap();
        let create = CreateNetwork {
            name: network.clone(),
            hosts: Default::default(),
            subnet: "10.42.0.0/16".parse().unwrap(),
            mtu: None,
            egress: Egress::Allow,
            subnet6: None,
            mtls: None,
        };
        model::run(&mut state, create, NOW).unwrap();
        for (name, last, blocks) in [("host-1", 1, 2), ("host-2", 2, 1)] {
            let name: NodeName = name.parse().unwrap();
            let underlay = format!("192.0.2.{last}").parse().unwrap();
            let node = Node { name: name.clone(), underlay, mtu: None };
            state.apply(&Change::put(NodeRecord::new(node, [last; 32], NOW)));
            for blocks_held in 0..blocks {
                let carry = CarryNetwork { node: name.clone(), network: network.clone(), blocks_held };
                model::run(&mut state, carry, NOW).unwrap();
            }
        }
        state
    }

    /// Returns what comes back when host-1 has workloads at these addresses and offers these ranges, and what it has then.
    fn offer(state: &mut State, workloads: &[&str], ranges: &[&str]) -> (Vec<String>, Vec<String>) {
        let (node, shop): (NodeName, NetworkName) = ("host-1".parse().unwrap(), "shop".parse().unwrap());
        let workloads = workloads.iter().map(|address| model::workload(address.parse().unwrap())).collect();
        let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
        let report = Report { node: node.clone(), workloads, editions: Default::default() };
        let report = OfferingReport { report, offers: [(shop.clone(), ranges)].into() };
        let reported = model::run(state, report, NOW).unwrap();
        let texts = |ranges: Vec<Ipv4Net>| ranges.iter().map(ToString::to_string).collect();
        let returned = reported.returned.into_iter().map(|(_, range)| range).collect();
        (texts(returned), texts(state.networks[&shop].blocks.index().of(&node).collect()))
    }

    #[test]
    fn an_empty_block_comes_back_and_rests() {
        let mut state = state();
        let (returned, left) = offer(&mut state, &["10.42.0.2"], &["10.42.0.16/28"]);
        assert_eq!((returned, left), (vec!["10.42.0.16/28".to_owned()], vec!["10.42.0.0/28".to_owned()]));
        let shop: NetworkName = "shop".parse().unwrap();
        assert!(state.networks[&shop].resting_at("10.42.0.20".parse().unwrap()).is_some());
        let again = offer(&mut state, &["10.42.0.2"], &["10.42.0.16/28"]);
        assert_eq!(again.0, [""; 0], "it is not its own any more");
        let carry = CarryNetwork { node: "host-1".parse().unwrap(), network: shop, blocks_held: 1 };
        let blocks = model::run(&mut state, carry, NOW).unwrap().blocks;
        assert_eq!(blocks[1].range.to_string(), "10.42.0.48/28", "it rests");
    }

    #[test]
    fn a_part_of_a_block_comes_back_and_the_rest_stays() {
        let mut state = state();
        let (returned, left) = offer(&mut state, &["10.42.0.2", "10.42.0.17"], &["10.42.0.24/29"]);
        assert_eq!(returned, ["10.42.0.24/29"]);
        assert_eq!(left, ["10.42.0.0/28", "10.42.0.16/29"]);
    }

    #[test]
    fn what_is_in_use_or_anothers_or_the_last_stays() {
        for (workloads, ranges, comes) in [
            (&["10.42.0.17"] as &[&str], &["10.42.0.16/28"] as &[&str], &[] as &[&str]),
            (&[], &["10.42.0.32/28", "10.42.255.0/24", "10.42.0.0/24"], &[]),
            (&[], &["10.42.0.0/28", "10.42.0.16/28"], &["10.42.0.0/28"]),
            (&["10.42.0.2"], &["10.42.0.8/29", "10.42.0.12/30"], &["10.42.0.8/29"]),
        ] {
            let (returned, _) = offer(&mut state(), workloads, ranges);
            assert_eq!(returned, comes, "{ranges:?}");
        }
    }

    #[test]
    fn nothing_comes_back_where_a_workload_is_that_control_does_not_accept() {
        let mut state = state();
        let mut other = model::workload("10.42.0.20".parse().unwrap());
        other.mac = model::workload("10.42.0.2".parse().unwrap()).mac;
        let report = Report {
            node: "host-1".parse().unwrap(),
            workloads: vec![model::workload("10.42.0.2".parse().unwrap()), other],
            editions: Default::default(),
        };
        let ranges = ["10.42.0.16/28".parse().unwrap()].into();
        let offers = [("shop".parse().unwrap(), ranges)].into();
        let reported = model::run(&mut state, OfferingReport { report, offers }, NOW).unwrap();
        assert_eq!((reported.refused.len(), reported.returned), (1, vec![]));
    }
}
