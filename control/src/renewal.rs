//! Upkeep: control's own certificate, and by the hour tokens that nobody needs to remember.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use sealane_proto::identity::{Principal, SpiffeId};
use tokio::time::{MissedTickBehavior, interval};

use crate::ca::{Authority, CLOCK_SKEW, HOST_LIFETIME, OwnCertificate};
use crate::core::{Actor, PurgeRemoved, PurgeTokens};
use crate::metrics::Metrics;
use crate::store::Writer;

const EVERY: Duration = Duration::from_secs(3_600);
/// Interval at which the clock is looked at: it may have been set, and the certificate is of another time then.
const CLOCK: Duration = Duration::from_secs(5);

/// Parts that upkeep looks after.
pub(crate) struct Upkeep {
    pub(crate) authority: Arc<Authority>,
    pub(crate) own: Arc<OwnCertificate>,
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) metrics: Metrics,
    pub(crate) writer: Writer,
}

impl Upkeep {
    /// Runs until aborted. By the clock and not by one long sleep, so that a suspended machine catches up.
    pub(crate) async fn run(self) {
        let trust_domain = self.authority.domain().clone();
        let identity = SpiffeId { trust_domain, principal: Principal::Control }.to_string();
        let authority = format!("spiffe://{}", self.authority.domain());
        let (mut hourly, mut clock) = (interval(EVERY), interval(CLOCK));
        for ticks in [&mut hourly, &mut clock] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            let is_due = tokio::select! {
                biased;
                _ = hourly.tick() => true,
                _ = clock.tick() => false,
            };
            let renewed = match self.own.renew(&self.authority, &self.provider, SystemTime::now().into()) {
                Ok(renewed) => renewed,
                Err(error) => {
                    tracing::error!(%error, identity, "certificate cannot be renewed");
                    false
                }
            };
            if renewed {
                tracing::info!(identity, "certificate renewed");
            }
            if !is_due && !renewed {
                continue;
            }
            self.metrics.certificate(&identity, self.own.expires().unix());
            self.metrics.certificate(&authority, self.authority.expires().unix());
            if let Err(error) = self.writer.submit(Actor::Control, PurgeTokens).await {
                tracing::warn!(%error, "expired tokens cannot be removed");
            }
            // No certificate lives longer than a host's, and hosts' clocks may be behind.
            let forget = PurgeRemoved { longest_lifetime: HOST_LIFETIME + CLOCK_SKEW };
            if let Err(error) = self.writer.submit(Actor::Control, forget).await {
                tracing::warn!(%error, "removed nodes cannot be forgotten");
            }
        }
    }
}
