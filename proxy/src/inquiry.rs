//! Questions to the agent about addresses that the sidecar was not told of: asked by calls, which wait for the answers.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::snapshot::Current;
use crate::telemetry::Telemetry;

/// Time for which a call waits for the answer, so that an agent may start anew meanwhile.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Number of addresses that may be asked about at a time.
const MOST: usize = 1024;

/// Questions of all workers that are not answered.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    asked: Mutex<BTreeSet<Ipv4Addr>>,
    news: Notify,
    /// True while an agent is there that answers.
    heard: AtomicBool,
}

impl Questions {
    /// Asks about an address; false when too many are asked about.
    pub(crate) fn ask(&self, address: Ipv4Addr) -> bool {
        let mut asked = self.lock();
        if asked.contains(&address) {
            return true;
        }
        let has_room = asked.len() < MOST;
        if has_room {
            asked.insert(address);
            self.news.notify_one();
        }
        has_room
    }

    /// The addresses that are asked about.
    pub(crate) fn asked(&self) -> BTreeSet<Ipv4Addr> {
        self.lock().clone()
    }

    /// Returns when there may be another question since the last return. Cancel safe.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// Keeps the questions that are still open: all workers work by what answers the others.
    pub(crate) fn retain(&self, is_open: impl Fn(Ipv4Addr) -> bool) {
        self.lock().retain(|address| is_open(*address));
    }

    /// Says whether an agent is there that answers.
    pub(crate) fn set_heard(&self, heard: bool) {
        self.heard.store(heard, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Ipv4Addr>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way of one worker's calls to answers.
#[derive(Clone, Debug)]
pub(crate) struct Inquiry {
    current: Rc<Current>,
    questions: Arc<Questions>,
    telemetry: Arc<Telemetry>,
}

impl Inquiry {
    /// Answers come with snapshots that become current.
    pub(crate) fn new(current: Rc<Current>, questions: Arc<Questions>, telemetry: Arc<Telemetry>) -> Self {
        Self { current, questions, telemetry }
    }

    /// Returns true if an agent is there that answers.
    pub(crate) fn is_heard(&self) -> bool {
        self.questions.heard.load(Ordering::Relaxed)
    }

    /// Waits until the sidecar is told of an address, at most so long; false when it is not. Cancel safe.
    pub(crate) async fn learn(&self, address: IpAddr, patience: Duration) -> bool {
        let IpAddr::V4(asked) = address else { return true };
        let since = Instant::now();
        let told = async {
            loop {
                let replaced = self.current.replaced();
                if !self.current.lacks(address) {
                    return true;
                }
                if !self.questions.ask(asked) {
                    return false;
                }
                replaced.await;
            }
        };
        let told = tokio::time::timeout(patience, told).await.unwrap_or(false);
        if told {
            self.telemetry.asking.waits.observe(since.elapsed().as_secs_f64());
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sealane_proto::sidecar::Portion;

    use super::*;
    use crate::snapshot::Snapshot;
    use crate::testing::{config, service, workload};

    fn snapshot(told: &[Ipv4Addr]) -> Arc<Snapshot> {
        let services = vec![service("api", "10.42.255.1", &["80"])];
        let mut config = config(workload("web", "10.42.0.2", None, &[]), services, vec![]);
        config.network.services.retain(|service| told.contains(&service.vip.to_ipv4()));
        let addresses = told.iter().copied().collect::<BTreeSet<_>>();
        config.portion = Some(Portion { addresses, service: None });
        Arc::new(Snapshot::new(&config, None))
    }

    #[tokio::test]
    async fn a_call_waits_for_a_snapshot_that_knows_its_destination_and_not_for_ever() {
        let (current, questions) = (Rc::<Current>::default(), Arc::<Questions>::default());
        let telemetry = Telemetry::new().unwrap();
        let inquiry = Inquiry::new(current.clone(), questions.clone(), telemetry.clone());
        let api = Ipv4Addr::new(10, 42, 255, 1);
        current.set(snapshot(&[]));
        assert!(
            inquiry.learn(Ipv4Addr::new(192, 0, 2, 1).into(), PATIENCE).await,
            "it is no address of the network"
        );
        assert!(!inquiry.learn(api.into(), Duration::from_millis(20)).await);
        // It stays asked about: the next call has it better.
        assert_eq!(questions.asked(), [api].into());
        let told = async {
            tokio::task::yield_now().await;
            current.set(snapshot(&[Ipv4Addr::new(10, 42, 0, 9)]));
            tokio::task::yield_now().await;
            current.set(snapshot(&[api]));
        };
        let (learnt, ()) = tokio::join!(inquiry.learn(api.into(), PATIENCE), told);
        assert!(learnt);
        assert_eq!(telemetry.asking.waits.get_sample_count(), 2);
    }

    #[test]
    fn a_question_is_asked_once_and_no_more_than_so_many() {
        let questions = Questions::default();
        let address = |n: usize| Ipv4Addr::from_bits(u32::try_from(n).unwrap());
        for _ in 0..2 {
            assert!((0..MOST).all(|n| questions.ask(address(n))));
        }
        assert_eq!(questions.asked().len(), MOST);
        assert!(!questions.ask(address(MOST)));
        questions.retain(|open| open != address(3));
        assert!(questions.ask(address(MOST)) && !questions.ask(address(3)));
    }
}
