//! Addresses come back from their rest when every host that could believe in their last holder knows better. A host that is
//! there but never comes closer is given up after a while: it must not hold everybody else for ever.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sealane_proto::types::{NetworkName, NodeName};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::core::{EndRests, ForgetMtu, PurgeIdle};
use crate::registry::Registry;
use crate::store::Writer;

/// Interval of the looks; a rest takes a minute at least.
const EVERY: Duration = Duration::from_secs(5);
/// The time between two looks for services that have been without instances for long.
const PURGE: Duration = Duration::from_secs(60);
/// Time for which a connected host may stay at one state while there is a newer one.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

type Levels = BTreeMap<(NodeName, NetworkName), u64>;

/// Looks until aborted. Costs little while nothing rests.
pub(crate) async fn run(registry: Arc<Registry>, writer: Writer) {
    let mut often = interval(EVERY);
    often.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut stalled, mut purged) = (Stalled::default(), Instant::now());
    loop {
        let now = often.tick().await;
        for (node, network) in stalled.look(registry.late_levels(), now) {
            tracing::warn!(%node, %network, "node has not come closer to the newest state for 5 min; nobody waits for it");
            registry.give_up(&node, &network);
        }
        let away = registry.away(SystemTime::now().into());
        if !away.is_empty()
            && let Err(error) = writer.submit(ForgetMtu { nodes: away }).await
        {
            tracing::warn!(%error, "what hosts told that are away cannot be forgotten");
        }
        if now - purged >= PURGE {
            purged = now;
            if let Err(error) = writer.submit(PurgeIdle).await {
                tracing::warn!(%error, "services without instances cannot be removed");
            }
        }
        let known = registry.known_to_all();
        if known.is_empty() {
            continue;
        }
        if let Err(error) = writer.submit(EndRests { known }).await {
            tracing::warn!(%error, "addresses that rest cannot be given back");
        }
    }
}

/// Since when agents that are behind work by what they do. Pure.
#[derive(Debug, Default)]
struct Stalled {
    since: BTreeMap<(NodeName, NetworkName), (u64, Instant)>,
}

impl Stalled {
    /// Takes in who is behind now; returns who has been at the same state for too long.
    fn look(&mut self, late: Levels, now: Instant) -> Vec<(NodeName, NetworkName)> {
        let before = std::mem::take(&mut self.since);
        for (key, level) in late {
            let same = before.get(&key).filter(|(known, _)| *known == level);
            let since = same.map_or(now, |(_, since)| *since);
            self.since.insert(key, (level, since));
        }
        let long = self.since.iter().filter(|(_, (_, since))| now - *since >= PATIENCE);
        long.map(|(key, _)| key.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_does_not_move_at_all_has_stalled() {
        let (mut stalled, now) = (Stalled::default(), Instant::now());
        let key: (NodeName, NetworkName) = ("host-1".parse().unwrap(), "shop".parse().unwrap());
        let mut look = |level: u64, seconds: u64| {
            let late = Levels::from([(key.clone(), level)]);
            !stalled.look(late, now + Duration::from_secs(seconds)).is_empty()
        };
        assert!(!look(5, 0) && !look(5, 299) && look(5, 300));
        assert!(!look(6, 301), "it moves, if slowly");
        assert!(!look(6, 600) && look(6, 601));
        assert!(stalled.look(Levels::new(), now).is_empty() && stalled.since.is_empty());
    }
}
