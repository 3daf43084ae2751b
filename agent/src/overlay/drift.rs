//! What somebody else changed of the kernel's state and was mended: logged at once, told to people while it is recent. Pure.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::applied::{Applied, Table};

/// How long it is told.
const RECENT: Duration = Duration::from_secs(300);
/// How often something may be mended within that time until somebody works against the agent.
const OFTEN: u64 = 3;
/// The most kinds that are remembered at once.
const MAX_KINDS: usize = 64;

/// What was mended lately, by whose it is and by table.
#[derive(Debug, Default)]
pub(super) struct Drift(Mutex<BTreeMap<(String, &'static str), Mended>>);

#[derive(Debug)]
struct Mended {
    times: u64,
    newest: Instant,
}

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
        tracing::warn!(changes, "{what} of {whose} had been changed by somebody else; mended");
        let mut known = self.known();
        known.retain(|_, mended| mended.is_recent(now));
        let key = (whose.to_owned(), what);
        if known.len() < MAX_KINDS || known.contains_key(&key) {
            let mended = known.entry(key).or_insert(Mended { times: 0, newest: now });
            mended.times += 1;
            mended.newest = now;
        }
    }

    /// A sentence each about what comes again and again, or about what came and is over.
    pub(super) fn sentences(&self, often: bool, now: Instant) -> Vec<String> {
        let known = self.known();
        let recent =
            known.iter().filter(|(_, mended)| mended.is_recent(now) && (mended.times >= OFTEN) == often);
        recent
            .map(|((whose, what), mended)| {
                let seconds = now.saturating_duration_since(mended.newest).as_secs();
                let times = if mended.times == 1 { String::new() } else { format!(", {} times lately", mended.times) };
                format!(
                    "somebody else changed {what} of {whose}; that was mended {seconds} s ago{times}: find the network manager, \
                     firewall or script of this host that works on the same"
                )
            })
            .collect()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<(String, &'static str), Mended>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mended {
    fn is_recent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.newest) < RECENT
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
            said[0].contains("forwarding rows of network shop; that was mended 4 s ago, 2 times lately"),
            "{said:?}"
        );
        assert!(drift.sentences(true, start + Duration::from_secs(14)).is_empty());
        drift.handle("network shop", &applied, start + Duration::from_secs(20));
        let said = drift.sentences(true, start + Duration::from_secs(24));
        assert!(said[0].contains("4 s ago, 3 times lately"), "whoever does it goes on: {said:?}");
        for often in [true, false] {
            let later = drift.sentences(often, start + Duration::from_secs(20) + RECENT);
            assert_eq!(later, [] as [String; 0]);
        }
    }
}
