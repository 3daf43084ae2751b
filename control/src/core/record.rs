//! Records: what the state consists of, and what the store has a row of each for.
//!
//! A kind of record is a type with [`Record`], in a file of its own below, and a line in the list of tables of
//! [`state`](super::state). How one is changed, undone, written and read is said once, by [`Edit`], for all of them. Rows only
//! gain fields; what cannot be said so is a new schema of the store.

mod block;
mod idle;
mod network;
mod node;
mod recovery;
mod removed;
mod rest;
mod route;
mod service;
mod token;
mod told;
mod workload;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use prost::Message;
use sealane_proto::types::NetworkName;

use super::table::Index;
use super::{Affected, Change, State};
pub use block::BlockIndex;
pub use network::NetworkRecord;
pub use node::NodeRecord;
pub use token::TokenRecord;
pub use workload::WorkloadIndex;

/// A kind of record.
pub trait Record: Clone + fmt::Debug + Eq + Sized {
    /// Owner of the records: the mesh, or a network each.
    type Home: Home;
    /// Name of a record, unique at home.
    type Name: Clone + fmt::Debug + fmt::Display + FromStr<Err: fmt::Display> + Ord;
    /// The index: records are looked up by more than their names.
    type Index: Index<Self>;
    /// Form of a row.
    type Row: Message + Default + for<'a> From<&'a Self>;
    /// First part of a row's key.
    const TABLE: &'static str;

    /// Returns the record's name.
    fn name(&self) -> Self::Name;

    /// Reads a row; its key ends in `name`.
    ///
    /// # Errors
    /// When a field does not say what it should.
    fn read(name: &str, row: Self::Row) -> Result<Self, RowError>;

    /// Notes what depends on the record of this name: it is about to change.
    fn affects(_state: &State, home: &Self::Home, _name: &Self::Name, affected: &mut Affected) {
        home.affects(affected);
    }
}

/// Place of a kind of record in the state; the list of tables makes it.
pub trait Kept: Record {
    /// Wraps the change of one record.
    fn change(edit: Edit<Self>) -> Change;

    /// Returns the record of this name.
    fn find(state: &State, home: &Self::Home, name: &Self::Name) -> Option<Self>;

    /// Puts a record in place of the one of this name, or takes that out. In a network that is not there, nothing happens.
    fn set(state: &mut State, home: &Self::Home, name: &Self::Name, record: Option<&Self>);
}

/// Owner of records.
pub trait Home: Clone + fmt::Debug + fmt::Display + Eq {
    /// Notes what depends on it.
    fn affects(&self, affected: &mut Affected);

    /// Splits the part of a row's key that is behind the table: the owner, and the record's name.
    ///
    /// # Errors
    /// When it names no owner.
    fn split(path: &str) -> Result<(Self, &str), RowError>;
}

/// The mesh, as the owner of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mesh;

/// A row that does not say what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RowError(String);

/// Change of one record: put or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit<R: Record> {
    /// The record is there, and as this says.
    Put(R::Home, R),
    /// No record has this name.
    Remove(R::Home, R::Name),
}

impl<R: Record> Edit<R> {
    /// Returns the record's owner, and its name there.
    pub(super) fn place(&self) -> (&R::Home, R::Name) {
        match self {
            Self::Put(home, record) => (home, record.name()),
            Self::Remove(home, name) => (home, name.clone()),
        }
    }

    /// Returns the record, if it is put.
    pub(super) fn record(&self) -> Option<&R> {
        match self {
            Self::Put(_, record) => Some(record),
            Self::Remove(..) => None,
        }
    }

    /// Notes what the change, which has not been made yet, touches.
    pub(super) fn affects(&self, state: &State, affected: &mut Affected) {
        let (home, name) = self.place();
        R::affects(state, home, &name, affected);
    }

    /// Returns the key of its row, and the row unless it is removed.
    pub(super) fn row(&self) -> (String, Option<Vec<u8>>) {
        let (home, name) = self.place();
        let mut key = R::TABLE.to_owned();
        for part in [home.to_string(), name.to_string()] {
            if !part.is_empty() {
                key.push('/');
                key.push_str(&part);
            }
        }
        (key, self.record().map(|record| R::Row::from(record).encode_to_vec()))
    }

    /// Reads the row whose key has this behind the table.
    pub(super) fn load(path: &str, row: &[u8]) -> Result<Self, RowError> {
        let (home, name) = R::Home::split(path)?;
        let row = R::Row::decode(row).map_err(fault)?;
        Ok(Self::Put(home, R::read(name, row)?))
    }

    /// Reads the removal of the row whose key has this behind the table.
    pub(super) fn removal(path: &str) -> Result<Self, RowError> {
        let (home, name) = R::Home::split(path)?;
        Ok(Self::Remove(home, parse(name)?))
    }
}

impl<R: Kept> Edit<R> {
    /// Makes the change.
    pub(super) fn apply(&self, state: &mut State) {
        let (home, name) = self.place();
        R::set(state, home, &name, self.record());
    }

    /// Returns the change that undoes this one, which has not been made yet.
    pub(super) fn inverse(&self, state: &State) -> Self {
        let (home, name) = self.place();
        match R::find(state, home, &name) {
            Some(old) => Self::Put(home.clone(), old),
            None => Self::Remove(home.clone(), name),
        }
    }
}

impl Home for Mesh {
    /// Nothing depends on all of its records alike.
    fn affects(&self, _affected: &mut Affected) {}

    fn split(path: &str) -> Result<(Self, &str), RowError> {
        Ok((Self, path))
    }
}

impl fmt::Display for Mesh {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl Home for NetworkName {
    /// Touches the whole view of a network's hosts, for kinds of records that say nothing closer.
    fn affects(&self, affected: &mut Affected) {
        affected.network(self).hosts = true;
    }

    fn split(path: &str) -> Result<(Self, &str), RowError> {
        let (network, name) = path.split_once('/').unwrap_or((path, ""));
        Ok((parse(network)?, name))
    }
}

/// A fault of a row, in the words of what does not fit.
#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
fn fault(error: impl fmt::Display) -> RowError {
    RowError(error.to_string())
}

fn parse<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<T, RowError> {
    text.parse().map_err(fault)
}

/// Reads a name; none where the text is empty.
fn parse_option<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<Option<T>, RowError> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

fn names<T: FromStr<Err: fmt::Display> + Ord>(texts: &[String]) -> Result<BTreeSet<T>, RowError> {
    texts.iter().map(|text| parse(text)).collect()
}

fn hash(bytes: Vec<u8>) -> Result<[u8; 32], RowError> {
    bytes.try_into().map_err(|_| fault("a hash has not 32 bytes"))
}

fn text(name: Option<&impl fmt::Display>) -> String {
    name.map(ToString::to_string).unwrap_or_default()
}

fn texts<'a, T: fmt::Display + 'a>(names: impl IntoIterator<Item = &'a T>) -> Vec<String> {
    names.into_iter().map(ToString::to_string).collect()
}
