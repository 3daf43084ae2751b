//! States of one network that this host has come to, and the newest of them that all its data planes work by. Pure.

use std::collections::VecDeque;

use sealane_proto::types::Generation;

/// States that are remembered; data planes that are further behind are waited for as a whole.
const KEPT: usize = 64;

/// States that kernel and names have come to, oldest first: the sequence of each, and the generation that control gave it.
#[derive(Debug, Default)]
pub(super) struct Progress(VecDeque<(u64, Generation)>);

impl Progress {
    /// Kernel and names have come to a state.
    pub(super) fn handle_published(&mut self, sequence: u64, generation: Generation) {
        if self.0.back().is_some_and(|(_, known)| known.epoch != generation.epoch) {
            // What control said before it was restored is not asked for any more.
            self.0.clear();
        }
        self.0.push_back((sequence, generation));
        if self.0.len() > KEPT {
            self.0.remove(1);
        }
    }

    /// The data planes work by this sequence, or by a newer one: what is older is forgotten.
    pub(super) fn handle_applied(&mut self, sequence: u64) {
        while self.0.get(1).is_some_and(|(second, _)| *second <= sequence) {
            self.0.pop_front();
        }
    }

    /// Returns the newest generation that data planes work by which have come to `sequence`.
    pub(super) fn applied(&self, sequence: u64) -> Option<Generation> {
        self.0.iter().rev().find(|(known, _)| *known <= sequence).map(|(_, generation)| *generation)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(epoch: u64, revision: u64) -> Generation {
        Generation { epoch, revision }
    }

    #[test]
    fn a_data_plane_that_never_catches_up_is_seen_to_advance() {
        let mut progress = Progress::default();
        for sequence in 1..=20 {
            progress.handle_published(sequence, at(1, sequence * 10));
            let behind = sequence.saturating_sub(5);
            progress.handle_applied(behind);
            let expected = (behind > 0).then(|| at(1, behind * 10));
            assert_eq!(progress.applied(behind), expected, "{sequence}");
        }
        assert_eq!(progress.0.len(), 6);
        assert_eq!(progress.applied(u64::MAX), Some(at(1, 200)));
        progress.handle_published(21, at(2, 1));
        assert_eq!((progress.applied(20), progress.applied(21)), (None, Some(at(2, 1))));
    }

    proptest! {
        #[test]
        fn what_is_said_is_never_ahead_and_never_goes_back(steps in prop::collection::vec((1_u64..4, 0_u64..6), 1..300)) {
            let (mut progress, mut newest, mut applied, mut said) = (Progress::default(), 0, 0, 0);
            for (published, caught_up) in steps {
                newest += published;
                progress.handle_published(newest, at(1, newest));
                applied = (applied + caught_up).min(newest);
                progress.handle_applied(applied);
                let now = progress.applied(applied).map_or(0, |generation| generation.revision);
                prop_assert!(now <= applied && now >= said, "{said} {now} {applied}");
                prop_assert!(applied < newest || now == newest);
                prop_assert!(progress.0.len() <= KEPT);
                said = now;
            }
        }
    }
}
