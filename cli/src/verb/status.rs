//! `sealane status`.

use std::time::SystemTime;

use sealane_proto::wire::v1;

use crate::args::Common;
use crate::client::{answer, converse, read};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::view::{Details, StatusView};

/// `sealane status`.
pub(crate) fn call(common: &Common, printer: &Printer) -> Result<(), Failure> {
    let status = converse(async {
        let mut client = read(common).await?;
        let status = answer(client.status(v1::StatusRequest {})).await?;
        let nodes = answer(client.list_nodes(v1::ListNodesRequest {})).await?.nodes;
        let networks = answer(client.list_networks(v1::ListNetworksRequest {})).await?.networks;
        let services = answer(client.list_services(v1::ListServicesRequest::default())).await?.services;
        let workloads = answer(client.list_workloads(v1::ListWorkloadsRequest::default())).await?.workloads;
        let details = Details::new(nodes, networks, services, &workloads);
        Ok(StatusView::new(status, details, SystemTime::now()))
    })?;
    printer.sheet(&status)
}
