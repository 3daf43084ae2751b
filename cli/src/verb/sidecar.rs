//! `sealane sidecar`.

use sealane_proto::wire::v1;
use sealane_proto::wire::v1::agent_client::AgentClient;

use crate::args::{Common, Sidecar, SidecarAction};
use crate::client::{agent, converse, refusal};
use crate::failure::{Failure, require_root};
use crate::printer::Printer;

/// `sealane sidecar restart`.
pub(crate) fn call(sidecar: &Sidecar, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let SidecarAction::Restart(which) = &sidecar.action;
    require_root("sidecar restart")?;
    let workload = which.workload.as_ref().map(ToString::to_string).unwrap_or_default();
    let failed = converse(async {
        let mut client = AgentClient::new(agent(common).await?);
        let request = v1::RestartSidecarsRequest { workload };
        let mut told =
            client.restart_sidecars(request).await.map_err(|status| refusal(&status))?.into_inner();
        let mut failed = 0_usize;
        while let Some(one) = told.message().await.map_err(|status| refusal(&status))? {
            let v1::SidecarRestarted { workload, network, problem } = one;
            if problem.is_empty() {
                printer.talk(&format!("sidecar of workload {network}/{workload} replaced"));
            } else {
                failed += 1;
                printer
                    .talk(&format!("sidecar of workload {network}/{workload} goes on as it was: {problem}"));
            }
        }
        Ok::<_, Failure>(failed)
    })?;
    match failed {
        0 => Ok(()),
        1 => Err(Failure::new("one sidecar was not replaced")),
        failed => Err(Failure::new(format!("{failed} sidecars were not replaced"))),
    }
}
