//! `sealane workload drain`, `undrain` and `set`: the share of new calls that a workload of this host gets.

use std::time::Duration;

use sealane_proto::types::Weight;
use sealane_proto::wire::v1;
use sealane_proto::wire::v1::agent_client::AgentClient;
use tonic::Code;

use super::known;
use crate::args::{ChangedWorkload, Common};
use crate::client::{agent, answer_within, converse};
use crate::failure::{Exit, Failure};
use crate::printer::Printer;
use crate::view::Done;

/// Time for an answer beyond what is waited for.
const ANSWER: Duration = Duration::from_secs(10);

/// `sealane workload drain|undrain`.
pub(super) fn drain(
    changed: &ChangedWorkload,
    drained: bool,
    common: &Common,
    printer: &Printer,
) -> Result<(), Failure> {
    let change = v1::WeighRequest { drained: Some(drained), ..v1::WeighRequest::default() };
    weigh(changed, change, if drained { "drained" } else { "undrained" }, common, printer)
}

/// `sealane workload set`.
pub(super) fn set(
    changed: &ChangedWorkload,
    weight: Weight,
    common: &Common,
    printer: &Printer,
) -> Result<(), Failure> {
    let change = v1::WeighRequest { weight: Some(weight.get().into()), ..v1::WeighRequest::default() };
    weigh(changed, change, "configured", common, printer)
}

fn weigh(
    changed: &ChangedWorkload,
    change: v1::WeighRequest,
    effect: &'static str,
    common: &Common,
    printer: &Printer,
) -> Result<(), Failure> {
    let named = changed.workload.reference().map_err(Failure::usage)?;
    let timeout = if changed.wait { changed.timeout } else { Duration::ZERO };
    let request = v1::WeighRequest {
        workload: named.to_string(),
        wait_milliseconds: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        ..change
    };
    let asked = converse(async {
        let mut client = AgentClient::new(agent(common).await?);
        let mut missing = false;
        let weighed = async {
            let weighed = client.weigh(request).await;
            missing = weighed.as_ref().is_err_and(|status| status.code() == Code::NotFound);
            weighed
        };
        let weighed = answer_within(timeout.saturating_add(ANSWER), weighed).await;
        Ok((weighed, missing))
    });
    let weighed = match asked {
        Ok((Ok(weighed), _)) => weighed,
        Ok((Err(failure), false)) => return Err(failure),
        Ok((Err(failure), true)) => return Err(elsewhere(failure, &named, common)),
        Err(failure) if failure.exit == Exit::Unreachable => return Err(elsewhere(failure, &named, common)),
        Err(failure) => return Err(failure),
    };
    for one in &weighed.weighed {
        let done = Done::of("Workload", &one.workload, effect).in_network(one.network.clone());
        printer.done(&done, &text(one))?;
    }
    if weighed.waits.is_empty() {
        return Ok(());
    }
    let timeout = humantime::format_duration(timeout);
    Err(Failure::new(format!("{effect}, but after {timeout} not every host works by it: {}", weighed.waits)))
}

/// Says in words what share a workload has from now on.
fn text(weighed: &v1::Weighed) -> String {
    let v1::Weighed { workload, network, weight, drained } = weighed;
    match (drained, weight) {
        (true, _) => format!(
            "workload {network}/{workload} drained: new calls go elsewhere; `sealane workload undrain {workload}.{network}` ends that \
             and gives it weight {weight}"
        ),
        (false, 0) => format!(
            "workload {network}/{workload} has weight 0: new calls go elsewhere; `sealane workload set {workload}.{network} \
             --weight 1` ends that"
        ),
        (false, _) => format!("workload {network}/{workload} gets new calls by weight {weight}"),
    }
}

/// Names the host of a workload that is on another one.
fn elsewhere(failure: Failure, named: &sealane_proto::types::WorkloadRef, common: &Common) -> Failure {
    let known = known::workloads(named.network.as_ref(), common).unwrap_or_default();
    let mut known = known.into_iter().filter_map(|view| view.workload);
    let mut found = known.by_ref().filter(|workload| workload.name == named.name.as_str());
    match (found.next(), found.next()) {
        (Some(workload), None) => {
            let node = workload.node;
            Failure::new(format!("workload {named} runs on host {node}, whose agent changes it"))
                .exit(failure.exit)
                .hint(format!("type the same on host {node}"))
        }
        // There is none, or the agent has said which ones there are.
        (None, _) | (Some(_), Some(_)) => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_nothing_says_what_ends_it() {
        let said = |weight, drained| {
            text(&v1::Weighed { workload: "web".into(), network: "shop".into(), weight, drained })
        };
        assert!(
            said(3, true).contains("`sealane workload undrain web.shop` ends that and gives it weight 3")
        );
        assert!(said(0, false).contains("`sealane workload set web.shop --weight 1` ends that"));
        assert_eq!(said(3, false), "workload shop/web gets new calls by weight 3");
    }
}
