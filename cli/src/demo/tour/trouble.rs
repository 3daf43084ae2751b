//! Chapter: an instance dies under load.

use super::workloads;
use crate::demo::flaw::{Flaw, ensure, eventually};
use crate::demo::narrator::Narrator;
use crate::demo::stage::{Load, Stage};

/// Calls before and after something is broken.
const CALLS: usize = 50;

pub(super) fn chapter(stage: &mut Stage, narrator: &mut Narrator) -> Result<(), Flaw> {
    let last = stage.hosts().len() - 1;
    let instance = format!("api-{}", last + 1);
    narrator.chapter("An instance dies", "web calls without a pause while one of the servers is killed.");
    let mut load = Load::start(stage)?;
    load.wait_for(CALLS)?;
    narrator.claim(&format!("{instance} is killed (kill -9) and gone from the service"), || {
        stage.kill(&instance)?;
        eventually(|| match workloads::find(stage, &instance) {
            Ok(_) => Err(Flaw::new(format!("{instance} is still there"))),
            Err(_) => Ok(String::new()),
        })
    })?;
    load.wait_for(CALLS)?;
    let report = load.stop(stage)?;
    narrator.claim("no request failed", || {
        report.flawless()?;
        Ok(format!("{} were answered", report.calls))
    })?;
    narrator.claim("a new instance takes its place and gets requests", || {
        workloads::start_api(stage, last)?;
        let host = stage.hosts()[last].name().to_owned();
        eventually(|| {
            let answers = stage.calls(30, &[])?;
            ensure(answers.contains(&host), || format!("{host} does not answer"))
        })?;
        Ok(String::new())
    })
}
