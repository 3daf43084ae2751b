//! Hot pure cores without sockets, for callgrind: `sealane-micro NAME COUNT` does the work of that name so many times. Without
//! arguments it prints the names.
//!
//! `bench/instructions` runs each with two counts: instructions of one time are the difference, without those of the start.

mod mesh;
mod names;
mod proxy;

use std::io::Write as _;
use std::process::ExitCode;

/// Piece of work that is measured, after it was prepared.
type Work = Box<dyn FnMut()>;

/// A name, and the preparation of its work.
type Core = (&'static str, fn() -> Work);

/// All pieces of work.
const CORES: [Core; 29] = [
    ("HTTP/1 request head", proxy::request_head),
    ("HTTP/1 request view", proxy::request_view),
    ("protocol detection", proxy::detection),
    ("route of a service", proxy::route),
    ("routes, 1 of 1000 changed", || proxy::changed_routes(1_000)),
    ("routes, 1 of 10000 changed", || proxy::changed_routes(10_000)),
    ("routes, 1 of 100000 changed", || proxy::changed_routes(100_000)),
    ("rule of a request, 1 of 10", || proxy::rule(10)),
    ("rule of a request, 1 of 1000", || proxy::rule(1_000)),
    ("no rule of a request, of 1000", || proxy::no_rule(1_000)),
    ("balancing over 8 endpoints", proxy::balancing),
    ("balancer of 1000, turned", || proxy::other_endpoints(1_000)),
    ("balancer of 10000, turned", || proxy::other_endpoints(10_000)),
    ("tunnel frames of a request", proxy::frames),
    ("DNS answer of a service", names::service),
    ("DNS answer of nobody", names::nobody),
    ("names, 1 of 1000 changed", || names::changed(1_000)),
    ("names, 1 of 10000 changed", || names::changed(10_000)),
    ("names, 1 of 100000 changed", || names::changed(100_000)),
    ("tables, 1 of 1000 changed", || mesh::changed_tables(1_000)),
    ("tables, 1 of 10000 changed", || mesh::changed_tables(10_000)),
    ("tables, 1 of 100000 changed", || mesh::changed_tables(100_000)),
    ("rows, 1 of 1000 changed", || mesh::changed_rows(1_000)),
    ("rows, 1 of 10000 changed", || mesh::changed_rows(10_000)),
    ("rows, 1 of 100000 changed", || mesh::changed_rows(100_000)),
    ("kernel's rows of 1000", || mesh::rows(1_000)),
    ("kernel's rows of 10000", || mesh::rows(10_000)),
    ("report of 100 workloads", mesh::report),
    ("snapshot of 1000 workloads", mesh::snapshot),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(name) = arguments.first() else {
        let names = CORES.map(|(name, _)| name).join("\n");
        return match writeln!(std::io::stdout(), "{names}") {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    };
    let core = CORES.iter().find(|(known, _)| known == name);
    let count = arguments.get(1).and_then(|count| count.parse::<u64>().ok());
    let (Some((_, prepare)), Some(count)) = (core, count) else { return ExitCode::FAILURE };
    let mut work = prepare();
    (0..count).for_each(|_| work());
    ExitCode::SUCCESS
}
