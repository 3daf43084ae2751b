//! `make sim`: many seeds, or one again.
#![allow(clippy::print_stdout, reason = "it is a program that people run")]

use std::env;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use sealane_sim::{Failure, run_large_scene, run_largest_scene, run_scene, run_seed};

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// Every so many seeds one has a scene of many hosts, too.
const LARGE: u64 = 100;
/// And every so many one of the most.
const LARGEST: u64 = 1_000;

/// Lives through all of a seed.
fn live(seed: u64) -> Result<Duration, Box<Failure>> {
    run_seed(seed)?;
    let mut time = run_scene(seed)?.time;
    if seed.is_multiple_of(LARGE) {
        time += run_large_scene(seed)?.time;
    }
    if seed.is_multiple_of(LARGEST) {
        time += run_largest_scene(seed)?.time;
    }
    Ok(time)
}

fn main() -> ExitCode {
    let first = number("SEED");
    let count = if first.is_some() { 1 } else { number("SEEDS").unwrap_or(1_000) };
    let (first, began) = (first.unwrap_or(0), Instant::now());
    let mut time = Duration::ZERO;
    for seed in first..first.saturating_add(count) {
        match live(seed) {
            Ok(lived) => time += lived,
            Err(failure) => {
                println!("{failure}");
                return ExitCode::FAILURE;
            }
        }
    }
    let (took, hours) = (began.elapsed(), time.as_secs() / 3_600);
    println!("{count} seeds from {first} on, {took:.0?} for {hours} hours of meshes: every invariant held");
    ExitCode::SUCCESS
}
