//! `kind: Service`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ApiVersion, FieldError};
use crate::resource::Service;
use crate::types::{Hosts, Mtls, NetworkName, Port, PortName, Protocol, ServiceName, ServicePort, Transport};

/// How many ports a service may have.
pub const PORTS: usize = 256;

/// A service of a network: its name and address are there before its first instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "Service")]
pub struct ServiceDocument {
    /// The version of the document's shape.
    pub api_version: ApiVersion,
    /// What the document is about.
    pub kind: ServiceKind,
    /// Which service.
    pub metadata: ServiceMetadata,
    /// What it should be.
    pub spec: ServiceSpec,
}

/// The kind of a service's document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceKind {
    /// The only one.
    #[default]
    Service,
}

/// Which service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceMetadata {
    /// Its name, unique in the network, which is its DNS name.
    #[schemars(with = "super::schema::Label")]
    pub name: ServiceName,
    /// The network that it belongs to.
    #[schemars(with = "super::schema::Label")]
    pub network: NetworkName,
}

/// What a service should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSpec {
    /// Its ports, at least one. An instance may offer some of them, and no other ones.
    #[schemars(length(min = 1, max = 256))]
    pub ports: Vec<PortSpec>,
    /// The hosts that may run its instances, by name; all that may carry the network when none is named.
    #[serde(default, skip_serializing_if = "Hosts::are_all")]
    #[schemars(with = "Vec<super::schema::Label>")]
    pub hosts: Hosts,
    /// Whose calls its ports take: by mutual TLS alone and at offered ports alone (strict), or anybody's of the network
    /// (permissive); as the network says when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<super::schema::MtlsMode>")]
    pub mtls: Option<Mtls>,
}

/// A port of a service, the same at the service's address and at its instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortSpec {
    /// Its name, unique in the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<super::schema::PortLabel>")]
    pub name: Option<PortName>,
    /// Its number, from 1 to 65535, unique in the service over TCP and over UDP.
    #[schemars(with = "super::schema::PortNumber")]
    pub port: Port,
    /// What is spoken there; found out per connection when not given.
    #[serde(default, skip_serializing_if = "is_auto")]
    #[schemars(with = "super::schema::ProtocolName")]
    pub protocol: Protocol,
    /// Whose calls it takes; as the service says when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<super::schema::MtlsMode>")]
    pub mtls: Option<Mtls>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_auto(protocol: &Protocol) -> bool {
    *protocol == Protocol::Auto
}

impl ServiceDocument {
    /// What declares a service as it is.
    #[must_use]
    pub fn of(network: &NetworkName, service: &Service) -> Self {
        let metadata = ServiceMetadata { name: service.name.clone(), network: network.clone() };
        let ports = service.ports.iter().cloned().map(Into::into).collect();
        Self {
            api_version: ApiVersion::V1,
            kind: ServiceKind::Service,
            metadata,
            spec: ServiceSpec { ports, hosts: service.hosts.clone(), mtls: service.mtls },
        }
    }

    /// Whether the ports go together: some, not too many, none twice by number (over TCP, over UDP) or name.
    ///
    /// # Errors
    /// Names the port that does not.
    pub fn check(&self) -> Result<(), FieldError> {
        let ports = &self.spec.ports;
        if ports.is_empty() || ports.len() > PORTS {
            let reason = format!("a service has from 1 to {PORTS} ports, not {}", ports.len());
            return Err(FieldError { path: "spec.ports".to_owned(), reason });
        }
        let (mut numbers, mut names) = (BTreeMap::new(), BTreeMap::new());
        for (at, port) in ports.iter().enumerate() {
            if port.mtls.is_some() && port.protocol.transport() == Transport::Udp {
                let reason =
                    format!("port {} carries datagrams, which pass no sidecar; leave it out", port.port);
                return Err(FieldError { path: format!("spec.ports[{at}].mtls"), reason });
            }
            if let Some(first) = numbers.insert((port.port, port.protocol.transport()), at) {
                return Err(twice(at, "port", &port.port.to_string(), first));
            }
            if let Some(name) = &port.name
                && let Some(first) = names.insert(name, at)
            {
                return Err(twice(at, "name", name.as_str(), first));
            }
        }
        Ok(())
    }

    /// The ports as a service has them, sorted by number and transport.
    #[must_use]
    pub fn ports(&self) -> Vec<ServicePort> {
        let mut ports: Vec<ServicePort> = self.spec.ports.iter().cloned().map(Into::into).collect();
        ports.sort_by_key(ServicePort::key);
        ports
    }
}

fn twice(at: usize, field: &str, value: &str, first: usize) -> FieldError {
    let reason = format!("{value} is spec.ports[{first}].{field} already");
    FieldError { path: format!("spec.ports[{at}].{field}"), reason }
}

impl From<PortSpec> for ServicePort {
    fn from(spec: PortSpec) -> Self {
        let PortSpec { name, port, protocol, mtls } = spec;
        Self { name, port, protocol, mtls }
    }
}

impl From<ServicePort> for PortSpec {
    fn from(offered: ServicePort) -> Self {
        let ServicePort { name, port, protocol, mtls } = offered;
        Self { name, port, protocol, mtls }
    }
}
