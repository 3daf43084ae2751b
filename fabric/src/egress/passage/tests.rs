use serde_json::{Value, json};

use super::*;

fn obstacles(rules: &Value, uplinks: &[String], judged_by_iptables: bool) -> Vec<Obstacle> {
    let rules = Listing::read(rules.to_string().as_bytes()).unwrap_or_default();
    super::obstacles(&rules, uplinks, judged_by_iptables)
}

/// Rules of firewalld 1.3 on forwarding when no device is in a zone.
const FIREWALLD: &str = include_str!("firewalld.json");

fn chain(family: &str, table: &str, name: &str, policy: Option<&str>) -> Value {
    let base = policy.map(|policy| json!({"hook": "forward", "type": "filter", "policy": policy}));
    let mut chain = json!({"family": family, "table": table, "name": name});
    for (field, value) in base.iter().filter_map(Value::as_object).flatten() {
        chain[field] = value.clone();
    }
    json!({"chain": chain})
}

fn rule(name: &str, expr: &Value) -> Value {
    json!({"rule": {"family": "inet", "table": "fw", "chain": name, "expr": expr}})
}

fn matched(key: &str, right: &Value) -> Value {
    let left = match key {
        "state" => json!({"ct": {"key": "state"}}),
        "daddr" | "saddr" => json!({"payload": {"protocol": "ip", "field": key}}),
        _ => json!({"meta": {"key": key}}),
    };
    json!({"match": {"op": "==", "left": left, "right": right}})
}

/// The fate of the packets in a chain with these rules in front of this policy.
fn fate(policy: &str, rules: &[Value]) -> Option<Fate> {
    let mut all = vec![chain("inet", "fw", "f", Some(policy)), chain("inet", "fw", "sub", None)];
    all.push(json!({"set": {"family": "inet", "table": "fw", "name": "ours", "elem": ["sealane*", "br1"]}}));
    all.push(rule("sub", &json!([{"accept": null}])));
    all.extend(rules.iter().map(|expr| rule("f", expr)));
    let found = obstacles(&json!({"nftables": all}), &["eth0".to_owned()], true);
    found.first().map(|obstacle| obstacle.fate)
}

fn both(out: Value, back: Value) -> [Value; 2] {
    let accept = json!({"accept": null});
    [
        json!([out, accept]),
        json!([matched("state", &json!({"set": ["established", "related"]})), back, accept]),
    ]
}

#[test]
fn what_drops_by_default_is_an_obstacle_unless_both_ways_are_let_through() {
    assert_eq!(fate("accept", &[]), None);
    assert_eq!(fate("drop", &[]), Some(Fate::Dropped));
    let [out, back] = both(matched("iifname", &json!("sealane*")), matched("oifname", &json!("sealane*")));
    assert_eq!(fate("drop", &[out.clone(), back.clone()]), None);
    assert_eq!(fate("drop", &[out]), Some(Fate::Dropped), "no answer comes back");
    assert_eq!(fate("drop", &[back]), Some(Fate::Dropped));
    let [out, back] = both(matched("iifname", &json!("@ours")), matched("iifname", &json!("eth0")));
    assert_eq!(fate("drop", &[out, back]), None, "a named set, and the uplink");
    let [out, back] =
        both(matched("iifname", &json!({"set": ["docker0", "virbr0"]})), matched("iif", &json!("eth0")));
    assert_eq!(fate("drop", &[out, back]), Some(Fate::Dropped), "others' devices");
    let leaf = json!([{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}]);
    assert_eq!(fate("accept", std::slice::from_ref(&leaf)), Some(Fate::Dropped));
    assert_eq!(fate("accept", &[json!([{"jump": {"target": "sub"}}]), leaf]), None);
}

#[test]
fn what_cannot_be_judged_is_no_obstacle_by_itself_and_leaves_doubt_where_the_rest_is_dropped() {
    let special = |verdict: &str| json!([matched("daddr", &json!("10.9.9.9")), {verdict: null}]);
    assert_eq!(fate("accept", &[special("drop")]), None);
    assert_eq!(fate("drop", &[special("accept")]), Some(Fate::Unsure));
    assert_eq!(fate("drop", &[special("drop")]), Some(Fate::Dropped));
    let limited = json!([{"limit": {"rate": 5, "per": "second"}}, {"accept": null}]);
    assert_eq!(fate("drop", &[limited]), Some(Fate::Unsure));
    let jump = json!([matched("mark", &json!(1)), {"jump": {"target": "sub"}}]);
    assert_eq!(fate("drop", &[jump]), Some(Fate::Unsure));
    let six = json!([
        {"match": {"op": "!=", "left": {"payload": {"protocol": "ip6", "field": "daddr"}}, "right": "::1"}},
        {"drop": null}
    ]);
    assert_eq!(fate("accept", &[six]), None, "another family's");
    let one_network = json!([matched("iifname", &json!("sealane00100000")), {"drop": null}]);
    assert_eq!(fate("accept", &[one_network]), None);
}

#[test]
fn maps_of_verdicts_are_followed() {
    let state = |new: &str| {
        let states =
            json!([["established", {"accept": null}], ["new", {new: null}], ["invalid", {"drop": null}]]);
        json!([{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": states}}}])
    };
    assert_eq!(fate("drop", &[state("accept")]), None);
    assert_eq!(fate("accept", &[state("drop")]), Some(Fate::Dropped));
    let unknown = json!([{"vmap": {"key": {"meta": {"key": "iifname"}}, "data": "@elsewhere"}}]);
    assert_eq!(fate("drop", &[unknown]), Some(Fate::Unsure));
}

#[test]
fn firewalld_is_an_obstacle_unless_a_zone_lets_the_packets_through() {
    let rules: Value = serde_json::from_str(FIREWALLD).unwrap();
    let uplinks = ["eth0".to_owned()];
    let found = obstacles(&rules, &uplinks, true);
    let expected =
        Obstacle { chain: "inet firewalld filter_FORWARD".into(), fate: Fate::Dropped, firewalld: true };
    assert_eq!(found, [expected]);
    let with = |chain: &str, first: bool, expr: Value| {
        let mut rules = rules.clone();
        let rule = json!({"rule": {"family": "inet", "table": "firewalld", "chain": chain, "expr": expr}});
        let all = rules["nftables"].as_array_mut().unwrap();
        all.insert(if first { 0 } else { all.len() }, rule);
        obstacles(&rules, &uplinks, true)
    };
    // `--zone=trusted --add-interface=sealane+`, whose zone accepts everything.
    let trusted = json!([matched("iifname", &json!("sealane*")), {"accept": null}]);
    assert_eq!(with("filter_FORWARD_ZONES", true, trusted), []);
    // `--zone=public --add-interface=eth0`: the default zone passes on to its own devices.
    let within = json!([matched("oifname", &json!("eth0")), {"accept": null}]);
    assert_eq!(with("filter_FWD_public_allow", false, within), []);
}

#[test]
fn chains_of_ours_of_other_families_and_those_that_iptables_judge_are_passed_over() {
    let rules = json!({"nftables": [
        chain("inet", "sealane", "forward", Some("drop")),
        chain("ip6", "fw", "f", Some("drop")),
        chain("ip", "filter", "FORWARD", Some("drop")),
    ]});
    assert_eq!(obstacles(&rules, &[], true), []);
    let found = obstacles(&rules, &[], false);
    assert_eq!(found.iter().map(|found| found.chain.as_str()).collect::<Vec<_>>(), ["ip filter FORWARD"]);
    assert_eq!(obstacles(&Value::Null, &[], false), []);
}

#[test]
fn chains_that_call_each_other_many_times_are_given_up_in_doubt() {
    let jump = json!([{"jump": {"target": "f"}}]);
    assert_eq!(fate("drop", &vec![jump; 50]), Some(Fate::Unsure), "50 to the 16th ways");
}
