//! A store in etcd: opened, or made, for control planes that share it.

use sealane_proto::types::TrustDomain;
use tokio::runtime::Handle;

use super::open::new_epoch;
use super::rows::{self, RecordError};
use super::{Anchor, Image, Meta, ReadError, Store};
use crate::ca::{Authority, AuthorityError, SealError, SealKey};
use crate::core::Timestamp;
use crate::kv::{CommitError, Condition, Etcd, EtcdError, EtcdPlace, Kv, Transaction};

/// Reasons for which there is no store in etcd.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SharedError {
    /// The store cannot be reached.
    #[error("the store cannot be opened: {0}; see --etcd")]
    Etcd(#[from] EtcdError),
    /// The store describes another mesh than was asked for.
    #[error(
        "the store in etcd is of trust domain {found}, not {wanted}; leave --trust-domain out, or choose another --etcd-prefix \
         for a new mesh"
    )]
    Domain {
        /// Trust domain of the store.
        found: TrustDomain,
        /// Trust domain that was asked for.
        wanted: TrustDomain,
    },
    /// The mesh that this control plane has known is not there.
    #[error(
        "the mesh of this control plane is not in etcd any more: {0}; none is made in its place, and hosts go on by what they have; bring \
         etcd's data back, or bring a backup into it (`sealane restore FILE --store etcd --etcd URL --key-file FILE`), for which \
         `sealane backup FILE` writes what a control plane that has run meanwhile still knows; for a new mesh, start with another \
         --data-dir"
    )]
    Lost(String),
    /// The rows make no store of this version.
    #[error("the store in etcd cannot be read: {0}")]
    Unreadable(#[from] ReadError),
    /// A new store cannot be written.
    #[error("the store cannot be made: {0}")]
    Make(#[from] CommitError),
    /// The new store's authority could not be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The key file.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// Opens the store at this place. Without one, makes it for this trust domain (default `fallback`) with a new authority, whose key is
/// encrypted. Blocks, so it is not for the runtime's own threads.
pub(crate) fn open_shared(
    place: EtcdPlace,
    key: SealKey,
    (domain, fallback): (Option<TrustDomain>, TrustDomain),
    now: Timestamp,
    runtime: Handle,
    anchor: &Anchor,
) -> Result<(Store, Image), SharedError> {
    let prefix = place.prefix.clone();
    let mut etcd = Etcd::open(place, runtime)?;
    if etcd.get(rows::META).map_err(ReadError::Failed)?.1.is_none() {
        if anchor.is_set() {
            return Err(SharedError::Lost(format!("there is no store under --etcd-prefix {prefix:?}")));
        }
        make(&mut etcd, &key, domain.clone().unwrap_or(fallback), now)?;
    }
    let mut store = Store::sealed(Box::new(etcd), key);
    let image = store.load().map_err(|error| match error {
        ReadError::Record(RecordError::Sealed(error)) => SharedError::Seal(error),
        other @ (ReadError::Record(_) | ReadError::Failed(_)) => other.into(),
    })?;
    match domain {
        Some(wanted) if wanted != image.meta.trust_domain => {
            Err(SharedError::Domain { found: image.meta.trust_domain, wanted })
        }
        Some(_) | None if !anchor.holds(&image.authority) => {
            let domain = &image.meta.trust_domain;
            Err(SharedError::Lost(format!(
                "the store under --etcd-prefix {prefix:?} is another mesh's, of trust domain {domain}, with another certificate authority"
            )))
        }
        Some(_) | None => Ok((store, image)),
    }
}

/// Makes a new store, unless another control plane makes one at the same time.
fn make(etcd: &mut Etcd, key: &SealKey, domain: TrustDomain, now: Timestamp) -> Result<(), SharedError> {
    let authority = Authority::generate(&domain, now)?;
    let meta = Meta { epoch: new_epoch(), revision: 0, trust_domain: domain };
    let then = vec![rows::meta(&meta), rows::sealed_authority(&authority, key)?];
    let when = vec![Condition::Version(rows::META.to_owned(), 0)];
    match etcd.commit(&Transaction { when, then }) {
        Ok(_) | Err(CommitError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
