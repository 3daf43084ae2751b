//! Search for rules of a host that treat untracked VXLAN packets otherwise than tracked ones. Pure.
//!
//! Tracking tunnels costs every packet and fills the table of connections with flows that are never answered: the answer
//! to a tunnel comes from another port, so all its packets are first ones forever (state "new"). So they need no
//! tracking, unless some rule takes "new" and not "untracked", or the other way round, or asks for anything else
//! that conntrack keeps.

use std::collections::BTreeSet;

use crate::nft::HOST_LINK;
use crate::nft::listing::{
    Expression, FullName, Known, Listing, Object, Selector, Statement, VerdictMap, Verdicts,
};

/// Hooks that packets of tunnels pass.
const HOOKS: [&str; 4] = ["prerouting", "input", "output", "postrouting"];

/// Matches of iptables on conntrack (iptables-extensions(8)); nft does not say what they ask.
const OF_CONNTRACK: [&str; 9] = [
    "conntrack",
    "state",
    "connbytes",
    "connlabel",
    "connlimit",
    "connmark",
    "helper",
    "CONNMARK",
    "CONNSECMARK",
];

/// The first base chain of others that would treat them otherwise, in words.
pub(super) fn needed_by(rules: &Listing) -> Option<String> {
    let base = rules.chains.iter().filter(|chain| {
        // Rules of the kind nat are not asked about untracked packets, and have no say over these.
        chain.hook.as_deref().is_some_and(|hook| HOOKS.contains(&hook))
            && chain.kind.as_deref() != Some("nat")
            && matches!(&chain.name.family[..], "ip" | "ip6" | "inet")
            && !chain.name.table.starts_with(HOST_LINK)
    });
    base.map(|chain| &chain.name).find(|chain| tells_apart(rules, chain)).map(FullName::to_string)
}

/// Returns true if a rule of the chain, or of those that it may lead to, tells new packets from untracked ones.
fn tells_apart(rules: &Listing, base: &FullName) -> bool {
    let (mut seen, mut everywhere, mut open) = (BTreeSet::new(), false, vec![base.clone()]);
    while let Some(chain) = open.pop() {
        // Each is looked at once.
        if !seen.insert(chain.clone()) {
            continue;
        }
        for statements in rules.rules(&chain) {
            if statements.iter().any(is_telling) {
                return true;
            }
            if !everywhere && leads_anywhere(statements) {
                everywhere = true;
                let same_table =
                    |other: &&FullName| (&other.family, &other.table) == (&chain.family, &chain.table);
                open.extend(rules.all_rules().map(|(chain, _)| chain).filter(same_table).cloned());
            }
            open.extend(statements.iter().flat_map(targets).map(|target| chain.sibling(target)));
        }
    }
    false
}

/// Returns true if a map with a name, which need not be listed, says where to go on.
fn leads_anywhere(statements: &[Statement]) -> bool {
    let named = |map: &VerdictMap| matches!(map.data, Verdicts::Named(_));
    statements.iter().any(|statement| matches!(statement.known(), Some(Known::Vmap(map)) if named(map)))
}

/// The chains that a statement names.
fn targets(statement: &Statement) -> Vec<&str> {
    match statement.known() {
        Some(Known::Jump(to) | Known::Goto(to)) => vec![&to.target],
        Some(Known::Vmap(VerdictMap { data: Verdicts::Here { set }, .. })) => {
            set.iter().flat_map(|(_, verdict)| targets(verdict)).collect()
        }
        Some(_) | None => Vec::new(),
    }
}

fn is_telling(statement: &Statement) -> bool {
    match statement.known() {
        Some(Known::Match(matched)) if is_state(&matched.left) && !asks_conntrack(&matched.right) => {
            let mut states = BTreeSet::new();
            collect_words(&matched.right, &mut states);
            states.contains("new") != states.contains("untracked")
        }
        Some(Known::Vmap(VerdictMap { key, data: Verdicts::Here { set } })) if is_state(key) => {
            let verdict =
                |state| set.iter().find(|(value, _)| value.word() == Some(state)).map(|(_, verdict)| verdict);
            verdict("new") != verdict("untracked")
        }
        Some(Known::Match(matched)) => asks_conntrack(&matched.left) || asks_conntrack(&matched.right),
        Some(Known::Vmap(map)) => {
            let rows = match &map.data {
                Verdicts::Named(_) => &[],
                Verdicts::Here { set } => &set[..],
            };
            asks_conntrack(&map.key)
                || rows.iter().any(|(value, verdict)| asks_conntrack(value) || is_telling(verdict))
        }
        Some(_) => false,
        None => match statement {
            Statement::Other(object) => object_asks(object),
            Statement::Odd(expression) => asks_conntrack(expression),
            Statement::Known(_) => false,
        },
    }
}

fn is_state(expression: &Expression) -> bool {
    matches!(expression.selector(), Some(Selector::Ct { key, dir: None }) if key == "state")
}

fn collect_words<'a>(value: &'a Expression, words: &mut BTreeSet<&'a str>) {
    match value {
        Expression::Word(text) => words.extend(text.split(',')),
        Expression::List(values) => values.iter().for_each(|value| collect_words(value, words)),
        Expression::Other(object) => object.values().for_each(|value| collect_words(value, words)),
        Expression::Selector(selector) => match &**selector {
            Selector::Set(value) | Selector::Elem { val: value } => collect_words(value, words),
            Selector::Range(bounds) => bounds.iter().for_each(|value| collect_words(value, words)),
            Selector::Meta { .. } | Selector::Ct { .. } | Selector::Payload { .. } => {}
        },
        Expression::Number(_) | Expression::Odd(_) => {}
    }
}

/// Returns true if there is anything of conntrack in it.
fn asks_conntrack(value: &Expression) -> bool {
    match value {
        Expression::Selector(selector) => match &**selector {
            Selector::Ct { .. } => true,
            Selector::Set(value) | Selector::Elem { val: value } => asks_conntrack(value),
            Selector::Range(bounds) => bounds.iter().any(asks_conntrack),
            Selector::Meta { .. } | Selector::Payload { .. } => false,
        },
        Expression::List(values) => values.iter().any(asks_conntrack),
        Expression::Other(object) => object_asks(object),
        Expression::Word(_) | Expression::Number(_) | Expression::Odd(_) => false,
    }
}

fn object_asks(object: &Object) -> bool {
    object.iter().any(|(key, value)| match key.as_str() {
        "xt" => {
            let Expression::Other(extension) = value else { return true };
            let name = extension.get("name").and_then(Expression::word);
            name.is_none_or(|name| OF_CONNTRACK.contains(&name))
        }
        key => key == "ct" || key.starts_with("ct ") || asks_conntrack(value),
    })
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use serde_json::{Value, json};

    use super::*;

    fn needed_by(rules: &Value) -> Option<String> {
        super::needed_by(&Listing::read(rules.to_string().as_bytes()).unwrap())
    }

    /// Rules of a chain on the input hook.
    fn input(rules: &[Value]) -> Value {
        ruleset("input", "filter", rules)
    }

    fn ruleset(hook: &str, kind: &str, rules: &[Value]) -> Value {
        let chain =
            json!({"chain": {"family": "inet", "table": "fw", "name": "base", "type": kind, "hook": hook}});
        let rule =
            |expr: &Value| json!({"rule": {"family": "inet", "table": "fw", "chain": "base", "expr": expr}});
        let items: Vec<Value> = std::iter::once(chain).chain(rules.iter().map(rule)).collect();
        json!({"nftables": items})
    }

    fn state(op: &str, right: Value) -> Value {
        json!([{"match": {"op": op, "left": {"ct": {"key": "state"}}, "right": right}}, {"accept": null}])
    }

    #[test]
    fn tunnels_are_tracked_for_those_who_tell_new_from_untracked() {
        let vmap = |rows: Value| json!([{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": rows}}}]);
        let table = [
            (state("in", json!("new")), true),
            (state("in", json!(["established", "related", "new"])), true),
            (state("!=", json!("new")), true),
            (state("in", json!("untracked")), true),
            (state("in", json!(["established", "related"])), false),
            (state("in", json!("invalid")), false),
            (state("==", json!({"set": ["new", "untracked"]})), false),
            (vmap(json!([["established", {"accept": null}], ["invalid", {"drop": null}]])), false),
            (vmap(json!([["established", {"accept": null}], ["new", {"jump": {"target": "x"}}]])), true),
            (vmap(json!([["new", {"accept": null}], ["untracked", {"accept": null}]])), false),
            (
                json!([{"match": {"op": "==", "left": {"ct": {"key": "mark"}}, "right": 3}}, {"drop": null}]),
                true,
            ),
            (
                json!([{"match": {"op": "==", "left": {"&": [{"ct": {"key": "state"}}, ["new"]]}, "right": "new"}}]),
                true,
            ),
            (json!([{"mangle": {"key": {"meta": {"key": "mark"}}, "value": {"ct": {"key": "mark"}}}}]), true),
            (json!([{"ct count": {"val": 3}}, {"drop": null}]), true),
            (json!([{"xt": {"type": "match", "name": "conntrack"}}, {"accept": null}]), true),
            (json!([{"xt": null}, {"accept": null}]), true),
            (json!([{"xt": {"type": "match", "name": "addrtype"}}, {"accept": null}]), false),
            (json!([{"notrack": null}]), false),
            (
                json!([{"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 4789}}, {"accept": null}]),
                false,
            ),
        ];
        for (rule, needed) in table {
            assert_eq!(needed_by(&input(from_ref(&rule))).is_some(), needed, "{rule}");
        }
    }

    #[test]
    fn only_chains_that_packets_of_tunnels_reach_count() {
        let new = state("in", json!("new"));
        assert_eq!(needed_by(&input(from_ref(&new))).as_deref(), Some("inet fw base"));
        for (hook, kind) in [("forward", "filter"), ("output", "nat"), ("ingress", "filter")] {
            assert_eq!(needed_by(&ruleset(hook, kind, from_ref(&new))), None, "{hook} {kind}");
        }
        let ours = input(&[new]).to_string().replace("\"fw\"", "\"sealane\"");
        assert_eq!(needed_by(&serde_json::from_str(&ours).unwrap()), None);
    }

    #[test]
    fn jumps_are_followed_however_they_are_written() {
        let mut elsewhere = input(&[json!([{"accept": null}])]);
        let rule = json!({"rule": {
            "family": "inet", "table": "fw", "chain": "other", "expr": state("in", json!("new")),
        }});
        elsewhere["nftables"].as_array_mut().unwrap().push(rule);
        assert_eq!(needed_by(&elsewhere), None, "nothing leads there");
        let port = json!({"payload": {"protocol": "udp", "field": "dport"}});
        for way in [
            json!([{"goto": {"target": "other"}}]),
            json!([{"vmap": {"key": port, "data": {"set": [[53, {"jump": {"target": "other"}}]]}}}]),
            json!([{"vmap": {"key": port, "data": "@ways"}}]),
        ] {
            elsewhere["nftables"][1]["rule"]["expr"] = way.clone();
            assert!(needed_by(&elsewhere).is_some(), "{way}");
        }
        // A circle ends.
        elsewhere["nftables"][2]["rule"]["expr"] = json!([{"jump": {"target": "other"}}]);
        assert_eq!(needed_by(&elsewhere), None);
    }
}
