//! Hosts, services and workloads as control and this host's agent know them, in one list.
//!
//! On the control host, control tells of the mesh, and the agent adds what is seen from this host alone. An agent that does not
//! answer adds nothing; `status` tells of it.

use std::collections::BTreeMap;

use sealane_proto::types::NetworkName;
use sealane_proto::wire::v1;
use sealane_proto::wire::v1::read_client::ReadClient;
use sealane_sys::run_dir::CONTROL_SOCKET;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::args::Common;
use crate::client::{agent_beside, answer, converse, read, reader};
use crate::failure::Failure;

/// Lists the hosts.
pub(super) fn nodes(common: &Common) -> Result<Vec<v1::NodeView>, Failure> {
    let ask = async |mut client: ReadClient<Channel>| client.list_nodes(v1::ListNodesRequest {}).await;
    let (known, own) = both(common, ask)?;
    Ok(merge_nodes(known.nodes, own.unwrap_or_default().nodes))
}

/// Lists the services of a network, or of all.
pub(super) fn services(
    network: Option<&NetworkName>,
    common: &Common,
) -> Result<Vec<v1::ServiceView>, Failure> {
    let request = v1::ListServicesRequest { network: text(network) };
    let ask = async |mut client: ReadClient<Channel>| client.list_services(request.clone()).await;
    let (known, own) = both(common, ask)?;
    Ok(merge_services(known.services, own.unwrap_or_default().services))
}

/// Lists the workloads of a network, or of all.
pub(super) fn workloads(
    network: Option<&NetworkName>,
    common: &Common,
) -> Result<Vec<v1::WorkloadView>, Failure> {
    let request = v1::ListWorkloadsRequest { network: text(network) };
    let ask = async |mut client: ReadClient<Channel>| client.list_workloads(request.clone()).await;
    let (known, own) = both(common, ask)?;
    Ok(merge_workloads(known.workloads, own.unwrap_or_default().workloads))
}

fn text(network: Option<&NetworkName>) -> String {
    network.map(ToString::to_string).unwrap_or_default()
}

/// Asks whoever answers reads, and if that is control, the agent of its host as well.
fn both<T>(
    common: &Common,
    ask: impl AsyncFn(ReadClient<Channel>) -> Result<Response<T>, Status>,
) -> Result<(T, Option<T>), Failure> {
    converse(async {
        let known = answer(ask(read(common).await?)).await?;
        if !common.run_dir.socket(CONTROL_SOCKET).exists() {
            return Ok((known, None));
        }
        let Ok(Some(channel)) = agent_beside(common).await else { return Ok((known, None)) };
        Ok((known, answer(ask(reader(channel))).await.ok()))
    })
}

/// Adds to control's list the way from this host to each other one.
fn merge_nodes(known: Vec<v1::NodeView>, told: Vec<v1::NodeView>) -> Vec<v1::NodeView> {
    let name = |view: &v1::NodeView| view.node.as_ref().map(|node| node.name.clone()).unwrap_or_default();
    let mut told: BTreeMap<String, v1::NodeView> = told.into_iter().map(|view| (name(&view), view)).collect();
    let merged = known.into_iter().map(|view| match told.remove(&name(&view)) {
        Some(own) => v1::NodeView {
            unreached: own.unreached,
            channel_since_unix_seconds: own.channel_since_unix_seconds,
            channel_problem: own.channel_problem,
            reach: own.reach,
            rtt_micros: own.rtt_micros,
            loss_permille: own.loss_permille,
            path_mtu: own.path_mtu,
            ..view
        },
        None => view,
    });
    merged.collect()
}

/// Adds to control's list the instances that this host leaves out.
fn merge_services(known: Vec<v1::ServiceView>, told: Vec<v1::ServiceView>) -> Vec<v1::ServiceView> {
    let place = |view: &v1::ServiceView| {
        let name = view.service.as_ref().map(|service| service.name.clone()).unwrap_or_default();
        (view.network.clone(), name)
    };
    let mut told: BTreeMap<_, v1::ServiceView> = told.into_iter().map(|view| (place(&view), view)).collect();
    let merged = known.into_iter().map(|mut view| {
        let Some(own) = told.remove(&place(&view)) else { return view };
        let (service, own_service) = (view.service.as_mut(), own.service);
        if let Some((service, own)) = service.zip(own_service.filter(|_| !own.failing.is_empty())) {
            service.external = own.external;
        }
        view.failing = own.failing;
        if own.ready < view.ready {
            (view.ready, view.unserved) = (own.ready, own.unserved);
        }
        view
    });
    merged.collect()
}

/// Adds to control's list what only a host knows: of its own workloads what keeps them, and that control refuses one; of the
/// others, which of them it cannot call.
fn merge_workloads(known: Vec<v1::WorkloadView>, told: Vec<v1::WorkloadView>) -> Vec<v1::WorkloadView> {
    let place = |view: v1::WorkloadView| {
        let of = view.workload.clone().unwrap_or_default();
        ((of.network, of.name, of.node), view)
    };
    let mut all: BTreeMap<_, _> = known.into_iter().map(place).collect();
    for (place, own) in told.into_iter().map(place) {
        let is_own = !own.begun_by.is_empty();
        match all.get_mut(&place) {
            Some(view) => {
                if let Some((workload, seen)) = view.workload.as_mut().zip(own.workload.filter(|_| !is_own)) {
                    let ready6 = |of: &v1::Workload| of.ready6.unwrap_or(of.ready);
                    workload.ready6 = Some(ready6(workload) && ready6(&seen));
                    workload.ready &= seen.ready;
                }
                view.begun_by = own.begun_by;
                view.problem = match (own.problem, std::mem::take(&mut view.problem)) {
                    (own, known) if is_own && !own.is_empty() || known.is_empty() => own,
                    (own, known) if own.is_empty() || own == known => known,
                    // Of others' workloads both know something: whether they can be called, and that their host is drained or away.
                    (own, known) => format!("{own}; {known}"),
                };
            }
            None if is_own => drop(all.insert(place, own)),
            None => {}
        }
    }
    all.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(name: &str, node: &str, ready: bool, problem: &str, begun_by: &str) -> v1::WorkloadView {
        let (name, node, network) = (name.to_owned(), node.to_owned(), "shop".to_owned());
        let ready6 = (!begun_by.is_empty()).then_some(ready);
        v1::WorkloadView {
            workload: Some(v1::Workload { name, node, network, ready, ready6, ..Default::default() }),
            problem: problem.to_owned(),
            begun_by: begun_by.to_owned(),
        }
    }

    #[test]
    fn a_host_says_what_keeps_its_own_workloads_and_which_others_it_cannot_call() {
        let away = "its node host-3 cannot be reached from this host";
        let control = vec![
            workload("api", "host-1", false, "not ready: nothing listens", ""),
            workload("cache", "host-3", true, "", ""),
            workload("db", "host-2", true, "its node host-2 is drained", ""),
            workload("held", "host-5", true, "its node host-5 is drained", ""),
            workload("lost", "host-4", false, "its node host-4 has been disconnected for 9 s", ""),
            workload("web", "host-1", true, "its node host-1 is drained", ""),
        ];
        let agent = vec![
            workload("api", "host-1", false, "nothing listens at port 80", "run"),
            workload("away", "host-1", false, "control refuses it", "attach"),
            workload("cache", "host-3", false, away, ""),
            workload("db", "host-2", true, "", ""),
            workload("gone", "host-2", true, "", ""),
            workload("held", "host-5", false, "not ready: it is held back", ""),
            workload("lost", "host-4", false, away, ""),
            workload("web", "host-1", true, "", "run"),
        ];
        let shown = merge_workloads(control, agent).into_iter().map(|view| {
            let of = view.workload.unwrap();
            (of.name, of.ready, of.ready6.unwrap_or(of.ready), view.problem, view.begun_by)
        });
        let expected = [
            ("api", false, "nothing listens at port 80", "run"),
            ("away", false, "control refuses it", "attach"),
            ("cache", false, away, ""),
            ("db", true, "its node host-2 is drained", ""),
            ("held", false, "not ready: it is held back; its node host-5 is drained", ""),
            (
                "lost",
                false,
                "its node host-3 cannot be reached from this host; its node host-4 has been disconnected for 9 s",
                "",
            ),
            ("web", true, "its node host-1 is drained", "run"),
        ];
        let expected = expected.map(|(name, ready, problem, by)| {
            (name.to_owned(), ready, ready, problem.to_owned(), by.to_owned())
        });
        assert_eq!(shown.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_host_adds_the_way_to_each_other_one_and_control_knows_the_rest() {
        let node = |name: &str| Some(v1::Node { name: name.to_owned(), ..Default::default() });
        let known = ["host-1", "host-2", "host-3"].map(|name| v1::NodeView {
            node: node(name),
            connected: true,
            version: "1".to_owned(),
            ..Default::default()
        });
        let own = v1::NodeView {
            node: node("host-2"),
            path_mtu: 1_400,
            reach: "unreachable".to_owned(),
            rtt_micros: 70,
            loss_permille: Some(1_000),
            channel_problem: "nobody answers".to_owned(),
            ..Default::default()
        };
        let merged = merge_nodes(known.to_vec(), vec![own.clone()]);
        assert_eq!((&merged[0], &merged[2]), (&known[0], &known[2]));
        let expected = v1::NodeView { connected: true, version: "1".to_owned(), ..own };
        assert_eq!(merged[1], expected);
    }

    #[test]
    fn instances_that_a_host_leaves_out_are_not_ready_there() {
        let service = |external: &[&str]| {
            let external = external.iter().map(|&at| at.to_owned()).collect();
            Some(v1::Service { name: "api".to_owned(), external, ..Default::default() })
        };
        let view = |ready, external: &[&str], failing: &[&str]| v1::ServiceView {
            network: "shop".to_owned(),
            service: service(external),
            ready,
            instances: 3,
            failing: failing.iter().map(|&at| at.to_owned()).collect(),
            ..Default::default()
        };
        let (all, left) = (["192.0.2.50", "192.0.2.51"], ["192.0.2.50"]);
        let seen = view(1, &left, &["192.0.2.51"]);
        assert_eq!(merge_services(vec![view(3, &all, &[])], vec![seen.clone()]), [seen]);
        let known = view(2, &all, &[]);
        assert_eq!(
            merge_services(vec![known.clone()], vec![view(3, &all, &[])]),
            std::slice::from_ref(&known)
        );
        assert_eq!(merge_services(vec![known.clone()], vec![]), [known]);
    }
}
