//! Tables of ours that travel by netlink: the messages of a transaction, and what the kernel has of a table.

use std::collections::BTreeMap;

use super::expression::{NFPROTO_INET, Rule, value, verdict};
use crate::netlink::NetlinkError;
use crate::netlink::netfilter::{
    Attributes, NetfilterSocket, Subsystem, Transaction, Verb, attribute, attributes, text,
};

pub(crate) const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
/// Elements that fit into one message, whose list is an attribute of at most 65,535 bytes.
const ELEMENTS: usize = 500;
const GET_RULE: u8 = 7;
const GET_ELEMENTS: u8 = 13;
const COUNTER: u32 = 1; // NFT_OBJECT_COUNTER

/// Messages about one table after another, to begin with of the family `inet`.
pub(crate) struct Writer<'a> {
    table: &'a str,
    family: u8,
    sets: u32,
    transaction: Transaction,
}

/// Hook at which packets enter a base chain.
pub(crate) struct Hook {
    /// `nat`, `filter`
    pub(crate) kind: &'static str,
    /// NF_INET_* of linux/netfilter.h.
    pub(crate) number: u32,
    /// Lower ones come first.
    pub(crate) priority: i32,
}

/// Computes the mark that tells a rule from every other: its content's checksum, kept beside it in the kernel as its
/// comment.
pub(crate) fn fingerprint(rule: &Rule) -> String {
    format!("{:08x}", crc32fast::hash(rule.as_bytes()))
}

/// The transaction that leaves nothing of the table, whether it is there or not.
pub(crate) fn removal(table: &str) -> Transaction {
    let mut writer = Writer::of(table);
    writer.put(0, NLM_F_CREATE, |_| {});
    writer.put(2, 0, |_| {});
    writer.transaction
}

impl<'a> Writer<'a> {
    /// Changes to a table that is there.
    pub(crate) fn of(table: &'a str) -> Self {
        Self { table, family: NFPROTO_INET, sets: 0, transaction: Transaction::default() }
    }

    /// A new table in the place of what is there.
    pub(crate) fn replacing(table: &'a str) -> Self {
        let mut writer = Self { transaction: removal(table), ..Self::of(table) };
        writer.put(0, NLM_F_CREATE, |_| {});
        writer
    }

    /// Directs what follows to this table of this family.
    pub(super) fn turn_to(&mut self, family: u8, table: &'a str) {
        (self.family, self.table) = (family, table);
    }

    /// The family of the table that this is about.
    pub(super) fn family(&self) -> u8 {
        self.family
    }

    /// The table itself.
    pub(super) fn table(&mut self, comment: Option<&str>) {
        self.put(0, NLM_F_CREATE, |table| {
            if let Some(comment) = comment {
                table.bytes(6, &user_data(comment));
            }
        });
    }

    /// The transaction.
    pub(crate) fn done(self) -> Transaction {
        self.transaction
    }

    /// A number for a new set, by which rules of the same transaction name it.
    pub(crate) fn next_set(&mut self) -> u32 {
        self.sets += 1;
        self.sets
    }

    /// Adds a message that begins with the table's name.
    pub(crate) fn put(&mut self, number: u8, flags: u16, fill: impl FnOnce(&mut Attributes)) {
        let verb = Verb { subsystem: Subsystem::Tables, number, flags, family: self.family };
        let attributes = Attributes::of(|attributes| {
            attributes.text(1, self.table);
            fill(attributes);
        });
        self.transaction.push(verb, attributes);
    }

    /// A base chain, or with no hook one that others lead to.
    pub(crate) fn chain(&mut self, name: &str, hook: Option<&Hook>) {
        self.put(3, NLM_F_CREATE, |chain| {
            chain.text(3, name);
            if let Some(Hook { kind, number, priority }) = hook {
                chain.nested(4, |hook| {
                    hook.number(1, *number);
                    hook.bytes(2, &priority.to_be_bytes());
                });
                chain.text(7, kind);
            }
        });
    }

    /// Takes all rules out of a chain.
    pub(crate) fn flush_chain(&mut self, name: &str) {
        self.put(8, 0, |rules| rules.text(2, name));
    }

    /// Removes a chain with its rules.
    pub(crate) fn remove_chain(&mut self, name: &str) {
        self.flush_chain(name);
        self.put(5, 0, |chain| chain.text(3, name));
    }

    /// A rule at the chain's end.
    pub(crate) fn rule(&mut self, chain: &str, rule: &Rule) {
        self.named_rule(chain, rule, &fingerprint(rule));
    }

    /// The same, under another name than its fingerprint.
    pub(crate) fn named_rule(&mut self, chain: &str, rule: &Rule, name: &str) {
        self.commented_rule(chain, rule, Some(name));
    }

    /// The same, with this comment or none.
    pub(super) fn commented_rule(&mut self, chain: &str, rule: &Rule, comment: Option<&str>) {
        self.put(6, NLM_F_CREATE | NLM_F_APPEND, |message| {
            message.text(2, chain);
            message.nested_bytes(4, rule.as_bytes());
            if let Some(comment) = comment {
                message.bytes(7, &user_data(comment));
            }
        });
    }

    /// A set of keys of this kind (nft's number for the type) and length.
    pub(crate) fn set(&mut self, name: &str, kind: u32, length: u32) {
        let id = self.next_set();
        self.put(9, NLM_F_CREATE, |set| {
            set.text(2, name);
            set.number(3, 0);
            set.number(4, kind);
            set.number(5, length);
            set.number(10, id);
        });
    }

    /// A counter at zero.
    pub(crate) fn counter(&mut self, name: &str) {
        self.put(18, NLM_F_CREATE, |object| {
            object.text(2, name);
            object.number(3, COUNTER);
            object.nested(4, |data| {
                data.bytes(1, &[0; 8]);
                data.bytes(2, &[0; 8]);
            });
        });
    }

    /// Removes a counter that no rule counts by any more.
    pub(crate) fn remove_counter(&mut self, name: &str) {
        self.put(20, 0, |object| {
            object.text(2, name);
            object.number(3, COUNTER);
        });
    }

    /// Adds elements to a set, or takes them out.
    pub(crate) fn elements(&mut self, add: bool, set: &str, elements: impl Iterator<Item = Attributes>) {
        let elements: Vec<Attributes> = elements.collect();
        for part in elements.chunks(ELEMENTS) {
            let (number, flags) = if add { (12, NLM_F_CREATE) } else { (14, 0) };
            self.put(number, flags, |list| {
                list.text(2, set);
                list.nested(3, |list| part.iter().for_each(|one| list.nested_bytes(1, one.as_bytes())));
            });
        }
    }

    /// Adds elements to the transaction's set of this number.
    pub(crate) fn elements_of(&mut self, id: u32, set: &str, elements: &[Attributes]) {
        for part in elements.chunks(ELEMENTS) {
            self.put(12, NLM_F_CREATE, |list| {
                list.text(2, set);
                list.number(4, id);
                list.nested(3, |list| part.iter().for_each(|one| list.nested_bytes(1, one.as_bytes())));
            });
        }
    }
}

/// A comment as nft keeps it: a type, the length, the text with its end.
fn user_data(comment: &str) -> Vec<u8> {
    let length = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    [&[0, length], comment.as_bytes(), b"\0"].concat()
}

/// An element, which in a map leads to a chain.
pub(crate) fn element(key: &[u8], chain: Option<&str>) -> Attributes {
    Attributes::of(|element| {
        element.nested(1, |data| value(data, key));
        if let Some(chain) = chain {
            element.nested(2, |data| verdict(data, chain));
        }
    })
}

/// The rules of a table's chains, by their comments in their order; of a table that is not there, none.
///
/// # Errors
/// When the kernel cannot be asked.
pub(crate) fn rules(
    socket: &mut NetfilterSocket,
    table: &str,
) -> Result<BTreeMap<String, Vec<String>>, NetlinkError> {
    let of_table = Attributes::of(|attributes| attributes.text(1, table));
    let rules = socket.dump(verb(GET_RULE), &of_table, |rule| {
        let field = |kind| attribute(rule, kind).map(text);
        (field(1)? == table).then(|| (field(2).unwrap_or_default(), comment(rule).unwrap_or_default()))
    })?;
    let mut chains: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (chain, rule) in rules {
        chains.entry(chain).or_default().push(rule);
    }
    Ok(chains)
}

/// Reads the comment that was kept beside a rule: a type, the length, the text.
fn comment(rule: &[u8]) -> Option<String> {
    attribute(rule, 7)?.get(2..).map(text)
}

/// The elements of a set with the chains that they lead to.
///
/// # Errors
/// When the kernel cannot be asked, or there is no such set.
pub(crate) fn elements(
    socket: &mut NetfilterSocket,
    table: &str,
    set: &str,
) -> Result<BTreeMap<Vec<u8>, String>, NetlinkError> {
    let of_set = Attributes::of(|attributes| {
        attributes.text(1, table);
        attributes.text(2, set);
    });
    let lists = socket.dump(verb(GET_ELEMENTS), &of_set, |list| {
        let elements = attributes(attribute(list, 3)?);
        Some(elements.filter_map(|(_, element)| parse(element)).collect::<Vec<_>>())
    })?;
    Ok(lists.into_iter().flatten().collect())
}

fn parse(element: &[u8]) -> Option<(Vec<u8>, String)> {
    let key = attribute(attribute(element, 1)?, 1)?.to_vec();
    let verdict = attribute(element, 2).and_then(|data| attribute(data, 2));
    let chain = verdict.and_then(|verdict| attribute(verdict, 2));
    Some((key, chain.map(text).unwrap_or_default()))
}

fn verb(number: u8) -> Verb {
    Verb { subsystem: Subsystem::Tables, number, flags: 0, family: NFPROTO_INET }
}
