//! Hosts that joined after the backup was taken.

use sealane_proto::resource::{Edition, Node};
use sealane_proto::types::{NodeName, UnderlayAddrs};

use super::{Recovery, Removal};
use crate::core::edition::is_near;
use crate::core::relocate::displace;
use crate::core::{
    Change, Command, Decision, NodeRecord, RemovedNode, State, Timestamp, UnfitUnderlay, removal, underlay,
};

/// A host with a good certificate, of which a restored store has no record.
///
/// The host is taken in when its certificate was issued after the backup was taken: it was part of the mesh then. A host
/// with an older certificate was removed before the backup was taken, or would be in it. One that was removed since
/// the restoration stays so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readmit {
    /// Name by its certificate, and the place that it says.
    pub node: Node,
    /// SHA-256 of its public key.
    pub key: [u8; 32],
    /// Time at which its certificate was issued.
    pub issued: Timestamp,
    /// The host that yields its underlay address to who comes with it.
    pub gone: Option<NodeName>,
    /// Age of its word about that place; the default if it tells none.
    pub placed: Edition,
}

/// Standing of a host from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readmitted {
    /// The host is part of the mesh already.
    Known,
    /// The host is part of the mesh again.
    TakenIn {
        /// The host that had its underlay address.
        displaced: Option<NodeName>,
    },
    /// The host was removed before it came back; its certificates are revoked.
    Revoked,
}

/// Reasons for which a host is not taken in again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadmitRefusal {
    /// The host is not known, and nothing says that it should be.
    #[error(
        "node {0} is not known to this control plane; run `sealane clean` on it, then let it join with a new token"
    )]
    Unknown(NodeName),
    /// Another host has its address.
    #[error(
        "underlay address {underlay} of node {node} is in use by node {other}; give {node} another with --underlay, or end the \
         agent of {other}: a host that has been disconnected for 5 s yields its address"
    )]
    UnderlayInUse {
        /// The address.
        underlay: UnderlayAddrs,
        /// Host that came.
        node: NodeName,
        /// Host that has it.
        other: NodeName,
    },
    /// The address is none that a host can have.
    #[error(transparent)]
    Unfit(#[from] UnfitUnderlay),
}

impl Readmit {
    /// The refusal of a host that nothing speaks for.
    #[must_use]
    pub fn unknown(node: &NodeName) -> ReadmitRefusal {
        ReadmitRefusal::Unknown(node.clone())
    }
}

impl Command for Readmit {
    type Outcome = Readmitted;
    type Refusal = ReadmitRefusal;

    fn decide(self, state: &State, now: Timestamp) -> Result<Decision<Readmitted>, ReadmitRefusal> {
        let Self { node, key, issued, gone, placed } = self;
        let known = state.nodes.get(&node.name);
        if known.is_some_and(NodeRecord::is_admitted) {
            return Ok(Decision { changes: vec![], outcome: Readmitted::Known });
        }
        if state.removed.values().any(|removed| removed.key == key) {
            return Err(ReadmitRefusal::Unknown(node.name));
        }
        let believes = |recovery: &&Recovery| !recovery.is_over(now) && issued >= recovery.taken;
        let Some(recovery) = state.recovery.as_ref().filter(believes) else {
            return Err(ReadmitRefusal::Unknown(node.name));
        };
        if let Some(&Removal { at }) = recovery.removed.get(&node.name) {
            // Now its key is known, and with it what its certificates are told by.
            let removed = RemovedNode { name: node.name, key, removed: at };
            return Ok(Decision { changes: vec![Change::put(removed)], outcome: Readmitted::Revoked });
        }
        if recovery.readmitted.contains(&node.name) {
            return Err(ReadmitRefusal::Unknown(node.name));
        }
        underlay::check(state, &node.name, node.underlay)?;
        let (name, underlay) = (node.name.clone(), node.underlay);
        let mut others = state.nodes.values();
        let (mut changes, mut displaced) = (vec![], None);
        match others.find(|other| other.holds(underlay) && other.node.name != name) {
            // Somebody has told of another host there: this one is there.
            Some(other) if !other.is_admitted() => changes.extend(removal::leaving(state, other, now)),
            _ => {
                let taken = displace(state, &name, underlay, gone.as_ref());
                let refusal = |other| ReadmitRefusal::UnderlayInUse { underlay, node: name.clone(), other };
                let taken = taken.map_err(refusal)?;
                displaced = taken.as_ref().and(gone);
                changes.extend(taken);
            }
        }
        let mut recovery = recovery.clone();
        recovery.readmitted.insert(name);
        let (joined, drained) = known.map_or((issued, false), |known| (known.joined, known.drained));
        // Which token it came by, and for which networks that was, went with the store.
        let (token, networks) =
            known.map_or_else(Default::default, |known| (known.token.clone(), known.networks.clone()));
        let echoes = known.is_some_and(|known| known.echoes);
        let placed = Some(placed).filter(|placed| is_near(*placed, None, now)).unwrap_or_default();
        let record =
            NodeRecord { node, key, joined, drained, token, networks, displaced: None, echoes, placed };
        changes.extend([Change::put(record), Change::put(recovery)]);
        Ok(Decision { changes, outcome: Readmitted::TakenIn { displaced } })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn check(issued: u64, now: u64, change: impl FnOnce(&mut State)) -> Result<usize, String> {
        let (taken, restored) = (Timestamp::from_unix(1_000), Timestamp::from_unix(5_000));
        let recovery = Recovery { taken, restored, ..Recovery::default() };
        let mut state = State { recovery: Some(recovery), ..State::default() };
        change(&mut state);
        let node =
            Node { name: "host-9".parse().unwrap(), underlay: "192.0.2.9".parse().unwrap(), mtu: None };
        let (issued, placed) = (Timestamp::from_unix(issued), Edition::default());
        let readmit = Readmit { node, key: [9; 32], issued, gone: None, placed };
        let decided = readmit.decide(&state, Timestamp::from_unix(now));
        decided.map(|decision| decision.changes.len()).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn who_was_removed_since_the_restoration_is_revoked_when_it_comes() {
        let at = Timestamp::from_unix(5_001);
        let removed = BTreeMap::from([("host-9".parse().unwrap(), Removal { at })]);
        let (taken, restored) = (Timestamp::from_unix(1_000), Timestamp::from_unix(5_000));
        let recovery = Recovery { taken, restored, removed, ..Recovery::default() };
        let mut state = State { recovery: Some(recovery), ..State::default() };
        let node =
            Node { name: "host-9".parse().unwrap(), underlay: "192.0.2.9".parse().unwrap(), mtu: None };
        let (issued, placed) = (Timestamp::from_unix(2_000), Edition::default());
        let readmit = Readmit { node, key: [9; 32], issued, gone: None, placed };
        let decided = readmit.clone().decide(&state, Timestamp::from_unix(5_060)).unwrap();
        let name = "host-9".parse().unwrap();
        let revoked = RemovedNode { name, key: [9; 32], removed: at };
        let expected = Decision { changes: vec![Change::put(revoked)], outcome: Readmitted::Revoked };
        assert_eq!(decided, expected);
        decided.changes.iter().for_each(|change| state.apply(change));
        assert!(readmit.decide(&state, Timestamp::from_unix(5_061)).is_err());
    }

    #[test]
    fn only_who_was_part_of_the_mesh_after_the_backup_is_taken_in_and_once() {
        let unknown = "node host-9 is not known to this control plane";
        assert_eq!(check(1_000, 5_001, |_| ()), Ok(2));
        assert!(check(999, 5_001, |_| ()).unwrap_err().contains(unknown), "it was removed before");
        assert!(check(2_000, 5_000 + 24 * 3_600, |_| ()).unwrap_err().contains(unknown), "too late");
        assert!(check(2_000, 5_001, |state| state.recovery = None).unwrap_err().contains(unknown));
        let again = |state: &mut State| {
            let readmitted = BTreeSet::from(["host-9".parse().unwrap()]);
            state.recovery.as_mut().unwrap().readmitted = readmitted;
        };
        assert!(check(2_000, 5_001, again).unwrap_err().contains(unknown), "somebody removed it since");
        let taken = |state: &mut State| {
            let node =
                Node { name: "host-1".parse().unwrap(), underlay: "192.0.2.9".parse().unwrap(), mtu: None };
            state.apply(&Change::put(NodeRecord::new(node, [1; 32], Timestamp::default())));
        };
        assert!(
            check(2_000, 5_001, taken)
                .unwrap_err()
                .contains("192.0.2.9 of node host-9 is in use by node host-1")
        );
    }

    #[test]
    fn who_was_at_its_address_is_displaced_unless_nobody_has_seen_it() {
        let taken_in = |key| {
            let recovery = Recovery { restored: Timestamp::from_unix(5_000), ..Recovery::default() };
            let mut state = State { recovery: Some(recovery), ..State::default() };
            let node = |name: &str| {
                let (name, underlay) = (name.parse().unwrap(), "192.0.2.9".parse().unwrap());
                Node { name, underlay, mtu: None }
            };
            state.apply(&Change::put(NodeRecord::new(node("host-1"), key, Timestamp::default())));
            let (issued, gone) = (Timestamp::from_unix(2_000), Some("host-1".parse().unwrap()));
            let readmit =
                Readmit { node: node("host-9"), key: [9; 32], issued, gone, placed: Edition::default() };
            readmit.decide(&state, Timestamp::from_unix(5_001)).unwrap().outcome
        };
        let displaced = Some("host-1".parse().unwrap());
        assert_eq!(taken_in([1; 32]), Readmitted::TakenIn { displaced });
        assert_eq!(taken_in(NodeRecord::HEARSAY), Readmitted::TakenIn { displaced: None });
    }
}
