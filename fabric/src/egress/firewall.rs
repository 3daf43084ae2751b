//! Plans for a host's iptables: if they drop what it forwards, and where a rule of ours must stand. Pure: it reads the
//! output of `iptables -S`.
//!
//! An accept in a table of ours does not save a packet that another table drops, so on hosts whose FORWARD drops
//! (Docker sets that policy, ufw too) there must be accepts among those rules. They stand behind every rule that
//! says more than "drop all": what an administrator forbids stays forbidden for workloads.

use std::collections::{BTreeMap, BTreeSet};

use crate::nft::HOST_LINK;

/// Marks our rules.
const COMMENT: &str = "sealane";
/// Chain in which Docker wants the rules of others (docs.docker.com, "Packet filtering and firewalls").
const DOCKER_USER: &str = "DOCKER-USER";
const FORWARD: &str = "FORWARD";

/// Arguments to iptables: one change.
pub(super) type Change = Vec<String>;

/// Changes that a firewall needs to let workloads out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// True if FORWARD drops what nothing accepts.
    pub(super) drops: bool,
    /// The chain in which rules of ours must stand, when it does.
    pub(super) chain: Option<String>,
    /// Changes that lead there; empty when nothing is wrong.
    pub(super) changes: Vec<Change>,
}

#[derive(Default)]
struct Chain<'a> {
    policy: Option<&'a str>,
    /// Without `-A CHAIN`.
    rules: Vec<&'a str>,
}

/// Plans the changes to the rules that `iptables -S` lists, so that packets from and to networks' links pass.
pub(super) fn plan(listed: &str) -> Plan {
    let chains = chains(listed);
    let forward = chains.get(FORWARD);
    let policy_drops = forward.and_then(|chain| chain.policy) == Some("DROP");
    let last = forward
        .and_then(|chain| chain.rules.iter().position(|rule| drops_all(rule, &chains, &mut BTreeSet::new())));
    let drops = policy_drops || last.is_some();
    let chain = drops.then(|| if chains.contains_key(DOCKER_USER) { DOCKER_USER } else { FORWARD });
    let mut changes = removals(&chains, chain);
    if let Some(chain) = chain {
        let rules = &chains[chain].rules;
        let foreign: Vec<&str> = rules.iter().copied().filter(|rule| !is_ours(rule)).collect();
        let ends = |rule: &str| rule == "-j RETURN" || drops_all(rule, &chains, &mut BTreeSet::new());
        let end = foreign.iter().position(|rule| ends(rule)).unwrap_or(foreign.len());
        let behind = foreign
            .get(end)
            .map_or(rules.len(), |end| rules.iter().position(|rule| rule == end).unwrap_or(rules.len()));
        let standing: Vec<&str> = rules[..behind].iter().copied().filter(|rule| is_ours(rule)).collect();
        let all = wanted();
        if standing.len() != all.len() || rules.iter().filter(|rule| is_ours(rule)).count() != all.len() {
            // Ours stand in the wrong place or are not whole: all anew.
            changes.extend(rules.iter().filter(|rule| is_ours(rule)).map(|rule| delete(chain, rule)));
            for (place, rule) in all.iter().enumerate() {
                let at = (end + place + 1).to_string();
                let words = ["-I", chain, at.as_str()].into_iter().map(str::to_owned);
                changes.push(words.chain(rule.iter().map(|&word| word.to_owned())).collect());
            }
        }
    }
    Plan { drops, chain: chain.map(str::to_owned), changes }
}

/// Plans the removal of all of our rules.
pub(super) fn removal(listed: &str) -> Vec<Change> {
    removals(&chains(listed), None)
}

/// Packets from the links, and answers to them.
fn wanted() -> [Vec<&'static str>; 2] {
    let mark = ["-m", "comment", "--comment", COMMENT, "-j", "ACCEPT"];
    let out = ["-i", "sealane+"].into_iter().chain(mark).collect();
    let back = ["-o", "sealane+", "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"];
    [out, back.into_iter().chain(mark).collect()]
}

fn is_ours(rule: &str) -> bool {
    let interface = [format!("-i {HOST_LINK}+ "), format!("-o {HOST_LINK}+ ")];
    interface.iter().any(|part| rule.starts_with(part)) && rule.contains(&format!("--comment {COMMENT} "))
}

/// Returns true if nothing comes past this rule: it matches every packet and drops it, at once or in the chain it leads
/// to.
fn drops_all<'a>(rule: &'a str, chains: &BTreeMap<&'a str, Chain<'a>>, seen: &mut BTreeSet<&'a str>) -> bool {
    let Some(target) = rule.strip_prefix("-j ").or_else(|| rule.strip_prefix("-g ")) else { return false };
    let target = target.split(' ').next().unwrap_or_default();
    matches!(target, "DROP" | "REJECT")
        || seen.insert(target)
            && chains
                .get(target)
                .is_some_and(|chain| chain.rules.iter().any(|rule| drops_all(rule, chains, seen)))
}

fn removals(chains: &BTreeMap<&str, Chain<'_>>, kept: Option<&str>) -> Vec<Change> {
    let others = chains.iter().filter(|(name, _)| Some(**name) != kept);
    others
        .flat_map(|(name, chain)| {
            chain.rules.iter().filter(|rule| is_ours(rule)).map(|rule| delete(name, rule))
        })
        .collect()
}

fn delete(chain: &str, rule: &str) -> Change {
    ["-D", chain].into_iter().chain(rule.split(' ')).map(str::to_owned).collect()
}

fn chains(listed: &str) -> BTreeMap<&str, Chain<'_>> {
    let mut chains: BTreeMap<&str, Chain<'_>> = BTreeMap::new();
    for line in listed.lines() {
        let mut words = line.splitn(3, ' ');
        let (Some(verb), Some(name)) = (words.next(), words.next()) else { continue };
        let rest = words.next();
        let chain = chains.entry(name).or_default();
        match (verb, rest) {
            ("-P", policy) => chain.policy = policy,
            ("-A", Some(rule)) => chain.rules.push(rule),
            _ => {}
        }
    }
    chains
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: &str = "-i sealane+ -m comment --comment sealane -j ACCEPT";
    const BACK: &str =
        "-o sealane+ -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment sealane -j ACCEPT";
    const OPEN: &str = "-P INPUT DROP\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n";
    const CLOSED: &str = "-P INPUT ACCEPT\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n";
    const DOCKER: &str = "-P FORWARD DROP\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n-A FORWARD -i docker0 -j ACCEPT\n\
        -A DOCKER-USER -d 10.9.9.9/32 -j DROP\n-A DOCKER-USER -j RETURN\n";

    fn check(listed: &str, chain: Option<&str>, changes: &[&str]) {
        let plan = plan(listed);
        let planned: Vec<String> = plan.changes.iter().map(|change| change.join(" ")).collect();
        assert_eq!(
            (plan.chain.as_deref(), planned.as_slice()),
            (chain, changes.iter().map(|&c| c.to_owned()).collect::<Vec<_>>().as_slice()),
            "{listed}"
        );
    }

    #[test]
    fn nothing_is_added_where_nothing_is_dropped() {
        check(OPEN, None, &[]);
        check(&format!("{OPEN}-A FORWARD -d 10.9.9.9/32 -j DROP\n"), None, &[]);
        let left = format!("{OPEN}-A FORWARD {OUT}\n");
        check(&left, None, &[&format!("-D FORWARD {OUT}")]);
    }

    #[test]
    fn rules_stand_behind_those_of_others_and_before_what_drops_everything() {
        let at = |chain: &str, place: usize| {
            [format!("-I {chain} {place} {OUT}"), format!("-I {chain} {} {BACK}", place + 1)]
        };
        let table = [
            (CLOSED.to_owned(), FORWARD, at(FORWARD, 1)),
            (format!("{CLOSED}-A FORWARD -s 10.9.9.9/32 -j DROP\n"), FORWARD, at(FORWARD, 2)),
            (
                format!("{OPEN}-A FORWARD -j LOG\n-A FORWARD -j REJECT --reject-with icmp-host-prohibited\n"),
                FORWARD,
                at(FORWARD, 2),
            ),
            (format!("{OPEN}-N end\n-A FORWARD -j end\n-A end -j DROP\n"), FORWARD, at(FORWARD, 1)),
            (DOCKER.to_owned(), DOCKER_USER, at(DOCKER_USER, 2)),
        ];
        for (listed, chain, changes) in table {
            check(&listed, Some(chain), &changes.each_ref().map(String::as_str));
        }
    }

    #[test]
    fn what_stands_stays_and_what_stands_wrong_is_put_right() {
        check(&format!("{CLOSED}-A FORWARD {OUT}\n-A FORWARD {BACK}\n"), Some(FORWARD), &[]);
        let docker = DOCKER.replace(
            "-A DOCKER-USER -j RETURN",
            &format!("-A DOCKER-USER {OUT}\n-A DOCKER-USER {BACK}\n-A DOCKER-USER -j RETURN"),
        );
        check(&docker, Some(DOCKER_USER), &[]);
        let behind = format!("{OPEN}-A FORWARD -j DROP\n-A FORWARD {OUT}\n-A FORWARD {BACK}\n");
        let anew = [
            format!("-D FORWARD {OUT}"),
            format!("-D FORWARD {BACK}"),
            format!("-I FORWARD 1 {OUT}"),
            format!("-I FORWARD 2 {BACK}"),
        ];
        check(&behind, Some(FORWARD), &anew.each_ref().map(String::as_str));
        let moved = format!("{DOCKER}-A FORWARD {OUT}\n");
        check(
            &moved,
            Some(DOCKER_USER),
            &[
                &format!("-D FORWARD {OUT}"),
                &format!("-I DOCKER-USER 2 {OUT}"),
                &format!("-I DOCKER-USER 3 {BACK}"),
            ],
        );
    }

    #[test]
    fn a_loop_of_chains_has_an_end() {
        check(&format!("{OPEN}-N a\n-A FORWARD -j a\n-A a -j a\n"), None, &[]);
    }

    #[test]
    fn everything_of_ours_is_taken_out() {
        let listed = format!("{CLOSED}-A FORWARD {OUT}\n-A FORWARD -i eth0 -j ACCEPT\n-A FORWARD {BACK}\n");
        let changes: Vec<String> = removal(&listed).iter().map(|change| change.join(" ")).collect();
        assert_eq!(changes, [format!("-D FORWARD {OUT}"), format!("-D FORWARD {BACK}")]);
    }
}
