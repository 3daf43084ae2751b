//! Judgement of chains on the forward hook: the fate of workloads' packets to the world outside, and of the answers.
//! Pure: it reads what `nft -j list ruleset` says.
//!
//! Rules whose conditions cannot be judged here (addresses, ports, marks) count as special cases: one that drops says
//! nothing of other packets, and one that accepts leaves it open whether these are dropped further down.

use sealane_agent::nft::HOST_LINK;
use serde_json::Value;

/// Chains may call each other so deep.
const DEPTH: usize = 16;
/// Chains that a packet is followed through in all: some that call each other several times each make as many ways as there are
/// products of these numbers.
const VISITS: usize = 1_000;

/// Fate of the packets in a chain that does not let them all through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// Some may pass, by rules that cannot be judged.
    Unsure,
    /// All of them are dropped.
    Dropped,
}

/// A chain that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    /// Family, table and chain.
    pub(super) chain: String,
    /// Fate of packets in it.
    pub(super) fate: Fate,
    /// True if firewalld has made it.
    pub(super) firewalld: bool,
}

/// The chains of others that stand in the way of packets between our links and `uplinks`. Those that iptables have
/// made are left out with `judged_by_iptables`.
pub(super) fn obstacles(rules: &Value, uplinks: &[String], judged_by_iptables: bool) -> Vec<Obstacle> {
    let ways = [Way::Out, Way::Back];
    let found =
        items(rules, "chain").filter(|chain| is_concerned(chain, judged_by_iptables)).filter_map(|chain| {
            let fates =
                ways.map(|way| Walk { rules, of: chain, uplinks, way, doubt: false, visits: VISITS }.fate());
            let [family, table, name] = ["family", "table", "name"].map(|field| word(chain, field));
            let fate = fates.into_iter().flatten().max()?;
            Some(Obstacle {
                chain: format!("{family} {table} {name}"),
                fate,
                firewalld: table == "firewalld",
            })
        });
    found.collect()
}

fn is_concerned(chain: &Value, judged_by_iptables: bool) -> bool {
    let [family, table, name] = ["family", "table", "name"].map(|field| word(chain, field));
    let by_iptables = judged_by_iptables && (family, table, name) == ("ip", "filter", "FORWARD");
    chain["hook"] == "forward"
        && matches!(family, "ip" | "inet")
        && !table.starts_with(HOST_LINK)
        && !by_iptables
}

fn items<'a>(rules: &'a Value, kind: &'static str) -> impl Iterator<Item = &'a Value> {
    rules["nftables"].as_array().into_iter().flatten().filter_map(move |item| item.get(kind))
}

fn word<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
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
    rules: &'a Value,
    /// The base chain.
    of: &'a Value,
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
        let accepted = self.through(word(self.of, "name"), DEPTH).unwrap_or(self.of["policy"] != "drop");
        match (accepted, self.doubt) {
            (true, _) => None,
            (false, true) => Some(Fate::Unsure),
            (false, false) => Some(Fate::Dropped),
        }
    }

    /// Follows a chain; returns true if it accepts, false if it drops, `None` if its caller goes on.
    fn through(&mut self, chain: &'a str, depth: usize) -> Option<bool> {
        let depth = depth.checked_sub(1)?;
        let Some(left) = self.visits.checked_sub(1) else {
            self.doubt = true;
            return Some(false);
        };
        self.visits = left;
        let own = |rule: &&Value| {
            rule["chain"] == chain && rule["table"] == self.of["table"] && rule["family"] == self.of["family"]
        };
        for rule in items(self.rules, "rule").filter(own) {
            match self.follow(rule, depth) {
                Step::Next => {}
                Step::Leave => return None,
                Step::Verdict(accepted) => return Some(accepted),
            }
        }
        None
    }

    fn follow(&mut self, rule: &'a Value, depth: usize) -> Step {
        let mut sure = true;
        let parts = rule["expr"].as_array().into_iter().flatten();
        for (kind, value) in parts.filter_map(|part| part.as_object()?.iter().next()) {
            match kind.as_str() {
                "match" => match self.holds(value) {
                    Some(true) => {}
                    Some(false) => return Step::Next,
                    None => sure = false,
                },
                "limit" | "quota" | "ct count" | "xt" => sure = false,
                _ => match self.step(kind, value, depth) {
                    Some(step) if sure => return step,
                    Some(step) => return self.perhaps(step),
                    None => {}
                },
            }
        }
        Step::Next
    }

    /// Follows a statement; `None`: to the rule's next one.
    fn step(&mut self, kind: &str, value: &'a Value, depth: usize) -> Option<Step> {
        let target = word(value, "target");
        Some(match kind {
            "accept" => Step::Verdict(true),
            "drop" | "reject" => Step::Verdict(false),
            "return" => Step::Leave,
            "jump" => self.through(target, depth).map_or(Step::Next, Step::Verdict),
            "goto" => self.through(target, depth).map_or(Step::Leave, Step::Verdict),
            "vmap" => self.mapped(value, depth),
            // A program decides.
            "queue" => {
                self.doubt = true;
                Step::Verdict(false)
            }
            _ => return None,
        })
    }

    fn mapped(&mut self, vmap: &'a Value, depth: usize) -> Step {
        let Some(elements) = self.elements(&vmap["data"]) else {
            self.doubt = true;
            return Step::Next;
        };
        for element in elements {
            let verdict = element[1].as_object().and_then(|verdict| verdict.iter().next());
            let Some((kind, value)) = verdict else { continue };
            match self.is(&vmap["key"], &element[0]) {
                Some(true) => return self.step(kind, value, depth).unwrap_or(Step::Next),
                Some(false) => {}
                None => {
                    let step = self.step(kind, value, depth).unwrap_or(Step::Next);
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

    fn holds(&self, matched: &'a Value) -> Option<bool> {
        let (left, right) = (&matched["left"], &matched["right"]);
        if matches!(left["payload"]["protocol"].as_str(), Some("ip6" | "icmpv6")) {
            return Some(false);
        }
        let mut any = Some(false);
        for value in self.elements(right)? {
            any = match (any, self.is(left, value)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (None, _) | (_, None) => None,
                (Some(false), Some(false)) => Some(false),
            };
        }
        match word(matched, "op") {
            "==" | "in" => any,
            "!=" => any.map(|any| !any),
            _ => None,
        }
    }

    /// The values that are meant: one, several, or those of a named set or map.
    fn elements(&self, value: &'a Value) -> Option<Vec<&'a Value>> {
        if let Some(name) = value.as_str().and_then(|text| text.strip_prefix('@')) {
            let mut named = items(self.rules, "set").chain(items(self.rules, "map"));
            let set = named.find(|set| {
                set["name"] == name && set["table"] == self.of["table"] && set["family"] == self.of["family"]
            })?;
            return Some(set["elem"].as_array().into_iter().flatten().collect());
        }
        let value = value.get("set").unwrap_or(value);
        Some(value.as_array().map_or_else(|| vec![value], |values| values.iter().collect()))
    }

    /// Returns true if the looked-at part of the packet has this value.
    fn is(&self, key: &Value, value: &Value) -> Option<bool> {
        let value = value["elem"].get("val").unwrap_or(value).as_str()?;
        let back = self.way == Way::Back;
        match (key["meta"]["key"].as_str(), key["ct"]["key"].as_str()) {
            (Some("iifname" | "iif"), _) => self.is_device(back, value),
            (Some("oifname" | "oif"), _) => self.is_device(!back, value),
            (Some("nfproto"), _) => Some(value == "ipv4"),
            (Some("protocol"), _) => Some(value == "ip"),
            (_, Some("state")) => Some(value == if back { "established" } else { "new" }),
            (_, Some("direction")) => Some(value == if back { "reply" } else { "original" }),
            (_, Some("status")) if value == "dnat" => Some(false),
            (_, _) => None,
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
