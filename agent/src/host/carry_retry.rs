//! Networks in which control does not accept this host's workloads: perhaps because it knows no more that the host carries
//! them, or not the network either, as after a restoration. Carrying them is asked for again as long as that is so, and the
//! report is told anew: what was in the way may be gone. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sealane_proto::client::Rejection;
use sealane_proto::types::NetworkName;

/// Interval at which it is asked for one network: most refusals have other reasons, which asking does not change.
const SELDOM: Duration = Duration::from_secs(30);
/// Interval at which it is asked for one that control did not know, or that this host does not carry any more: somebody may be
/// creating it again.
const SOON: Duration = Duration::from_secs(5);

/// Request for a network's state.
#[derive(Debug, Default)]
pub(super) struct CarryRetry {
    asked: BTreeMap<NetworkName, CarryAttempt>,
    /// Time at which the report was last told anew.
    told: Option<Instant>,
}

#[derive(Debug)]
struct CarryAttempt {
    at: Instant,
    /// True once the network's state has come since.
    arrived: bool,
}

impl CarryRetry {
    /// Names the networks of these workloads for which control is to be asked at this time, oftener those that it did not know;
    /// none while it cannot be asked. A host that carries one already gets what it has.
    pub(super) fn due(
        &mut self,
        refused: &[Rejection],
        unknown: impl Fn(&NetworkName) -> bool,
        connected: bool,
        now: Instant,
    ) -> Vec<NetworkName> {
        self.asked.retain(|network, _| refused.iter().any(|refused| refused.network == *network));
        let mut due = vec![];
        if !connected {
            return due;
        }
        for Rejection { network, not_carried, .. } in refused {
            let wait = if *not_carried || unknown(network) { SOON } else { SELDOM };
            let recent = self.asked.get(network).is_some_and(|asked| now - asked.at < wait);
            if !recent {
                self.asked.insert(network.clone(), CarryAttempt { at: now, arrived: false });
                due.push(network.clone());
            }
        }
        due
    }

    /// Returns true if the report with refused workloads is to be told anew, without news from control or this host.
    pub(super) fn tells(&mut self, now: Instant) -> bool {
        let due = self.told.is_none_or(|told| now - told >= SELDOM);
        if due {
            self.told = Some(now);
        }
        due
    }

    /// Returns true if this network's state is the first since it was asked for: then the report is to be told anew.
    pub(super) fn arrives(&mut self, network: &NetworkName) -> bool {
        let asked = self.asked.get_mut(network);
        asked.is_some_and(|asked| !std::mem::replace(&mut asked.arrived, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(network: &str, workload: &str) -> Rejection {
        let (network, workload) = (network.parse().unwrap(), workload.parse().unwrap());
        Rejection { network, workload, reason: "it is in use".to_owned(), not_carried: false }
    }

    #[test]
    fn a_network_is_asked_for_once_in_a_while_and_its_state_tells_the_report_anew_once() {
        let (mut again, now) = (CarryRetry::default(), Instant::now());
        let both = [refused("shop", "a"), refused("shop", "b"), refused("blog", "c")];
        let due: Vec<String> =
            again.due(&both, |_| false, true, now).iter().map(ToString::to_string).collect();
        assert_eq!(due, ["shop", "blog"]);
        assert!(again.due(&both, |_| false, true, now + Duration::from_secs(29)).is_empty());
        let shop = "shop".parse().unwrap();
        assert!(again.arrives(&shop) && !again.arrives(&shop));
        assert!(!again.arrives(&"other".parse().unwrap()));
        assert_eq!(again.due(&both[..1], |_| false, true, now + SELDOM).len(), 1);
        assert!(again.arrives(&shop));
    }

    #[test]
    fn a_network_that_control_did_not_know_is_asked_for_until_it_is_there() {
        let (mut again, now) = (CarryRetry::default(), Instant::now());
        let (one, later) = ([refused("shop", "a")], |seconds| now + Duration::from_secs(seconds));
        for (seconds, expected) in [(0, 1), (4, 0), (5, 1), (9, 0), (10, 1)] {
            assert_eq!(again.due(&one, |_| true, true, later(seconds)).len(), expected, "{seconds}");
        }
        let not_carried = [Rejection { not_carried: true, ..refused("blog", "a") }];
        for (seconds, expected) in [(0, 1), (4, 0), (5, 1)] {
            assert_eq!(again.due(&not_carried, |_| false, true, later(seconds)).len(), expected, "{seconds}");
        }
        assert!(again.tells(now) && !again.tells(later(29)) && again.tells(later(30)));
    }
}
