//! The tables of a namespace in the kernel: read as values, changed in transactions. Each call is a conversation by netlink of
//! well under a millisecond; no program is started.

use std::collections::BTreeMap;
use std::io;

use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;

use super::change::Changes;
use super::content::{self, ListedSet, TableContent};
use super::rows::{self, Row, SetContent};
use super::ruleset::{Family, Set, TableName};
use crate::netlink::NetlinkError;
use crate::netlink::netfilter::{Attributes, NetfilterSocket, Subsystem, Verb, attribute, text};

/// NFT_MSG_* of linux/netfilter/nf_tables.h.
const GET_TABLE: u8 = 1;
const GET_CHAIN: u8 = 4;
const GET_RULE: u8 = 7;
const GET_SET: u8 = 10;
const GET_ELEMENTS: u8 = 13;
const GET_GENERATION: u8 = 16;
const GET_OBJECT: u8 = 19;
/// NFT_OBJECT_COUNTER.
const COUNTER: u32 = 1;

/// Messages of a table that are read, in bytes: those of a network with 10,000 workloads have some 20 MB.
const LARGEST: usize = 64 << 20;
/// The same in a namespace in which others may change rules; what is for names or a sidecar there has some KB.
const LARGEST_IN_FOREIGN: usize = 1 << 20;

/// The tables of a namespace.
#[derive(Debug)]
pub(crate) struct Tables {
    socket: NetfilterSocket,
    /// Bytes that a read may take, and those that are left of them; `None` once there were more. Who may change rules in a
    /// namespace may make a table as large as the memory that reads it, and reading it takes as long.
    largest: usize,
    left: Option<usize>,
}

/// A number that grows by one with every change to the ruleset of `ns`.
///
/// # Errors
/// When the kernel cannot be asked.
pub(crate) fn generation(hopper: &Hopper, ns: &NetNs) -> Result<u32, NetlinkError> {
    Tables::open(hopper, ns)?.generation()
}

/// Packets that each named counter of the tables of this name in `ns` has counted.
///
/// # Errors
/// When the kernel cannot be asked.
pub(crate) fn counters(hopper: &Hopper, ns: &NetNs, table: &str) -> Result<Vec<(String, u64)>, NetlinkError> {
    Tables::open(hopper, ns)?.counters(libc::AF_UNSPEC as u8, table)
}

/// Makes these changes, or none of them; `what` names them in the error, as an infinitive.
///
/// # Errors
/// When the kernel refuses one.
pub(crate) fn commit(hopper: &Hopper, ns: &NetNs, changes: &Changes, what: &str) -> Result<(), NetlinkError> {
    Tables::open(hopper, ns)?.commit(changes, what)
}

impl Tables {
    /// Opens those of `ns`. They keep it alive: open them per task, do not store them.
    ///
    /// # Errors
    /// As [`NetfilterSocket::open`].
    pub(crate) fn open(hopper: &Hopper, ns: &NetNs) -> Result<Self, NetlinkError> {
        let socket = NetfilterSocket::open(hopper, ns)?;
        Ok(Self { socket, largest: LARGEST, left: Some(LARGEST) })
    }

    /// Opens those of a namespace in which others may change rules: little is read there.
    ///
    /// # Errors
    /// As [`NetfilterSocket::open`].
    pub(crate) fn open_foreign(hopper: &Hopper, ns: &NetNs) -> Result<Self, NetlinkError> {
        let (largest, left) = (LARGEST_IN_FOREIGN, Some(LARGEST_IN_FOREIGN));
        Ok(Self { largest, left, ..Self::open(hopper, ns)? })
    }

    /// Hands the messages of a list to `take`, and answers what it makes of them.
    fn list<T>(
        &mut self,
        verb: Verb,
        asked: &Attributes,
        take: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        // What is beyond the bound is not ours, and has been said to be so.
        let Some(left) = &mut self.left else { return Ok(Vec::new()) };
        let taken = self.socket.dump_within(verb, asked, take, left)?;
        if taken.is_none() {
            tracing::debug!("a namespace has more rules or rows than are read; somebody has added to them");
            self.left = None;
        }
        Ok(taken.unwrap_or_default())
    }

    /// Returns true if there was more than is read: the socket is good for nothing further then.
    pub(crate) fn is_spent(&self) -> bool {
        self.left.is_none()
    }

    /// Begins a read, which has the whole bound.
    fn begin(&mut self) -> Result<(), NetlinkError> {
        if self.is_spent() {
            return Err(io::Error::other("a namespace has more rules than are read").into());
        }
        self.left = Some(self.largest);
        Ok(())
    }

    pub(crate) fn generation(&mut self) -> Result<u32, NetlinkError> {
        let id = |answer: &[u8]| attribute(answer, 1)?.try_into().ok().map(u32::from_be_bytes);
        let asked = verb(GET_GENERATION, libc::AF_UNSPEC as u8);
        let id = self.socket.ask(asked, &Attributes::default(), id, "tell the generation of its rules")?;
        id.ok_or_else(|| io::Error::other("nf_tables has no generation").into())
    }

    /// Makes these changes, or none of them; `what` names them in the error, as an infinitive.
    pub(crate) fn commit(&mut self, changes: &Changes, what: &str) -> Result<(), NetlinkError> {
        self.socket.commit(&changes.transaction(), what)
    }

    /// The names of all tables of a family.
    pub(crate) fn names(&mut self, family: Family) -> Result<Vec<TableName>, NetlinkError> {
        self.begin()?;
        let named = |table: &[u8]| attribute(table, 1).map(text);
        let names = self.list(verb(GET_TABLE, family.number()), &Attributes::default(), named)?;
        Ok(names.into_iter().map(|name| TableName::new(family, name)).collect())
    }

    /// Returns true if there is such a table.
    pub(crate) fn has(&mut self, table: &TableName) -> Result<bool, NetlinkError> {
        Ok(self.names(table.family)?.contains(table))
    }

    /// The content of a table; `None` when there is none. What is larger than is read, or just going, has none of ours.
    pub(crate) fn read(&mut self, table: &TableName) -> Result<Option<TableContent>, NetlinkError> {
        if !self.has(table)? {
            return Ok(None);
        }
        match self.read_all(table) {
            Err(NetlinkError::Refused { refusal, .. }) if refusal.is_gone() => {
                Ok(Some(TableContent::default()))
            }
            Ok(_) if self.left.is_none() => Ok(Some(TableContent::default())),
            outcome => outcome.map(Some),
        }
    }

    fn read_all(&mut self, table: &TableName) -> Result<TableContent, NetlinkError> {
        let family = table.family.number();
        let chain = |message: &[u8]| content::decode_chain(message, &table.name);
        let chains = self.list(verb(GET_CHAIN, family), &of_table(table), chain)?;
        let rule = |message: &[u8]| content::decode_rule(message, &table.name);
        let rules = self.list(verb(GET_RULE, family), &of_table(table), rule)?;
        let set = |message: &[u8]| content::decode_set(message, &table.name);
        let mut sets = self.list(verb(GET_SET, family), &of_table(table), set)?;
        for ListedSet { name, content, .. } in &mut sets {
            self.fill(table, name, content)?;
        }
        let counters = self.counters(family, &table.name)?.into_iter().map(|(name, _)| name).collect();
        Ok(TableContent::assemble(counters, sets, chains.into_iter().collect(), rules))
    }

    fn fill(&mut self, table: &TableName, set: &str, content: &mut SetContent) -> Result<(), NetlinkError> {
        let of_set = Attributes::of(|attributes| {
            attributes.text(1, &table.name);
            attributes.text(2, set);
        });
        let asked = verb(GET_ELEMENTS, table.family.number());
        let lists = self.list(asked, &of_set, |message| Some(rows::decode(message)))?;
        content.fill(lists.into_iter().flatten().collect());
        Ok(())
    }

    /// The rows of a set that is known to be of this shape.
    ///
    /// # Errors
    /// When there is no such set, among others.
    pub(crate) fn rows(
        &mut self,
        table: &TableName,
        set: &Set,
    ) -> Result<BTreeMap<Vec<u8>, Row>, NetlinkError> {
        self.begin()?;
        let mut content = set.content();
        self.fill(table, set.name, &mut content)?;
        Ok(content.rows)
    }

    /// The comments of the rules of each chain that has any, in their order; of a table that is not there, none.
    pub(crate) fn comments(
        &mut self,
        table: &TableName,
    ) -> Result<BTreeMap<String, Vec<String>>, NetlinkError> {
        self.begin()?;
        let rule = |message: &[u8]| {
            let named = |kind| attribute(message, kind).map(text);
            let comment = content::comment(message).unwrap_or_default();
            (named(1)? == table.name).then(|| (named(2).unwrap_or_default(), comment))
        };
        let rules = self.list(verb(GET_RULE, table.family.number()), &of_table(table), rule)?;
        let mut chains: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (chain, comment) in rules {
            chains.entry(chain).or_default().push(comment);
        }
        Ok(chains)
    }

    fn counters(&mut self, family: u8, table: &str) -> Result<Vec<(String, u64)>, NetlinkError> {
        let of_kind = Attributes::of(|asked| asked.number(3, COUNTER));
        self.list(verb(GET_OBJECT, family), &of_kind, |message| content::decode_counter(message, table))
    }
}

fn of_table(table: &TableName) -> Attributes {
    Attributes::of(|attributes| attributes.text(1, &table.name))
}

fn verb(number: u8, family: u8) -> Verb {
    Verb { subsystem: Subsystem::Tables, number, flags: 0, family }
}

#[cfg(test)]
mod tests {
    use super::super::ruleset::Chain;
    use super::*;

    #[test]
    fn what_is_larger_than_is_read_is_there_and_unlike_anything() {
        let (hopper, ns) = (Hopper::start().unwrap(), NetNs::anonymous().unwrap());
        let name = TableName::new(Family::Inet, "t");
        let table =
            (0..100).fold(name.clone().table(), |table, n| table.chain(Chain::new(n.to_string(), [])));
        let mut changes = Changes::default();
        changes.add(table.clone());
        let mut tables = Tables::open(&hopper, &ns).unwrap();
        assert_eq!(tables.read(&name).unwrap(), None);
        tables.commit(&changes, "try").unwrap();
        assert_eq!(tables.read(&name).unwrap(), Some(table.content()));
        tables.largest = 1_000;
        assert_eq!(tables.read(&name).unwrap(), Some(TableContent::default()));
        assert!(
            tables.is_spent() && tables.read(&name).is_err(),
            "the rest of what the kernel was to list is still to come"
        );
        assert!(Tables::open_foreign(&hopper, &ns).unwrap().has(&name).unwrap());
    }
}
