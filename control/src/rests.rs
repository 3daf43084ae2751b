//! Addresses come back from their rest when every host that could believe in their last holder knows better.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::core::EndRests;
use crate::registry::Registry;
use crate::store::Writer;

/// How often it is looked; a rest takes a minute at least.
const EVERY: Duration = Duration::from_secs(5);

/// Looks until aborted. Costs nothing while nothing rests.
pub(crate) async fn run(registry: Arc<Registry>, writer: Writer) {
    let mut often = interval(EVERY);
    often.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        often.tick().await;
        let known = registry.known_to_all();
        if known.is_empty() {
            continue;
        }
        if let Err(error) = writer.submit(EndRests { known }).await {
            tracing::warn!(%error, "addresses that rest cannot be given back");
        }
    }
}
