//! Rows: `/sealane/v1/<table>/<names...>` for each record of the state, one for the authority, and one that says what the store
//! is. Values are prost messages that only gain fields; what cannot be said so is a new [`SCHEMA`]. Rows of the history lie beside
//! them ([`history`](super::history)).

use prost::Message;
use sealane_proto::types::TrustDomain;

use super::history::HISTORY;
use super::{Image, Meta, Rows, SCHEMA};
use crate::ca::{AuthorityRecord, SealError, SealKey};
use crate::core::{Change, RowError, State};
use crate::kv::Write;

/// Prefix of all keys.
pub(super) const ROOT: &str = "/sealane/v1/";
/// The row that says what the store is.
pub(super) const META: &str = "/sealane/v1/meta";
const AUTHORITY: &str = "/sealane/v1/authority";

#[derive(Clone, PartialEq, Message)]
struct MetaRow {
    #[prost(uint32, tag = "1")]
    schema: u32,
    #[prost(uint64, tag = "2")]
    epoch: u64,
    #[prost(uint64, tag = "3")]
    revision: u64,
    #[prost(string, tag = "4")]
    trust_domain: String,
    /// The revision from which on the history is whole; absent: from this one on. Versions without a history leave it out.
    #[prost(uint64, optional, tag = "5")]
    history_from: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct AuthorityRow {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    certificate: Vec<u8>,
    /// The key, encrypted, in place of the key.
    #[prost(bytes = "vec", tag = "3")]
    sealed: Vec<u8>,
}

/// Reasons for which a row cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// No kind that this version knows.
    #[error("record {0:?} is of no known kind")]
    Kind(String),
    /// Not the message that it should be.
    #[error("record {key:?} is damaged: {reason}")]
    Damaged {
        /// The record.
        key: String,
        /// Fault of the record.
        reason: String,
    },
    /// Written by a newer version.
    #[error("schema {0}, this one knows {SCHEMA}")]
    Newer(u32),
    /// The authority's key is encrypted by another key file's key.
    #[error(transparent)]
    Sealed(SealError),
    /// A record that every store has is not there.
    #[error("record {0:?} is missing")]
    Missing(&'static str),
}

/// The row that says what a store is whose history begins now.
pub(super) fn meta(meta: &Meta) -> Write {
    meta_with(meta, None)
}

/// The row that says what the store is, with the revision from which on its history is whole.
pub(super) fn meta_with(meta: &Meta, history_from: Option<u64>) -> Write {
    let row = MetaRow {
        schema: SCHEMA,
        epoch: meta.epoch,
        revision: meta.revision,
        trust_domain: meta.trust_domain.to_string(),
        history_from,
    };
    Write::Put(META.to_owned(), row.encode_to_vec())
}

/// The schema that a meta row names.
pub(super) fn schema(value: &[u8]) -> Result<u32, RecordError> {
    Ok(decode::<MetaRow>(META, value)?.schema)
}

/// The revision from which on the history is whole, by the meta row among these.
pub(super) fn history_from(rows: &Rows) -> Result<u64, RecordError> {
    let row: MetaRow = decode(META, rows.get(META).ok_or(RecordError::Missing("meta"))?)?;
    Ok(row.history_from.unwrap_or(row.revision))
}

/// Builds the row that is left where schema 1 had its meta row: older versions look there, and refuse by name.
pub(super) fn marker() -> Vec<u8> {
    MetaRow { schema: SCHEMA, ..MetaRow::default() }.encode_to_vec()
}

/// A meta row of an older schema as one of this.
pub(super) fn restamped(value: &[u8]) -> Result<Vec<u8>, RecordError> {
    Ok(MetaRow { schema: SCHEMA, ..decode(META, value)? }.encode_to_vec())
}

/// The authority's row.
pub(super) fn authority(record: &AuthorityRecord) -> Write {
    let row =
        AuthorityRow { key: record.key.clone(), certificate: record.certificate.clone(), sealed: vec![] };
    Write::Put(AUTHORITY.to_owned(), row.encode_to_vec())
}

/// The authority's row, its key encrypted.
pub(super) fn sealed_authority(record: &AuthorityRecord, key: &SealKey) -> Result<Write, SealError> {
    let row =
        AuthorityRow { key: vec![], certificate: record.certificate.clone(), sealed: key.seal(record)? };
    Ok(Write::Put(AUTHORITY.to_owned(), row.encode_to_vec()))
}

/// Decrypts the authority's key in these rows.
pub(super) fn open_authority(rows: &mut Rows, key: &SealKey) -> Result<(), RecordError> {
    let Some(row) = rows.get_mut(AUTHORITY) else { return Ok(()) };
    let AuthorityRow { certificate, sealed, .. } = decode(AUTHORITY, row)?;
    let record = key.open(&sealed, certificate).map_err(RecordError::Sealed)?;
    if let Write::Put(_, opened) = authority(&record) {
        *row = opened;
    }
    Ok(())
}

/// The row of a change.
pub(super) fn change(change: &Change) -> Write {
    let (key, row) = change.row();
    let key = format!("{ROOT}{key}");
    match row {
        Some(row) => Write::Put(key, row),
        None => Write::Delete(key),
    }
}

/// Puts rows together.
pub(super) fn image(rows: &Rows) -> Result<Image, RecordError> {
    // First of all, because a newer version may have other kinds of records.
    let meta = read_meta(rows.get(META).ok_or(RecordError::Missing("meta"))?)?;
    let authority = rows.get(AUTHORITY).map(|row| read_authority(row)).transpose()?;
    let is_record = |key: &str| key != META && key != AUTHORITY && !key.starts_with(HISTORY);
    let records = rows.iter().filter(|(key, _)| is_record(key));
    let records = records.map(|(key, row)| load(key, row)).collect::<Result<Vec<Change>, _>>()?;
    let (inside, first): (Vec<_>, Vec<_>) = records.into_iter().partition(Change::is_in_network);
    let mut state = State::default();
    first.iter().chain(&inside).for_each(|change| state.apply(change));
    Ok(Image { meta, authority: authority.ok_or(RecordError::Missing("authority"))?, state })
}

/// Reads a record's row.
fn load(key: &str, row: &[u8]) -> Result<Change, RecordError> {
    read(key, |table, names| Change::load(table, names, row))
}

fn read(
    key: &str,
    change: impl FnOnce(&str, &str) -> Option<Result<Change, RowError>>,
) -> Result<Change, RecordError> {
    let unknown = || RecordError::Kind(key.to_owned());
    let path = key.strip_prefix(ROOT).ok_or_else(unknown)?;
    let (table, names) = path.split_once('/').unwrap_or((path, ""));
    let change = change(table, names).ok_or_else(unknown)?;
    change.map_err(|error: RowError| damaged(key, &error))
}

/// Rows that a transaction has written.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Facts about the store, if they are other.
    pub(super) meta: Option<Meta>,
    /// Changes of the state, in an order in which they can be made.
    pub(super) changes: Vec<Change>,
}

/// Reads what a transaction has written, by keys: a row, or that it is no more.
pub(super) fn written<'a>(
    rows: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>,
) -> Result<Written, RecordError> {
    let (mut written, mut inside, mut gone) = (Written::default(), vec![], vec![]);
    for (key, row) in rows {
        match row {
            Some(row) if key == META => written.meta = Some(read_meta(row)?),
            _ if key == META || key == AUTHORITY => {}
            Some(row) => {
                let change = load(key, row)?;
                let changes = if change.is_in_network() { &mut inside } else { &mut written.changes };
                changes.push(change);
            }
            None => gone.push(read(key, Change::removal)?),
        }
    }
    written.changes = gone.into_iter().chain(written.changes).chain(inside).collect();
    Ok(written)
}

fn read_meta(value: &[u8]) -> Result<Meta, RecordError> {
    let row: MetaRow = decode(META, value)?;
    if row.schema > SCHEMA {
        return Err(RecordError::Newer(row.schema));
    }
    if row.epoch == 0 {
        return Err(damaged(META, &"it has no epoch: a restoration into it was not finished"));
    }
    let trust_domain: TrustDomain = row.trust_domain.parse().map_err(|error| damaged(META, &error))?;
    Ok(Meta { epoch: row.epoch, revision: row.revision, trust_domain })
}

fn read_authority(value: &[u8]) -> Result<AuthorityRecord, RecordError> {
    let AuthorityRow { key, certificate, .. } = decode(AUTHORITY, value)?;
    Ok(AuthorityRecord { key, certificate })
}

fn decode<M: Message + Default>(key: &str, row: &[u8]) -> Result<M, RecordError> {
    M::decode(row).map_err(|error| damaged(key, &error))
}

fn damaged(key: &str, reason: &dyn std::fmt::Display) -> RecordError {
    RecordError::Damaged { key: key.to_owned(), reason: reason.to_string() }
}
