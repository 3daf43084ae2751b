//! JSON of any shape, and documents of which one value is another one, for tests of what comes in.

use proptest::prelude::*;
use serde_json::{Value, json};

/// Any JSON, with these keys among others.
pub(crate) fn anything(keys: &'static [&'static str]) -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        prop::sample::select(vec!["10.42.0.9/16", "fd42::9", "web=8080/http", "shop"]).prop_map(Value::from),
    ];
    let keys = prop_oneof![".{0,6}", prop::sample::select(keys).prop_map(str::to_owned)];
    let more = leaf.prop_recursive(4, 48, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((keys.clone(), inner), 0..8)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    });
    more.boxed()
}

/// A document with one value, at one of its paths, put in another's place; the path with it.
pub(crate) fn mutated(
    document: &Value,
    keys: &'static [&'static str],
) -> BoxedStrategy<(Vec<String>, Value)> {
    let (document, mut paths) = (document.clone(), Vec::new());
    collect(&document, &[], &mut paths);
    let put = move |(path, value): (Vec<String>, Value)| {
        let mut changed = document.clone();
        let pointer: String =
            path.iter().map(|key| format!("/{}", key.replace('~', "~0").replace('/', "~1"))).collect();
        if let Some(place) = changed.pointer_mut(&pointer) {
            *place = value;
        }
        (path, changed)
    };
    (prop::sample::select(paths), anything(keys)).prop_map(put).boxed()
}

fn collect(value: &Value, path: &[String], paths: &mut Vec<Vec<String>>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(object) => object.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(list) => {
            list.iter().enumerate().map(|(place, value)| (place.to_string(), value)).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    for (key, value) in children {
        let path = [path, &[key]].concat();
        collect(value, &path, paths);
        paths.push(path);
    }
}

/// Tells whether words name one of a path's keys, or something that was put there.
pub(crate) fn names(told: &str, path: &[String], document: &Value) -> bool {
    let pointer: String =
        path.iter().map(|key| format!("/{}", key.replace('~', "~0").replace('/', "~1"))).collect();
    let put = document.pointer(&pointer).and_then(Value::as_object);
    let own = put.into_iter().flat_map(|object| object.keys().cloned());
    let keys = path.iter().filter(|key| key.parse::<usize>().is_err()).cloned().chain(own);
    // A list is spoken of by what is in it; what cannot be printed is escaped, as Rust or as JSON does it.
    keys.into_iter().any(|key| {
        let quoted = [format!("{key:?}"), Value::from(&*key).to_string()];
        let told_of = |text: &str| told.contains(text);
        let escaped = |text: &String| told_of(&text[1..text.len() - 1]);
        told_of(key.trim_end_matches("ies").trim_end_matches('s')) || quoted.iter().any(escaped)
    })
}

#[test]
fn every_value_of_a_document_has_its_turn() {
    let mut paths = Vec::new();
    collect(&json!({ "a": [1, { "b": 2 }], "c/d": null }), &[], &mut paths);
    let paths: Vec<String> = paths.iter().map(|path| path.join(".")).collect();
    assert_eq!(paths, ["a.0", "a.1.b", "a.1", "a", "c/d"]);
}
