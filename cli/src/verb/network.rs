//! `sealane network`.

use std::time::{Duration, Instant};

use sealane_proto::document::{Document, DocumentKind};
use sealane_proto::types::{AnySubnet, Hosts, NetworkName, Subnet, Subnet6};
use sealane_proto::wire::v1;
use sealane_proto::wire::v1::admin_client::AdminClient;
use tonic::Code;
use v1::document_result::Effect;

use crate::args::{Common, CreateNetwork, Egress, Encryption, Network, NetworkAction, SetNetwork};
use crate::client::{admin, answer, control, converse, read, reader};
use crate::failure::{Exit, Failure};
use crate::printer::Printer;
use crate::verb::apply::taken_in;
use crate::verb::hosts;
use crate::view::{Done, NetworkView};

/// Time for which a removal waits for workloads that are just ending: control hears of it a moment after their
/// commands.
const ENDING: Duration = Duration::from_secs(3);
/// Time for which a change waits for the hosts to take it in.
const TAKEN_IN: Duration = Duration::from_secs(10);
/// Interval of looks meanwhile.
const AGAIN: Duration = Duration::from_millis(50);

/// `sealane network create|ls|inspect|set|grow|rm`.
pub(crate) fn call(network: &Network, common: &Common, printer: &Printer) -> Result<(), Failure> {
    match &network.action {
        NetworkAction::Create(create) => self::create(create, common, printer),
        NetworkAction::Ls => printer.list(&list(common)?),
        NetworkAction::Inspect { name } => printer.sheet(&find(name, common)?),
        NetworkAction::Set(set) => self::set(set, common, printer),
        NetworkAction::Grow { name, subnet } => grow(name, *subnet, common, printer),
        NetworkAction::Rm { name } => remove(name, common, printer),
    }
}

fn create(create: &CreateNetwork, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let Encryption::None = create.encryption;
    let (subnet, subnet6) = families(create)?;
    let request = v1::CreateNetworkRequest {
        name: create.name.to_string(),
        subnet: subnet.to_string(),
        subnet6: subnet6.map(|subnet| subnet.to_string()).unwrap_or_default(),
        hosts: create.hosts.iter().map(ToString::to_string).collect(),
        mtu: create.mtu.map_or(0, Into::into),
        deny_egress: matches!(create.egress, Egress::Deny),
        mtls: create.mtls.to_string(),
    };
    let hosts: Hosts = create.hosts.iter().cloned().collect();
    let named = [(format!("network {}", create.name), &hosts)];
    let created = converse(async {
        let channel = control(common).await?;
        let created = answer(AdminClient::new(channel.clone()).create_network(request)).await?;
        hosts::warn(channel, &named, printer).await;
        Ok(created)
    })?;
    let subnets = [created.subnet.as_str(), &created.subnet6];
    let subnets = subnets.iter().filter(|subnet| !subnet.is_empty()).copied().collect::<Vec<_>>().join(", ");
    let text = format!("network {} created: {subnets}, VNI {}", created.name, created.vni);
    printer.result(&NetworkView::from(created), &text)
}

/// A subnet of each family, in either order. IPv6 addresses are made from the IPv4 ones.
fn families(create: &CreateNetwork) -> Result<(Subnet, Option<Subnet6>), Failure> {
    let (mut subnet, mut subnet6) = (None, None);
    for given in &create.subnet {
        let twice = match *given {
            AnySubnet::V4(given) => subnet.replace(given).is_some().then_some("IPv4"),
            AnySubnet::V6(given) => subnet6.replace(given).is_some().then_some("IPv6"),
        };
        if let Some(family) = twice {
            let message = format!("network {} cannot have several {family} subnets", create.name);
            return Err(Failure::new(message).exit(Exit::Usage).hint("create one network per subnet"));
        }
    }
    let Some(subnet) = subnet else {
        let message = format!("network {} needs an IPv4 subnet beside the IPv6 one", create.name);
        return Err(Failure::new(message)
            .exit(Exit::Usage)
            .hint("add one like --subnet 10.42.0.0/16: IPv6 addresses end in the IPv4 ones"));
    };
    Ok((subnet, subnet6))
}

/// Applies the network's own document with what is changed in it.
fn set(set: &SetNetwork, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let SetNetwork { name, mtls } = set;
    let network = name.to_string();
    let (changed, said) = converse(async {
        let channel = control(common).await?;
        let request = v1::ListDocumentsRequest { kind: DocumentKind::Network.to_string(), network };
        let listed = answer(reader(channel.clone()).list_documents(request)).await?;
        let text = listed.documents.first().map(String::as_str).unwrap_or_default();
        let mut document = Document::from_json(text).map_err(Failure::of("control's document"))?;
        if let Document::Network(network) = &mut document {
            network.spec.mtls = Some(*mtls);
        }
        let documents = vec![document.to_json().map_err(Failure::of("cannot write JSON"))?];
        let mut admin = AdminClient::new(channel);
        let changed = answer(admin.apply(v1::ApplyRequest { documents, dry_run: false })).await?;
        let said = taken_in(&mut admin, [name.to_string()], TAKEN_IN).await?;
        Ok((changed, said))
    })?;
    let result = changed.results.into_iter().next().unwrap_or_default();
    if result.effect() == Effect::Refused {
        return Err(Failure::new(result.message));
    }
    let late: Vec<String> = [said.behind, said.disconnected].concat();
    let when = match (&*late, result.effect()) {
        ([], Effect::Unchanged) => "already on every host".to_owned(),
        (late, _) => from_now_on(late),
    };
    let told = serde_json::json!({"network": name, "mtls": mtls, "not_yet_at": late});
    printer.done(&told, &format!("network {name} is {mtls} {when}"))?;
    warn_late(&late, printer);
    Ok(())
}

/// Says where something is so, by the hosts that have not taken it in.
fn from_now_on(late: &[String]) -> String {
    match late {
        [] => "from now on, on every host".to_owned(),
        late => format!("at every host but {}, which has not taken it in yet", late.join(", ")),
    }
}

fn warn_late(late: &[String], printer: &Printer) {
    if !late.is_empty() {
        printer.talk("until a host has taken it in, its workloads go on as before: `sealane node ls` shows when it has");
    }
}

fn grow(name: &NetworkName, subnet: Subnet, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let request = v1::GrowNetworkRequest { name: name.to_string(), subnet: subnet.to_string() };
    let said = converse(async {
        let mut admin = admin(common).await?;
        answer(admin.grow_network(request)).await?;
        taken_in(&mut admin, [name.to_string()], TAKEN_IN).await
    })?;
    let late: Vec<String> = [said.behind, said.disconnected].concat();
    let told = serde_json::json!({"network": name, "subnet": subnet, "not_yet_at": late});
    printer.done(&told, &format!("network {name} has subnet {subnet} {}", from_now_on(&late)))?;
    warn_late(&late, printer);
    Ok(())
}

fn list(common: &Common) -> Result<Vec<NetworkView>, Failure> {
    let request = v1::ListNetworksRequest {};
    let listed = converse(async { answer(read(common).await?.list_networks(request)).await })?;
    Ok(listed.networks.into_iter().map(NetworkView::from).collect())
}

fn find(name: &NetworkName, common: &Common) -> Result<NetworkView, Failure> {
    let found = list(common)?.into_iter().find(|network| network.name == name.as_str());
    found.ok_or_else(|| {
        Failure::new(format!("network {name} is not known here")).hint(
            "`sealane network ls` lists what is: on the control host all networks, on another those that it carries",
        )
    })
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
    printer.done(&Done::of("Network", name, "deleted"), &format!("network {name} removed"))
}
