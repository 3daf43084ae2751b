//! Changes of the kernel's state by others that were mended: logged at first, told to people while they are recent. Pure.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::applied::{Applied, Table};
use super::lock;

/// Time for which it is told.
const RECENT: Duration = Duration::from_secs(300);
/// Number of mendings within that time from which on somebody works against the agent.
const OFTEN: usize = 3;
/// Number of mendings that are remembered: whoever goes on is named all the same.
const MOST: usize = 64;
/// The most kinds that are remembered at once.
const MAX_KINDS: usize = 64;

/// Recent mendings, by owner and table.
#[derive(Debug, Default)]
pub(super) struct Drift(Mutex<BTreeMap<(String, &'static str), Mended>>);

/// Times of mendings within the last [`RECENT`], oldest first.
#[derive(Debug, Default)]
struct Mended(VecDeque<Instant>);

impl Drift {
    /// A pass mended this, of `whose` state, such as `network shop`.
    pub(super) fn handle(&self, whose: &str, applied: &Applied, now: Instant) {
        for table in Table::ALL {
            let changes = applied.changes(table);
            if changes > 0 {
                self.handle_one(whose, table, changes, now);
            }
        }
    }

    /// The same of one table.
    pub(super) fn handle_one(&self, whose: &str, table: Table, changes: u64, now: Instant) {
        let what = table.words();
        let mut known = self.known();
        known.retain(|_, mended| mended.recent(now).next().is_some());
        let key = (whose.to_owned(), what);
        let mut times = 1;
        if known.len() < MAX_KINDS || known.contains_key(&key) {
            let mended = known.entry(key).or_default();
            mended.add(now);
            times = mended.recent(now).count();
        }
        match times.cmp(&OFTEN) {
            Ordering::Less => {
                tracing::warn!(changes, "{what} of {whose} had been changed by somebody else; mended")
            }
            Ordering::Equal => tracing::warn!(
                changes,
                "{what} of {whose} are changed by somebody else again and again; mended each time, which `sealane status` \
                 counts and this log does not while it goes on"
            ),
            Ordering::Greater => tracing::debug!(changes, "{what} of {whose} were changed once more; mended"),
        }
    }

    /// A sentence each about what comes again and again, or about what came and is over.
    pub(super) fn sentences(&self, often: bool, now: Instant) -> Vec<String> {
        let known = self.known();
        let recent = known.iter().filter_map(|(key, mended)| {
            let (times, newest) = (mended.recent(now).count(), mended.recent(now).last()?);
            ((times >= OFTEN) == often).then_some((key, times, newest))
        });
        recent
            .map(|((whose, what), times, newest)| {
                let seconds = now.saturating_duration_since(newest).as_secs();
                let minutes = RECENT.as_secs() / 60;
                let times = match times {
                    1 => String::new(),
                    MOST => format!(", {times} times or more within {minutes} min"),
                    times => format!(", {times} times within {minutes} min"),
                };
                format!(
                    "somebody else changed {what} of {whose}; that was mended {seconds} s ago{times}: find the network manager, \
                     firewall or script of this host that works on the same"
                )
            })
            .collect()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<(String, &'static str), Mended>> {
        lock(&self.0)
    }
}

impl Mended {
    /// The times that count at an instant, oldest first.
    fn recent(&self, now: Instant) -> impl Iterator<Item = Instant> {
        self.0.iter().copied().filter(move |&at| now.saturating_duration_since(at) < RECENT)
    }

    /// Once more.
    fn add(&mut self, now: Instant) {
        self.0.retain(|&at| now.saturating_duration_since(at) < RECENT);
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_mended_is_told_while_it_is_recent() {
        let (drift, start) = (Drift::default(), Instant::now());
        let mut applied = Applied::default();
        applied.count(Table::Fdb, 3);
        drift.handle("network shop", &applied, start);
        drift.handle("network shop", &applied, start + Duration::from_secs(10));
        drift.handle("network office", &Applied::default(), start);
        let said = drift.sentences(false, start + Duration::from_secs(14));
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0]
                .contains("forwarding rows of network shop; that was mended 4 s ago, 2 times within 5 min"),
            "{said:?}"
        );
        assert!(drift.sentences(true, start + Duration::from_secs(14)).is_empty());
        drift.handle("network shop", &applied, start + Duration::from_secs(20));
        let said = drift.sentences(true, start + Duration::from_secs(24));
        assert!(said[0].contains("4 s ago, 3 times within 5 min"), "whoever does it goes on: {said:?}");
        for often in [true, false] {
            let later = drift.sentences(often, start + Duration::from_secs(20) + RECENT);
            assert_eq!(later, [] as [String; 0]);
        }
    }

    #[test]
    fn what_comes_seldom_is_never_often_however_long_it_goes_on() {
        let (drift, start) = (Drift::default(), Instant::now());
        let at = |minutes: u64| start + Duration::from_secs(minutes * 60);
        for minutes in (0..40).step_by(4) {
            drift.handle_one("network shop", Table::Fdb, 1, at(minutes));
            assert_eq!(drift.sentences(true, at(minutes)), [""; 0], "three within eight minutes are few");
        }
        assert!(drift.sentences(false, at(36))[0].contains("2 times within 5 min"));
        drift.handle_one("network shop", Table::Fdb, 1, at(37));
        drift.handle_one("network shop", Table::Fdb, 1, at(37));
        assert!(drift.sentences(true, at(37))[0].contains("3 times within 5 min"));
        let later = at(37) + Duration::from_secs(4 * 60);
        assert!(drift.sentences(true, later).is_empty(), "the oldest count no more");
        for _ in 0..1_000 {
            drift.handle_one("network shop", Table::Fdb, 1, at(38));
        }
        assert!(drift.sentences(true, at(38))[0].contains("64 times or more"));
    }
}
