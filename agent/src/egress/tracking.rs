//! Search for rules of a host that treat untracked VXLAN packets otherwise than tracked ones. Pure: it reads the output
//! of `nft -j list ruleset`.
//!
//! Tracking tunnels costs every packet and fills the table of connections with flows that are never answered: the answer
//! to a tunnel comes from another port, so all its packets are first ones forever (state "new"). So they need no
//! tracking, unless some rule takes "new" and not "untracked", or the other way round, or asks for anything else
//! that conntrack keeps.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::nft::HOST_LINK;

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
pub(super) fn needed_by(rules: &Value) -> Option<String> {
    let base = items(rules, "chain").filter(|chain| {
        let hook = chain["hook"].as_str().unwrap_or_default();
        // Rules of the kind nat are not asked about untracked packets, and have no say over these.
        HOOKS.contains(&hook)
            && chain["type"] != "nat"
            && matches!(chain["family"].as_str(), Some("ip" | "ip6" | "inet"))
            && !chain["table"].as_str().unwrap_or_default().starts_with(HOST_LINK)
    });
    let place = |item: &Value| ["family", "table", "name"].map(|field| word(&item[field]));
    base.map(place).find(|chain| tells_apart(rules, chain)).map(|chain| chain.join(" "))
}

fn items<'a>(rules: &'a Value, kind: &'static str) -> impl Iterator<Item = &'a Value> {
    rules["nftables"].as_array().into_iter().flatten().filter_map(move |item| item.get(kind))
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or("?").to_owned()
}

/// Returns true if a rule of the chain, or of those that it may lead to, tells new packets from untracked ones.
fn tells_apart(rules: &Value, [family, table, base]: &[String; 3]) -> bool {
    let of_table = items(rules, "rule").filter(|rule| rule["family"] == **family && rule["table"] == **table);
    let mut chains: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for rule in of_table {
        chains.entry(word(&rule["chain"])).or_default().push(rule);
    }
    let (mut everywhere, mut open) = (false, vec![base.clone()]);
    while let Some(chain) = open.pop() {
        // Each is looked at once.
        for rule in chains.remove(&chain).unwrap_or_default() {
            let statements = rule["expr"].as_array().map(Vec::as_slice).unwrap_or_default();
            if statements.iter().any(is_telling) {
                return true;
            }
            if !everywhere && leads_anywhere(statements) {
                everywhere = true;
                open.extend(chains.keys().cloned());
            }
            open.extend(statements.iter().flat_map(targets));
        }
    }
    false
}

/// Returns true if a map with a name, which is not listed here, says where to go on.
fn leads_anywhere(statements: &[Value]) -> bool {
    statements.iter().any(|statement| statement["vmap"]["data"].is_string())
}

/// The chains that a statement names.
fn targets(statement: &Value) -> Vec<String> {
    match statement {
        Value::Object(object) => object
            .iter()
            .flat_map(|(key, value)| match (key.as_str(), value.get("target")) {
                ("jump" | "goto", Some(target)) => vec![word(target)],
                _ => targets(value),
            })
            .collect(),
        Value::Array(elements) => elements.iter().flat_map(targets).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

fn is_telling(statement: &Value) -> bool {
    let (matched, map) = (&statement["match"], &statement["vmap"]);
    if is_state(&matched["left"]) && !asks_conntrack(&matched["right"]) {
        let mut states = BTreeSet::new();
        collect_words(&matched["right"], &mut states);
        return states.contains("new") != states.contains("untracked");
    }
    if is_state(&map["key"])
        && let Some(rows) = map["data"]["set"].as_array()
    {
        let verdict = |state: &str| rows.iter().find(|row| row[0] == state).map(|row| &row[1]);
        return verdict("new") != verdict("untracked");
    }
    asks_conntrack(statement)
}

fn is_state(expression: &Value) -> bool {
    expression["ct"]["key"] == "state" && expression["ct"].get("dir").is_none()
}

fn collect_words<'a>(value: &'a Value, words: &mut BTreeSet<&'a str>) {
    match value {
        Value::String(text) => words.extend(text.split(',')),
        Value::Array(elements) => elements.iter().for_each(|element| collect_words(element, words)),
        Value::Object(object) => object.values().for_each(|value| collect_words(value, words)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Returns true if there is anything of conntrack in it.
fn asks_conntrack(value: &Value) -> bool {
    match value {
        Value::Object(object) => object.iter().any(|(key, value)| match key.as_str() {
            "xt" => value["name"].as_str().is_none_or(|name| OF_CONNTRACK.contains(&name)),
            key => key == "ct" || key.starts_with("ct ") || asks_conntrack(value),
        }),
        Value::Array(elements) => elements.iter().any(asks_conntrack),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use serde_json::json;

    use super::*;

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
