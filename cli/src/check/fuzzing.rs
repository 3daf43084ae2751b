//! Rulesets from anywhere.

use serde_json::Value;

use super::firewall::{closed_inputs, mentions};
use super::forward::obstacles;

/// Judges a ruleset: no more chains are in the way than there are.
pub(crate) fn judged(data: &[u8]) {
    let Ok(rules) = serde_json::from_slice::<Value>(data) else { return };
    let listed = rules["nftables"].as_array().map_or(0, Vec::len);
    let uplinks = ["eth0".to_owned()];
    for by_iptables in [false, true] {
        assert!(obstacles(&rules, &uplinks, by_iptables).len() <= listed);
    }
    assert!(closed_inputs(&rules).len() <= listed);
    let _ = mentions(&rules, "udp", 4789);
}
