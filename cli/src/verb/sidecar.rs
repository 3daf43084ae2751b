//! `sealane sidecar`.

use sealane_proto::wire::v1;
use sealane_proto::wire::v1::agent_client::AgentClient;
use tonic::Status;

use crate::args::{Common, Sidecar, SidecarAction};
use crate::client::{agent, converse, refusal};
use crate::failure::{Exit, Failure, require_root};
use crate::printer::{Format, Printer};
use crate::view::Done;

/// `sealane sidecar restart`.
pub(crate) fn call(sidecar: &Sidecar, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let SidecarAction::Restart(which) = &sidecar.action;
    require_root("sidecar restart")?;
    let named = which.workload.as_ref().map(ToString::to_string);
    let (restarted, failed) = converse(async {
        let mut client = AgentClient::new(agent(common).await?);
        let (mut restarted, mut failed) = (Vec::new(), 0_usize);
        let request = v1::RestartSidecarsRequest { workload: named.clone().unwrap_or_default() };
        let broken = |done: usize| {
            let named = named.as_deref();
            move |status: Status| match refusal(&status) {
                lost if lost.exit == Exit::Unreachable => ended(lost, done, named),
                refused => refused,
            }
        };
        let mut told = client.restart_sidecars(request).await.map_err(broken(0))?.into_inner();
        while let Some(one) = told.message().await.map_err(broken(restarted.len()))? {
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
    if restarted.is_empty() {
        printer.talk("there are no sidecars on this host");
    }
    if common.output != Format::Table {
        printer.result(&restarted, "")?;
    }
    match failed {
        0 => Ok(()),
        1 => Err(Failure::new("one sidecar was not replaced")),
        failed => Err(Failure::new(format!("{failed} sidecars were not replaced"))),
    }
}

/// The agent went away amid its work, which `done` sidecars had behind them.
fn ended(lost: Failure, done: usize, workload: Option<&str>) -> Failure {
    let so_far = match done {
        0 => "before a sidecar was replaced".to_owned(),
        1 => "after one sidecar".to_owned(),
        several => format!("after {several} sidecars"),
    };
    let message = format!("the agent of this host went away {so_far}; no sidecar has ended by that");
    let again = workload.unwrap_or("--all");
    let hint = format!("when `sealane status` answers again, repeat `sealane sidecar restart {again}`");
    Failure { message, hint: Some(hint), ..lost }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_goes_away_is_named_with_the_command_to_repeat() {
        let lost = || Failure::new("the connection was lost").exit(Exit::Unreachable).hint("see --socket");
        let all = ended(lost(), 2, None);
        assert_eq!(all.exit, Exit::Unreachable);
        assert!(
            all.message.starts_with("the agent of this host went away after 2 sidecars"),
            "{}",
            all.message
        );
        assert!(all.hint.unwrap().ends_with("repeat `sealane sidecar restart --all`"));
        let one = ended(lost(), 0, Some("web.shop")).hint.unwrap();
        assert!(one.ends_with("repeat `sealane sidecar restart web.shop`"), "{one}");
    }
}
