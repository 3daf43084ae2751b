//! SECURITY.md names the test that shows each of its sentences: every one of them exists.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::path::Path;

/// The names between backticks that have three underscores at least: those of tests.
fn named(text: &str) -> Vec<&str> {
    let words = text.split('`').skip(1).step_by(2);
    let is_test = |word: &&str| {
        word.matches('_').count() > 2
            && word.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
    };
    words.filter(is_test).collect()
}

/// The sources below this folder, joined.
fn sources(folder: &Path, all: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|end| end == "rs") {
            all.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn the_tests_that_the_threat_model_names_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let mut all = String::new();
    for krate in ["agent", "base", "cli", "control", "fabric", "keep", "proto", "proxy", "sys", "tests"] {
        for folder in ["src", "tests"].map(|folder| root.join(krate).join(folder)) {
            if folder.is_dir() {
                sources(&folder, &mut all);
            }
        }
    }
    let tests = named(&text);
    assert!(tests.len() >= 20, "only {} tests are named", tests.len());
    let missing: Vec<_> = tests.iter().filter(|name| !all.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "SECURITY.md names tests that are not there: {missing:?}");
}
