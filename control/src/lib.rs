//! The central control plane: desired state, address blocks, the certificate authority, and who has which of it.
//!
//! A [`Control`] owns everything. A change walks from the API (translation) to [`core`] (decision, pure) to the
//! store (durable) to the registry (published) to each agent's stream; acknowledgements walk back to the registry.
//! It is deliberately no part of any data path: hosts go on without it.

pub mod core;
pub mod kv;

mod address_rest;
mod api;
mod ca;
mod census;
mod fellows;
mod forward;
mod guard;
mod member;
mod metrics;
mod operator;
mod pace;
mod registry;
mod renewal;
mod roster;
mod serve;
mod session;
#[cfg(feature = "simulation")]
pub mod simulation;
mod start;
mod status;
mod store;
mod targets;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sealane_base::drain::Drain;
use sealane_base::metrics::{Family, gather, merge};
use sealane_base::ready::Readiness;
use sealane_base::task::Task;
use sealane_proto::token::JoinToken;
use sealane_proto::types::TrustDomain;
use sealane_sys::RunDir;

pub use member::{Member, MemberConfig};
pub use start::{StartError, start};
pub use store::{Backup, BackupError, RestoreError, Restored, RestoredShared, restore, restore_shared};

/// Version of this control plane.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Limit for the end of streams and calls.
const DRAIN: Duration = Duration::from_secs(5);

/// Addresses and folders of control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Address that hosts connect to.
    pub listen: SocketAddr,
    /// Folder for everything that must outlive a reboot: the store with the authority's key. Made with mode 0700.
    pub data_dir: PathBuf,
    /// Folder of `control.sock`. Made with mode 0700.
    pub run_dir: RunDir,
    /// The mesh's name: `sealane` for a new store; an existing store keeps its own, and another is refused.
    pub trust_domain: Option<TrustDomain>,
    /// Lifetime of certificates of services and workloads; `None`: 72 hours.
    pub certificate_lifetime: Option<Duration>,
}

/// A running control plane. Dropping it ends it at once; [`Control::shutdown`] in order.
#[derive(Debug)]
pub struct Control {
    readiness: Readiness,
    local_addr: SocketAddr,
    metrics: metrics::Metrics,
    shown: Arc<registry::Registry>,
    writable: store::Writability,
    writer: store::Writer,
    stopped: store::Stopped,
    authority: Arc<ca::Authority>,
    drain: Drain,
    servers: Vec<Task>,
    upkeep: Vec<Task>,
    _socket: serve::Socket,
}

/// Reason for which a token could not be made.
#[derive(Debug, thiserror::Error)]
#[error("a join token could not be made: {reason}")]
pub struct TokenError {
    reason: String,
}

impl Control {
    /// Returns the readiness of all parts.
    #[must_use]
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Returns the address that hosts connect to, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Returns a function that gathers the metrics of control and of the mesh, anew each time.
    pub fn gather(&self) -> impl Fn() -> Vec<Family> + Send + Sync + use<> {
        let (own, shown, writable) =
            (self.metrics.registry.clone(), self.shown.clone(), self.writable.clone());
        move || {
            let lost = shown.lost(SystemTime::now().into());
            let mesh = census::families(&shown.directory(), &shown.seen(), &lost);
            let store = census::store(writable.problem().is_none());
            merge(gather(&own).into_iter().chain(mesh).chain([store]))
        }
    }

    /// Returns a function that lists the targets for Prometheus, as JSON for its HTTP service discovery, anew each
    /// time.
    pub fn scrape_targets(&self) -> impl Fn() -> String + Send + Sync + use<> {
        let directory = self.shown.clone();
        move || targets::json(&directory.directory().nodes, &directory.seen())
    }

    /// A new join token for so many hosts (`None`: any number), durable when this returns.
    ///
    /// # Errors
    /// When `ttl` is not from a second to a year or the store cannot be written.
    pub async fn create_token(&self, ttl: Duration, uses: Option<u32>) -> Result<JoinToken, TokenError> {
        let wanted = api::TokenSpec { ttl, uses, node: None, networks: Default::default() };
        let made = api::create_token(&self.writer, core::Actor::Control, &self.authority, wanted).await;
        made.map(|(token, _)| token).map_err(|error| TokenError { reason: error.to_string() })
    }

    /// Ends because another control plane leads: what is under way has no time to end.
    async fn abandon(self) {
        let Self { drain, servers, upkeep, writer, stopped, _socket: socket, .. } = self;
        drop(upkeep);
        drain.drain(Duration::from_millis(200)).await;
        serve::ended(servers).await;
        drop(socket);
        writer.stop().await;
        // Its last commit may wait for a store that does not answer, and changes nothing any more.
        drop(stopped);
    }

    /// Ends in order: tells every stream, waits for calls under way, finishes the last commit.
    pub async fn shutdown(self) {
        let Self { drain, servers, upkeep, writer, stopped, .. } = self;
        drop(upkeep);
        if !drain.drain(DRAIN).await {
            tracing::warn!("some streams did not end in time");
        }
        drop(servers);
        writer.stop().await;
        let finished = tokio::task::spawn_blocking(move || stopped.wait()).await;
        if let Err(error) = finished {
            tracing::error!(%error, "waiting for the store's writer failed");
        }
    }
}
