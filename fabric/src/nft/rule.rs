//! Rules as values, and as nft writes them. Pure.

use std::fmt;
use std::net::SocketAddr;

use super::datum::{Datum, Symbol, TCP};
use super::expression::Verdict;
use super::selector::Selector;

/// A rule: what must be so of a packet, and what becomes of it then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) statements: Vec<Statement>,
    /// Kept beside it in the kernel.
    pub(crate) comment: Option<String>,
}

/// Part of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    /// Goes on if what the packet has is, or is not, one of these.
    Match {
        what: Vec<Selector>,
        differs: bool,
        with: Operand,
    },
    /// Goes where the table's map of this name says.
    Map {
        what: Vec<Selector>,
        map: String,
    },
    /// Goes where a map for this rule alone says.
    MapHere {
        what: Selector,
        rows: Vec<(Datum, Verdict)>,
    },
    Verdict(Verdict),
    /// Counts, for the rule alone or by the table's counter of this name.
    Count,
    CountBy(String),
    Reject(Rejection),
    /// Another destination.
    Lead(SocketAddr),
    /// Leads to one of these destinations at random, each as often as it weighs.
    Choose(Choice),
    /// Leads to this host instead of the destination, at this port or the same.
    Redirect(Option<u16>),
    Masquerade,
    Untracked,
    /// Out by another device, with this number.
    Forward(String, u32),
    /// Gives it this mark.
    Mark(u32),
}

/// Values that a packet's are compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operand {
    One(Datum),
    Any(Vec<Datum>),
    /// The values in the table's set of this name.
    Named(String),
}

/// Destinations to choose from, with their weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) of: Vec<(SocketAddr, u32)>,
    /// True if the port is another, too.
    pub(crate) with_port: bool,
}

/// Answer to a packet that goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// RFC 9293, section 3.5.2.
    Reset,
    /// RFC 1812, section 5.2.7.1.
    IcmpAdmin,
    /// By the ICMP of the packet's family.
    Admin,
    PortUnreachable,
}

/// An empty rule, which matches every packet.
pub(crate) fn rule() -> Rule {
    Rule::default()
}

impl Rule {
    fn with(mut self, statement: Statement) -> Self {
        self.statements.push(statement);
        self
    }

    fn matches(self, what: Selector, differs: bool, with: Operand) -> Self {
        self.with(Statement::Match { what: vec![what], differs, with })
    }

    pub(crate) fn is(self, what: Selector, value: impl Into<Datum>) -> Self {
        self.matches(what, false, Operand::One(value.into()))
    }

    pub(crate) fn differs(self, what: Selector, value: impl Into<Datum>) -> Self {
        self.matches(what, true, Operand::One(value.into()))
    }

    pub(crate) fn among<T: Into<Datum>>(self, what: Selector, values: impl IntoIterator<Item = T>) -> Self {
        self.matches(what, false, Operand::Any(values.into_iter().map(Into::into).collect()))
    }

    pub(crate) fn outside<T: Into<Datum>>(self, what: Selector, values: impl IntoIterator<Item = T>) -> Self {
        self.matches(what, true, Operand::Any(values.into_iter().map(Into::into).collect()))
    }

    /// As [`Rule::among`], and of one value alone as [`Rule::is`].
    pub(crate) fn among_any(self, what: Selector, mut values: Vec<Datum>) -> Self {
        match (values.pop(), values.is_empty()) {
            (Some(only), true) => self.is(what, only),
            (last, _) => self.among(what, values.into_iter().chain(last)),
        }
    }

    pub(crate) fn in_set(self, what: Selector, set: &str) -> Self {
        self.matches(what, false, Operand::Named(set.to_owned()))
    }

    pub(crate) fn not_in_set(self, what: Selector, set: &str) -> Self {
        self.matches(what, true, Operand::Named(set.to_owned()))
    }

    /// Looks these up together.
    pub(crate) fn are_in(self, what: &[Selector], set: &str) -> Self {
        let with = Operand::Named(set.to_owned());
        self.with(Statement::Match { what: what.to_vec(), differs: false, with })
    }

    pub(crate) fn carried_by(self, protocol: Symbol) -> Self {
        self.is(Selector::Protocol, protocol)
    }

    pub(crate) fn tcp(self) -> Self {
        self.carried_by(TCP)
    }

    pub(crate) fn mapped_by(self, what: &[Selector], map: &str) -> Self {
        self.with(Statement::Map { what: what.to_vec(), map: map.to_owned() })
    }

    pub(crate) fn mapped(self, what: Selector, rows: Vec<(Datum, Verdict)>) -> Self {
        self.with(Statement::MapHere { what, rows })
    }

    pub(crate) fn count(self) -> Self {
        self.with(Statement::Count)
    }

    pub(crate) fn count_by(self, counter: &str) -> Self {
        self.with(Statement::CountBy(counter.to_owned()))
    }

    pub(crate) fn accept(self) -> Self {
        self.with(Statement::Verdict(Verdict::Accept))
    }

    pub(crate) fn drop(self) -> Self {
        self.with(Statement::Verdict(Verdict::Drop))
    }

    pub(crate) fn leave(self) -> Self {
        self.with(Statement::Verdict(Verdict::Return))
    }

    pub(crate) fn go_to(self, chain: &str) -> Self {
        self.with(Statement::Verdict(Verdict::Goto(chain.to_owned())))
    }

    pub(crate) fn visit(self, chain: &str) -> Self {
        self.with(Statement::Verdict(Verdict::Jump(chain.to_owned())))
    }

    pub(crate) fn reject(self, with: Rejection) -> Self {
        self.with(Statement::Reject(with))
    }

    pub(crate) fn lead_to(self, place: SocketAddr) -> Self {
        self.with(Statement::Lead(place))
    }

    pub(crate) fn choose(self, choice: Choice) -> Self {
        self.with(Statement::Choose(choice))
    }

    pub(crate) fn redirect(self, port: Option<u16>) -> Self {
        self.with(Statement::Redirect(port))
    }

    pub(crate) fn masquerade(self) -> Self {
        self.with(Statement::Masquerade)
    }

    pub(crate) fn untracked(self) -> Self {
        self.with(Statement::Untracked)
    }

    pub(crate) fn forward(self, device: &str, index: u32) -> Self {
        self.with(Statement::Forward(device.to_owned(), index))
    }

    pub(crate) fn mark(self, mark: u32) -> Self {
        self.with(Statement::Mark(mark))
    }

    pub(crate) fn comment(self, comment: impl Into<String>) -> Self {
        Self { comment: Some(comment.into()), ..self }
    }
}

impl Choice {
    pub(crate) fn total(&self) -> u32 {
        self.of.iter().map(|(_, weight)| weight).sum()
    }

    /// The numbers of each destination: its first and its last.
    pub(crate) fn shares(&self) -> impl Iterator<Item = ([u32; 2], SocketAddr)> {
        let mut next = 0;
        self.of.iter().map(move |(place, weight)| {
            let first = next;
            next += weight;
            ([first, next - 1], *place)
        })
    }
}

/// Values with commas between them.
pub(crate) fn listed<T: fmt::Display>(values: impl IntoIterator<Item = T>) -> String {
    values.into_iter().map(|value| value.to_string()).collect::<Vec<_>>().join(", ")
}

/// Values with dots between them, as nft writes what is looked up together.
pub(crate) fn joined<T: fmt::Display>(parts: &[T]) -> String {
    parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(" . ")
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let comment = self.comment.iter().map(|comment| format!("comment \"{comment}\""));
        let statements = self.statements.iter().map(ToString::to_string).chain(comment);
        formatter.write_str(&statements.collect::<Vec<_>>().join(" "))
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Match { what, differs, with } => {
                let differs = if *differs { "!= " } else { "" };
                write!(formatter, "{} {differs}{with}", joined(what))
            }
            Self::Map { what, map } => write!(formatter, "{} vmap @{map}", joined(what)),
            Self::MapHere { what, rows } => {
                let rows = rows.iter().map(|(key, verdict)| format!("{key} : {verdict}"));
                write!(formatter, "{what} vmap {{ {} }}", listed(rows))
            }
            Self::Verdict(verdict) => verdict.fmt(formatter),
            Self::Count => formatter.write_str("counter"),
            Self::CountBy(counter) => write!(formatter, "counter name \"{counter}\""),
            Self::Reject(rejection) => rejection.fmt(formatter),
            Self::Lead(place @ SocketAddr::V4(_)) => write!(formatter, "dnat ip to {place}"),
            Self::Lead(place @ SocketAddr::V6(_)) => write!(formatter, "dnat to {place}"),
            Self::Choose(choice) => choice.fmt(formatter),
            Self::Redirect(None) => formatter.write_str("redirect"),
            Self::Redirect(Some(port)) => write!(formatter, "redirect to :{port}"),
            Self::Masquerade => formatter.write_str("masquerade"),
            Self::Untracked => formatter.write_str("notrack"),
            Self::Forward(device, _) => write!(formatter, "fwd to \"{device}\""),
            Self::Mark(mark) => write!(formatter, "meta mark set {mark:#010x}"),
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(value) => value.fmt(formatter),
            Self::Any(values) => write!(formatter, "{{ {} }}", listed(values)),
            Self::Named(set) => write!(formatter, "@{set}"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => formatter.write_str("accept"),
            Self::Drop => formatter.write_str("drop"),
            Self::Return => formatter.write_str("return"),
            Self::Jump(chain) => write!(formatter, "jump {chain}"),
            Self::Goto(chain) => write!(formatter, "goto {chain}"),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Reset => "reject with tcp reset",
            Self::IcmpAdmin => "reject with icmp admin-prohibited",
            Self::Admin => "reject with icmpx admin-prohibited",
            Self::PortUnreachable => "reject with icmpx port-unreachable",
        })
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.shares().map(|([first, last], place)| {
            let numbers = if first == last { first.to_string() } else { format!("{first}-{last}") };
            let place = if self.with_port {
                format!("{} . {}", place.ip(), place.port())
            } else {
                place.ip().to_string()
            };
            format!("{numbers} : {place}")
        });
        write!(formatter, "dnat ip to numgen random mod {} map {{ {} }}", self.total(), listed(rows))
    }
}
