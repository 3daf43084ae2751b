//! Rules of iptables from anywhere.

use super::firewall::{plan, removal};

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
