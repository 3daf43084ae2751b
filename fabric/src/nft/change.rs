//! Changes of tables as values: as messages of one transaction, and as nft writes them. Pure.

use std::fmt;

use super::expression::{Expression, SetUse};
use super::lowering::expressions;
use super::rows::{Row, SetContent};
use super::rule::Rule;
use super::ruleset::{Chain, Element, Hook, Set, Table, TableName, rows};
use crate::netlink::netfilter::{Attributes, Subsystem, Transaction, Verb};

/// NFT_MSG_* of linux/netfilter/nf_tables.h.
const NEW_TABLE: u8 = 0;
const DELETE_TABLE: u8 = 2;
const NEW_CHAIN: u8 = 3;
const DELETE_CHAIN: u8 = 5;
const NEW_RULE: u8 = 6;
const DELETE_RULE: u8 = 8;
const NEW_SET: u8 = 9;
const NEW_ELEMENTS: u8 = 12;
const DELETE_ELEMENTS: u8 = 14;
const NEW_OBJECT: u8 = 18;
const DELETE_OBJECT: u8 = 20;
/// Flags of requests.
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
/// NFT_OBJECT_COUNTER.
const COUNTER: u32 = 1;
/// NFT_SET_*.
const SET_ANONYMOUS: u32 = 1;
const SET_CONSTANT: u32 = 2;
const SET_INTERVAL: u32 = 4;
const SET_MAP: u32 = 8;
/// Elements that fit into one message, whose list is an attribute of at most 65,535 bytes.
const ELEMENTS: usize = 500;

/// Changes that are one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes(Vec<Change>);

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    /// Makes the table with all that is in it.
    AddTable(Table),
    /// Removes it, whether it is there or not.
    RemoveTable(TableName),
    AddChain(TableName, Chain),
    /// Adds rules at the end of a chain that is there.
    AddRules(TableName, Chain),
    FlushChain(TableName, String),
    /// Removes a chain, with its rules.
    RemoveChain(TableName, String),
    /// The same, whether it is there or not.
    RemoveAnyChain(TableName, String),
    AddElements(TableName, Set, Vec<Element>),
    RemoveElements(TableName, Set, Vec<Element>),
    AddCounter(TableName, String),
    RemoveCounter(TableName, String),
}

impl Changes {
    fn push(&mut self, change: Change) {
        self.0.push(change);
    }

    /// Returns true if there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts the table in the place of what has its name.
    pub(crate) fn replace(&mut self, table: Table) {
        self.remove(table.name.clone());
        self.add(table);
    }

    /// Adds a table that is not there, as the caller knows: nothing is removed, and so nothing waited for.
    pub(crate) fn add(&mut self, table: Table) {
        self.push(Change::AddTable(table));
    }

    /// Removes a table, whether it is there or not.
    pub(crate) fn remove(&mut self, table: TableName) {
        self.push(Change::RemoveTable(table));
    }

    pub(crate) fn add_chain(&mut self, table: &TableName, chain: Chain) {
        self.push(Change::AddChain(table.clone(), chain));
    }

    /// Puts these rules in the place of those of a chain that is there.
    pub(crate) fn refill_chain(&mut self, table: &TableName, chain: Chain) {
        self.push(Change::FlushChain(table.clone(), chain.name.clone()));
        self.push(Change::AddRules(table.clone(), chain));
    }

    pub(crate) fn remove_chain(&mut self, table: &TableName, chain: &str) {
        self.push(Change::RemoveChain(table.clone(), chain.to_owned()));
    }

    /// Removes a chain, whether it is there or not.
    pub(crate) fn remove_any_chain(&mut self, table: &TableName, chain: &str) {
        self.push(Change::RemoveAnyChain(table.clone(), chain.to_owned()));
    }

    pub(crate) fn add_elements(&mut self, table: &TableName, set: &Set, elements: Vec<Element>) {
        if !elements.is_empty() {
            self.push(Change::AddElements(table.clone(), set.clone(), elements));
        }
    }

    pub(crate) fn remove_elements(&mut self, table: &TableName, set: &Set, elements: Vec<Element>) {
        if !elements.is_empty() {
            self.push(Change::RemoveElements(table.clone(), set.clone(), elements));
        }
    }

    pub(crate) fn add_counter(&mut self, table: &TableName, counter: String) {
        self.push(Change::AddCounter(table.clone(), counter));
    }

    /// Removes a counter that no rule counts by any more.
    pub(crate) fn remove_counter(&mut self, table: &TableName, counter: String) {
        self.push(Change::RemoveCounter(table.clone(), counter));
    }

    /// Adds the changes of another list behind these.
    pub(crate) fn then(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// The tables that come.
    #[cfg(test)]
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Table> {
        self.0
            .iter()
            .filter_map(|change| if let Change::AddTable(table) = change { Some(table) } else { None })
    }

    /// The messages that the kernel takes.
    pub(crate) fn transaction(&self) -> Transaction {
        let mut encoder = Encoder { sets: 0, done: Transaction::default() };
        self.0.iter().for_each(|change| encoder.change(change));
        encoder.done
    }
}

/// Messages about one table after another.
struct Encoder {
    /// The number of the last set, by which the rules of the transaction name those that are for them alone.
    sets: u32,
    done: Transaction,
}

impl Encoder {
    fn change(&mut self, change: &Change) {
        match change {
            Change::AddTable(table) => self.add_table(table),
            Change::RemoveTable(table) => {
                self.put(table, NEW_TABLE, CREATE, |_| {});
                self.put(table, DELETE_TABLE, 0, |_| {});
            }
            Change::AddChain(table, chain) => {
                self.add_chain(table, chain);
                self.add_rules(table, chain);
            }
            Change::AddRules(table, chain) => self.add_rules(table, chain),
            Change::FlushChain(table, chain) => self.flush_chain(table, chain),
            Change::RemoveChain(table, chain) => self.remove_chain(table, chain),
            Change::RemoveAnyChain(table, chain) => {
                self.put(table, NEW_CHAIN, CREATE, |message| message.text(3, chain));
                self.remove_chain(table, chain);
            }
            Change::AddElements(table, set, elements) => {
                self.elements(table, (NEW_ELEMENTS, CREATE), set, elements);
            }
            Change::RemoveElements(table, set, elements) => {
                self.elements(table, (DELETE_ELEMENTS, 0), set, elements);
            }
            Change::AddCounter(table, counter) => self.add_counter(table, counter),
            Change::RemoveCounter(table, counter) => self.put(table, DELETE_OBJECT, 0, |object| {
                object.text(2, counter);
                object.number(3, COUNTER);
            }),
        }
    }

    /// Adds a message that begins with the table's name.
    fn put(&mut self, table: &TableName, number: u8, flags: u16, fill: impl FnOnce(&mut Attributes)) {
        let family = table.family.number();
        let attributes = Attributes::of(|attributes| {
            attributes.text(1, &table.name);
            fill(attributes);
        });
        self.done.push(Verb { subsystem: Subsystem::Tables, number, flags, family }, attributes);
    }

    /// Chains before all rules, as these lead to them.
    fn add_table(&mut self, table: &Table) {
        let name = &table.name;
        self.put(name, NEW_TABLE, CREATE, |message| {
            table.comment.iter().for_each(|comment| message.bytes(6, &user_data(comment)));
        });
        table.counters.iter().for_each(|counter| self.add_counter(name, counter));
        for set in &table.sets {
            self.add_set(name, set.name, &set.content(), false);
        }
        table.chains.iter().for_each(|chain| self.add_chain(name, chain));
        table.chains.iter().for_each(|chain| self.add_rules(name, chain));
    }

    fn add_chain(&mut self, table: &TableName, chain: &Chain) {
        self.put(table, NEW_CHAIN, CREATE, |message| {
            message.text(3, &chain.name);
            let Some(hook) = chain.hook.as_ref().map(Hook::content) else { return };
            message.nested(4, |nested| {
                nested.number(1, hook.number);
                nested.bytes(2, &hook.priority.to_be_bytes());
                hook.device.iter().for_each(|device| nested.text(3, device));
            });
            message.number(5, u32::from(!hook.drops));
            message.text(7, &hook.kind);
        });
    }

    fn add_rules(&mut self, table: &TableName, chain: &Chain) {
        chain.rules.iter().for_each(|rule| self.add_rule(table, &chain.name, rule));
    }

    fn add_rule(&mut self, table: &TableName, chain: &str, rule: &Rule) {
        let mut list = Attributes::default();
        for expression in expressions(rule, table.family) {
            let number = if let Expression::Lookup { set: SetUse::Anonymous(set), .. } = &expression {
                Some(self.add_anonymous(table, set))
            } else {
                None
            };
            expression.encode(&mut list, number);
        }
        self.put(table, NEW_RULE, CREATE | APPEND, |message| {
            message.text(2, chain);
            message.nested_bytes(4, list.as_bytes());
            rule.comment.iter().for_each(|comment| message.bytes(7, &user_data(comment)));
        });
    }

    fn flush_chain(&mut self, table: &TableName, chain: &str) {
        self.put(table, DELETE_RULE, 0, |rules| rules.text(2, chain));
    }

    fn remove_chain(&mut self, table: &TableName, chain: &str) {
        self.flush_chain(table, chain);
        self.put(table, DELETE_CHAIN, 0, |message| message.text(3, chain));
    }

    /// Answers the number of the set.
    fn add_set(&mut self, table: &TableName, name: &str, set: &SetContent, anonymous: bool) -> u32 {
        self.sets += 1;
        let number = self.sets;
        let flag = |is: bool, flag: u32| if is { flag } else { 0 };
        let flags = flag(anonymous, SET_ANONYMOUS | SET_CONSTANT)
            | flag(set.interval, SET_INTERVAL)
            | flag(set.data.is_some(), SET_MAP);
        self.put(table, NEW_SET, CREATE, |message| {
            message.text(2, name);
            message.number(3, flags);
            message.number(4, set.key[0]);
            message.number(5, set.key[1]);
            if let Some([kind, length]) = set.data {
                message.number(6, kind);
                message.number(7, length);
            }
            if anonymous && set.data.is_none() {
                message.nested(9, |size| size.number(1, u32::try_from(set.rows.len()).unwrap_or_default()));
            }
            message.number(10, number);
            set.byte_order().iter().for_each(|order| message.bytes(13, order));
        });
        number
    }

    fn add_anonymous(&mut self, table: &TableName, set: &SetContent) -> u32 {
        let name = set.placeholder();
        let number = self.add_set(table, name, set, true);
        self.put_elements(table, (NEW_ELEMENTS, CREATE), (name, Some(number)), &set.elements());
        number
    }

    fn elements(&mut self, table: &TableName, verb: (u8, u16), set: &Set, elements: &[Element]) {
        let rows = elements.iter().flat_map(|element| {
            let (key, row) = element.row(set);
            // What leaves a map need not say where it led.
            let row = if verb.0 == DELETE_ELEMENTS { Row { data: None, ..row } } else { row };
            row.elements(&key, set.interval)
        });
        self.put_elements(table, verb, (set.name, None), &rows.collect::<Vec<_>>());
    }

    fn put_elements(
        &mut self,
        table: &TableName,
        (number, flags): (u8, u16),
        (set, of): (&str, Option<u32>),
        elements: &[Attributes],
    ) {
        for part in elements.chunks(ELEMENTS) {
            self.put(table, number, flags, |list| {
                list.text(2, set);
                of.iter().for_each(|of| list.number(4, *of));
                list.nested(3, |list| part.iter().for_each(|one| list.nested_bytes(1, one.as_bytes())));
            });
        }
    }

    fn add_counter(&mut self, table: &TableName, counter: &str) {
        self.put(table, NEW_OBJECT, CREATE, |object| {
            object.text(2, counter);
            object.number(3, COUNTER);
            object.nested(4, |data| {
                data.bytes(1, &[0; 8]);
                data.bytes(2, &[0; 8]);
            });
        });
    }
}

/// A comment as nft keeps it: a type, the length, the text with its end.
fn user_data(comment: &str) -> Vec<u8> {
    let length = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    [&[0, length], comment.as_bytes(), b"\0"].concat()
}

impl fmt::Display for Changes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|change| change.fmt(formatter))
    }
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddTable(table) => table.fmt(formatter),
            Self::RemoveTable(table) => {
                writeln!(formatter, "table {table} {{}}\ndelete table {table}")
            }
            Self::AddChain(table, chain) => write!(formatter, "table {table} {{\n{chain}}}\n"),
            Self::AddRules(table, Chain { name, rules, .. }) => {
                rules.iter().try_for_each(|rule| writeln!(formatter, "add rule {table} {name} {rule}"))
            }
            Self::FlushChain(table, chain) => writeln!(formatter, "flush chain {table} {chain}"),
            Self::RemoveChain(table, chain) => {
                writeln!(formatter, "flush chain {table} {chain}\ndelete chain {table} {chain}")
            }
            Self::RemoveAnyChain(table, chain) => {
                writeln!(formatter, "add chain {table} {chain}")?;
                writeln!(formatter, "flush chain {table} {chain}\ndelete chain {table} {chain}")
            }
            Self::AddElements(table, set, elements) => {
                writeln!(formatter, "add element {table} {} {}", set.name, rows(elements))
            }
            Self::RemoveElements(table, set, elements) => {
                writeln!(formatter, "delete element {table} {} {}", set.name, rows(elements))
            }
            Self::AddCounter(table, counter) => writeln!(formatter, "add counter {table} {counter}"),
            Self::RemoveCounter(table, counter) => writeln!(formatter, "delete counter {table} {counter}"),
        }
    }
}
