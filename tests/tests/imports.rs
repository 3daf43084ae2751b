//! Who may import whom, as ARCHITECTURE.md has it.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Our crates and what of ours they may import.
const RULES: [(&str, &[&str]); 10] = [
    ("base", &[]),
    ("sys", &[]),
    ("keep", &["sys"]),
    ("proto", &["base", "sys"]),
    ("control", &["base", "proto", "sys"]),
    ("agent", &["base", "proto", "sys", "keep"]),
    ("proxy", &["base", "proto", "sys"]),
    ("lab", &["sys"]),
    ("cli", &["base", "sys", "keep", "proto", "control", "agent", "proxy", "lab"]),
    ("tests", &["lab", "sys"]),
];

/// Foreign crates that only these of ours may see.
const EDGES: [(&str, &[&str]); 8] = [
    ("clap", &["cli"]),
    ("anyhow", &["cli"]),
    ("tonic", &["proto", "control", "agent", "cli"]),
    ("prost", &["proto", "control", "agent"]),
    ("rtnetlink", &["agent"]),
    ("redb", &["control"]),
    ("rcgen", &["control", "agent", "proto"]),
    ("comfy-table", &["cli"]),
];

/// What each of our crates imports, without what only its tests need.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let metadata =
        MetadataCommand::new().manifest_path(manifest).no_deps().other_options(["--offline".into()]).exec();
    let metadata = metadata.expect("cargo metadata");
    let short = |name: &str| name.strip_prefix("sealane-").unwrap_or(name).to_owned();
    let room = |name: &str| if name == "sealane" { "cli".to_owned() } else { short(name) };
    let normal = |package: &cargo_metadata::Package| {
        let normal = package.dependencies.iter().filter(|import| import.kind == DependencyKind::Normal);
        normal.map(|import| short(&import.name)).collect::<BTreeSet<_>>()
    };
    metadata.packages.iter().map(|package| (room(package.name.as_str()), normal(package))).collect()
}

#[test]
fn our_crates_import_each_other_only_as_designed() {
    let imports = imports();
    let rooms: BTreeSet<&str> = imports.keys().map(String::as_str).collect();
    assert_eq!(rooms, RULES.iter().map(|(room, _)| *room).collect(), "every crate has a rule");
    for (room, allowed) in RULES {
        let ours = imports[room].iter().filter(|import| rooms.contains(import.as_str()));
        let wrong: Vec<&String> = ours.filter(|import| !allowed.contains(&import.as_str())).collect();
        assert!(wrong.is_empty(), "{room} must not import {wrong:?}");
    }
}

#[test]
fn heavy_and_edge_crates_stay_where_they_belong() {
    let imports = imports();
    for (foreign, allowed) in EDGES {
        let users = imports.iter().filter(|(_, imports)| imports.contains(foreign)).map(|(room, _)| room);
        let wrong: Vec<&String> = users.filter(|room| !allowed.contains(&room.as_str())).collect();
        assert!(wrong.is_empty(), "{wrong:?} must not see {foreign}");
    }
    assert!(!imports["keep"].contains("tokio") && !imports["sys"].contains("tokio"));
}
