//! Words about what is waited for: each thing once, and its reason again when it is another one for long. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Time until another reason for the same wait is said: reasons may alternate as tries to connect do.
const AGAIN: Duration = Duration::from_secs(60);

/// Things that have been said to be waited for.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<String, (String, Instant)>);

impl Told {
    /// Returns true if `what`, as `<thing>: <reason>`, should be said now; it counts as said then.
    pub(super) fn is_news(&mut self, what: &str, now: Instant) -> bool {
        let (thing, reason) = what.split_once(": ").unwrap_or((what, ""));
        let is_known = |(said, at): &(String, Instant)| said == reason || now.duration_since(*at) < AGAIN;
        let is_news = !self.0.get(thing).is_some_and(is_known);
        if is_news {
            self.0.insert(thing.to_owned(), (reason.to_owned(), now));
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_said_once_and_another_reason_for_it_after_a_while() {
        let (mut told, start) = (Told::default(), Instant::now());
        let mut check = |second: u64, what: &str, expected: bool| {
            assert_eq!(told.is_news(what, start + Duration::from_secs(second)), expected, "{second}: {what}");
        };
        check(0, "control, for network shop: connection refused", true);
        check(1, "control, for network shop: timed out", false);
        check(2, "control, for network shop: connection refused", false);
        check(3, "workload shop/api, which is still ending", true);
        check(4, "control, for network shop: connection refused", false);
        check(61, "control, for network shop: connection refused", false);
        check(62, "control, for network shop: not known here", true);
        check(63, "control, for network shop: connection refused", false);
    }
}
