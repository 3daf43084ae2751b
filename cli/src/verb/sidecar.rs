//! `sealane sidecar`.

use sealane_proto::wire::v1;
use sealane_proto::wire::v1::agent_client::AgentClient;

use crate::args::{Common, Sidecar, SidecarAction};
use crate::client::{agent, converse, refusal};
use crate::failure::{Failure, require_root};
use crate::printer::{Format, Printer};
use crate::view::Done;

/// `sealane sidecar restart`.
pub(crate) fn call(sidecar: &Sidecar, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let SidecarAction::Restart(which) = &sidecar.action;
    require_root("sidecar restart")?;
    let workload = which.workload.as_ref().map(ToString::to_string).unwrap_or_default();
    let (restarted, failed) = converse(async {
        let mut client = AgentClient::new(agent(common).await?);
        let request = v1::RestartSidecarsRequest { workload };
        let mut told =
            client.restart_sidecars(request).await.map_err(|status| refusal(&status))?.into_inner();
        let (mut restarted, mut failed) = (Vec::new(), 0_usize);
        while let Some(one) = told.message().await.map_err(|status| refusal(&status))? {
            let v1::SidecarRestarted { workload, network, problem } = one;
            let effect = if problem.is_empty() {
                printer.talk(&format!("sidecar of workload {network}/{workload} replaced"));
                "replaced"
            } else {
                failed += 1;
                printer
                    .talk(&format!("sidecar of workload {network}/{workload} goes on as it was: {problem}"));
                "unchanged"
            };
            restarted.push(Done::of("Sidecar", &workload, effect).in_network(network));
        }
        Ok::<_, Failure>((restarted, failed))
    })?;
    if common.output != Format::Table {
        printer.result(&restarted, "")?;
    }
    match failed {
        0 => Ok(()),
        1 => Err(Failure::new("one sidecar was not replaced")),
        failed => Err(Failure::new(format!("{failed} sidecars were not replaced"))),
    }
}
