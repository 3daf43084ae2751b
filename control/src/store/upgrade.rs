//! Stores of older versions become stores of this one: step by step over rows, written in one transaction.
//!
//! | schema | what it is |
//! |---|---|
//! | 1 | one redb table `sealane`: `meta`, `authority`, `<kind>/<names...>`; the revision is in `meta` alone |
//! | 2 | [`crate::kv::File`] with rows under `/sealane/v1/`; of the table `sealane`, `meta` is left to say so |

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::rows::{self, ROOT, RecordError};
use super::{ReadError, Rows, SCHEMA};
use crate::kv::{Failure, File};

/// Table that every version looks at first: a store of a newer one is refused by it.
const LAYOUT: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("sealane");
const META: &str = "meta";

/// The schema of a file; `None` when it is no store.
pub(super) fn schema(database: &Database) -> Result<Option<u32>, ReadError> {
    let rows = layout(database).map_err(failed)?;
    Ok(rows.get(META).map(|meta| rows::schema(meta)).transpose()?)
}

/// Makes a file of an older schema one of this, or leaves it as it is.
pub(super) fn upgrade(database: &Database, from: u32) -> Result<(), ReadError> {
    let rows = steps(layout(database).map_err(failed)?, from)?;
    let revision = rows::image(&rows)?.meta.revision;
    let write = || -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        transaction.delete_table(LAYOUT)?;
        fill(&transaction, revision.max(1), &rows)?;
        transaction.commit()?;
        Ok(())
    };
    write().map_err(failed)
}

/// Rows of an older schema as rows of this one.
pub(super) fn steps(rows: Rows, from: u32) -> Result<Rows, RecordError> {
    match from {
        1 => one_to_two(rows),
        SCHEMA => Ok(rows),
        _ => Err(RecordError::Newer(from)),
    }
}

/// Writes the rows of a new file, and what it is.
pub(super) fn fill(transaction: &WriteTransaction, revision: u64, rows: &Rows) -> Result<(), redb::Error> {
    File::fill(transaction, revision, rows)?;
    transaction.open_table(LAYOUT)?.insert(META, rows::marker().as_slice())?;
    Ok(())
}

fn one_to_two(rows: Rows) -> Result<Rows, RecordError> {
    let rename = |(key, value): (String, Vec<u8>)| {
        let (kind, names) = key.split_once('/').unwrap_or((&key, ""));
        match kind {
            "meta" => Ok((format!("{ROOT}meta"), rows::restamped(&value)?)),
            "authority" => Ok((format!("{ROOT}authority"), value)),
            "network" | "node" | "block" | "service" | "workload" | "token" => {
                Ok((format!("{ROOT}{kind}s/{names}"), value))
            }
            _ => Err(RecordError::Kind(key)),
        }
    };
    rows.into_iter().map(rename).collect()
}

fn layout(database: &Database) -> Result<Rows, redb::Error> {
    let table = match database.begin_read()?.open_table(LAYOUT) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Rows::new()),
        Err(error) => return Err(error.into()),
    };
    let mut rows = Rows::new();
    for row in table.iter()? {
        let (key, value) = row?;
        rows.insert(key.value().to_owned(), value.value().to_vec());
    }
    Ok(rows)
}

fn failed(error: redb::Error) -> ReadError {
    Failure { place: "the file".to_owned(), reason: error.to_string(), full: false, lost: false }.into()
}
