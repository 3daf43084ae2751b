//! The tour, chapter by chapter. Each claim is checked from outside, as a user would.

mod calls;
mod control;
mod hosts;
mod next;
mod redis;
mod trouble;
mod wire;
mod workloads;

use std::io::{self, Read};
use std::os::fd::AsFd;

use sealane_sys::fdpass;

use super::flaw::Flaw;
use super::narrator::Narrator;
use super::stage::Stage;
use crate::args::Tour;
use crate::failure::Failure;

/// Name of the tour's network, and its addresses.
const NETWORK: (&str, &str) = ("shop", "10.42.0.0/16");

/// The part of `sealane demo` that runs in namespaces of its own; standard input is the way to the outer part.
pub(super) fn run(tour: &Tour) -> Result<(), Failure> {
    let mut narrator = Narrator::new();
    let failed = |flaw: Flaw| Failure::new(format!("the demo could not be set up: {flaw}"));
    let mut stage = Stage::new(tour.hosts).map_err(failed)?;
    hand_out(&stage).map_err(failed)?;
    narrator.say(&format!(
        "Sealane {}: a private network over {} hosts. The hosts are namespaces on this machine; programs, packets\n\
         and certificates are real.",
        env!("CARGO_PKG_VERSION"),
        tour.hosts
    ));
    if let Err(flaw) = chapters(&mut stage, &mut narrator) {
        narrator.say(&format!("\nThe ends of the logs:\n{}", stage.log_tails()));
        return Err(Failure::new(format!("the demo found a claim that does not hold: {flaw}")));
    }
    narrator.end();
    if !tour.once {
        next::tell(&stage, &narrator);
        // Until the outer part ends, which ends this one too.
        let _ = io::stdin().read(&mut [0]);
    }
    Ok(())
}

fn chapters(stage: &mut Stage, narrator: &mut Narrator) -> Result<(), Flaw> {
    hosts::chapter(stage, narrator)?;
    workloads::chapter(stage, narrator)?;
    calls::chapter(stage, narrator)?;
    wire::chapter(stage, narrator)?;
    redis::chapter(stage, narrator)?;
    trouble::chapter(stage, narrator)?;
    control::chapter(stage, narrator)
}

/// Gives the outer part the namespaces of each host: one message per host, its name, with descriptors.
fn hand_out(stage: &Stage) -> Result<(), Flaw> {
    let pids = std::fs::File::open("/proc/self/ns/pid").map_err(Flaw::of("own pid namespace"))?;
    for host in stage.hosts() {
        let namespaces = host.namespaces();
        let mut descriptors: Vec<_> = namespaces.iter().map(AsFd::as_fd).collect();
        descriptors.push(pids.as_fd());
        fdpass::send(io::stdin(), host.name().as_bytes(), &descriptors)
            .map_err(Flaw::of("the outer part of the demo is gone"))?;
    }
    Ok(())
}
