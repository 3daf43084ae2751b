//! Chapter: the data path does not need control.

use std::time::Duration;

use super::calls::series;
use super::hosts::{connected, start_control};
use crate::demo::flaw::{Flaw, ensure, eventually};
use crate::demo::narrator::Narrator;
use crate::demo::stage::{Load, Stage};

/// Time for which the mesh goes without control.
const WITHOUT: Duration = Duration::from_secs(2);

pub(super) fn chapter(stage: &mut Stage, narrator: &mut Narrator) -> Result<(), Flaw> {
    narrator.chapter(
        "Control dies",
        "web calls without a pause while the control plane is killed and comes back.",
    );
    let mut load = Load::start(stage)?;
    load.wait_for(1)?;
    narrator.claim("control is killed (kill -9); calls go on without it", || {
        stage.kill("control")?;
        load.wait(WITHOUT)?;
        Ok(String::new())
    })?;
    narrator.claim("names are answered without it", || {
        stage.web(&["getent", "hosts", "api"]).map(drop).map(|()| String::new())
    })?;
    narrator.claim("control comes back, and every host to it", || {
        start_control(stage)?;
        eventually(|| {
            let back = connected(stage)?;
            ensure(back.len() == stage.hosts().len(), || format!("connected are {}", back.join(", ")))
        })?;
        Ok(String::new())
    })?;
    let report = load.stop(stage)?;
    narrator.claim("no request failed meanwhile", || {
        report.flawless()?;
        Ok(format!("{} were answered", report.calls))
    })?;
    narrator.claim("Prometheus can read it all on port 9464 of every host", || {
        let mut lines = 0;
        for host in stage.hosts() {
            let metrics = stage.metrics(host)?;
            series(&metrics, "sealane_build_info", &[])?;
            lines += metrics.lines().filter(|line| line.starts_with("sealane_")).count();
        }
        Ok(format!("{lines} series"))
    })
}
