//! A store in one piece: `sealane backup N` in the first line, the payload's length (8 bytes, little endian), the
//! payload (a prost message with every row of one moment), and the SHA-256 of all before it.

use prost::Message;
use sha2::{Digest, Sha256};

use super::history::HISTORY;
use super::rows::{self, RecordError};
use super::{Image, Rows, upgrade};
use crate::core::Timestamp;

const FORMAT: &str = "sealane backup ";
const FIRST_LINE: &[u8] = b"sealane backup 1\n";
const SUM: usize = 32;

#[derive(Clone, PartialEq, Message)]
struct BackupMessage {
    #[prost(uint32, tag = "1")]
    schema: u32,
    #[prost(uint64, tag = "2")]
    taken: u64,
    #[prost(string, tag = "3")]
    version: String,
    #[prost(message, repeated, tag = "4")]
    rows: Vec<RowMessage>,
    /// Rows of the history, which older versions do not read.
    #[prost(message, repeated, tag = "5")]
    history: Vec<RowMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct RowMessage {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// A store as it was at one moment, authority's key included.
pub struct Backup {
    pub(super) rows: Rows,
    /// Rows of the history.
    pub(super) history: Rows,
    pub(super) image: Image,
    /// Time at which it was taken.
    pub taken: Timestamp,
    /// Version that took it.
    pub version: String,
}

/// Reasons for which a file is not taken for a backup. Nothing is changed then.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Something else.
    #[error("it is no backup of Sealane")]
    Foreign,
    /// A later version wrote it.
    #[error("a newer Sealane wrote it; upgrade Sealane first")]
    Newer,
    /// Not all of it is there, or more than it.
    #[error("it has {found} bytes, not the {expected} that it should have; it was cut off or changed")]
    Length {
        /// Number of rows that are there.
        found: usize,
        /// Number of rows that should be.
        expected: u64,
    },
    /// Other bytes than were written.
    #[error("its SHA-256 checksum does not match; it is damaged")]
    Damaged,
    /// Rows that make no store.
    #[error("what it holds cannot be read: {0}")]
    Content(String),
}

impl std::fmt::Debug for Backup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backup")
            .field("meta", &self.image.meta)
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}

/// Rows as the bytes of a backup.
pub(crate) fn encode(rows: Rows, taken: Timestamp) -> Vec<u8> {
    let rows = rows.into_iter().map(|(key, value)| RowMessage { key, value });
    let (history, rows) = rows.partition(|row| row.key.starts_with(HISTORY));
    let (schema, version) = (super::SCHEMA, crate::VERSION.to_owned());
    let payload = BackupMessage { schema, taken: taken.unix(), version, rows, history }.encode_to_vec();
    let length = u64::try_from(payload.len()).unwrap_or(u64::MAX);
    let mut bytes = [FIRST_LINE, length.to_le_bytes().as_slice(), &payload].concat();
    let sum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&sum);
    bytes
}

impl Backup {
    /// Reads a backup, all of it.
    ///
    /// # Errors
    /// When it is not whole and sound.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BackupError> {
        let payload = check(bytes)?;
        let message =
            BackupMessage::decode(payload).map_err(|error| BackupError::Content(error.to_string()))?;
        let rows = |rows: Vec<RowMessage>| rows.into_iter().map(|row| (row.key, row.value)).collect::<Rows>();
        let history = rows(message.history);
        let rows = upgrade::steps(rows(message.rows), message.schema).map_err(content)?;
        let image = rows::image(&rows).map_err(content)?;
        Ok(Self {
            rows,
            history,
            image,
            taken: Timestamp::from_unix(message.taken),
            version: message.version,
        })
    }

    /// The mesh that it is of.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        self.image.meta.trust_domain.as_str()
    }

    /// The store's revision in that moment.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.image.meta.revision
    }

    /// Returns the numbers of networks, hosts and workloads that it knows.
    #[must_use]
    pub fn counts(&self) -> [usize; 3] {
        let state = &self.image.state;
        let workloads = state.networks.values().map(|network| network.workloads.len()).sum();
        [state.networks.len(), state.nodes.len(), workloads]
    }
}

/// The payload of bytes that are as they were written.
fn check(bytes: &[u8]) -> Result<&[u8], BackupError> {
    let Some(rest) = bytes.strip_prefix(FIRST_LINE) else {
        let newer = bytes.starts_with(FORMAT.as_bytes());
        // Less than the first line may be a part of it.
        let part = !bytes.is_empty() && FIRST_LINE.starts_with(bytes);
        return Err(match (part, newer) {
            (true, _) => length(bytes, 0),
            (false, true) => BackupError::Newer,
            (false, false) => BackupError::Foreign,
        });
    };
    let Some((size, rest)) = rest.split_first_chunk::<8>() else { return Err(length(bytes, 0)) };
    let size = u64::from_le_bytes(*size);
    let Some(payload) = rest.len().checked_sub(SUM).filter(|payload| u64::try_from(*payload) == Ok(size))
    else {
        return Err(length(bytes, size));
    };
    let (summed, sum) = bytes.split_at(bytes.len() - SUM);
    if Sha256::digest(summed).as_slice() != sum {
        return Err(BackupError::Damaged);
    }
    Ok(&rest[..payload])
}

fn length(bytes: &[u8], payload: u64) -> BackupError {
    let around = u64::try_from(FIRST_LINE.len() + 8 + SUM).unwrap_or(u64::MAX);
    BackupError::Length { found: bytes.len(), expected: payload.saturating_add(around) }
}

fn content(error: RecordError) -> BackupError {
    match error {
        RecordError::Newer(_) => BackupError::Newer,
        RecordError::Kind(_)
        | RecordError::Damaged { .. }
        | RecordError::Missing(_)
        | RecordError::Sealed(_) => BackupError::Content(error.to_string()),
    }
}
