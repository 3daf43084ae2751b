//! The application of the end-to-end tests: small servers and exact loads, run as workloads.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it reports to the test by its standard streams"
)]

mod connect;
mod dns;
mod http;
mod load;
mod requests;
mod tally;
mod udp;

use std::process::ExitCode;

const USAGE: &str = "usage:
  testapp http PORT NAME [--delay-ms N] [--finish]
                                           answers every request with NAME; /bytes/N with N bytes; POST with its body;
                                           --finish: at SIGTERM it answers what is open before it ends
  testapp udp PORT NAME                    answers every datagram with NAME
  testapp load URL [--requests N] [--concurrency C] [--fresh] [--post] [--header NAME:VALUE]
                                           requests, until standard input ends when no number is given
  testapp dns NAME                         asks the first nameserver until standard input ends
  testapp connect ADDRESS:PORT             says what becomes of a connection and a request on it
  testapp nameserver ADDRESS               answers every A query with 198.51.100.7";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["http", port, name, flags @ ..] => http::serve(port, name, flags),
        ["udp", port, name] => udp::serve(port, name),
        ["load", url, flags @ ..] => load::load(url, flags),
        ["dns", name] => dns::load(name),
        ["connect", address] => connect::connect(address),
        ["nameserver", address] => dns::serve(address),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Error of a program of a few hundred lines.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The value behind a flag.
fn value<'a>(flags: &[&'a str], flag: &str) -> Option<&'a str> {
    flags.iter().position(|word| *word == flag).and_then(|at| flags.get(at + 1)).copied()
}
