//! Rules of a host from anywhere.

use serde_json::Value;

use super::firewall::{plan, removal};
use super::tracking::needed_by;

/// Looks for a rule that needs the tracking of tunnels, in a ruleset as nft tells it: a chain of it.
pub(crate) fn tracked(data: &[u8]) {
    let Ok(rules) = serde_json::from_slice::<Value>(data) else { return };
    if let Some(chain) = needed_by(&rules) {
        assert!(rules["nftables"].as_array().is_some() && chain.split(' ').count() >= 3, "{chain}");
    }
}

/// Plans by a list of rules as `iptables -S` prints it. All that the plan takes away stands in the list, and a chain in which
/// rules of ours must stand is one of it.
pub(crate) fn planned(data: &[u8]) {
    let Ok(listed) = std::str::from_utf8(data) else { return };
    let plan = plan(listed);
    assert!(plan.chain.is_some() == plan.drops);
    for change in plan.changes.iter().chain(&removal(listed)) {
        match &change[..] {
            [verb, chain, ..] if verb == "-D" => assert!(listed.contains(&format!(" {chain} "))),
            [verb, chain, ..] if verb == "-I" => assert_eq!(Some(chain), plan.chain.as_ref()),
            other => panic!("a change that is none: {other:?}"),
        }
    }
}
