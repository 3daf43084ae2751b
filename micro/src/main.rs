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
const CORES: [Core; 10] = [
    ("HTTP/1 request head", proxy::request_head),
    ("HTTP/1 request view", proxy::request_view),
    ("protocol detection", proxy::detection),
    ("route of a service", proxy::route),
    ("balancing over 8 endpoints", proxy::balancing),
    ("tunnel frames of a request", proxy::frames),
    ("DNS answer of a service", names::service),
    ("DNS answer of nobody", names::nobody),
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
