//! Steps between the newest states of a network, so that a reader of one of them needs no more than what has changed
//! since. Pure.

use sealane_proto::resource::{NetworkChange, NetworkSnapshot};
use sealane_proto::sidecar::Told;

/// Number of steps that are kept. Who has fallen behind further is told the whole state.
const MOST: usize = 8;
/// A step is kept if it is no more than so many services and workloads, or than this part of the network has.
const LONG: usize = 16;
const PART: usize = 4;

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
    pub(super) fn with(
        &self,
        [since, content]: [u64; 2],
        before: &NetworkSnapshot,
        after: &NetworkSnapshot,
    ) -> Self {
        let Some(change) = NetworkChange::between(before, after) else { return Self::default() };
        let all = after.services.len() + after.workloads.len();
        if change.len() > LONG.max(all / PART) {
            return Self::default();
        }
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
    use super::*;
    use crate::testing::{block, snapshot, workload};

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
            steps.with([at, at + 1], &network(pair[0]), &network(pair[1]))
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
        let mut other = network(1);
        other.blocks.push(block(None, "10.42.255.0/24"));
        let steps = Steps::default().with([1, 2], &network(1), &other);
        assert_eq!(contents(&steps, 1), None);
    }
}
