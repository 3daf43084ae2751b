//! `kind: Service`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{External, Service};
use crate::resource::document::{ApiVersion, DocumentType, FieldError};
use crate::types::{
    Check, ExternalAddr, GrpcService, Hosts, HttpPath, Interval, Mtls, NetworkName, Port, PortName, Probe,
    Protocol, ServiceName, ServicePort, StatusRange, Threshold, Transport,
};

/// Largest number of ports of a service.
pub const PORTS: usize = 256;
/// The number of instances outside every network that a service may have.
pub const EXTERNAL: usize = 64;

/// A service of a network: its name and address are there before its first instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "Service")]
pub struct ServiceDocument {
    /// The version of the document's shape.
    pub api_version: ApiVersion,
    /// Kind of the document's object.
    pub kind: ServiceKind,
    /// Identity of the service.
    pub metadata: ServiceMetadata,
    /// Desired state of the service.
    pub spec: ServiceSpec,
}

/// The kind of a service's document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceKind {
    /// The only one.
    #[default]
    Service,
}

/// Identity of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceMetadata {
    /// Name, unique in the network, which is its DNS name.
    #[schemars(with = "crate::resource::document::schema::Label")]
    pub name: ServiceName,
    /// The network that it belongs to.
    #[schemars(with = "crate::resource::document::schema::Label")]
    pub network: NetworkName,
}

impl ServiceMetadata {
    /// The network that it belongs to.
    #[must_use]
    pub fn network(&self) -> &NetworkName {
        &self.network
    }
}

/// Desired state of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSpec {
    /// Ports, at least one. An instance may offer some of them, and no other ones.
    #[schemars(length(min = 1, max = 256))]
    pub ports: Vec<PortSpec>,
    /// The hosts that may run its instances, by name; all that may carry the network when none is named.
    #[serde(default, skip_serializing_if = "Hosts::are_all")]
    #[schemars(with = "Vec<crate::resource::document::schema::Label>")]
    pub hosts: Hosts,
    /// Callers that its ports accept: those by mutual TLS alone and at offered ports alone (strict), or anybody of the
    /// network (permissive); as the network says when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::resource::document::schema::MtlsMode>")]
    pub mtls: Option<Mtls>,
    /// Instances outside every network, by IPv4 address, or by address and port for a service with one port; called in plain, by
    /// the ways out of the network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<crate::resource::document::schema::ExternalPlace>", length(max = 64))]
    pub external: Vec<ExternalAddr>,
    /// The check by which the host of an instance, and every host for those outside, finds out if it works; when not given, an
    /// instance is ready when it listens, and one outside always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckSpec>,
}

/// A check of whether an instance works: it accepts a connection or, with a path, answers a request or, with a service of gRPC, says
/// that it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckSpec {
    /// The path to ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::resource::document::schema::PathText>")]
    pub http: Option<HttpPath>,
    /// The status that is expected of `http`, or two with a hyphen; 200-399 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::resource::document::schema::StatusText>")]
    pub status: Option<StatusRange>,
    /// The service that grpc.health.v1.Health is asked about; the server as a whole when empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::resource::document::schema::GrpcName>")]
    pub grpc: Option<GrpcService>,
    /// The port to ask; the first one over TCP when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::resource::document::schema::PortNumber>")]
    pub port: Option<Port>,
    /// The time from one check to the next, 100ms to 1h; 5s when not given.
    #[serde(default, skip_serializing_if = "is_usual")]
    #[schemars(with = "crate::resource::document::schema::IntervalText")]
    pub interval: Interval,
    /// The time within which an answer counts, 100ms to 1h; the interval, 2s at most, when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::resource::document::schema::TimeText>")]
    pub timeout: Option<Interval>,
    /// Good answers in a row that make it healthy; 1 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::resource::document::schema::Answers>")]
    pub healthy: Option<Threshold>,
    /// Bad answers in a row that make it unhealthy; when not given, 3, and 1 for an instance outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::resource::document::schema::Answers>")]
    pub unhealthy: Option<Threshold>,
    /// The time after a workload's start in which bad answers do not count, 100ms to 1h; none when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::resource::document::schema::TimeText>")]
    pub start_period: Option<Interval>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_usual(interval: &Interval) -> bool {
    *interval == Interval::default()
}

impl From<CheckSpec> for Check {
    fn from(spec: CheckSpec) -> Self {
        let CheckSpec { http, status, grpc, port, interval, timeout, healthy, unhealthy, start_period } =
            spec;
        let probe = match (http, grpc) {
            (Some(path), _) => Probe::Http(path, status.unwrap_or_default()),
            (None, Some(service)) => Probe::Grpc(service),
            (None, None) => Probe::Tcp,
        };
        Self { probe, port, interval, timeout, healthy, unhealthy, start_period }
    }
}

impl From<Check> for CheckSpec {
    fn from(check: Check) -> Self {
        let Check { probe, port, interval, timeout, healthy, unhealthy, start_period } = check;
        let spec = Self { port, interval, timeout, healthy, unhealthy, start_period, ..Self::default() };
        match probe {
            Probe::Http(path, status) => {
                let status = Some(status).filter(|status| *status != StatusRange::default());
                Self { http: Some(path), status, ..spec }
            }
            Probe::Grpc(service) => Self { grpc: Some(service), ..spec },
            // A service has no command: messages with one are refused.
            Probe::Tcp | Probe::Exec(_) => spec,
        }
    }
}

impl CheckSpec {
    /// Checks that what is asked goes together, of a service with these ports.
    fn check(&self, ports: &[PortSpec]) -> Result<(), FieldError> {
        let wrong = |field: &str, reason: &str| {
            Err(FieldError { path: format!("spec.check.{field}"), reason: reason.to_owned() })
        };
        if self.http.is_some() && self.grpc.is_some() {
            return wrong(
                "grpc",
                "a check asks one thing, and this one has http already; leave one of them out",
            );
        }
        if self.status.is_some() && self.http.is_none() {
            return wrong("status", "only an answer to http has a status; name its path in spec.check.http");
        }
        if self.port.is_none() && ports.iter().all(|port| port.protocol.transport() == Transport::Udp) {
            return wrong(
                "port",
                "a check needs a port over TCP, and the service has none; name one, or leave the check out",
            );
        }
        Ok(())
    }
}

/// A port of a service, the same at the service's address and at its instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortSpec {
    /// Name, unique in the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::resource::document::schema::PortLabel>")]
    pub name: Option<PortName>,
    /// Number from 1 to 65535, unique in the service over TCP and over UDP.
    #[schemars(with = "crate::resource::document::schema::PortNumber")]
    pub port: Port,
    /// Protocol that is spoken there; found out per connection when not given.
    #[serde(default, skip_serializing_if = "is_auto")]
    #[schemars(with = "crate::resource::document::schema::ProtocolName")]
    pub protocol: Protocol,
    /// Callers that it accepts; as the service says when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::resource::document::schema::MtlsMode>")]
    pub mtls: Option<Mtls>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_auto(protocol: &Protocol) -> bool {
    *protocol == Protocol::Auto
}

impl DocumentType for ServiceDocument {
    const KIND: &'static str = "Service";
    const WORDS: [&'static str; 3] = ["service", "services", "svc"];

    /// Checks that the ports go together: some, not too many, none twice by number (over TCP, over UDP) or name.
    fn check(&self) -> Result<(), FieldError> {
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
        self.check_external()
    }
}

impl ServiceDocument {
    /// Builds the document that declares a service as it is.
    #[must_use]
    pub fn of(network: &NetworkName, service: &Service) -> Self {
        let metadata = ServiceMetadata { name: service.name.clone(), network: network.clone() };
        let ports = service.ports.iter().cloned().map(Into::into).collect();
        Self {
            api_version: ApiVersion::V1,
            kind: ServiceKind::Service,
            metadata,
            spec: ServiceSpec {
                ports,
                hosts: service.hosts.clone(),
                mtls: service.mtls,
                external: service.external.instances.clone(),
                check: service.external.check.clone().map(Into::into),
            },
        }
    }

    /// Checks that what is said of instances outside every network goes together.
    fn check_external(&self) -> Result<(), FieldError> {
        let ServiceSpec { ports, external, check, mtls, .. } = &self.spec;
        let wrong = |path: String, reason: String| Err(FieldError { path, reason });
        if external.len() > EXTERNAL {
            let reason = format!("a service has up to {EXTERNAL} external instances, not {}", external.len());
            return wrong("spec.external".to_owned(), reason);
        }
        for (at, instance) in external.iter().enumerate() {
            let path = format!("spec.external[{at}]");
            if external[..at].contains(instance) {
                return wrong(path, format!("{instance} is there twice"));
            }
            if instance.port().is_some() && ports.len() != 1 {
                let address = instance.address();
                let reason = format!(
                    "{instance} has a port, and the service has {}: write {address} alone, which then serves all of them",
                    ports.len()
                );
                return wrong(path, reason);
            }
        }
        let strict = ports.iter().position(|port| port.mtls == Some(Mtls::Strict));
        let strict = strict.map(|at| format!("spec.ports[{at}].mtls"));
        let strict = strict.or((*mtls == Some(Mtls::Strict)).then(|| "spec.mtls".to_owned()));
        if let Some(path) = strict.filter(|_| !external.is_empty()) {
            return wrong(path, "external instances are called in plain; leave it out".to_owned());
        }
        check.as_ref().map_or(Ok(()), |check| check.check(ports))
    }

    /// The instances outside every network as a service has them, of which `registrar` told.
    #[must_use]
    pub fn external(&self, registrar: Option<crate::types::NodeName>) -> External {
        let mut instances = self.spec.external.clone();
        instances.sort_unstable();
        External { instances, check: self.spec.check.clone().map(Into::into), registrar }
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
