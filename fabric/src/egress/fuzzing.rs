//! Rules of a host from anywhere.

use super::firewall::{plan, removal};
use super::tracking::needed_by;
use super::{closed_inputs, mentions, obstacles};
use crate::nft::Listing;

/// Judges a ruleset as nft tells it: no more chains are in the way, closed or in need of tracking than there are.
pub(crate) fn judged(data: &[u8]) {
    let Ok(rules) = Listing::read(data) else { return };
    if let Some(chain) = needed_by(&rules) {
        assert!(!rules.chains.is_empty() && chain.split(' ').count() >= 3, "{chain}");
    }
    let uplinks = ["eth0".to_owned()];
    for by_iptables in [false, true] {
        assert!(obstacles(&rules, &uplinks, by_iptables).len() <= rules.chains.len());
    }
    assert!(closed_inputs(&rules).len() <= rules.chains.len());
    let _ = mentions(&rules, "udp", 4789);
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
