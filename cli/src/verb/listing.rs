//! `sealane service ls`, `node ls` and `workload ls`.

use sealane_proto::types::NetworkName;
use sealane_proto::wire::v1;

use crate::args::{Common, Node, Service, Workload};
use crate::args::{ListAction, PlainListAction};
use crate::client::{answer, converse, read};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::view::{NodeView, ServiceView, WorkloadView};

/// `sealane service ls`.
pub(crate) fn services(service: &Service, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let ListAction::Ls { network } = &service.action;
    let request = v1::ListServicesRequest { network: name(network.as_ref()) };
    let listed = converse(async { answer(read(common).await?.list_services(request)).await })?;
    printer.list(&listed.services.into_iter().map(ServiceView::from).collect::<Vec<_>>())
}

/// `sealane node ls`.
pub(crate) fn nodes(node: &Node, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let PlainListAction::Ls = node.action;
    let request = v1::ListNodesRequest {};
    let listed = converse(async { answer(read(common).await?.list_nodes(request)).await })?;
    printer.list(&listed.nodes.into_iter().map(NodeView::from).collect::<Vec<_>>())
}

/// `sealane workload ls`.
pub(crate) fn workloads(workload: &Workload, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let ListAction::Ls { network } = &workload.action;
    let request = v1::ListWorkloadsRequest { network: name(network.as_ref()) };
    let listed = converse(async { answer(read(common).await?.list_workloads(request)).await })?;
    printer.list(&listed.workloads.into_iter().map(WorkloadView::from).collect::<Vec<_>>())
}

fn name(network: Option<&NetworkName>) -> String {
    network.map(ToString::to_string).unwrap_or_default()
}
