//! `sealane demo`: hosts as namespaces on this machine, real programs on them, and a tour that checks each claim.
//!
//! The process that the user started ([`outer`]) owns everything: its end, kill -9 included, ends what runs inside.
//! Inside, [`tour`] tells the story on a [`stage`]; outside stay the doors to it: metrics ports and shells.

mod flaw;
mod narrator;
mod outer;
mod shell;
mod stage;
mod tour;

use crate::args::{Demo, DemoAction};
use crate::failure::{Failure, require_root};

/// `sealane demo` and `sealane demo shell`; the latter ends this process with the command's status.
pub(crate) fn call(demo: Demo) -> Result<(), Failure> {
    require_root("demo")?;
    match demo.action {
        Some(DemoAction::Shell { host, command }) => Err(shell::run(&host, command)),
        None if demo.tour.inside => tour::run(&demo.tour),
        None => outer::run(&demo.tour),
    }
}
