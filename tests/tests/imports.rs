//! Rules of imports, as ARCHITECTURE.md has them, and names in documents that must exist.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{Dependency, DependencyKind, Metadata, MetadataCommand, Package};

/// Our crates and what of ours they may import.
const RULES: [(&str, &[&str]); 15] = [
    ("base", &[]),
    ("sys", &[]),
    ("keep", &["sys"]),
    ("proto", &["base", "sys"]),
    ("control", &["base", "proto", "sys"]),
    ("fabric", &["base", "proto", "sys"]),
    ("agent", &["base", "proto", "sys", "keep", "fabric"]),
    ("proxy", &["base", "proto", "sys"]),
    ("lab", &["sys"]),
    ("cli", &["base", "sys", "keep", "proto", "control", "fabric", "agent", "proxy", "lab"]),
    ("tests", &["lab", "sys"]),
    ("fuzz", &["proto", "keep", "fabric", "agent", "proxy", "cli"]),
    ("micro", &["proto", "control", "fabric", "agent", "proxy"]),
    ("sim", &["proto", "control", "agent"]),
    ("scale", &["base", "proto"]),
];

/// Foreign crates that only these of ours may see.
const EDGES: [(&str, &[&str]); 13] = [
    ("axum", &["base"]),
    ("etherparse", &["fabric"]),
    ("hickory-resolver", &["agent"]),
    ("clap", &["cli"]),
    ("comfy-table", &["cli"]),
    ("anyhow", &[]),
    ("tonic", &["proto", "control", "agent", "cli", "scale"]),
    ("prost", &["proto", "control", "agent", "micro", "scale"]),
    ("netlink-packet-route", &["fabric"]),
    ("redb", &["control"]),
    ("rcgen", &["control", "agent", "proto", "scale"]),
    ("h2", &["proxy"]),
    ("httparse", &["proxy"]),
];

/// Words that a doc comment should not open with: it says what an item is or does, with a noun or a verb in front.
const OPENINGS: [&str; 18] = [
    "What", "How", "Whether", "Its", "Where", "Who", "Whose", "Whom", "Why", "When", "Which", "It", "They",
    "One", "Those", "These", "This", "That",
];
/// The doc comments in a hundred that may open so all the same.
const OPENINGS_IN_A_HUNDRED: usize = 5;

/// Dependencies that generated code alone uses.
const GENERATED: [&str; 1] = ["tonic_prost"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn metadata() -> Metadata {
    let manifest = root().join("Cargo.toml");
    let metadata =
        MetadataCommand::new().manifest_path(manifest).no_deps().other_options(["--offline".into()]).exec();
    metadata.expect("cargo metadata")
}

/// The files below a folder with this extension.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let below = entries.filter(|path| !path.ends_with("target")).flat_map(|path| match path.is_dir() {
        true => files(&path, extension),
        false => vec![path],
    });
    below.filter(|path| path.extension().is_some_and(|end| end == extension)).collect()
}

/// Returns the imports of each of our crates, without those that only its tests need.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata();
    let short = |name: &str| name.strip_prefix("sealane-").unwrap_or(name).to_owned();
    let room = |name: &str| if name == "sealane" { "cli".to_owned() } else { short(name) };
    let normal = |package: &cargo_metadata::Package| {
        let normal = package.dependencies.iter().filter(|import| import.kind == DependencyKind::Normal);
        normal.map(|import| room(&import.name)).collect::<BTreeSet<_>>()
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

/// The name by which code calls a dependency.
fn called(import: &Dependency, packages: &[Package]) -> String {
    let package = packages.iter().find(|package| package.name.as_str() == import.name);
    let library = package.and_then(|package| package.targets.iter().find(|target| target.is_lib()));
    let name = import.rename.as_ref().or(library.map(|library| &library.name)).unwrap_or(&import.name);
    name.replace('-', "_")
}

#[test]
fn every_dependency_is_used() {
    let packages = metadata().packages;
    for package in &packages {
        let folder = package.manifest_path.parent().unwrap().as_std_path();
        let text: String = files(folder, "rs").iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        let shipped = package.dependencies.iter().filter(|import| import.kind != DependencyKind::Development);
        let names = shipped.map(|import| called(import, &packages));
        let unused: Vec<String> = names
            .filter(|name| !GENERATED.contains(&name.as_str()) && !text.contains(&format!("{name}::")))
            .collect();
        assert!(
            unused.is_empty(),
            "{} does not use {unused:?}: remove them from its Cargo.toml",
            package.name
        );
    }
}

/// A name as it stands at the beginning of a text.
fn first_name(text: &str) -> &str {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// The rooms that shipped code of a file imports from its own crate.
fn rooms_of(path: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(path).unwrap();
    let shipped = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = shipped.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: Vec<&str> = lines.collect();
    let code = code.join(" ");
    let imports = code.split("crate::").skip(1);
    let each = imports.flat_map(|import| match import.strip_prefix('{') {
        Some(list) => list.split('}').next().unwrap_or_default().split(',').map(str::trim).collect(),
        None => vec![import],
    });
    each.map(|name| first_name(name).to_owned()).collect()
}

/// The rooms that each room of a crate imports, without tests.
fn room_imports(source: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in files(source, "rs") {
        let inside = path.strip_prefix(source).unwrap().with_extension("");
        let names: Vec<&str> = inside.iter().filter_map(|name| name.to_str()).collect();
        if !names.iter().any(|name| name.ends_with("tests") || *name == "testing") {
            imports.entry(names[0].to_owned()).or_default().extend(rooms_of(&path));
        }
    }
    imports
}

/// Returns true if a room imports itself by way of others.
fn is_in_a_circle(room: &str, imports: &BTreeMap<String, BTreeSet<String>>) -> bool {
    let (mut reached, mut open) = (BTreeSet::new(), vec![room]);
    while let Some(from) = open.pop() {
        for next in imports.get(from).into_iter().flatten().filter(|next| *next != from) {
            if next == room {
                return true;
            }
            if reached.insert(next.as_str()) {
                open.push(next);
            }
        }
    }
    false
}

#[test]
fn no_room_imports_itself_by_way_of_others() {
    for (room, _) in RULES {
        let imports = room_imports(&root().join(room).join("src"));
        let circled: Vec<&String> = imports.keys().filter(|name| is_in_a_circle(name, &imports)).collect();
        assert!(circled.is_empty(), "{room}: {circled:?} import each other; move what they share");
    }
}

/// The place in the tree that a document means by `agent/dns/answer` or `cli/src/args.rs`.
fn is_there(place: &str) -> bool {
    let (room, rest) = place.split_once('/').unwrap_or((place, ""));
    let source = root().join(room).join("src").join(rest);
    root().join(place).exists() || source.exists() || source.with_extension("rs").exists()
}

/// The places that backticks enclose, each of `agent/nft/{guard,gate}` by itself.
fn places(text: &str) -> Vec<String> {
    let rooms: Vec<&str> = RULES.iter().map(|(room, _)| *room).collect();
    let words = text.split('`').skip(1).step_by(2).filter(|word| {
        let (room, rest) = word.split_once('/').unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || "/_-.{,}".contains(c);
        rooms.contains(&room) && !rest.is_empty() && rest.chars().all(plain)
    });
    let each = words.flat_map(|word| match word.split_once('{') {
        Some((before, names)) => {
            let (names, after) = names.split_once('}').unwrap_or((names, ""));
            names.split(',').map(|name| format!("{before}{name}{after}")).collect()
        }
        None => vec![word.to_owned()],
    });
    each.collect()
}

/// The anchors of a document's headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let headings = headings.map(|line| line.trim_start_matches('#').trim().to_lowercase());
    let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
    headings.map(|heading| heading.chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

/// Returns true if a link of a document leads to something.
fn leads_somewhere(document: &Path, link: &str) -> bool {
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    if file.contains("://") {
        return true;
    }
    let target = if file.is_empty() { document.to_owned() } else { document.with_file_name(file) };
    let has_anchor = || anchors(&fs::read_to_string(&target).unwrap()).contains(anchor);
    target.exists() && (anchor.is_empty() || has_anchor())
}

#[test]
fn the_documents_name_places_that_are_there() {
    let mut documents = files(&root().join("docs"), "md");
    let others = ["ARCHITECTURE", "CONTRIBUTING", "README", "README.zh-CN", "RELEASING", "SECURITY"];
    documents.extend(others.map(|name| root().join(format!("{name}.md"))));
    let mut named = 0;
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        let places = places(&text);
        named += places.len();
        let missing: Vec<&String> = places.iter().filter(|place| !is_there(place)).collect();
        assert!(missing.is_empty(), "{} names what is not there: {missing:?}", document.display());
        let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
        let dead: Vec<&str> = links.filter(|link| !leads_somewhere(&document, link)).collect();
        assert!(dead.is_empty(), "{} links to what is not there: {dead:?}", document.display());
    }
    assert!(named > 100, "only {named} places are named");
}

/// The types of a line of the glossary, with the files that it names for them: `Zone` (agent/dns/zone).
fn defined(line: &str) -> Vec<(&str, Vec<PathBuf>)> {
    let column = line.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
    let groups = column.split_inclusive(')').filter_map(|group| group.trim_end_matches(')').split_once('('));
    let each = groups.flat_map(|(types, places)| {
        let room =
            places.split(',').next().and_then(|first| first.rsplit_once('/')).map_or("", |(room, _)| room);
        let files = places.split(',').map(str::trim).map(|place| {
            let place = if place.contains('/') { place.to_owned() } else { format!("{room}/{place}") };
            let (krate, rest) = place.split_once('/').unwrap();
            root().join(krate).join("src").join(rest).with_extension("rs")
        });
        let files: Vec<PathBuf> = files.collect();
        let names = types.split('`').skip(1).step_by(2).map(first_name).filter(|name| !name.is_empty());
        names.map(move |name| (name, files.clone()))
    });
    each.collect()
}

#[test]
fn the_glossary_names_types_that_are_there() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let glossary = text.split("## Glossary").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let lines = glossary.lines().filter(|line| line.starts_with('|'));
    let types: Vec<(&str, Vec<PathBuf>)> = lines.flat_map(defined).collect();
    assert!(types.len() > 60, "only {} types are named", types.len());
    for (name, files) in types {
        let has_it = |file: &PathBuf| {
            let text = fs::read_to_string(file).unwrap_or_default();
            text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == name)
        };
        assert!(files.iter().any(has_it), "the glossary has {name} in {files:?}, and it is not there");
    }
}

#[test]
fn doc_comments_open_with_the_thing_that_they_are_about() {
    let (mut all, mut open) = (0, 0);
    for path in RULES.iter().flat_map(|(room, _)| files(&root().join(room), "rs")) {
        let text = fs::read_to_string(path).unwrap();
        let mut inside = false;
        for line in text.lines().map(str::trim_start) {
            let comment = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
            if let Some(comment) = comment.filter(|_| !inside) {
                all += 1;
                open += usize::from(OPENINGS.contains(&first_name(comment.trim_start())));
            }
            inside = comment.is_some();
        }
    }
    assert!(
        open * 100 <= all * OPENINGS_IN_A_HUNDRED,
        "{open} of {all} doc comments open with one of {OPENINGS:?}: say what the item is or does (CONTRIBUTING.md)"
    );
}
