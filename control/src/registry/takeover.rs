//! Streams that take a node's place from each other: a host that was cloned is told from one whose agent starts again or
//! whose address changes. Pure.

use std::net::SocketAddr;
use std::time::Duration;

use crate::core::Timestamp;

/// Time for which a takeover is remembered: longer than an agent waits that was displaced.
const MEMORY: Duration = Duration::from_secs(300);
/// The number of instances of an agent that are remembered: as many copies of one host are told apart.
const INSTANCES: usize = 8;

/// An agent's stream, as far as it tells whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claimant {
    /// Address that it connects from.
    pub(crate) peer: SocketAddr,
    /// The number that the agent has chosen for itself as it started; `None`: it is from before agents did.
    pub(crate) instance: Option<u64>,
}

/// Memory of the streams that have had a node's place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims {
    takeover: Option<Takeover>,
    /// The instances that have lost the place, the newest last.
    displaced: Vec<u64>,
}

/// A stream that took the place of another one of the same node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Takeover {
    /// Addresses of the one and of the other.
    pub(crate) peers: [SocketAddr; 2],
    /// Number of them, each soon after the one before.
    pub(crate) times: u32,
    at: Timestamp,
    /// True if two agents take the place from each other.
    contested: bool,
}

impl Claims {
    /// Notes that a stream takes the place of one that is there.
    ///
    /// An agent that connects again, wherever from, takes nothing from anybody; one that starts again comes instead of one that
    /// is no more. Two agents fight when one that had lost the place is back. Of agents that do not say which one they are it is
    /// believed when it happens again soon.
    pub(super) fn take(&mut self, old: Claimant, new: Claimant, now: Timestamp) {
        let told = old.instance.zip(new.instance);
        if told.is_some_and(|(old, new)| old == new) {
            return;
        }
        let back = new.instance.is_some_and(|instance| self.displaced.contains(&instance));
        let previous = self.takeover.filter(|previous| previous.is_recent(now));
        let times = previous.map_or(0, |previous| previous.times).saturating_add(1);
        let contested =
            previous.is_some_and(|previous| previous.contested) || (times > 1 && (back || told.is_none()));
        self.takeover = Some(Takeover { peers: [old.peer, new.peer], times, at: now, contested });
        if let Some(instance) = old.instance {
            self.displaced.retain(|known| *known != instance);
            self.displaced.push(instance);
            let forgotten = self.displaced.len().saturating_sub(INSTANCES);
            self.displaced.drain(..forgotten);
        }
    }

    /// The last takeover, where two agents take the node's place from each other.
    pub(crate) fn contest(&self, now: Timestamp) -> Option<Takeover> {
        self.takeover.filter(|takeover| takeover.contested && takeover.is_recent(now))
    }
}

impl Takeover {
    fn is_recent(&self, now: Timestamp) -> bool {
        now.since(self.at) < MEMORY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Streams come one after the other, ten seconds apart, by the instance and the last byte of the address that each comes
    /// with; answers how often the place was taken, if that is a contest.
    fn after(streams: &[(u64, u8)]) -> Option<u32> {
        let claimant = |&(instance, host): &(u64, u8)| Claimant {
            peer: ([192, 0, 2, host], 40_000).into(),
            instance: Some(instance).filter(|instance| *instance != 0),
        };
        let (mut claims, mut now) = (Claims::default(), Timestamp::from_unix(1_000));
        for pair in streams.windows(2) {
            now = now.after(Duration::from_secs(10));
            claims.take(claimant(&pair[0]), claimant(&pair[1]), now);
        }
        assert!(claims.contest(now.after(MEMORY)).is_none(), "it is over");
        claims.contest(now).map(|contest| contest.times)
    }

    #[test]
    fn a_copy_of_a_host_is_told_from_one_that_moves_or_starts_again() {
        assert_eq!(after(&[(7, 1), (7, 2), (7, 3), (7, 1)]), None, "one agent whose address changes");
        assert_eq!(after(&[(7, 1), (8, 1), (9, 1)]), None, "an agent that starts again and again");
        assert_eq!(after(&[(7, 1), (8, 2), (8, 3), (9, 3)]), None, "it starts again and moves");
        assert_eq!(after(&[(7, 1), (8, 2)]), None, "nobody knows yet");
        assert_eq!(after(&[(7, 1), (8, 2), (7, 1)]), Some(2), "who was displaced is back");
        assert_eq!(after(&[(7, 1), (8, 1), (7, 1)]), Some(2), "at one address as well");
        assert_eq!(after(&[(7, 1), (8, 2), (9, 3), (7, 1)]), Some(3), "of two copies");
        assert_eq!(after(&[(7, 1), (8, 2), (7, 1), (9, 2)]), Some(3), "a copy that starts again");
    }

    #[test]
    fn agents_that_do_not_say_which_one_they_are_are_believed_to_be_two_at_the_second_time() {
        assert_eq!(after(&[(0, 1), (0, 2)]), None);
        assert_eq!(after(&[(0, 1), (0, 2), (0, 1)]), Some(2));
        assert_eq!(after(&[(0, 1), (7, 1), (8, 1)]), None, "an upgrade, and a start");
    }
}
