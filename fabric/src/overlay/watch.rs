//! Watch over the host's own settings, looked at in time and whenever somebody changes them.

use std::time::{Duration, Instant};

use sealane_base::task;
use sealane_proto::types::NetworkName;

use super::applied::{Applied, Table};
use super::egress::Look;
use super::{Overlay, OverlayError, blocking, lock};
use crate::egress::EgressError;
use crate::netlink::{NetlinkError, Notices, Subject};

/// Time within which changes of the host's count as one.
const TOGETHER: Duration = Duration::from_millis(50);
/// The time that a network whose link was found changed has to be mended, before links are looked at again.
const SETTLING: Duration = Duration::from_secs(1);
/// On a host that changes all the time, as one with short-lived containers does, looks take one part in so many of a
/// processor's time.
const REST: u32 = 10;

/// Something that the host itself must have could not be mended.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The gate cannot be set up.
    #[error("strangers may send into networks of this host: {0}")]
    Gate(#[from] NetlinkError),
    /// Routes by which senders are told what a way takes cannot be set up.
    #[error("packets that are too long for the way to another host are lost: {0}")]
    NarrowWays(#[source] OverlayError),
    /// The rules that let packets out cannot be set up.
    #[error("workloads may not reach the world outside: {0}")]
    Egress(#[from] EgressError),
}

impl Overlay {
    /// Looks at what the host itself needs so that nobody sends into its networks from elsewhere and packets of theirs
    /// leave, and mends it: drift, as [`Reason::Audit`](super::Reason::Audit) has it. Nothing is looked at before a network needed it.
    ///
    /// # Errors
    /// With the first thing that could not be mended.
    pub async fn audit_host(&self) -> Result<(), HostError> {
        self.look_at_gate().await?;
        let _ = self.look_at_ways().await;
        self.look_at_narrow_ways().await?;
        Ok(self.look_at_egress(Look::Thorough).await?)
    }

    /// The same, at once, whenever the kernel says that the host's rules, links, addresses or routes have changed.
    ///
    /// # Errors
    /// When the kernel cannot be listened to.
    pub async fn watch_host(&self) -> Result<(), NetlinkError> {
        let open = |subject| Notices::open(&self.kernel.hopper, &self.kernel.host, subject);
        let (mut rules, mut links) = (open(Subject::Rules)?, open(Subject::Links)?);
        loop {
            let of_links = tokio::select! {
                told = rules.changed() => told.map(|()| false)?,
                told = links.changed() => told.map(|()| true)?,
            };
            let began = Instant::now();
            if let Err(error) = self.look_at_gate().await {
                tracing::error!("{}", HostError::from(error));
            }
            // Who changes one thing changes another: what follows at once is part of it.
            tokio::time::sleep(TOGETHER).await;
            if let Err(error) = self.look_at_egress(Look::Told).await {
                tracing::error!("{}", HostError::from(error));
            }
            let mut changed = false;
            if of_links {
                if let Err(error) = self.look_at_narrow_ways().await {
                    tracing::error!("{error}");
                }
                changed = if self.look_at_ways().await {
                    // The underlay address may have come to another device.
                    if let Err(error) = self.look_at_gate().await {
                        tracing::error!("{}", HostError::from(error));
                    }
                    self.look_at_links().await
                } else {
                    // The passes say so, and take up what they can as soon as it is back.
                    self.ears.doubt(lock(&self.carried).keys().cloned().collect::<Vec<_>>());
                    true
                };
            }
            let rest = began.elapsed().saturating_sub(TOGETHER) * REST;
            // Whoever changes links again and again does not keep the agent busy.
            tokio::time::sleep(if changed { rest.max(SETTLING) } else { rest }).await;
        }
    }

    /// Forgets who may send into networks that are none of `carried`: of an agent before this one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn forget_carriers_but(&self, carried: &[NetworkName]) -> Result<(), OverlayError> {
        let (kernel, carried) = (self.kernel.clone(), carried.to_vec());
        blocking(move || Ok(kernel.forget_carriers(|network| carried.contains(network))?)).await
    }

    /// Networks follow when they hear of it. Returns false if this host has lost its underlay address.
    async fn look_at_ways(&self) -> bool {
        let kernel = self.kernel.clone();
        match blocking(move || kernel.measure_ways()).await {
            Ok(_) => true,
            Err(OverlayError::Underlay(_)) => false,
            Err(error) => {
                tracing::debug!(%error, "the ways to other hosts cannot be looked at");
                true
            }
        }
    }

    /// The ways that they repeat may be others now.
    async fn look_at_narrow_ways(&self) -> Result<(), HostError> {
        let kernel = self.kernel.clone();
        let drifted =
            blocking(move || kernel.ensure_narrow_ways(None)).await.map_err(HostError::NarrowWays)?;
        let mut applied = Applied::default();
        applied.count(Table::Route, drifted);
        self.metrics.count_drift("this host", &applied);
        Ok(())
    }

    async fn look_at_gate(&self) -> Result<(), NetlinkError> {
        let kernel = self.kernel.clone();
        let drifted = task::blocking(move || kernel.ensure_gate()).await??;
        let mut applied = Applied::default();
        applied.count(Table::Rules, usize::from(drifted));
        self.metrics.count_drift("this host", &applied);
        Ok(())
    }

    async fn look_at_egress(&self, look: Look) -> Result<(), EgressError> {
        let kernel = self.kernel.clone();
        let work = task::blocking(move || kernel.ensure_host_egress(look));
        let (mended, outcome) = work.await.map_err(EgressError::Forwarding)?;
        let mut applied = Applied::default();
        applied.count(Table::Link, mended.settings as usize);
        applied.count(Table::Rules, mended.nft as usize);
        applied.count(Table::Iptables, mended.iptables as usize);
        self.metrics.count_drift("this host", &applied);
        outcome
    }
}
