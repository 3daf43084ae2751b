//! Judgement of chains on the forward hook: the fate of workloads' packets to the world outside, and of the answers.
//! Pure.
//!
//! Rules whose conditions cannot be judged here (addresses, ports, marks) count as special cases: one that drops says
//! nothing of other packets, and one that accepts leaves it open whether these are dropped further down.

use crate::nft::HOST_LINK;
use crate::nft::listing::{
    Chain, Expression, FullName, Known, Listing, Match, Selector, Statement, VerdictMap, Verdicts,
};

/// Statements that may end a rule, by conditions that cannot be judged here.
const CONDITIONS: [&str; 4] = ["limit", "quota", "ct count", "xt"];
/// Chains may call each other so deep.
const DEPTH: usize = 16;
/// Chains that a packet is followed through in all: some that call each other several times each make as many ways as there are
/// products of these numbers.
const VISITS: usize = 1_000;

/// Fate of the packets in a chain that does not let them all through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Some may pass, by rules that cannot be judged.
    Unsure,
    /// All of them are dropped.
    Dropped,
}

/// A chain that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// Family, table and chain.
    pub chain: String,
    /// Fate of packets in it.
    pub fate: Fate,
    /// True if firewalld has made it.
    pub firewalld: bool,
}

/// The chains of others that stand in the way of packets between our links and `uplinks`. Those that iptables have
/// made are left out with `judged_by_iptables`.
#[must_use]
pub fn obstacles(rules: &Listing, uplinks: &[String], judged_by_iptables: bool) -> Vec<Obstacle> {
    let ways = [Way::Out, Way::Back];
    let concerned = rules.at_hook("forward").filter(|chain| is_concerned(&chain.name, judged_by_iptables));
    let found = concerned.filter_map(|chain| {
        let fates =
            ways.map(|way| Walk { rules, of: chain, uplinks, way, doubt: false, visits: VISITS }.fate());
        Some(Obstacle {
            chain: chain.name.to_string(),
            fate: fates.into_iter().flatten().max()?,
            firewalld: chain.name.table == "firewalld",
        })
    });
    found.collect()
}

fn is_concerned(FullName { family, table, name }: &FullName, judged_by_iptables: bool) -> bool {
    let by_iptables =
        judged_by_iptables && (&family[..], &table[..], &name[..]) == ("ip", "filter", "FORWARD");
    matches!(&family[..], "ip" | "inet") && !table.starts_with(HOST_LINK) && !by_iptables
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The first packet of a connection, from a workload.
    Out,
    /// An answer to it.
    Back,
}

/// A packet on its way through one base chain.
struct Walk<'a> {
    rules: &'a Listing,
    /// The base chain.
    of: &'a Chain,
    uplinks: &'a [String],
    way: Way,
    /// True if a rule that cannot be judged may have let it through.
    doubt: bool,
    /// Number of chains that it may still enter; then nobody can tell.
    visits: usize,
}

impl<'a> Walk<'a> {
    /// `None`: it passes.
    fn fate(mut self) -> Option<Fate> {
        let by_policy = self.of.policy.as_deref() != Some("drop");
        let accepted = self.through(&self.of.name.name, DEPTH).unwrap_or(by_policy);
        match (accepted, self.doubt) {
            (true, _) => None,
            (false, true) => Some(Fate::Unsure),
            (false, false) => Some(Fate::Dropped),
        }
    }

    /// Follows a chain; returns true if it accepts, false if it drops, `None` if its caller goes on.
    fn through(&mut self, chain: &str, depth: usize) -> Option<bool> {
        let depth = depth.checked_sub(1)?;
        let Some(left) = self.visits.checked_sub(1) else {
            self.doubt = true;
            return Some(false);
        };
        self.visits = left;
        let rules = self.rules;
        for rule in rules.rules(&self.of.name.sibling(chain)) {
            match self.follow(rule, depth) {
                Step::Next => {}
                Step::Leave => return None,
                Step::Verdict(accepted) => return Some(accepted),
            }
        }
        None
    }

    fn follow(&mut self, rule: &'a [Statement], depth: usize) -> Step {
        let mut sure = true;
        for statement in rule {
            match statement {
                Statement::Known(Known::Match(matched)) => match self.holds(matched) {
                    Some(true) => {}
                    Some(false) => return Step::Next,
                    None => sure = false,
                },
                Statement::Known(known) => match self.step(known, depth) {
                    step if sure => return step,
                    step => return self.perhaps(step),
                },
                Statement::Other(object) => {
                    sure &= !object.keys().any(|kind| CONDITIONS.contains(&&kind[..]));
                }
                Statement::Odd(_) => {}
            }
        }
        Step::Next
    }

    /// Follows a statement that ends its rule.
    fn step(&mut self, statement: &'a Known, depth: usize) -> Step {
        match statement {
            Known::Accept(_) => Step::Verdict(true),
            Known::Drop(_) | Known::Reject(_) => Step::Verdict(false),
            Known::Return(_) => Step::Leave,
            Known::Jump(to) => self.through(&to.target, depth).map_or(Step::Next, Step::Verdict),
            Known::Goto(to) => self.through(&to.target, depth).map_or(Step::Leave, Step::Verdict),
            Known::Vmap(map) => self.mapped(map, depth),
            // A program decides.
            Known::Queue(_) => {
                self.doubt = true;
                Step::Verdict(false)
            }
            Known::Match(_) => Step::Next,
        }
    }

    fn mapped(&mut self, map: &'a VerdictMap, depth: usize) -> Step {
        let rows = match &map.data {
            Verdicts::Here { set } => Some(&set[..]),
            Verdicts::Named(name) => {
                name.strip_prefix('@').and_then(|name| self.rules.map(&self.of.name, name))
            }
        };
        let Some(rows) = rows else {
            self.doubt = true;
            return Step::Next;
        };
        for (value, verdict) in rows {
            let Some(verdict) = verdict.known() else { continue };
            match self.is(&map.key, value) {
                Some(true) => return self.step(verdict, depth),
                Some(false) => {}
                None => {
                    let step = self.step(verdict, depth);
                    self.perhaps(step);
                }
            }
        }
        Step::Next
    }

    /// A step that is taken under a condition that cannot be judged.
    fn perhaps(&mut self, step: Step) -> Step {
        self.doubt |= matches!(step, Step::Verdict(true) | Step::Leave);
        Step::Next
    }

    fn holds(&self, Match { op, left, right }: &'a Match) -> Option<bool> {
        if let Some(Selector::Payload { protocol, .. }) = left.selector()
            && matches!(&protocol[..], "ip6" | "icmpv6")
        {
            return Some(false);
        }
        let mut any = Some(false);
        for value in self.values(right)? {
            any = match (any, self.is(left, value)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (None, _) | (_, None) => None,
                (Some(false), Some(false)) => Some(false),
            };
        }
        match &op[..] {
            "==" | "in" => any,
            "!=" => any.map(|any| !any),
            _ => None,
        }
    }

    /// The values that are meant: one, several, or those of a named set.
    fn values(&self, value: &'a Expression) -> Option<&'a [Expression]> {
        match value.word().and_then(|text| text.strip_prefix('@')) {
            Some(name) => self.rules.set(&self.of.name, name),
            None => Some(value.values()),
        }
    }

    /// Returns true if the looked-at part of the packet has this value.
    fn is(&self, key: &Expression, value: &Expression) -> Option<bool> {
        let value = match value.selector() {
            Some(Selector::Elem { val }) => val.word()?,
            Some(_) | None => value.word()?,
        };
        let back = self.way == Way::Back;
        match key.selector()? {
            Selector::Meta { key } => match &key[..] {
                "iifname" | "iif" => self.is_device(back, value),
                "oifname" | "oif" => self.is_device(!back, value),
                "nfproto" => Some(value == "ipv4"),
                "protocol" => Some(value == "ip"),
                _ => None,
            },
            Selector::Ct { key, .. } => match &key[..] {
                "state" => Some(value == if back { "established" } else { "new" }),
                "direction" => Some(value == if back { "reply" } else { "original" }),
                "status" if value == "dnat" => Some(false),
                _ => None,
            },
            Selector::Payload { .. } | Selector::Set(_) | Selector::Range(_) | Selector::Elem { .. } => None,
        }
    }

    /// Returns true if this is the name, or with an asterisk the beginning of the name, of the uplink or else of a
    /// link.
    fn is_device(&self, uplink: bool, name: &str) -> Option<bool> {
        let stem = name.strip_suffix('*');
        if !uplink {
            return match stem {
                Some(stem) if HOST_LINK.starts_with(stem) => Some(true),
                // Of one network, perhaps.
                _ if name.starts_with(HOST_LINK) => None,
                _ => Some(false),
            };
        }
        let is = |device: &String| stem.map_or(device == name, |stem| device.starts_with(stem));
        let named = self.uplinks.iter().filter(|device| is(device)).count();
        match named {
            0 if !self.uplinks.is_empty() || name.starts_with(HOST_LINK) => Some(false),
            all if all > 0 && all == self.uplinks.len() => Some(true),
            _ => None,
        }
    }
}

/// Step that follows from a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The next rule.
    Next,
    /// The caller's next rule.
    Leave,
    /// True if it is accepted.
    Verdict(bool),
}

#[cfg(test)]
mod tests;
