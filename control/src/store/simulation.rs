//! Stores that are no files, for simulations.

use super::{Backup, Meta, Rows, restore, rows};
use crate::ca::AuthorityRecord;
use crate::core::Timestamp;
use crate::kv::Write;

/// The rows of a new store of this lifetime.
///
/// # Panics
/// Never: the trust domain is a name.
pub(crate) fn new_rows(epoch: u64, authority: &AuthorityRecord) -> Rows {
    let Ok(trust_domain) = "sealane".parse() else { panic!("a trust domain's name") };
    let meta = Meta { epoch, revision: 0, trust_domain };
    let writes = [rows::meta(&meta), rows::authority(authority)];
    let put = |write| match write {
        Write::Put(key, value) => Some((key, value)),
        Write::Delete(_) => None,
    };
    writes.into_iter().filter_map(put).collect()
}

/// The rows of a store that a backup takes the place of.
///
/// # Panics
/// When the store that is replaced cannot be read.
pub(crate) fn restored(backup: &Backup, replaced: &Rows, epoch: u64, now: Timestamp) -> Rows {
    let image = rows::image(replaced).unwrap_or_else(|error| panic!("the store: {error}"));
    restore::rows(backup, epoch, restore::lifetimes(image), now)
}
