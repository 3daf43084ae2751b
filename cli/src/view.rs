//! Content of lists and sheets, and the shape of their JSON and YAML: part of the command line's contract, so it is
//! written down here and does not follow the wire by itself.

mod control;
mod dns;
mod done;
mod history;
mod identity;
mod location;
mod network;
mod node;
mod service;
mod status;
mod token;
mod workload;

use std::time::SystemTime;

use sealane_proto::wire::v1;
use serde::{Serialize, Serializer};

pub(crate) use control::ControlView;
pub(crate) use dns::RecordView;
pub(crate) use done::Done;
pub(crate) use history::EntryView;
pub(crate) use identity::IdentityView;
pub(crate) use location::LocationView;
pub(crate) use network::NetworkView;
pub(crate) use node::{NodeSheet, NodeView};
pub(crate) use service::{ServiceSheet, ServiceView};
pub(crate) use status::{Details, StatusView};
pub(crate) use token::{NewToken, TokenView};
pub(crate) use workload::WorkloadView;

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PortView {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    port: u32,
    protocol: String,
    /// The port's own mode; null: as its service.
    #[serde(skip_serializing_if = "Option::is_none")]
    mtls: Option<String>,
}

impl From<v1::ServicePort> for PortView {
    fn from(port: v1::ServicePort) -> Self {
        Self { name: text(port.name), port: port.port, protocol: port.protocol, mtls: text(port.mtls) }
    }
}

/// Ports as on the command line: `web=8080/http`, without the protocol when it is found out.
fn ports(ports: &[PortView]) -> String {
    let each = ports.iter().map(|port| {
        let name = port.name.as_ref().map(|name| format!("{name}=")).unwrap_or_default();
        let protocol = if port.protocol == "auto" { String::new() } else { format!("/{}", port.protocol) };
        format!("{name}{}{protocol}", port.port)
    });
    each.collect::<Vec<_>>().join(", ")
}

/// The mode of ports that say nothing else, and which of them differ: `strict; 9090 permissive`.
fn modes(mode: &str, ports: &[PortView]) -> String {
    let other = |port: &PortView| {
        let own = port.mtls.as_ref().filter(|own| *own != mode)?;
        Some(format!("; {} {own}", port.port))
    };
    std::iter::once(mode.to_owned()).chain(ports.iter().filter_map(other)).collect()
}

/// On the wire, an empty text is none.
fn text(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// In a table, none is a dash.
fn dash(text: Option<&String>) -> String {
    text.cloned().unwrap_or_else(|| "-".to_owned())
}

/// The hosts that something is for; none named: all.
fn hosts(names: &[String]) -> String {
    if names.is_empty() { "all".to_owned() } else { names.join(", ") }
}

fn list(texts: &[String]) -> String {
    if texts.is_empty() { "-".to_owned() } else { texts.join(", ") }
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

/// A generation as people see it everywhere: `<epoch>.<revision>`.
fn generation(generation: Option<v1::Generation>) -> Option<String> {
    generation.map(|generation| sealane_proto::types::Generation::from(generation).to_string())
}

/// RFC 3339 in UTC, or null.
fn rfc3339<S: Serializer>(instant: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    let text = instant.map(|instant| humantime::format_rfc3339_seconds(instant).to_string());
    text.serialize(serializer)
}
