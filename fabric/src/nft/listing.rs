//! A ruleset as `nft -j list ruleset` tells it (libnftables-json(5)), with all that others have put into it.
//!
//! It is read forgivingly: an item that is none is passed over, and a statement or an expression that is not known here is
//! kept as an object, so that nobody takes it for nothing.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Number, Value};

/// Chains, their rules, and sets of a host or another namespace.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    pub(crate) chains: Vec<Chain>,
    rules: HashMap<FullName, Vec<Vec<Statement>>>,
    sets: HashMap<FullName, Vec<Expression>>,
    maps: HashMap<FullName, Vec<(Expression, Statement)>>,
}

/// Full name of a chain, a set or a map.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FullName {
    pub(crate) family: String,
    pub(crate) table: String,
    pub(crate) name: String,
}

/// A chain; a base chain has a hook.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "ListedChain")]
pub(crate) struct Chain {
    pub(crate) name: FullName,
    pub(crate) kind: Option<String>,
    pub(crate) hook: Option<String>,
    pub(crate) policy: Option<String>,
}

/// Part of a rule.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Statement {
    Known(Known),
    Other(Object),
    /// No statement at all.
    Odd(Expression),
}

/// A statement that is understood here.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Known {
    Match(Match),
    Accept(Nothing),
    Drop(Nothing),
    Reject(Nothing),
    Return(Nothing),
    Queue(Nothing),
    Jump(Target),
    Goto(Target),
    Vmap(VerdictMap),
}

/// Content that does not matter.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "IgnoredAny")]
pub(crate) struct Nothing;

/// Condition of a rule.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Match {
    #[serde(default)]
    pub(crate) op: String,
    pub(crate) left: Expression,
    pub(crate) right: Expression,
}

/// A chain of the same table.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Target {
    pub(crate) target: String,
}

/// Verdicts by values.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct VerdictMap {
    pub(crate) key: Expression,
    pub(crate) data: Verdicts,
}

/// Rows of a map, or its name.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Verdicts {
    /// With `@` in front.
    Named(String),
    Here {
        set: Vec<(Expression, Statement)>,
    },
}

/// A value, or a part of a packet or of what the kernel knows of it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Expression {
    Word(String),
    Number(Number),
    List(Vec<Expression>),
    Selector(Box<Selector>),
    Other(Object),
    /// True, false or null.
    Odd(Value),
}

/// An expression that is understood here.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Selector {
    Meta {
        key: String,
    },
    Ct {
        key: String,
        dir: Option<String>,
    },
    Payload {
        protocol: String,
        field: String,
    },
    Set(Expression),
    /// Two bounds.
    Range(Vec<Expression>),
    Elem {
        val: Expression,
    },
}

/// An object of no known kind: its parts by their names.
pub(crate) type Object = BTreeMap<String, Expression>;

#[derive(Deserialize)]
struct Document {
    nftables: Vec<Value>,
}

/// An item of the list, of which only one part is there.
#[derive(Deserialize)]
struct Item {
    chain: Option<Chain>,
    rule: Option<ListedRule>,
    set: Option<ListedSet<Expression>>,
    map: Option<ListedSet<(Expression, Statement)>>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct ListedChain {
    family: String,
    table: String,
    name: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    hook: Option<String>,
    policy: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ListedRule {
    family: String,
    table: String,
    chain: String,
    expr: Vec<Statement>,
}

#[derive(Deserialize)]
struct ListedSet<Element> {
    family: String,
    table: String,
    name: String,
    elem: Option<Vec<Element>>,
}

impl Listing {
    /// Reads what nft has written.
    ///
    /// # Errors
    /// When it is no list of a ruleset.
    pub fn read(text: &[u8]) -> Result<Self, serde_json::Error> {
        let document: Document = serde_json::from_slice(text)?;
        let mut listing = Self::default();
        for item in document.nftables {
            match serde_json::from_value(item) {
                Ok(item) => listing.add(item),
                Err(error) => tracing::debug!(%error, "an item of nft's list is not understood"),
            }
        }
        Ok(listing)
    }

    fn add(&mut self, item: Item) {
        self.chains.extend(item.chain);
        if let Some(ListedRule { family, table, chain, expr }) = item.rule {
            self.rules.entry(FullName { family, table, name: chain }).or_default().push(expr);
        }
        if let Some(ListedSet { family, table, name, elem }) = item.set {
            self.sets.insert(FullName { family, table, name }, elem.unwrap_or_default());
        }
        if let Some(ListedSet { family, table, name, elem }) = item.map {
            self.maps.insert(FullName { family, table, name }, elem.unwrap_or_default());
        }
    }

    /// Chains at this hook.
    pub(crate) fn at_hook<'a>(&'a self, hook: &'a str) -> impl Iterator<Item = &'a Chain> {
        self.chains.iter().filter(move |chain| chain.hook.as_deref() == Some(hook))
    }

    /// Rules of a chain, each a row of statements.
    pub(crate) fn rules(&self, chain: &FullName) -> &[Vec<Statement>] {
        self.rules.get(chain).map_or(&[], Vec::as_slice)
    }

    /// All rules, in no order.
    pub(crate) fn all_rules(&self) -> impl Iterator<Item = (&FullName, &[Vec<Statement>])> {
        self.rules.iter().map(|(chain, rules)| (chain, rules.as_slice()))
    }

    /// The elements of a set of the chain's table.
    pub(crate) fn set(&self, of: &FullName, name: &str) -> Option<&[Expression]> {
        self.sets.get(&of.sibling(name)).map(Vec::as_slice)
    }

    /// The rows of a map of verdicts of the chain's table.
    pub(crate) fn map(&self, of: &FullName, name: &str) -> Option<&[(Expression, Statement)]> {
        self.maps.get(&of.sibling(name)).map(Vec::as_slice)
    }
}

impl FullName {
    /// The name of something else in the same table.
    pub(crate) fn sibling(&self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self.clone() }
    }
}

impl fmt::Display for FullName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, table, name } = self;
        write!(formatter, "{family} {table} {name}")
    }
}

impl From<ListedChain> for Chain {
    fn from(listed: ListedChain) -> Self {
        let ListedChain { family, table, name, kind, hook, policy } = listed;
        Self { name: FullName { family, table, name }, kind, hook, policy }
    }
}

impl From<IgnoredAny> for Nothing {
    fn from(_: IgnoredAny) -> Self {
        Self
    }
}

impl Statement {
    pub(crate) fn known(&self) -> Option<&Known> {
        match self {
            Self::Known(known) => Some(known),
            Self::Other(_) | Self::Odd(_) => None,
        }
    }
}

impl Expression {
    pub(crate) fn word(&self) -> Option<&str> {
        match self {
            Self::Word(word) => Some(word),
            Self::Number(_) | Self::List(_) | Self::Selector(_) | Self::Other(_) | Self::Odd(_) => None,
        }
    }

    pub(crate) fn selector(&self) -> Option<&Selector> {
        match self {
            Self::Selector(selector) => Some(selector),
            Self::Word(_) | Self::Number(_) | Self::List(_) | Self::Other(_) | Self::Odd(_) => None,
        }
    }

    /// The values that are meant: one, or those of a list or a set that stands here.
    pub(crate) fn values(&self) -> &[Expression] {
        match self {
            Self::List(values) => values,
            Self::Selector(selector) => match &**selector {
                Selector::Set(set) => set.values(),
                Selector::Meta { .. }
                | Selector::Ct { .. }
                | Selector::Payload { .. }
                | Selector::Range(_)
                | Selector::Elem { .. } => std::slice::from_ref(self),
            },
            Self::Word(_) | Self::Number(_) | Self::Other(_) | Self::Odd(_) => std::slice::from_ref(self),
        }
    }
}
