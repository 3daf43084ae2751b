//! Notices of others who change rules in a workload's namespace, so that ours are looked at within some tenths of a second.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use sealane_fabric::LookPace;
use sealane_fabric::overlay::{Overlay, RulesWatch};
use sealane_sys::NetNs;
use tokio::time::{Instant, Interval, interval_at, sleep_until};

use crate::attachment::AttachmentId;

/// Interval of looks at rules that nobody is known to have changed.
const AUDIT: Duration = Duration::from_secs(60);
/// Time within which changes count as one.
const TOGETHER: Duration = Duration::from_millis(100);

/// Changes of rules that this program has not made, and the looks at them.
#[derive(Debug)]
pub(super) struct Meddling {
    notices: Option<RulesWatch>,
    audit: Interval,
    /// Time of the next look, once somebody has changed something.
    due: Option<Instant>,
    pace: LookPace,
}

impl Meddling {
    /// Listens for changes of rules in the namespace of this workload. Where that is not possible, they are found once a minute.
    pub(super) fn watch(overlay: &Overlay, netns: Option<&NetNs>, id: &AttachmentId) -> Self {
        let notices = netns.and_then(|netns| {
            let complain = |error| tracing::warn!(%error, workload = %id, "changes of its rules are found once a minute only");
            overlay.rules_watch(netns).map_err(complain).ok()
        });
        let now = Instant::now();
        let audit = interval_at(now + first_audit(id), AUDIT);
        Self { notices, audit, due: None, pace: LookPace::new(now.into_std()) }
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
                () = notices.changed_by_others() => {
                    let earliest = Instant::from_std(self.pace.earliest());
                    self.due = Some(earliest.max(Instant::now() + TOGETHER));
                }
            }
        }
    }

    /// Rests after a look that began then; `mended` says that there was something to mend, or to fail at.
    pub(super) fn looked(&mut self, began: Instant, mended: bool) {
        self.pace.handle_look(began.elapsed(), mended, Instant::now().into_std());
    }
}

/// The time of the first audit: those of all workloads of a host are spread out, also when it took them all up at once.
fn first_audit(id: &AttachmentId) -> Duration {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    let share = Duration::from_millis(hasher.finish() % AUDIT.as_millis() as u64);
    AUDIT / 2 + share / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_audits_are_spread_over_half_a_minute() {
        let at = |number: u32| {
            let name = format!("w{number}").parse().unwrap();
            first_audit(&AttachmentId { network: "shop".parse().unwrap(), workload: name })
        };
        let early = (0..1_000).filter(|&number| at(number) < AUDIT * 3 / 4).count();
        assert!((300..700).contains(&early), "{early}");
        assert!((0..1_000).all(|number| at(number) >= AUDIT / 2 && at(number) < AUDIT));
    }
}
