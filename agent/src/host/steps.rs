//! Steps between the newest states of a network, so that a reader of one of them needs no more than what has changed
//! since. Pure.

use sealane_proto::resource::{NetworkChange, NetworkContent};
use sealane_proto::sidecar::Told;

/// Number of steps that are kept. Who has fallen behind further is told the whole state.
const MOST: usize = 8;
/// A change is short if it is of no more than so many services and workloads, or than this part of the network has.
const LONG: usize = 16;
const PART: usize = 4;

/// Returns true if it costs less to follow the change than to begin anew with the state that it leads to.
pub(super) fn is_short(change: &NetworkChange, after: &NetworkContent) -> bool {
    change.len() <= LONG.max((after.services.len() + after.workloads.len()) / PART)
}

/// Step from one content of a network to the next, each named by the sequence of the first state that had it.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// From here.
    pub(crate) since: u64,
    /// To here.
    pub(crate) content: u64,
    /// By this.
    pub(crate) change: Told<NetworkChange>,
}

/// The steps that led to a state, oldest first, without a gap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steps(Vec<Step>);

impl Steps {
    /// Extends the steps to a new state of another content than the one before.
    pub(super) fn with(&self, [since, content]: [u64; 2], change: NetworkChange) -> Self {
        let oldest = (self.0.len() + 1).saturating_sub(MOST);
        let mut steps = self.0.get(oldest..).unwrap_or_default().to_vec();
        steps.push(Step { since, content, change: change.into() });
        Self(steps)
    }

    /// The steps from this content on; `None` when they are not known.
    pub(crate) fn since(&self, content: u64) -> Option<&[Step]> {
        let first = self.0.iter().position(|step| step.since == content)?;
        self.0.get(first..)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sealane_proto::resource::NetworkSnapshot;

    use super::*;
    use crate::host::HostNetwork;
    use crate::testing::{Chance, block, random_network, snapshot, workload};

    /// A network with so many workloads.
    fn network(workloads: u8) -> NetworkSnapshot {
        let mut network = snapshot();
        network.workloads =
            (0..workloads).map(|n| workload(&format!("w{n:03}"), &format!("10.42.0.{}", n + 2))).collect();
        network
    }

    /// The steps through networks of these sizes, whose contents are their places.
    fn steps(sizes: &[u8]) -> Steps {
        let pairs = sizes.windows(2).enumerate();
        pairs.fold(Steps::default(), |steps, (at, pair)| {
            let at = at as u64;
            let after = network(pair[1]);
            let change = NetworkChange::between(&network(pair[0]), &after).unwrap();
            let steps = if is_short(&change, &after) { steps } else { return Steps::default() };
            steps.with([at, at + 1], change)
        })
    }

    fn contents(steps: &Steps, since: u64) -> Option<Vec<u64>> {
        Some(steps.since(since)?.iter().map(|step| step.content).collect())
    }

    #[test]
    fn who_was_told_one_of_the_newest_states_is_led_from_there() {
        let steps = steps(&[0, 1, 2, 3]);
        assert_eq!(contents(&steps, 0), Some(vec![1, 2, 3]));
        assert_eq!(contents(&steps, 2), Some(vec![3]));
        assert_eq!(contents(&steps, 3), None, "there is nothing to be led to");
        assert_eq!(steps.since(2).unwrap()[0].change.workloads, [workload("w002", "10.42.0.4")]);
    }

    #[test]
    fn few_steps_are_kept_and_none_that_is_nearly_everything() {
        let sizes: Vec<u8> = (0..20).collect();
        assert_eq!(contents(&steps(&sizes), 10), None);
        assert_eq!(contents(&steps(&sizes), 11).map(|contents| contents.len()), Some(MOST));
        assert_eq!(contents(&steps(&[0, 1, 2, 40]), 2), None);
        assert_eq!(contents(&steps(&[0, 1, 2, 40, 41]), 3), Some(vec![4]));
        assert_eq!(contents(&steps(&[0, 1, 2, 40, 41]), 1), None, "no step leads over the gap");
    }

    #[test]
    fn more_than_services_and_workloads_is_told_as_a_whole() {
        let first = HostNetwork::new(1, Arc::new(network(1)), None);
        let mut other = network(2);
        other.blocks.push(block(None, "10.42.255.0/24"));
        let second = HostNetwork::new(2, Arc::new(other.clone()), Some(&first));
        assert_eq!(contents(&second.steps, 1), None);
        other.workloads.pop();
        let third = HostNetwork::new(3, Arc::new(other), Some(&second));
        assert_eq!(contents(&third.steps, 2), Some(vec![3]));
    }

    #[test]
    fn what_is_derived_of_a_state_is_the_same_whatever_led_to_it() {
        let mut chance = Chance::of(7);
        let mut known = HostNetwork::new(0, Arc::new(random_network(&mut chance, 30)), None);
        for sequence in 1..300 {
            let mut snapshot = random_network(&mut chance, if sequence % 9 == 0 { 250 } else { 30 });
            if sequence % 7 == 0 {
                snapshot.blocks.push(block(Some("host-2"), "10.42.9.0/24"));
            }
            let alone = HostNetwork::new(sequence, Arc::new(snapshot.clone()), None);
            known = HostNetwork::new(sequence, Arc::new(snapshot), Some(&known));
            assert_eq!(known.instances, alone.instances);
            assert_eq!(*known.zone, *alone.zone);
            for sidecar in [false, true] {
                assert_eq!(known.services.of(sidecar), alone.services.of(sidecar));
            }
        }
    }
}
