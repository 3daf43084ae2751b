//! Tables: records by name, with what is looked up by anything else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Deref;

use super::record::Record;

/// The records of one kind in one home, by name. Readers see a map; whoever changes it changes the index with it.
pub struct Table<R: Record> {
    rows: BTreeMap<R::Name, R>,
    index: R::Index,
}

/// Look-up of a table's records by more than their names.
pub trait Index<R>: Clone + Default + fmt::Debug + PartialEq {
    /// Takes a record in.
    fn enter(&mut self, record: &R);

    /// Forgets a record, unless another one has taken its place in the index.
    fn leave(&mut self, record: &R);
}

/// Takes a value out of the set of a key; a set that is empty then goes.
pub(super) fn remove_from<K: Ord, V: Ord>(sets: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}

/// Nothing is looked up but by name.
impl<R> Index<R> for () {
    fn enter(&mut self, _record: &R) {}

    fn leave(&mut self, _record: &R) {}
}

impl<R: Record> Table<R> {
    /// Returns the records by name.
    #[must_use]
    pub fn rows(&self) -> &BTreeMap<R::Name, R> {
        &self.rows
    }

    /// Returns what the records are looked up by beside their names.
    #[must_use]
    pub fn index(&self) -> &R::Index {
        &self.index
    }

    /// Puts a record in place of the one of this name, or takes that out.
    pub(super) fn set(&mut self, name: &R::Name, record: Option<&R>) {
        if let Some(old) = self.rows.get(name) {
            self.index.leave(old);
        }
        match record {
            Some(new) => {
                self.index.enter(new);
                self.rows.insert(name.clone(), new.clone());
            }
            None => drop(self.rows.remove(name)),
        }
    }
}

impl<R: Record> Deref for Table<R> {
    type Target = BTreeMap<R::Name, R>;

    fn deref(&self) -> &Self::Target {
        &self.rows
    }
}

impl<'a, R: Record> IntoIterator for &'a Table<R> {
    type Item = (&'a R::Name, &'a R);
    type IntoIter = std::collections::btree_map::Iter<'a, R::Name, R>;

    fn into_iter(self) -> Self::IntoIter {
        self.rows.iter()
    }
}

impl<R: Record> Default for Table<R> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), index: R::Index::default() }
    }
}

impl<R: Record> Clone for Table<R> {
    fn clone(&self) -> Self {
        Self { rows: self.rows.clone(), index: self.index.clone() }
    }
}

impl<R: Record> PartialEq for Table<R> {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows && self.index == other.index
    }
}

impl<R: Record> Eq for Table<R> {}

impl<R: Record> fmt::Debug for Table<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.rows).finish()
    }
}

#[cfg(test)]
mod tests {
    use sealane_proto::resource::Node;

    use crate::core::{Change, NodeRecord, State, Timestamp};

    #[test]
    fn tables_are_equal_when_their_rows_are() {
        let with = |number: u8| {
            let node = Node {
                name: format!("host-{number}").parse().unwrap(),
                underlay: "192.0.2.1".parse().unwrap(),
                mtu: None,
            };
            let mut state = State::default();
            state.apply(&Change::put(NodeRecord::new(node, [number; 32], Timestamp::default())));
            state.nodes
        };
        assert_eq!(with(1), with(1));
        assert_ne!(with(1), with(2));
        assert_ne!(with(1), State::default().nodes);
    }
}
