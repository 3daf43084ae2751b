//! Sentences about hosts, with what channels tell of them. Pure.

use sealane_proto::types::NodeName;

use crate::liveness::ALONE;
use crate::matrix::WaysTold;

/// Puts in the place of a general advice what is known of the way to the host that the sentence is about, or to all of them.
pub(super) fn explained(problem: String, ways: &WaysTold) -> String {
    const SAID: &str = " cannot be reached from this host by UDP port ";
    let about = |name: &NodeName| problem.starts_with(&format!("node {name} (")) && problem.contains(SAID);
    let way = if problem.starts_with(ALONE) {
        ways.all.as_ref()
    } else {
        ways.each.iter().find_map(|(name, way)| about(name).then_some(way))
    };
    match way.zip(problem.split_once("; ")) {
        Some((way, (said, _))) => format!("{said}; {way}"),
        None => problem,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_is_known_of_a_way_takes_the_place_of_advice_and_nothing_else_changes() {
        let each =
            BTreeMap::from([("h2".parse().unwrap(), "UDP port 4789 is blocked from h1 to h2".to_owned())]);
        let ways = WaysTold { each, all: Some("UDP port 4789 is blocked to this host".to_owned()) };
        let alone = format!("{ALONE} 3 hosts that share a network with it: its own alone");
        for (problem, expected) in [
            (
                &*format!("{alone}; see that its network is up"),
                &*format!("{alone}; UDP port 4789 is blocked to this host"),
            ),
            (
                "node h2 (192.0.2.2) cannot be reached from this host by UDP port 4789: no calls; see that it is up",
                "node h2 (192.0.2.2) cannot be reached from this host by UDP port 4789: no calls; UDP port 4789 is blocked from h1 to h2",
            ),
            (
                "node h23 (192.0.2.3) cannot be reached from this host by UDP port 4789: no calls; see that it is up",
                "node h23 (192.0.2.3) cannot be reached from this host by UDP port 4789: no calls; see that it is up",
            ),
            ("control is not there; what runs goes on", "control is not there; what runs goes on"),
        ] {
            assert_eq!(explained(problem.to_owned(), &ways), expected);
        }
    }
}
