//! Notices of others who change rules in a workload's namespace, so that ours are looked at within some tenths of a second.

use std::time::Duration;

use sealane_fabric::netlink::{Notices, Subject};
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;
use tokio::time::{Instant, Interval, interval_at, sleep_until};

use crate::attachment::AttachmentId;

/// Interval of looks at rules that nobody is known to have changed.
const AUDIT: Duration = Duration::from_secs(60);
/// Time within which changes count as one.
const TOGETHER: Duration = Duration::from_millis(100);
/// Where rules change all the time, looks take one part in so many of a processor's time.
const REST: u32 = 10;

/// Changes of rules that this program has not made, and the looks at them.
#[derive(Debug)]
pub(super) struct Meddling {
    notices: Option<Notices>,
    audit: Interval,
    /// Time of the next look, once somebody has changed something.
    due: Option<Instant>,
    /// Time before which nothing is looked at again.
    earliest: Instant,
}

impl Meddling {
    /// Listens for changes of rules in the namespace of this workload. Where that is not possible, they are found once a minute.
    pub(super) fn watch(hopper: &Hopper, netns: Option<&NetNs>, id: &AttachmentId) -> Self {
        let notices = netns.and_then(|netns| {
            let complain = |error| tracing::warn!(%error, workload = %id, "changes of its rules are found once a minute only");
            Notices::open(hopper, netns, Subject::Rules).map_err(complain).ok()
        });
        let audit = interval_at(Instant::now() + AUDIT, AUDIT);
        Self { notices, audit, due: None, earliest: Instant::now() }
    }

    /// Waits until it is time to look. Cancel safe.
    pub(super) async fn told(&mut self) {
        loop {
            if let Some(due) = self.due {
                sleep_until(due).await;
                self.due = None;
                return;
            }
            let Some(notices) = &mut self.notices else {
                self.audit.tick().await;
                return;
            };
            tokio::select! {
                _ = self.audit.tick() => return,
                heard = notices.changed_by_others() => match heard {
                    Ok(()) => self.due = Some(self.earliest.max(Instant::now() + TOGETHER)),
                    Err(error) => {
                        tracing::warn!(%error, "changes of a workload's rules are found once a minute only");
                        self.notices = None;
                    }
                },
            }
        }
    }

    /// Rests after a look that began then.
    pub(super) fn looked(&mut self, began: Instant) {
        self.earliest = Instant::now() + began.elapsed() * REST;
    }
}
