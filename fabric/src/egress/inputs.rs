//! Chains on the input hook, and ports that rules speak of. Pure.

use crate::nft::listing::{Expression, Known, Listing, Match, Selector};

/// Base chains on the input hook that drop what no rule accepts.
#[must_use]
pub fn closed_inputs(rules: &Listing) -> Vec<String> {
    let closed = rules.at_hook("input").filter(|chain| chain.policy.as_deref() == Some("drop"));
    closed.map(|chain| chain.name.to_string()).collect()
}

/// Returns true if some rule matches on this destination port, alone or in a set or a range.
#[must_use]
pub fn mentions(rules: &Listing, kind: &str, port: u16) -> bool {
    let mut statements = rules.all_rules().flat_map(|(_, rules)| rules.iter().flatten());
    statements.any(|statement| {
        let Some(Known::Match(Match { left, right, .. })) = statement.known() else { return false };
        let Some(Selector::Payload { protocol, field }) = left.selector() else { return false };
        field == "dport" && (protocol == kind || protocol == "th") && covers(right, port.into())
    })
}

fn covers(right: &Expression, port: u64) -> bool {
    match right {
        Expression::Number(number) => number.as_u64() == Some(port),
        Expression::List(values) => values.iter().any(|value| covers(value, port)),
        Expression::Selector(selector) => match &**selector {
            Selector::Range(bounds) => {
                let [Expression::Number(from), Expression::Number(to)] = &bounds[..] else { return false };
                let bound = |number: &serde_json::Number| number.as_u64().unwrap_or(u64::MAX);
                (bound(from)..=bound(to)).contains(&port)
            }
            Selector::Set(set) => covers(set, port),
            Selector::Elem { .. }
            | Selector::Meta { .. }
            | Selector::Ct { .. }
            | Selector::Payload { .. } => false,
        },
        Expression::Word(_) | Expression::Other(_) | Expression::Odd(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn read(rules: &Value) -> Listing {
        Listing::read(rules.to_string().as_bytes()).unwrap_or_default()
    }

    fn rules(policy: &str, right: Value) -> Listing {
        read(&serde_json::json!({"nftables": [
            {"metainfo": {}},
            {"chain": {"family": "inet", "table": "filter", "name": "input", "hook": "input", "policy": policy}},
            {"chain": {"family": "inet", "table": "filter", "name": "web"}},
            {"rule": {"expr": [
                {"match": {"left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": right}},
                {"accept": null}
            ]}}
        ]}))
    }

    #[test]
    fn chains_that_drop_by_default_are_found() {
        assert_eq!(closed_inputs(&rules("drop", 1.into())), ["inet filter input"]);
        assert!(closed_inputs(&rules("accept", 1.into())).is_empty());
        assert!(closed_inputs(&read(&Value::Null)).is_empty());
    }

    #[test]
    fn a_port_is_mentioned_alone_in_a_set_or_in_a_range() {
        let table = [
            (serde_json::json!(4789), true),
            (serde_json::json!(53), false),
            (serde_json::json!({"set": [53, 4789]}), true),
            (serde_json::json!({"set": [53, {"range": [4000, 5000]}]}), true),
            (serde_json::json!({"range": [5000, 6000]}), false),
            (serde_json::json!("@ports"), false),
        ];
        for (right, expected) in table {
            assert_eq!(mentions(&rules("drop", right.clone()), "udp", 4789), expected, "{right}");
        }
        assert!(!mentions(&rules("drop", 4789.into()), "tcp", 4789));
    }
}
