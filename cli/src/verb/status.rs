//! `sealane status`: everything of Sealane's on this host that can say how it is.

use std::time::SystemTime;

use sealane_proto::wire::v1;
use sealane_proto::wire::v1::read_client::ReadClient;
use tonic::transport::Channel;

use crate::args::Common;
use crate::client::{agent_beside, answer, converse, read, reader};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::view::{Details, StatusView};

/// `sealane status`: exits with 1 when there is a problem.
pub(crate) fn call(common: &Common, printer: &Printer) -> Result<(), Failure> {
    let status = converse(async {
        let mut status = ask(&mut read(common).await?).await?;
        if status.is_control() {
            match agent_beside(common).await {
                Ok(None) => {}
                Ok(Some(channel)) => status.beside(ask(&mut reader(channel)).await),
                Err(failure) => status.beside(Err(failure)),
            }
        }
        Ok(status)
    })?;
    printer.sheet(&status)?;
    if status.is_well() { Ok(()) } else { Err(Failure::unsaid()) }
}

async fn ask(client: &mut ReadClient<Channel>) -> Result<StatusView, Failure> {
    let status = answer(client.status(v1::StatusRequest {})).await?;
    let nodes = answer(client.list_nodes(v1::ListNodesRequest {})).await?.nodes;
    let networks = answer(client.list_networks(v1::ListNetworksRequest {})).await?.networks;
    let services = answer(client.list_services(v1::ListServicesRequest::default())).await?.services;
    let workloads = answer(client.list_workloads(v1::ListWorkloadsRequest::default())).await?.workloads;
    let details = Details::new(nodes, networks, services, &workloads);
    Ok(StatusView::new(status, details, SystemTime::now()))
}
