//! Tables with their chains, sets and counters as values, and as nft writes them. Pure.

use std::collections::BTreeMap;
use std::fmt;

use super::content::{ChainContent, HookContent, TableContent};
use super::datum::{Datum, KeyType};
use super::expression::Verdict;
use super::lowering::{self, key, together};
use super::rows::{Row, RowData, SetContent, VERDICTS};
use super::rule::{Rule, joined, listed};

/// Kind of packets that a table is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    /// IPv4 and IPv6.
    Inet,
    Ip,
    Ip6,
    /// Frames that come by a device.
    Netdev,
    /// Frames that cross a bridge.
    Bridge,
}

/// Full name of a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TableName {
    pub(crate) family: Family,
    pub(crate) name: String,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: TableName,
    /// Says to people what it is for.
    pub(crate) comment: Option<&'static str>,
    pub(crate) counters: Vec<String>,
    pub(crate) sets: Vec<Set>,
    pub(crate) chains: Vec<Chain>,
}

/// A chain; with a hook, packets enter it by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: String,
    pub(crate) hook: Option<Hook>,
    pub(crate) rules: Vec<Rule>,
}

/// Place at which packets enter a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hook {
    pub(crate) kind: Kind,
    pub(crate) point: Point,
    /// Lower ones come first.
    pub(crate) priority: i32,
    /// True if packets that no rule decides are dropped.
    pub(crate) drops: bool,
}

/// Say of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Filter,
    /// Over addresses, by the first packet of a connection.
    Nat,
}

/// Point of a packet's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
    /// The moment in which this device hands it over.
    Ingress(String),
}

/// A set of a table, or a map to verdicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) name: &'static str,
    /// Types of what is looked up together.
    pub(crate) keys: Vec<KeyType>,
    /// True if its rows lead to chains.
    pub(crate) leads: bool,
    /// True if its rows may be networks.
    pub(crate) interval: bool,
}

/// A row of a set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Element {
    pub(crate) key: Vec<Datum>,
    /// In a map, where it leads.
    pub(crate) verdict: Option<Verdict>,
}

impl Family {
    /// NFPROTO_* of linux/netfilter.h.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Netdev => 5,
            Self::Bridge => 7,
            Self::Ip6 => 10,
        }
    }
}

impl TableName {
    pub(crate) fn new(family: Family, name: impl Into<String>) -> Self {
        Self { family, name: name.into() }
    }

    /// The table of this name, without anything in it.
    pub(crate) fn table(self) -> Table {
        Table { name: self, comment: None, counters: Vec::new(), sets: Vec::new(), chains: Vec::new() }
    }
}

impl Table {
    pub(crate) fn counter(mut self, name: &str) -> Self {
        self.counters.push(name.to_owned());
        self
    }

    pub(crate) fn set(mut self, set: Set) -> Self {
        self.sets.push(set);
        self
    }

    pub(crate) fn chain(mut self, chain: Chain) -> Self {
        self.chains.push(chain);
        self
    }

    pub(crate) fn comment(self, comment: &'static str) -> Self {
        Self { comment: Some(comment), ..self }
    }

    /// Content of the kernel's table when this one is there.
    pub(crate) fn content(&self) -> TableContent {
        let family = self.name.family;
        TableContent {
            counters: self.counters.iter().cloned().collect(),
            sets: self.sets.iter().map(|set| (set.name.to_owned(), set.content())).collect(),
            chains: self.chains.iter().map(|chain| (chain.name.clone(), chain.content(family))).collect(),
        }
    }
}

impl Chain {
    /// A chain that others lead to.
    pub(crate) fn new(name: impl Into<String>, rules: impl IntoIterator<Item = Rule>) -> Self {
        Self { name: name.into(), hook: None, rules: rules.into_iter().collect() }
    }

    pub(crate) fn at(self, hook: Hook) -> Self {
        Self { hook: Some(hook), ..self }
    }

    pub(crate) fn content(&self, family: Family) -> ChainContent {
        ChainContent {
            hook: self.hook.as_ref().map(Hook::content),
            rules: self.rules.iter().map(|rule| lowering::expressions(rule, family)).collect(),
        }
    }
}

impl Hook {
    /// A filter that lets what no rule decides go on.
    pub(crate) fn filter(point: Point, priority: i32) -> Self {
        Self { kind: Kind::Filter, point, priority, drops: false }
    }

    /// A chain that translates addresses.
    pub(crate) fn nat(point: Point, priority: i32) -> Self {
        Self { kind: Kind::Nat, ..Self::filter(point, priority) }
    }

    /// The same, but nothing goes on that no rule accepts.
    pub(crate) fn dropping(self) -> Self {
        Self { drops: true, ..self }
    }

    pub(crate) fn content(&self) -> HookContent {
        let device = match &self.point {
            Point::Ingress(device) => Some(device.clone()),
            Point::Prerouting | Point::Input | Point::Forward | Point::Output | Point::Postrouting => None,
        };
        HookContent {
            kind: self.kind.to_string(),
            number: self.point.number(),
            device,
            priority: self.priority,
            drops: self.drops,
        }
    }
}

impl Point {
    /// NF_INET_* of linux/netfilter.h, NF_NETDEV_INGRESS.
    fn number(&self) -> u32 {
        match self {
            Self::Prerouting | Self::Ingress(_) => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
        }
    }
}

impl Set {
    /// A set of single values of a type.
    pub(crate) fn of(name: &'static str, key: KeyType) -> Self {
        Self { name, keys: vec![key], leads: false, interval: false }
    }

    /// Content of the kernel's set when this one is there, without rows.
    pub(crate) fn content(&self) -> SetContent {
        SetContent {
            key: together(self.keys.iter().copied()),
            data: self.leads.then_some([VERDICTS, 0]),
            interval: self.interval,
            rows: BTreeMap::new(),
            shared_ends: false,
        }
    }
}

impl Element {
    pub(crate) fn of(key: impl Into<Datum>) -> Self {
        Self { key: vec![key.into()], verdict: None }
    }

    /// As the kernel keeps it in this set.
    pub(crate) fn row(&self, set: &Set) -> (Vec<u8>, Row) {
        let until = match self.key.as_slice() {
            [only] if set.interval => only.behind(),
            _ => None,
        };
        (key(&self.key), Row { until, data: self.verdict.clone().map(RowData::Verdict) })
    }
}

impl fmt::Display for Family {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Netdev => "netdev",
            Self::Bridge => "bridge",
        })
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.family, self.name)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "table {} {{", self.name)?;
        self.comment.iter().try_for_each(|comment| writeln!(formatter, "    comment \"{comment}\""))?;
        let mut counters = self.counters.iter();
        counters.try_for_each(|name| writeln!(formatter, "    counter {name} {{\n    }}"))?;
        self.sets.iter().try_for_each(|set| set.fmt(formatter))?;
        self.chains.iter().try_for_each(|chain| chain.fmt(formatter))?;
        writeln!(formatter, "}}")
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "    chain {} {{", self.name)?;
        self.hook.iter().try_for_each(|hook| writeln!(formatter, "        {hook}"))?;
        self.rules.iter().try_for_each(|rule| writeln!(formatter, "        {rule}"))?;
        writeln!(formatter, "    }}")
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, point, priority, drops } = self;
        let policy = if *drops { "drop" } else { "accept" };
        write!(formatter, "type {kind} hook {point} priority {priority}; policy {policy};")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
        })
    }
}

impl fmt::Display for Point {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
            Self::Ingress(device) => return write!(formatter, "ingress device \"{device}\""),
        })
    }
}

impl fmt::Display for Set {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, to) = if self.leads { ("map", " : verdict") } else { ("set", "") };
        let names: Vec<&str> = self.keys.iter().map(|key| key.name).collect();
        let interval = if self.interval { "        flags interval\n" } else { "" };
        write!(
            formatter,
            "    {what} {} {{\n        type {}{to}\n{interval}    }}\n",
            self.name,
            joined(&names)
        )
    }
}

impl fmt::Display for Element {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&joined(&self.key))?;
        self.verdict.iter().try_for_each(|verdict| write!(formatter, " : {verdict}"))
    }
}

/// Rows as nft writes them.
pub(crate) fn rows(elements: &[Element]) -> String {
    format!("{{ {} }}", listed(elements))
}
