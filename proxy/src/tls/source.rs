//! The identity of a sidecar, swapped when it is renewed.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, InconsistentKeys, ServerConfig};
use sealane_proto::identity::{Expected, Principal, SerialPrefix, SpiffeId, Trust, TrustError};
use sealane_proto::sidecar::Identity;
use tokio::sync::watch;
use zeroize::Zeroize;

use super::config;

/// Number of called principals whose configurations are kept; beyond, all are made anew when called.
const MAX_CLIENTS: usize = 1024;

/// Source of the TLS configurations of tunnels. Cheap to clone; shared by workers.
///
/// A new identity comes with new ticket keys and session caches, so that no session crosses a renewal or a
/// change of roots or of what is revoked. Tunnels that are open keep what they have, unless their peer is revoked.
#[derive(Clone, Debug)]
pub struct TlsSource(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    provider: Arc<CryptoProvider>,
    current: ArcSwapOption<Current>,
    revoked: watch::Sender<Arc<BTreeSet<SerialPrefix>>>,
}

#[derive(Debug)]
struct Current {
    id: SpiffeId,
    not_after: SystemTime,
    trust: Trust,
    key: Arc<SingleCertAndKey>,
    server: Arc<ServerConfig>,
    /// Taken per tunnel, not per stream.
    clients: Mutex<HashMap<Principal, Arc<ClientConfig>>>,
}

/// Reasons for which there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// [`TlsSource::set`] was never called.
    #[error("this sidecar has no identity yet; its agent hands it one")]
    NoIdentity,
    /// The roots are unusable.
    #[error("the roots that came with {id} are unusable: {source}")]
    Trust {
        /// Identity that was to be used.
        id: Box<SpiffeId>,
        /// Fault of its roots.
        source: TrustError,
    },
    /// Key or certificate is unusable.
    #[error("key or certificate of {id} are unusable: {source}")]
    Key {
        /// Identity that was to be used.
        id: Box<SpiffeId>,
        /// Fault of its certificate or key.
        source: rustls::Error,
    },
}

impl Default for TlsSource {
    fn default() -> Self {
        Self::new()
    }
}

impl TlsSource {
    /// A source without an identity.
    #[must_use]
    pub fn new() -> Self {
        let provider = Arc::new(config::provider());
        Self(Arc::new(Shared {
            provider,
            current: ArcSwapOption::empty(),
            revoked: watch::Sender::default(),
        }))
    }

    /// Uses this identity for new tunnels.
    ///
    /// # Errors
    /// When key, chain or roots cannot be used; then the previous identity stays.
    pub fn set(&self, identity: Identity) -> Result<(), TlsError> {
        let Identity { spiffe_id: id, chain, roots, mut key, not_after } = identity;
        let signing = any_supported_type(&key);
        key.zeroize();
        let trust = Trust::new(id.trust_domain.clone(), &roots)
            .map_err(|source| TlsError::Trust { id: id.clone().into(), source })?;
        let key =
            signing.map(|signing| CertifiedKey::new(chain, signing)).and_then(|key| match key.keys_match() {
                Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(key),
                Err(error) => Err(error),
            });
        let key = key.map_err(|source| TlsError::Key { id: id.clone().into(), source })?;
        self.install(id, not_after, &trust, Arc::new(SingleCertAndKey::from(key)))
    }

    /// Accepts certificates of these serial numbers no more, however long they would last: tunnels of such peers end,
    /// no new ones are made, and no session is resumed that began before.
    ///
    /// # Errors
    /// When there can be no new configuration; open tunnels of revoked peers have ended even so.
    pub fn revoke(&self, revoked: &[SerialPrefix]) -> Result<(), TlsError> {
        let revoked: BTreeSet<SerialPrefix> = revoked.iter().copied().collect();
        if **self.0.revoked.borrow() == revoked {
            return Ok(());
        }
        self.0.revoked.send_replace(Arc::new(revoked));
        match self.0.current.load_full() {
            Some(current) => {
                self.install(current.id.clone(), current.not_after, &current.trust, current.key.clone())
            }
            None => Ok(()),
        }
    }

    /// Returns when certificates with this serial number are accepted no more.
    pub(crate) async fn revoked(&self, serial: Option<SerialPrefix>) {
        let mut revoked = self.0.revoked.subscribe();
        let gone = revoked.wait_for(|revoked| serial.is_some_and(|serial| revoked.contains(&serial)));
        if gone.await.is_err() {
            // Nobody revokes anything any more.
            std::future::pending::<()>().await;
        }
    }

    fn install(
        &self,
        id: SpiffeId,
        not_after: SystemTime,
        trust: &Trust,
        key: Arc<SingleCertAndKey>,
    ) -> Result<(), TlsError> {
        let trust = trust.revoking(self.0.revoked.borrow().clone());
        let expected = Expected::SameNetwork(id.principal.clone());
        let server = config::server(self.0.provider.clone(), trust.clone(), expected, key.clone());
        let server = Arc::new(server.map_err(|source| TlsError::Key { id: id.clone().into(), source })?);
        let current = Current { id, not_after, trust, key, server, clients: Mutex::default() };
        self.0.current.store(Some(Arc::new(current)));
        Ok(())
    }

    /// Returns our own identity.
    #[must_use]
    pub fn spiffe_id(&self) -> Option<SpiffeId> {
        self.0.current.load().as_ref().map(|current| current.id.clone())
    }

    /// Returns the end of our certificate.
    #[must_use]
    pub fn not_after(&self) -> Option<SystemTime> {
        self.0.current.load().as_ref().map(|current| current.not_after)
    }

    /// For tunnels to `expected` and to nobody else. Cached, with its sessions, per principal.
    ///
    /// # Errors
    /// [`TlsError::NoIdentity`] before the first [`TlsSource::set`].
    pub fn client_config(&self, expected: &Principal) -> Result<Arc<ClientConfig>, TlsError> {
        let current = self.0.current.load();
        let current = current.as_ref().ok_or(TlsError::NoIdentity)?;
        let mut clients = current.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = clients.get(expected) {
            return Ok(config.clone());
        }
        let exactly = Expected::Exactly(expected.clone());
        let config =
            config::client(self.0.provider.clone(), current.trust.clone(), exactly, current.key.clone());
        let config =
            Arc::new(config.map_err(|source| TlsError::Key { id: current.id.clone().into(), source })?);
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(expected.clone(), config.clone());
        Ok(config)
    }

    /// For tunnels from any workload of our network.
    ///
    /// # Errors
    /// [`TlsError::NoIdentity`] before the first [`TlsSource::set`].
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let current = self.0.current.load();
        Ok(current.as_ref().ok_or(TlsError::NoIdentity)?.server.clone())
    }
}
