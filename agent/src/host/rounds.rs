//! Schedule of the looks at everything: each network once a minute, at a time of its own, so that they do not come all at once. Pure.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use sealane_proto::types::NetworkName;

/// Interval at which a network is compared with its desired state, whatever the kernel tells of it.
const ROUND: Duration = Duration::from_secs(60);

/// The rounds so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rounds {
    start: Instant,
    polled: Instant,
}

impl Rounds {
    /// The first round begins.
    pub(super) fn new(now: Instant) -> Self {
        Self { start: now, polled: now }
    }

    /// Returns those of `networks` whose time has come since the last call.
    pub(super) fn poll_due(
        &mut self,
        networks: impl IntoIterator<Item = NetworkName>,
        now: Instant,
    ) -> Vec<NetworkName> {
        let before = std::mem::replace(&mut self.polled, now);
        let is_due = |network: &NetworkName| self.turns(network, before) < self.turns(network, now);
        networks.into_iter().filter(is_due).collect()
    }

    /// Number of times that the network's time has come by `now`.
    fn turns(&self, network: &NetworkName, now: Instant) -> u128 {
        let mut hasher = DefaultHasher::new();
        network.hash(&mut hasher);
        let (round, own) = (ROUND.as_millis(), u128::from(hasher.finish()) % ROUND.as_millis());
        (now.saturating_duration_since(self.start).as_millis() + round - own) / round
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_network_comes_once_a_minute_and_never_many_at_once() {
        let networks: Vec<NetworkName> =
            (0..300).map(|number| format!("n{number}").parse().unwrap()).collect();
        let start = Instant::now();
        let mut rounds = Rounds::new(start);
        let mut seen = vec![0; networks.len()];
        for second in 1..=180_u64 {
            let due = rounds.poll_due(networks.clone(), start + Duration::from_secs(second));
            assert!(due.len() < 20, "{} at once", due.len());
            for network in due {
                seen[networks.iter().position(|known| *known == network).unwrap()] += 1;
            }
        }
        assert!(seen.iter().all(|&times| times == 3), "{seen:?}");
    }

    #[test]
    fn a_time_that_was_slept_through_is_made_up_for_once() {
        let (start, shop) = (Instant::now(), "shop".parse::<NetworkName>().unwrap());
        let mut rounds = Rounds::new(start);
        let late = start + Duration::from_secs(600);
        assert_eq!(rounds.poll_due([shop.clone()], late).len(), 1);
        assert!(rounds.poll_due([shop], late).is_empty());
    }
}
