//! Tables as the kernel has them, to be compared: rules by their expressions, sets that are for one rule alone in their places. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::expression::{Expression, SetUse, decode_all};
use super::rows::{SetContent, VERDICTS};
use crate::netlink::netfilter::{attribute, text};

/// NFT_SET_* of linux/netfilter/nf_tables.h.
const SET_ANONYMOUS: u32 = 1;
const SET_INTERVAL: u32 = 4;
const SET_MAP: u32 = 8;

/// Content of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TableContent {
    pub(crate) counters: BTreeSet<String>,
    pub(crate) sets: BTreeMap<String, SetContent>,
    pub(crate) chains: BTreeMap<String, ChainContent>,
}

/// Content of a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChainContent {
    pub(crate) hook: Option<HookContent>,
    pub(crate) rules: Vec<Vec<Expression>>,
}

/// Place at which packets enter a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HookContent {
    pub(crate) kind: String,
    pub(crate) number: u32,
    pub(crate) device: Option<String>,
    pub(crate) priority: i32,
    pub(crate) drops: bool,
}

/// A rule of the kernel's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedRule {
    pub(crate) chain: String,
    pub(crate) expressions: Vec<Expression>,
    pub(crate) comment: Option<String>,
}

/// A set of the kernel's list, without rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedSet {
    pub(crate) name: String,
    pub(crate) anonymous: bool,
    pub(crate) content: SetContent,
}

fn number(message: &[u8], kind: u16) -> Option<u32> {
    attribute(message, kind)?.try_into().ok().map(u32::from_be_bytes)
}

/// Reads a chain of this table in the kernel's list, with its name.
pub(crate) fn decode_chain(message: &[u8], table: &str) -> Option<(String, ChainContent)> {
    if attribute(message, 1).map(text)? != table {
        return None;
    }
    let hook = attribute(message, 4).map(|hook| HookContent {
        kind: attribute(message, 7).map(text).unwrap_or_default(),
        number: number(hook, 1).unwrap_or_default(),
        device: attribute(hook, 3).map(text),
        priority: number(hook, 2).unwrap_or_default().cast_signed(),
        drops: number(message, 5) == Some(0),
    });
    Some((attribute(message, 3).map(text)?, ChainContent { hook, rules: Vec::new() }))
}

/// Reads a rule of this table in the kernel's list.
pub(crate) fn decode_rule(message: &[u8], table: &str) -> Option<ListedRule> {
    let named = |kind| attribute(message, kind).map(text);
    (named(1)? == table).then(|| ListedRule {
        chain: named(2).unwrap_or_default(),
        expressions: decode_all(attribute(message, 4).unwrap_or_default()),
        comment: comment(message),
    })
}

/// The comment of a rule in the kernel's list: nft keeps a type, the length, the text.
pub(crate) fn comment(message: &[u8]) -> Option<String> {
    attribute(message, 7)?.get(2..).map(text)
}

/// Reads a set of this table in the kernel's list.
pub(crate) fn decode_set(message: &[u8], table: &str) -> Option<ListedSet> {
    let named = |kind| attribute(message, kind).map(text);
    if named(1)? != table {
        return None;
    }
    let of = |kind| number(message, kind).unwrap_or_default();
    let flags = of(3);
    let content = SetContent {
        key: [of(4), of(5)],
        // The kernel has a length for verdicts, too, which is its own.
        data: (flags & SET_MAP != 0).then(|| [of(6), if of(6) == VERDICTS { 0 } else { of(7) }]),
        interval: flags & SET_INTERVAL != 0,
        rows: BTreeMap::new(),
        shared_ends: false,
    };
    Some(ListedSet { name: named(2)?, anonymous: flags & SET_ANONYMOUS != 0, content })
}

/// Reads the name of a table's counter in the kernel's list of objects.
pub(crate) fn decode_counter(message: &[u8], table: &str) -> Option<(String, u64)> {
    let named = |kind| attribute(message, kind).map(text);
    let packets = attribute(attribute(message, 4)?, 2)?;
    let packets = packets.try_into().ok().map(u64::from_be_bytes)?;
    (named(1)? == table).then_some((named(2)?, packets))
}

impl TableContent {
    /// Puts what was listed together: rules into their chains, sets that are for one rule alone into that.
    pub(crate) fn assemble(
        counters: BTreeSet<String>,
        sets: Vec<ListedSet>,
        mut chains: BTreeMap<String, ChainContent>,
        rules: Vec<ListedRule>,
    ) -> Self {
        let (anonymous, named): (Vec<_>, Vec<_>) = sets.into_iter().partition(|set| set.anonymous);
        let anonymous: BTreeMap<String, SetContent> = anonymous
            .into_iter()
            // However its ranges end: it goes as a whole.
            .map(|set| (set.name, SetContent { shared_ends: false, ..set.content }))
            .collect();
        for mut rule in rules {
            for expression in &mut rule.expressions {
                if let Expression::Lookup { set, .. } = expression
                    && let SetUse::Named(name) = set
                    && let Some(content) = anonymous.get(name)
                {
                    *set = SetUse::Anonymous(Box::new(content.clone()));
                }
            }
            chains.entry(rule.chain).or_default().rules.push(rule.expressions);
        }
        Self { counters, sets: named.into_iter().map(|set| (set.name, set.content)).collect(), chains }
    }

    /// Takes the rows out of the set of this name.
    pub(crate) fn take_rows(&mut self, set: &str) -> Option<BTreeMap<Vec<u8>, super::rows::Row>> {
        self.sets.get_mut(set).map(|set| std::mem::take(&mut set.rows))
    }
}

#[cfg(test)]
mod tests;
