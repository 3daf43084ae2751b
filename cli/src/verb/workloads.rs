//! Workloads as control and this host's agent know them, in one list.

use std::collections::BTreeMap;

use sealane_proto::types::NetworkName;
use sealane_proto::wire::v1;
use sealane_sys::run_dir::CONTROL_SOCKET;

use crate::args::Common;
use crate::client::{agent_beside, answer, converse, read, reader};
use crate::failure::Failure;

/// Lists the workloads of a network, or of all.
pub(super) fn list(network: Option<&NetworkName>, common: &Common) -> Result<Vec<v1::WorkloadView>, Failure> {
    let network = network.map(ToString::to_string).unwrap_or_default();
    let request = v1::ListWorkloadsRequest { network };
    converse(async {
        let known = answer(read(common).await?.list_workloads(request.clone())).await?.workloads;
        if !common.run_dir.socket(CONTROL_SOCKET).exists() {
            return Ok(known);
        }
        // `status` tells of an agent that does not answer.
        let Ok(Some(channel)) = agent_beside(common).await else { return Ok(known) };
        Ok(match answer(reader(channel).list_workloads(request)).await {
            Ok(own) => merged(known, own.workloads),
            Err(_) => known,
        })
    })
}

/// Adds to control's list what only the host of a workload knows: what keeps it, and that control refuses it.
fn merged(known: Vec<v1::WorkloadView>, told: Vec<v1::WorkloadView>) -> Vec<v1::WorkloadView> {
    let place = |view: v1::WorkloadView| {
        let of = view.workload.clone().unwrap_or_default();
        ((of.network, of.name, of.node), view)
    };
    let mut all: BTreeMap<_, _> = known.into_iter().map(place).collect();
    for (place, own) in told.into_iter().filter(|view| !view.begun_by.is_empty()).map(place) {
        match all.get_mut(&place) {
            Some(view) => {
                view.begun_by = own.begun_by;
                if !own.problem.is_empty() {
                    view.problem = own.problem;
                }
            }
            None => drop(all.insert(place, own)),
        }
    }
    all.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(name: &str, node: &str, problem: &str, begun_by: &str) -> v1::WorkloadView {
        let (name, node, network) = (name.to_owned(), node.to_owned(), "shop".to_owned());
        v1::WorkloadView {
            workload: Some(v1::Workload { name, node, network, ..Default::default() }),
            problem: problem.to_owned(),
            begun_by: begun_by.to_owned(),
        }
    }

    #[test]
    fn a_host_says_what_keeps_its_own_workloads_and_control_the_rest() {
        let control = vec![
            view("api", "host-1", "not ready: nothing listens", ""),
            view("db", "host-2", "its node host-2 is drained", ""),
            view("web", "host-1", "its node host-1 is drained", ""),
        ];
        let agent = vec![
            view("api", "host-1", "nothing listens at port 80", "run"),
            view("away", "host-1", "control refuses it", "attach"),
            view("db", "host-2", "", ""),
            view("web", "host-1", "", "run"),
        ];
        let expected = [
            view("api", "host-1", "nothing listens at port 80", "run"),
            view("away", "host-1", "control refuses it", "attach"),
            view("db", "host-2", "its node host-2 is drained", ""),
            view("web", "host-1", "its node host-1 is drained", "run"),
        ];
        assert_eq!(merged(control, agent), expected);
    }
}
