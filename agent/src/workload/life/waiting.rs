//! Names that wait until a workload's rules and sidecar carry what they lead to. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use sealane_fabric::services::ServiceTable;

use crate::dns::Zone;

/// Number of states that wait at most. Those between are not missed: the newest says all that they say.
const MOST: usize = 8;

/// The states whose names are not told yet, oldest first. Newer ones do not drop older ones: in a stream of changes
/// the newest is never carried, while an older one always is soon.
#[derive(Debug, Default)]
pub(super) struct PendingStates(VecDeque<State>);

#[derive(Debug)]
struct State {
    sequence: u64,
    zone: Arc<Zone>,
    table: Arc<ServiceTable>,
}

impl PendingStates {
    /// Takes in the newest state. With too many, it takes the place of the one before, which says less.
    pub(super) fn push(&mut self, sequence: u64, zone: Arc<Zone>, table: Arc<ServiceTable>) {
        if self.0.back().is_some_and(|newest| newest.sequence >= sequence) {
            return;
        }
        self.0.truncate(MOST - 1);
        self.0.push_back(State { sequence, zone, table });
    }

    /// The names of the newest state that is carried. It waits no more, nor does any older one.
    pub(super) fn release(&mut self, carried: impl Fn(u64, &ServiceTable) -> bool) -> Option<Arc<Zone>> {
        let newest = self.0.iter().rposition(|state| carried(state.sequence, &state.table))?;
        self.0.drain(..=newest).next_back().map(|state| state.zone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use sealane_fabric::services::ServiceTables;

    /// Waiting states with these sequences, and the zone of each.
    fn waiting(sequences: &[u64]) -> (PendingStates, Vec<Arc<Zone>>) {
        let snapshot = testing::snapshot();
        let (mut waiting, mut zones) = (PendingStates::default(), Vec::new());
        for &sequence in sequences {
            let zone = Arc::new(Zone::build(&snapshot));
            zones.push(zone.clone());
            waiting.push(sequence, zone, ServiceTables::build(&snapshot).of(false).clone());
        }
        (waiting, zones)
    }

    fn released(waiting: &mut PendingStates, zones: &[Arc<Zone>], carried: u64) -> Option<usize> {
        let zone = waiting.release(|sequence, _| sequence <= carried)?;
        zones.iter().position(|known| Arc::ptr_eq(known, &zone))
    }

    #[test]
    fn a_stream_of_newer_states_does_not_hold_back_the_names_of_one_that_is_carried() {
        let (mut waiting, zones) = waiting(&[3, 5, 9]);
        assert_eq!(released(&mut waiting, &zones, 2), None);
        assert_eq!(released(&mut waiting, &zones, 7), Some(1));
        assert_eq!(released(&mut waiting, &zones, 7), None, "told already");
        assert_eq!(released(&mut waiting, &zones, 9), Some(2));
    }

    #[test]
    fn the_oldest_and_the_newest_of_many_states_wait() {
        let sequences: Vec<u64> = (1..=100).collect();
        let (mut waiting, zones) = waiting(&sequences);
        assert_eq!(released(&mut waiting, &zones, 1), Some(0));
        assert_eq!(
            released(&mut waiting, &zones, 99),
            Some(6),
            "those between the seventh and the last were dropped"
        );
        assert_eq!(released(&mut waiting, &zones, 100), Some(99));
    }

    #[test]
    fn names_of_one_state_are_told_once() {
        let (mut waiting, zones) = waiting(&[4, 4, 3]);
        assert_eq!(released(&mut waiting, &zones, 4), Some(0));
        assert_eq!(released(&mut waiting, &zones, 4), None);
    }
}
