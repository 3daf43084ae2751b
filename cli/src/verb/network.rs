//! `sealane network`.

use std::time::{Duration, Instant};

use sealane_proto::types::NetworkName;
use sealane_proto::wire::v1;
use tonic::Code;

use crate::args::{Common, CreateNetwork, Egress, Encryption, Network, NetworkAction};
use crate::client::{admin, answer, converse, read};
use crate::failure::{Exit, Failure};
use crate::printer::Printer;
use crate::view::NetworkView;

/// How long a removal waits for workloads that are just ending: control hears of it a moment after their commands.
const ENDING: Duration = Duration::from_secs(3);
/// How often it looks meanwhile.
const AGAIN: Duration = Duration::from_millis(50);

/// `sealane network create|ls|inspect|rm`.
pub(crate) fn call(network: &Network, common: &Common, printer: &Printer) -> Result<(), Failure> {
    match &network.action {
        NetworkAction::Create(create) => self::create(create, common, printer),
        NetworkAction::Ls => printer.list(&list(common)?),
        NetworkAction::Inspect { name } => printer.sheet(&find(name, common)?),
        NetworkAction::Rm { name } => remove(name, common, printer),
    }
}

fn create(create: &CreateNetwork, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let Encryption::None = create.encryption;
    let [subnet] = create.subnet.as_slice() else {
        return Err(Failure::new(format!("network {} cannot have several subnets", create.name))
            .exit(Exit::Usage)
            .hint("create one network per --subnet"));
    };
    let request = v1::CreateNetworkRequest {
        name: create.name.to_string(),
        subnet: subnet.to_string(),
        mtu: create.mtu.unwrap_or_default().into(),
        deny_egress: matches!(create.egress, Egress::Deny),
    };
    let created = converse(async { answer(admin(common).await?.create_network(request)).await })?;
    let text = format!("network {} created: {}, VNI {}", created.name, created.subnet, created.vni);
    printer.result(&NetworkView::from(created), &text)
}

fn list(common: &Common) -> Result<Vec<NetworkView>, Failure> {
    let request = v1::ListNetworksRequest {};
    let listed = converse(async { answer(read(common).await?.list_networks(request)).await })?;
    Ok(listed.networks.into_iter().map(NetworkView::from).collect())
}

fn find(name: &NetworkName, common: &Common) -> Result<NetworkView, Failure> {
    let networks = list(common)?;
    let names: Vec<&str> = networks.iter().map(|network| network.name.as_str()).collect();
    let known = match names.as_slice() {
        [] => "there is none yet".to_owned(),
        names => format!("there is {}", names.join(", ")),
    };
    let missing = Failure::new(format!("no network {name}: {known}"));
    networks.into_iter().find(|network| network.name == name.as_str()).ok_or(missing)
}

fn remove(name: &NetworkName, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let request = v1::RemoveNetworkRequest { name: name.to_string() };
    converse(async {
        let mut control = admin(common).await?;
        let deadline = Instant::now() + ENDING;
        let removed = async {
            loop {
                match control.remove_network(request.clone()).await {
                    Err(status) if status.code() == Code::FailedPrecondition && Instant::now() < deadline => {
                        tokio::time::sleep(AGAIN).await;
                    }
                    answered => return answered,
                }
            }
        };
        answer(removed).await
    })?;
    printer.talk(&format!("network {name} removed"));
    Ok(())
}
