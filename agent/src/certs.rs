//! Identities of this host's workloads: one key per (network, service), made here and never leaving the host.
//!
//! Certificates are renewed from a third of their life on, so that control may be gone for most of it. What is
//! on disk is used before control is asked: a new instance of a service that this host carries needs nobody.

mod describe;
pub(crate) mod key;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sealane_base::text::one_line;
use sealane_proto::client::of_loss;
use sealane_proto::identity::{Principal, SpiffeId};
use sealane_proto::sidecar;
use sealane_proto::types::TrustDomain;
use sealane_proto::wire::v1;
use tokio::sync::{Notify, watch};
use tonic::transport::Channel;

use crate::disk::{DiskError, Folder, RecordError, StoredIdentity};
use key::{KeyError, NewKey, Validity};

pub(crate) use describe::describe;

/// Number of workloads that do not run whose own identities are kept for when they do.
const MOST_UNUSED: usize = 256;

/// A certificate with its key, as sidecars get it.
#[derive(Debug)]
pub(crate) struct WorkloadIdentity {
    /// Name in the certificate.
    pub(crate) spiffe_id: SpiffeId,
    /// The chain, leaf first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The mesh's roots.
    pub(crate) roots: Vec<CertificateDer<'static>>,
    /// The private key.
    pub(crate) key: PrivateKeyDer<'static>,
    /// From when to when it is good.
    pub(crate) validity: Validity,
}

impl WorkloadIdentity {
    /// The message for a sidecar.
    #[must_use]
    pub(crate) fn to_message(&self) -> sidecar::Identity {
        sidecar::Identity {
            spiffe_id: self.spiffe_id.clone(),
            chain: self.chain.clone(),
            roots: self.roots.clone(),
            key: self.key.clone_key(),
            not_after: self.validity.not_after,
        }
    }
}

/// Reasons for which there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertError {
    /// Control is not there, or does not answer.
    #[error("control does not answer: {0}")]
    Unreachable(String),
    /// Control refuses; its text says why.
    #[error("control refuses a certificate for {principal}: {reason}")]
    Refused {
        /// For whom.
        principal: String,
        /// Control's words.
        reason: String,
    },
    /// The certificate or key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The disk is full or faulty.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The stored identity is another version's.
    #[error(transparent)]
    Record(#[from] RecordError),
}

type Current = watch::Sender<Arc<WorkloadIdentity>>;

/// All identities of this host's workloads.
#[derive(Debug)]
pub(crate) struct Certs {
    folder: Folder,
    trust_domain: TrustDomain,
    current: Mutex<BTreeMap<Principal, Current>>,
    /// Locks that allow one signature per principal at a time: its key is made once.
    signing: Mutex<BTreeMap<Principal, Arc<tokio::sync::Mutex<()>>>>,
    /// Workloads whose identities are on disk although none of them runs, from the one that ended first on.
    unused: Mutex<VecDeque<Principal>>,
    /// Told when there is a certificate that may be due sooner than all others.
    published: Notify,
}

impl Certs {
    /// The identities kept in `folder`.
    #[must_use]
    pub(crate) fn new(folder: Folder, trust_domain: TrustDomain) -> Self {
        Self {
            folder,
            trust_domain,
            current: Mutex::default(),
            signing: Mutex::default(),
            unused: Mutex::default(),
            published: Notify::new(),
        }
    }

    /// The mesh.
    #[must_use]
    pub(crate) fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The identity from memory, or a good one from disk.
    ///
    /// # Errors
    /// When the stored one cannot be read.
    pub(crate) fn known(
        &self,
        principal: &Principal,
    ) -> Result<Option<watch::Receiver<Arc<WorkloadIdentity>>>, CertError> {
        if let Some(current) = self.lock().get(principal) {
            return Ok(Some(current.subscribe()));
        }
        let Some(bytes) = self.folder.read(&file_name(principal))? else {
            return Ok(None);
        };
        let stored = StoredIdentity::from_bytes(&bytes)?;
        let Some(leaf) = stored.chain.first() else {
            return Ok(None);
        };
        let validity = Validity::of(leaf)?;
        if stored.spiffe_id.trust_domain != self.trust_domain || validity.not_after <= SystemTime::now() {
            return Ok(None);
        }
        Ok(Some(self.publish(principal, stored, validity)))
    }

    /// The identity from memory or disk, when there is one that is good now: one in memory may have ended while control was away.
    ///
    /// # Errors
    /// As [`Certs::known`].
    pub(crate) fn good(
        &self,
        principal: &Principal,
    ) -> Result<Option<watch::Receiver<Arc<WorkloadIdentity>>>, CertError> {
        let is_good = |known: &watch::Receiver<Arc<WorkloadIdentity>>| {
            known.borrow().validity.not_after > SystemTime::now()
        };
        Ok(self.known(principal)?.filter(is_good))
    }

    /// The identity that is there, or one that control signs now, for a principal that is registered on this host. Of
    /// several that ask at once, one has control sign and all get the same.
    ///
    /// # Errors
    /// When control is not there or refuses.
    pub(crate) async fn obtain(
        &self,
        principal: &Principal,
        channel: Channel,
    ) -> Result<watch::Receiver<Arc<WorkloadIdentity>>, CertError> {
        let turn = self.turn(principal);
        let _turn = turn.lock().await;
        match self.good(principal)? {
            Some(known) => Ok(known),
            None => self.sign(principal, channel).await,
        }
    }

    /// Has control sign anew for a principal whose certificate is due.
    ///
    /// # Errors
    /// When control is not there or refuses; what was there stays.
    pub(crate) async fn renew(&self, principal: &Principal, channel: Channel) -> Result<(), CertError> {
        let turn = self.turn(principal);
        let _turn = turn.lock().await;
        self.sign(principal, channel).await.map(drop)
    }

    /// Whoever holds it signs for the principal. Those of nobody are let go.
    fn turn(&self, principal: &Principal) -> Arc<tokio::sync::Mutex<()>> {
        let mut signing = self.signing.lock().unwrap_or_else(PoisonError::into_inner);
        signing.retain(|_, turn| Arc::strong_count(turn) > 1);
        signing.entry(principal.clone()).or_default().clone()
    }

    async fn sign(
        &self,
        principal: &Principal,
        channel: Channel,
    ) -> Result<watch::Receiver<Arc<WorkloadIdentity>>, CertError> {
        let key = match self.stored_key(principal)? {
            Some(key) => key,
            None => NewKey::make()?,
        };
        let request = sign_request(principal, key.request()?);
        let answer = v1::control_client::ControlClient::new(channel).sign(request).await;
        let answer = answer.map_err(|status| refused(principal, &status))?.into_inner();
        let (chain, roots) = answer.certificate.unwrap_or_default().into_parts();
        let spiffe_id = SpiffeId { trust_domain: self.trust_domain.clone(), principal: principal.clone() };
        let stored = StoredIdentity { spiffe_id, key: key.private(), chain, roots };
        let leaf = stored.chain.first().ok_or(KeyError::Certificate)?;
        let validity = Validity::of(leaf)?;
        // It is used all the same: a disk may be full for longer than a certificate lives. The next agent asks anew.
        if let Err(error) = self.folder.write(&file_name(principal), &stored.to_bytes()) {
            tracing::error!(%error, "a certificate is kept in memory alone");
        }
        Ok(self.publish(principal, stored, validity))
    }

    /// Returns the end of each identity that is in use.
    #[must_use]
    pub(crate) fn expiries(&self) -> Vec<(SpiffeId, SystemTime)> {
        let current = self.lock();
        let identities = current.values().map(|current| current.borrow().clone());
        identities.map(|identity| (identity.spiffe_id.clone(), identity.validity.not_after)).collect()
    }

    /// The principals whose certificate should be renewed now.
    #[must_use]
    pub(crate) fn due(&self, now: SystemTime) -> Vec<Principal> {
        let current = self.lock();
        let due = current.iter().filter(|(_, current)| current.borrow().validity.is_due(now));
        due.map(|(principal, _)| principal.clone()).collect()
    }

    /// Returns when there is a certificate that was not there when [`Self::next_look`] was asked.
    pub(crate) async fn published(&self) {
        self.published.notified().await;
    }

    /// Returns the time until certificates to renew are looked for next.
    #[must_use]
    pub(crate) fn next_look(&self, now: SystemTime) -> Duration {
        let current = self.lock();
        let looks = current.values().map(|current| current.borrow().validity.next_look(now));
        looks.min().unwrap_or(key::LONGEST_WAIT)
    }

    /// The principal has no workload on this host any more. What its next one can use without control is kept on disk until it
    /// ends, of workloads' own identities the last few.
    ///
    /// # Errors
    /// When the disk is faulty.
    pub(crate) fn forget(&self, principal: &Principal) -> Result<(), DiskError> {
        self.lock().remove(principal);
        match principal {
            Principal::Workload(..) => self.set_by(principal),
            Principal::Service(..) | Principal::Control | Principal::Node(_) => Ok(()),
        }
    }

    /// Keeps the identity of a workload that has ended, and removes the one that has been kept longest where there are many.
    fn set_by(&self, principal: &Principal) -> Result<(), DiskError> {
        let surplus = {
            let mut unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner);
            unused.retain(|known| known != principal);
            unused.push_back(principal.clone());
            if unused.len() > MOST_UNUSED { unused.pop_front() } else { None }
        };
        match surplus.filter(|surplus| !self.lock().contains_key(surplus)) {
            Some(surplus) => self.folder.remove(&file_name(&surplus)),
            None => Ok(()),
        }
    }

    /// Takes note of the stored identities of workloads that are not `known`: the last few are kept for their next ones.
    ///
    /// # Errors
    /// When the disk is faulty.
    pub(crate) fn recall(&self, known: impl Fn(&Principal) -> bool) -> Result<(), CertError> {
        for name in self.folder.names()? {
            let Some(bytes) = self.folder.read(&name)? else {
                continue;
            };
            let principal = StoredIdentity::from_bytes(&bytes)?.spiffe_id.principal;
            if matches!(principal, Principal::Workload(..)) && !known(&principal) {
                self.set_by(&principal)?;
            }
        }
        Ok(())
    }

    /// Removes certificates of nobody that have ended: of services whose last instance here is gone. This is for a host that has a
    /// connection to control: another one's clock may be wrong, and nobody would sign anew what it removes.
    ///
    /// # Errors
    /// When the disk is faulty.
    pub(crate) fn discard_ended(&self, now: SystemTime) -> Result<(), CertError> {
        for name in self.folder.names()? {
            let Some(bytes) = self.folder.read(&name)? else {
                continue;
            };
            let stored = StoredIdentity::from_bytes(&bytes)?;
            let ended = match stored.chain.first() {
                Some(leaf) => Validity::of(leaf)?.not_after <= now,
                None => false,
            };
            if ended && !self.lock().contains_key(&stored.spiffe_id.principal) {
                self.folder.remove(&name)?;
            }
        }
        Ok(())
    }

    /// Returns the time at which the identity that is here ended, by this host's clock; `None` where it is good, or there is none.
    #[must_use]
    pub(crate) fn ended(&self, principal: &Principal, now: SystemTime) -> Option<SystemTime> {
        let used = self.lock().get(principal).map(|current| current.borrow().validity.not_after);
        let stored = || {
            let stored = StoredIdentity::from_bytes(&self.folder.read(&file_name(principal)).ok()??).ok()?;
            Some(Validity::of(stored.chain.first()?).ok()?.not_after)
        };
        used.or_else(stored).filter(|not_after| *not_after <= now)
    }

    fn stored_key(&self, principal: &Principal) -> Result<Option<NewKey>, CertError> {
        let Some(bytes) = self.folder.read(&file_name(principal))? else {
            return Ok(None);
        };
        Ok(Some(NewKey::from_private(&StoredIdentity::from_bytes(&bytes)?.key)?))
    }

    fn publish(
        &self,
        principal: &Principal,
        stored: StoredIdentity,
        validity: Validity,
    ) -> watch::Receiver<Arc<WorkloadIdentity>> {
        let identity = Arc::new(WorkloadIdentity {
            spiffe_id: stored.spiffe_id,
            chain: stored.chain,
            roots: stored.roots,
            key: stored.key,
            validity,
        });
        let mut current = self.lock();
        let sender = current
            .entry(principal.clone())
            .and_modify(|sender| {
                sender.send_replace(identity.clone());
            })
            .or_insert_with(|| watch::Sender::new(identity));
        self.published.notify_one();
        sender.subscribe()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Principal, Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sign_request(principal: &Principal, csr: Vec<u8>) -> v1::SignRequest {
    let (network, service, workload) = match principal {
        Principal::Service(network, service) => (network.to_string(), service.to_string(), String::new()),
        Principal::Workload(network, name) => (network.to_string(), String::new(), name.to_string()),
        // Control answers INVALID_ARGUMENT to a request that names nobody.
        Principal::Control | Principal::Node(_) => (String::new(), String::new(), String::new()),
    };
    v1::SignRequest { network, service, workload, csr }
}

fn refused(principal: &Principal, status: &tonic::Status) -> CertError {
    let reason = words(status);
    if is_passing(status.code()) {
        CertError::Unreachable(reason)
    } else {
        CertError::Refused { principal: file_name(principal), reason }
    }
}

/// Returns true if a call that failed so may succeed unchanged, later.
pub(crate) fn is_passing(code: tonic::Code) -> bool {
    use tonic::Code::{Aborted, Cancelled, DeadlineExceeded, Unavailable, Unknown};
    matches!(code, Aborted | Cancelled | DeadlineExceeded | Unavailable | Unknown)
}

/// Returns control's words about a call that failed, or gRPC's where it has none.
pub(crate) fn words(status: &tonic::Status) -> String {
    if std::error::Error::source(status).is_some() {
        let why = of_loss(status).map(|why| format!(": {why}")).unwrap_or_default();
        return format!("the connection to control was lost{why}");
    }
    match status.message() {
        "" => status.code().description().to_owned(),
        said => one_line(said, 2_048).into_owned(),
    }
}

fn file_name(principal: &Principal) -> String {
    match principal {
        Principal::Control => "control".to_owned(),
        Principal::Node(name) => format!("node.{name}"),
        Principal::Service(network, name) => format!("{network}.svc.{name}"),
        Principal::Workload(network, name) => format!("{network}.wl.{name}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use rustls::pki_types::PrivatePkcs8KeyDer;

    use super::*;

    /// An identity that ended with the year 2020.
    fn ended(spiffe_id: &SpiffeId) -> StoredIdentity {
        let pair = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        let leaf = params.self_signed(&pair).unwrap().der().clone();
        let key = PrivatePkcs8KeyDer::from(pair.serialize_der()).into();
        StoredIdentity { spiffe_id: spiffe_id.clone(), key, chain: vec![leaf], roots: vec![] }
    }

    #[test]
    fn what_has_ended_stays_on_disk_until_control_is_there_and_says_when_it_ended() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path().to_owned()).unwrap();
        let principal = Principal::Service("shop".parse().unwrap(), "api".parse().unwrap());
        let trust_domain: TrustDomain = "sealane".parse().unwrap();
        let id = SpiffeId { trust_domain: trust_domain.clone(), principal: principal.clone() };
        folder.write(&file_name(&principal), &ended(&id).to_bytes()).unwrap();
        let certs = Certs::new(folder.clone(), trust_domain);
        certs.recall(|_| false).unwrap();
        assert!(certs.good(&principal).unwrap().is_none());
        let (new_year, now) = (UNIX_EPOCH + Duration::from_secs(1_609_459_200), SystemTime::now());
        assert_eq!(certs.ended(&principal, now), Some(new_year));
        assert_eq!(certs.ended(&principal, UNIX_EPOCH), None, "by a clock that is set back");
        certs.discard_ended(UNIX_EPOCH).unwrap();
        assert_eq!(folder.names().unwrap().len(), 1);
        certs.discard_ended(now).unwrap();
        assert!(folder.names().unwrap().is_empty());
    }
}
