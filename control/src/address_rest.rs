//! Addresses come back from their rest when every host that could believe in their last holder knows better. A host that is
//! there but never comes closer is given up after a while: it must not hold everybody else for ever.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sealane_proto::types::{NetworkName, NodeName};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::core::{Actor, EndRests, ForgetMtu, PurgeIdle, Timestamp};
use crate::registry::Registry;
use crate::store::Writer;

/// Interval of the looks; a rest takes a minute at least.
const EVERY: Duration = Duration::from_secs(5);
/// The time between two looks for services that have been without instances for long.
const PURGE: Duration = Duration::from_secs(60);
/// Time for which a connected host may stay at one state while there is a newer one.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// Time for which one may do so before that is said: what has just changed is on its way.
const LAGGING: Duration = Duration::from_secs(5);

type Levels = BTreeMap<(NodeName, NetworkName), u64>;

/// Looks until aborted. Costs little while nothing rests.
pub(crate) async fn run(registry: Arc<Registry>, writer: Writer) {
    let mut often = interval(EVERY);
    often.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = Looks::new(Instant::now());
    loop {
        let now = often.tick().await;
        let Due { forget, purge, end } = looks.look(&registry, (now, SystemTime::now().into()));
        if let Some(forget) = forget
            && let Err(error) = writer.submit(Actor::Control, forget).await
        {
            tracing::warn!(%error, "what hosts told that are away cannot be forgotten");
        }
        if let Some(purge) = purge
            && let Err(error) = writer.submit(Actor::Control, purge).await
        {
            tracing::warn!(%error, "services without instances cannot be removed");
        }
        if let Some(end) = end
            && let Err(error) = writer.submit(Actor::Control, end).await
        {
            tracing::warn!(%error, "addresses that rest cannot be given back");
        }
    }
}

/// Commands that a look has found to be due.
#[derive(Debug, Default)]
pub(crate) struct Due {
    /// Hosts have been away for so long that what they told of their ways counts no more.
    pub(crate) forget: Option<ForgetMtu>,
    /// Services may have been without instances for long.
    pub(crate) purge: Option<PurgeIdle>,
    /// Every host knows better than to believe in who had these addresses.
    pub(crate) end: Option<EndRests>,
}

/// Memory of the looks so far.
#[derive(Debug)]
pub(crate) struct Looks {
    stalled: Stalled,
    purged: Instant,
}

impl Looks {
    /// None yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self { stalled: Stalled::default(), purged: now }
    }

    /// Gives up who does not come closer, and says what is due.
    pub(crate) fn look(&mut self, registry: &Registry, (now, clock): (Instant, Timestamp)) -> Due {
        self.stalled.look(registry.late_levels(), now);
        registry.set_lagging(self.stalled.since(LAGGING, now).cloned().collect());
        for (node, network) in self.stalled.since(PATIENCE, now) {
            tracing::warn!(%node, %network, "node has not come closer to the newest state for 5 min; nobody waits for it");
            registry.give_up(node, network);
        }
        let nodes = registry.away(clock);
        let forget = (!nodes.is_empty()).then_some(ForgetMtu { nodes });
        let purge = (now - self.purged >= PURGE).then_some(PurgeIdle);
        if purge.is_some() {
            self.purged = now;
        }
        let known = registry.known_to_all();
        Due { forget, purge, end: (!known.is_empty()).then_some(EndRests { known }) }
    }
}

/// Since when agents that are behind work by what they do. Pure.
#[derive(Debug, Default)]
struct Stalled {
    since: BTreeMap<(NodeName, NetworkName), (u64, Instant)>,
}

impl Stalled {
    /// Takes in who is behind now.
    fn look(&mut self, late: Levels, now: Instant) {
        let before = std::mem::take(&mut self.since);
        for (key, level) in late {
            let same = before.get(&key).filter(|(known, _)| *known == level);
            let since = same.map_or(now, |(_, since)| *since);
            self.since.insert(key, (level, since));
        }
    }

    /// Returns those that have been at the same state for so long.
    fn since(&self, long: Duration, now: Instant) -> impl Iterator<Item = &(NodeName, NetworkName)> {
        self.since.iter().filter(move |(_, (_, since))| now - *since >= long).map(|(key, _)| key)
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
            let now = now + Duration::from_secs(seconds);
            stalled.look(Levels::from([(key.clone(), level)]), now);
            assert!(stalled.since(PATIENCE, now).all(|long| *long == key));
            stalled.since(PATIENCE, now).next().is_some()
        };
        assert!(!look(5, 0) && !look(5, 299) && look(5, 300));
        assert!(!look(6, 301), "it moves, if slowly");
        assert!(!look(6, 600) && look(6, 601));
        stalled.look(Levels::new(), now);
        assert!(stalled.since.is_empty());
    }

    #[test]
    fn what_has_just_changed_is_on_its_way_and_nobody_lags() {
        let (mut stalled, now) = (Stalled::default(), Instant::now());
        let late = Levels::from([(("host-1".parse().unwrap(), "shop".parse().unwrap()), 5)]);
        let mut lags = |late: &Levels, seconds: u64| {
            let now = now + Duration::from_secs(seconds);
            stalled.look(late.clone(), now);
            stalled.since(LAGGING, now).next().is_some()
        };
        assert!(!lags(&late, 0) && lags(&late, 5));
        assert!(!lags(&Levels::new(), 10) && !lags(&late, 15), "another change");
    }
}
