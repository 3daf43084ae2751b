//! A table as text that can be recognised in what nft lists. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// A table: `body` below a comment that is its fingerprint, one statement per line as nft lists it.
pub(super) fn stamped(family: &str, name: &str, what: &str, body: &str) -> String {
    let fingerprint = crc32fast::hash(body.as_bytes());
    format!("table {family} {name} {{\n    comment \"{what} {fingerprint:08x}\"\n{body}}}\n")
}

/// The script that puts `table` in the place of the one of its family and name, in one transaction.
pub(super) fn replacing(family: &str, name: &str, table: &str) -> String {
    format!("{}{table}", removal(family, name))
}

/// The script that puts `table` where one of its family and name is or, as the caller knows, is not: nothing is removed
/// then, and so nothing waited for.
pub(super) fn putting(family: &str, name: &str, table: &str, is_there: bool) -> String {
    if is_there { replacing(family, name, table) } else { table.to_owned() }
}

/// The script that removes a table, whether it is there or not.
pub(super) fn removal(family: &str, name: &str) -> String {
    format!("table {family} {name} {{}}\ndelete table {family} {name}\n")
}

/// Rows of sets by the sets' names.
pub(super) type Rows = BTreeMap<String, BTreeSet<String>>;

/// Splits a listing of nft into the text without the rows of its sets, and those.
pub(super) fn without_rows(listed: &str) -> Option<(String, Rows)> {
    let (mut bare, mut rest, mut sets) = (String::new(), listed, Rows::new());
    while let Some((before, after)) = rest.split_once("elements = {") {
        let set = before.rsplit("set ").next()?.split_whitespace().next()?;
        let (rows, after) = after.split_once('}')?;
        let rows = rows.split(',').map(str::trim).filter(|row| !row.is_empty());
        sets.insert(set.to_owned(), rows.map(str::to_owned).collect());
        bare.push_str(before);
        rest = after;
    }
    bare.push_str(rest);
    Some((bare, sets))
}

/// The statements that make the rows of a set `from` those `to`.
pub(super) fn changing_rows(
    [family, table, set]: [&str; 3],
    from: &BTreeSet<String>,
    to: &BTreeSet<String>,
) -> String {
    let change = |verb: &str, rows: Vec<&String>| {
        let rows: Vec<&str> = rows.into_iter().map(String::as_str).collect();
        let rows = (!rows.is_empty()).then(|| rows.join(", "));
        rows.map_or(String::new(), |rows| format!("{verb} element {family} {table} {set} {{ {rows} }}\n"))
    };
    change("delete", from.difference(to).collect()) + &change("add", to.difference(from).collect())
}
