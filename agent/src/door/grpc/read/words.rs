//! Sentences about hosts, with what channels tell of them. Pure.

use std::collections::BTreeMap;

use sealane_proto::types::NodeName;

/// Puts in the place of a general advice what is known of the way to the host that the sentence is about.
pub(super) fn explained(problem: String, ways: &BTreeMap<NodeName, String>) -> String {
    const SAID: &str = " cannot be reached from this host by UDP port ";
    let about = |name: &NodeName| problem.starts_with(&format!("node {name} (")) && problem.contains(SAID);
    match ways.iter().find(|(name, _)| about(name)).zip(problem.split_once("; ")) {
        Some(((_, way), (said, _))) => format!("{said}; {way}"),
        None => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_way_takes_the_place_of_advice_and_nothing_else_changes() {
        let ways =
            BTreeMap::from([("h2".parse().unwrap(), "UDP port 4789 is blocked from h1 to h2".to_owned())]);
        for (problem, expected) in [
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
