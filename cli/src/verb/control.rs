//! `sealane control ls` and `rm`.

use sealane_proto::resource::ControlAddr;
use sealane_proto::wire::v1;
use sealane_proto::wire::v1::fellows_client::FellowsClient;

use crate::args::{Common, ControlAction};
use crate::client::{admin, answer, control, converse};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::view::{ControlView, Done};

/// `sealane control ls|rm`.
pub(crate) fn call(action: &ControlAction, common: &Common, printer: &Printer) -> Result<(), Failure> {
    match action {
        ControlAction::Ls => list(common, printer),
        ControlAction::Rm { address } => remove(address, common, printer),
    }
}

fn list(common: &Common, printer: &Printer) -> Result<(), Failure> {
    let listed = converse(async {
        let mut fellows = FellowsClient::new(control(common).await?);
        answer(fellows.list(v1::ListControlsRequest {})).await
    })?;
    let views: Vec<ControlView> = listed.controls.into_iter().map(ControlView::from).collect();
    printer.list(&views)?;
    if views.iter().any(ControlView::has_problem) { Err(Failure::unsaid()) } else { Ok(()) }
}

fn remove(address: &ControlAddr, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let request = v1::RemoveControlRequest { address: address.to_string() };
    converse(async { answer(admin(common).await?.remove_control(request)).await })?;
    let text = format!("control plane {address} removed; hosts are told of it no more");
    printer.done(&Done::of("ControlPlane", address, "removed"), &text)
}
