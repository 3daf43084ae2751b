//! `make sim`: many seeds, or one again.
#![allow(clippy::print_stdout, reason = "it is a program that people run")]

use std::env;
use std::process::ExitCode;
use std::time::Instant;

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

fn main() -> ExitCode {
    let first = number("SEED");
    let count = if first.is_some() { 1 } else { number("SEEDS").unwrap_or(1_000) };
    let (first, began) = (first.unwrap_or(0), Instant::now());
    for seed in first..first.saturating_add(count) {
        if let Err(failure) = sealane_sim::run_seed(seed) {
            println!("{failure}");
            return ExitCode::FAILURE;
        }
    }
    println!("{count} seeds from {first} on, {:.0?}: every invariant held", began.elapsed());
    ExitCode::SUCCESS
}
