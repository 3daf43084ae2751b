//! `sealane node`, `service` and `workload`.

use std::fmt::Display;

use sealane_proto::types::{NetworkName, NodeName, ServiceRef, WorkloadRef};
use sealane_proto::wire::v1;

use super::{known, register, weigh};
use crate::args::{Common, NamedService, Node, NodeAction, Service, ServiceAction, Workload, WorkloadAction};
use crate::client::{admin, answer, converse};
use crate::failure::{Exit, Failure};
use crate::printer::Printer;
use crate::view::{Done, NodeSheet, NodeView, ServiceSheet, ServiceView, WorkloadView};

/// `sealane node ls|inspect|drain|undrain|rm`.
pub(crate) fn nodes(node: &Node, common: &Common, printer: &Printer) -> Result<(), Failure> {
    match &node.action {
        NodeAction::Ls => {
            printer.list(&known::nodes(common)?.into_iter().map(NodeView::from).collect::<Vec<_>>())
        }
        NodeAction::Inspect { name } => inspect_node(name, common, printer),
        NodeAction::Drain { name } => drain(name, true, common, printer),
        NodeAction::Undrain { name } => drain(name, false, common, printer),
        NodeAction::Rm { name, force } => remove_node(name, *force, common, printer),
    }
}

/// `sealane service ls|inspect|endpoints|register|deregister|rm`.
pub(crate) fn services(service: &Service, common: &Common, printer: &Printer) -> Result<(), Failure> {
    match &service.action {
        ServiceAction::Ls { network } => {
            let services = known::services(network.as_ref(), common)?;
            printer.list(&services.into_iter().map(ServiceView::from).collect::<Vec<_>>())
        }
        ServiceAction::Inspect(named) => {
            let (service, instances) = find_service(named, common)?;
            printer.sheet(&ServiceSheet::new(service, instances))
        }
        ServiceAction::Endpoints(named) => {
            let (service, instances) = find_service(named, common)?;
            let none = no_instance(&service);
            printer.list_or(&instances.into_iter().map(WorkloadView::from).collect::<Vec<_>>(), &none)
        }
        ServiceAction::Register(asked) => register::register(asked, common, printer),
        ServiceAction::Deregister(named) => register::deregister(named, common, printer),
        ServiceAction::Rm(named) => remove_service(named, common, printer),
    }
}

/// `sealane workload ls|inspect|drain|undrain|set`.
pub(crate) fn workloads(workload: &Workload, common: &Common, printer: &Printer) -> Result<(), Failure> {
    match &workload.action {
        WorkloadAction::Ls { network } => {
            let workloads = known::workloads(network.as_ref(), common)?;
            printer.list(&workloads.into_iter().map(WorkloadView::from).collect::<Vec<_>>())
        }
        WorkloadAction::Inspect(named) => {
            let named = named.reference().map_err(Failure::usage)?;
            let workloads = known::workloads(named.network.as_ref(), common)?;
            let is_it = |view: &v1::WorkloadView| {
                view.workload.as_ref().is_some_and(|workload| workload.name == named.name.as_str())
            };
            let (found, others): (Vec<_>, Vec<_>) = workloads.into_iter().partition(is_it);
            let instances = others.into_iter().filter_map(|view| view.workload);
            let network = |view: &v1::WorkloadView| view.workload.clone().unwrap_or_default().network;
            let what = Named { what: "workload", name: &named.name, network: named.network.as_ref() };
            let found = only(what, "sealane workload ls", found, network);
            printer.sheet(&WorkloadView::from(
                found.map_err(|failure| name_instances(failure, instances, &named))?,
            ))
        }
        WorkloadAction::Drain(changed) => weigh::drain(changed, true, common, printer),
        WorkloadAction::Undrain(changed) => weigh::drain(changed, false, common, printer),
        WorkloadAction::Set { changed, weight } => weigh::set(changed, *weight, common, printer),
    }
}

/// Says what the instances are called when a service was named in place of a workload.
fn name_instances(
    failure: Failure,
    others: impl Iterator<Item = v1::Workload>,
    named: &WorkloadRef,
) -> Failure {
    const NAMED: usize = 5;
    let instances = others.filter(|workload| workload.service == named.name.as_str());
    let names: Vec<String> = instances.map(|workload| workload.name).take(NAMED).collect();
    if names.is_empty() || failure.exit == Exit::Usage {
        return failure;
    }
    failure.hint(format!(
        "{0} is a service, with instances such as {1}; `sealane service inspect {0}` shows it",
        named.name,
        names.join(", ")
    ))
}

/// A thing as it was asked for.
struct Named<'a, N> {
    what: &'a str,
    name: N,
    /// The only network that it was looked for in.
    network: Option<&'a NetworkName>,
}

/// The one that was found; names of networks tell several apart.
fn only<T>(
    Named { what, name, network: within }: Named<'_, impl Display>,
    list: &str,
    mut found: Vec<T>,
    network: impl Fn(&T) -> String,
) -> Result<T, Failure> {
    match found.pop() {
        None => Err(match within {
            Some(within) => Failure::missing(format_args!("{what} {name} in network {within}"), list),
            None => Failure::missing(format_args!("{what} {name}"), list),
        }),
        Some(last) if found.is_empty() => Ok(last),
        Some(last) => Err(several(what, name, found.iter().chain([&last]).map(network))),
    }
}

/// Of which network, when several have one of this name.
pub(super) fn several(what: &str, name: impl Display, networks: impl IntoIterator<Item = String>) -> Failure {
    let named: Vec<String> = networks.into_iter().map(|network| format!("{name}.{network}")).collect();
    let message = format!("there are several {what}s {name}");
    Failure::new(message).exit(Exit::Usage).hint(format!("say which: {}", named.join(" or ")))
}

fn inspect_node(name: &NodeName, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let nodes = known::nodes(common)?.into_iter();
    let is_it = |view: &v1::NodeView| view.node.as_ref().is_some_and(|node| node.name == name.as_str());
    let what = Named { what: "node", name, network: None };
    let node = only(what, "sealane node ls", nodes.filter(is_it).collect(), |_| String::new())?;
    let workloads = known::workloads(None, common)?.into_iter();
    let here = workloads.filter(|view| view.workload.as_ref().is_some_and(|one| one.node == name.as_str()));
    printer.sheet(&NodeSheet::new(node, here))
}

fn drain(name: &NodeName, drained: bool, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let request = v1::DrainNodeRequest { name: name.to_string(), drained };
    converse(async { answer(admin(common).await?.drain_node(request)).await })?;
    let text = if drained {
        format!(
            "node {name} drained: new calls to its services go elsewhere; `sealane node undrain {name}` ends that"
        )
    } else {
        format!("node {name}: its services get calls again")
    };
    printer.done(&Done::of("Node", name, if drained { "drained" } else { "undrained" }), &text)
}

fn remove_node(name: &NodeName, force: bool, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let request = v1::RemoveNodeRequest { name: name.to_string(), force };
    let removed = converse(async { answer(admin(common).await?.remove_node(request)).await })?;
    let text = if removed.key_unknown {
        format!(
            "node {name} removed; it has not come since control was restored, so nobody knows its key: should it \
             come, it is not let in, and its certificates are refused from then on"
        )
    } else {
        format!(
            "node {name} removed, its certificates are refused from now on; `sealane clean` on it ends what still \
             runs there"
        )
    };
    printer.done(&Done::of("Node", name, "deleted"), &text)?;
    if !removed.token.is_empty() {
        printer.talk(&format!(
            "token {} that it joined by is revoked: hosts that were to join by it too need another one",
            removed.token
        ));
    }
    Ok(())
}

/// A service's name and its network: the one that is said, or the only one that has such a service.
pub(super) fn locate(named: &NamedService, common: &Common) -> Result<(String, String), Failure> {
    let ServiceRef { name, network } = named.reference().map_err(Failure::usage)?;
    let network = match network {
        Some(network) => network.to_string(),
        None => find_service(named, common)?.0.network,
    };
    Ok((name.to_string(), network))
}

/// Says why a service has no workload.
fn no_instance(view: &v1::ServiceView) -> String {
    let (service, network) = (view.service.clone().unwrap_or_default(), &view.network);
    let name = &service.name;
    if service.external.is_empty() && view.failing.is_empty() {
        return format!("no workload of network {network} runs service {name}");
    }
    format!(
        "the instances of service {name} are outside every network: `sealane service inspect {name}.{network}` shows them"
    )
}

pub(super) fn find_service(
    named: &NamedService,
    common: &Common,
) -> Result<(v1::ServiceView, Vec<v1::WorkloadView>), Failure> {
    let named = named.reference().map_err(Failure::usage)?;
    let services = known::services(named.network.as_ref(), common)?.into_iter();
    let is_it =
        |view: &v1::ServiceView| view.service.as_ref().is_some_and(|one| one.name == named.name.as_str());
    let found = services.filter(is_it).collect();
    let what = Named { what: "service", name: &named.name, network: named.network.as_ref() };
    let found = only(what, "sealane service ls", found, |view| view.network.clone())?;
    let network = found.network.parse().map_err(|error| Failure::new(format!("{error}")))?;
    let instances = known::workloads(Some(&network), common)?.into_iter().filter(|view| {
        view.workload.as_ref().is_some_and(|workload| workload.service == named.name.as_str())
    });
    Ok((found, instances.collect()))
}

fn remove_service(named: &NamedService, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let (name, network) = locate(named, common)?;
    let request = v1::RemoveServiceRequest { network: network.clone(), name: name.clone() };
    converse(async { answer(admin(common).await?.remove_service(request)).await })?;
    let text = format!("service {name} of network {network} removed");
    printer.done(&Done::of("Service", &name, "deleted").in_network(network), &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_of_one_name_each_is_named_as_it_can_be_typed() {
        let found = |networks: &[&str]| {
            let found = networks.iter().map(ToString::to_string).collect();
            let what = Named { what: "workload", name: "web", network: None };
            only(what, "sealane workload ls", found, |network: &String| network.clone())
        };
        assert_eq!(found(&["shop"]).unwrap(), "shop");
        assert_eq!(found(&[]).unwrap_err().message, "there is no workload web");
        let failure = found(&["office", "shop"]).unwrap_err();
        assert_eq!(
            (failure.exit, failure.message.as_str()),
            (Exit::Usage, "there are several workloads web")
        );
        assert_eq!(failure.hint.as_deref(), Some("say which: web.office or web.shop"));
    }
}
