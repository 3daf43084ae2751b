//! A table as text that can be recognised in what nft lists. Pure.

/// A table: `body` below a comment that is its fingerprint, one statement per line as nft lists it.
pub(super) fn stamped(family: &str, name: &str, what: &str, body: &str) -> String {
    let fingerprint = crc32fast::hash(body.as_bytes());
    format!("table {family} {name} {{\n    comment \"{what} {fingerprint:08x}\"\n{body}}}\n")
}

/// The script that puts `table` in the place of the one of its family and name, in one transaction.
pub(super) fn replacing(family: &str, name: &str, table: &str) -> String {
    format!("{}{table}", removal(family, name))
}

/// The script that removes a table, whether it is there or not.
pub(super) fn removal(family: &str, name: &str) -> String {
    format!("table {family} {name} {{}}\ndelete table {family} {name}\n")
}
