//! Endpoints at which the newest attempts failed, for people who ask what is wrong. Pure; shared by the workers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sealane_proto::sidecar::EndpointTrouble;

/// The most endpoints that are remembered.
const MAX_ENDPOINTS: usize = 256;
/// Time for which a failure is news: nobody may call there any more.
const NEWS: Duration = Duration::from_secs(60);

/// Time for which a single failure waits for a success that outdates it.
const SETTLED: Duration = Duration::from_secs(5);

/// The endpoints in trouble.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    /// Number of them, so that a success, which nearly all attempts are, costs one look.
    count: AtomicUsize,
    known: Mutex<BTreeMap<IpAddr, Trouble>>,
}

#[derive(Debug)]
struct Trouble {
    reason: String,
    failures: u64,
    first: Instant,
    newest: Instant,
}

impl Troubles {
    /// An attempt failed.
    pub(crate) fn handle_failure(&self, address: IpAddr, reason: &str, now: Instant) {
        let mut known = self.known();
        known.retain(|_, trouble| trouble.is_news(now));
        if known.len() < MAX_ENDPOINTS || known.contains_key(&address) {
            let new = || Trouble { reason: String::new(), failures: 0, first: now, newest: now };
            let trouble = known.entry(address).or_insert_with(new);
            reason.clone_into(&mut trouble.reason);
            trouble.failures += 1;
            trouble.newest = now;
        }
        self.count.store(known.len(), Ordering::Relaxed);
    }

    /// An attempt succeeded.
    pub(crate) fn handle_success(&self, address: IpAddr) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut known = self.known();
        known.remove(&address);
        self.count.store(known.len(), Ordering::Relaxed);
    }

    /// Lists those that are still news; a single failed attempt, which was repeated elsewhere, only when no other has
    /// succeeded for some seconds.
    pub(crate) fn list(&self, now: Instant) -> Vec<EndpointTrouble> {
        let known = self.known();
        let news = known.iter().filter(|(_, trouble)| trouble.is_settled(now) && trouble.is_news(now));
        news.map(|(&address, trouble)| EndpointTrouble {
            address,
            reason: trouble.reason.clone(),
            failures: trouble.failures,
            lasting: now.saturating_duration_since(trouble.first),
        })
        .collect()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<IpAddr, Trouble>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Trouble {
    fn is_settled(&self, now: Instant) -> bool {
        self.failures > 1 || now.saturating_duration_since(self.first) >= SETTLED
    }

    fn is_news(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.newest) < NEWS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u16) -> IpAddr {
        let [high, low] = n.to_be_bytes();
        IpAddr::from([10, 42, high, low])
    }

    #[test]
    fn an_endpoint_is_in_trouble_from_a_failure_to_a_success_or_until_nobody_asks_any_more() {
        let (troubles, start) = (Troubles::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        troubles.handle_failure(address(1), "timeout", start);
        troubles.handle_failure(address(1), "connect", at(5));
        troubles.handle_failure(address(2), "reset", at(6));
        assert_eq!(troubles.list(at(6)).len(), 1, "one of them failed once");
        assert_eq!(troubles.list(at(6) + SETTLED).len(), 2, "and nobody has reached it since");
        troubles.handle_failure(address(2), "reset", at(7));
        let trouble = |n, reason: &str, failures, lasting| EndpointTrouble {
            address: address(n),
            reason: reason.to_owned(),
            failures,
            lasting: Duration::from_secs(lasting),
        };
        assert_eq!(troubles.list(at(7)), [trouble(1, "connect", 2, 7), trouble(2, "reset", 2, 1)]);
        troubles.handle_success(address(2));
        assert_eq!(troubles.list(at(7)), [trouble(1, "connect", 2, 7)]);
        assert_eq!(troubles.list(at(5) + NEWS), []);
    }

    #[test]
    fn the_number_of_endpoints_is_bounded() {
        let (troubles, now) = (Troubles::default(), Instant::now());
        let fail = || (0..1000).for_each(|n| troubles.handle_failure(address(n), "connect", now));
        fail();
        fail();
        assert_eq!(troubles.list(now).len(), MAX_ENDPOINTS);
    }
}
