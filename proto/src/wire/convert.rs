//! Messages to domain types and back.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use sealane_base::text::one_line;
use tonic::Status;

use super::v1;
use crate::document::{Document, Kind, KindError};
use crate::identity::{SerialPrefix, SerialPrefixError};
use crate::resource::{Block, Egress, External, Network, NetworkSnapshot, Node, Service, Workload};
use crate::sidecar::NetworkChange;
use crate::types::{
    Aliases, Check, Generation, Interval, Mtu, NodeName, Port, ServicePort, Vni, Weight, WeightError,
};

/// Length to which the fault of a field is told: it may repeat all of the field.
const LONGEST_REASON: usize = 512;

/// A message whose field does not say what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The field is missing.
    #[error("{message}.{field} is missing")]
    Missing {
        /// The message's type.
        message: &'static str,
        /// The field.
        field: &'static str,
    },
    /// The field does not parse.
    #[error("{message}.{field}: {reason}")]
    Invalid {
        /// The message's type.
        message: &'static str,
        /// The field.
        field: &'static str,
        /// Fault, in the words of the type.
        reason: String,
    },
}

struct In(&'static str);

impl In {
    fn parse<T: FromStr<Err: fmt::Display>>(&self, field: &'static str, text: &str) -> Result<T, WireError> {
        text.parse().map_err(|error: T::Err| self.invalid(field, &error))
    }

    fn parse_option<T: FromStr<Err: fmt::Display>>(
        &self,
        field: &'static str,
        text: &str,
    ) -> Result<Option<T>, WireError> {
        if text.is_empty() { Ok(None) } else { self.parse(field, text).map(Some) }
    }

    fn names<T: FromStr<Err: fmt::Display>, A: FromIterator<T>>(
        &self,
        field: &'static str,
        texts: &[String],
    ) -> Result<A, WireError> {
        texts.iter().map(|text| self.parse(field, text)).collect()
    }

    fn invalid(&self, field: &'static str, reason: &dyn fmt::Display) -> WireError {
        let reason = one_line(&reason.to_string(), LONGEST_REASON).into_owned();
        WireError::Invalid { message: self.0, field, reason }
    }

    fn required<T>(&self, field: &'static str, value: Option<T>) -> Result<T, WireError> {
        value.ok_or(WireError::Missing { message: self.0, field })
    }
}

fn all<T, M: TryInto<T, Error = WireError>>(messages: Vec<M>) -> Result<Vec<T>, WireError> {
    messages.into_iter().map(TryInto::try_into).collect()
}

fn each<M, T>(values: &[T]) -> Vec<M>
where
    for<'a> &'a T: Into<M>,
{
    values.iter().map(Into::into).collect()
}

fn text(value: &Option<impl fmt::Display>) -> String {
    value.as_ref().map(ToString::to_string).unwrap_or_default()
}

fn texts(values: impl IntoIterator<Item = impl fmt::Display>) -> Vec<String> {
    values.into_iter().map(|value| value.to_string()).collect()
}

impl v1::Certificate {
    /// The chain, leaf first, and the mesh's roots.
    #[must_use]
    pub fn into_parts(self) -> (Vec<CertificateDer<'static>>, Vec<CertificateDer<'static>>) {
        let certs = |certs: Vec<Vec<u8>>| certs.into_iter().map(CertificateDer::from).collect();
        (certs(self.chain), certs(self.roots))
    }
}

impl v1::Heartbeat {
    /// With what this host's clock says.
    #[must_use]
    pub fn now() -> Self {
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Self { unix_millis: millis.try_into().unwrap_or(u64::MAX), ..Self::default() }
    }

    /// Returns the time of the sender's clock; `None`: it did not say.
    #[must_use]
    pub fn instant(&self) -> Option<SystemTime> {
        let instant = UNIX_EPOCH.checked_add(Duration::from_millis(self.unix_millis));
        instant.filter(|_| self.unix_millis != 0)
    }

    /// The hosts that control has lost, and since when, as far as it knows; `None`: it does not tell. What is no name
    /// is left out.
    #[must_use]
    pub fn lost_hosts(&self) -> Option<BTreeMap<NodeName, Option<SystemTime>>> {
        let instant = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).filter(|_| seconds != 0);
        let lost = self.lost.iter();
        let lost = lost.filter_map(|host| Some((host.name.parse().ok()?, instant(host.since_unix_seconds))));
        self.tells_lost.then(|| lost.collect())
    }
}

impl From<v1::Generation> for Generation {
    fn from(message: v1::Generation) -> Self {
        Self { epoch: message.epoch, revision: message.revision }
    }
}

impl From<Generation> for v1::Generation {
    fn from(generation: Generation) -> Self {
        Self { epoch: generation.epoch, revision: generation.revision }
    }
}

impl TryFrom<v1::ServicePort> for ServicePort {
    type Error = WireError;
    fn try_from(message: v1::ServicePort) -> Result<Self, WireError> {
        let at = In("ServicePort");
        let protocol = at.parse_option("protocol", &message.protocol)?.unwrap_or_default();
        let port = Port::try_from(message.port).map_err(|error| at.invalid("port", &error))?;
        let name = match message.name.as_str() {
            "" => None,
            name => Some(at.parse("name", name)?),
        };
        let mtls = at.parse_option("mtls", &message.mtls)?;
        Ok(Self { name, port, protocol, mtls })
    }
}

impl From<&ServicePort> for v1::ServicePort {
    fn from(port: &ServicePort) -> Self {
        Self {
            name: port.name.as_ref().map(|name| name.as_str().to_owned()).unwrap_or_default(),
            port: port.port.get().into(),
            protocol: port.protocol.to_string(),
            mtls: text(&port.mtls),
        }
    }
}

impl TryFrom<v1::Network> for Network {
    type Error = WireError;
    fn try_from(message: v1::Network) -> Result<Self, WireError> {
        let at = In("Network");
        let mtu = Some(message.mtu).filter(|&mtu| mtu != 0).map(Mtu::try_from).transpose();
        Ok(Self {
            name: at.parse("name", &message.name)?,
            hosts: at.names("hosts", &message.hosts)?,
            subnet: at.parse("subnet", &message.subnet)?,
            vni: Vni::try_from(message.vni).map_err(|error| at.invalid("vni", &error))?,
            mtu: mtu.map_err(|error| at.invalid("mtu", &error))?,
            egress: Egress::from_denied(message.deny_egress),
            subnet6: at.parse_option("subnet6", &message.subnet6)?,
            mtls: at.parse_option("mtls", &message.mtls)?,
        })
    }
}

impl From<&Network> for v1::Network {
    fn from(network: &Network) -> Self {
        Self {
            name: network.name.to_string(),
            hosts: texts(network.hosts.iter()),
            subnet: network.subnet.to_string(),
            vni: network.vni.get(),
            mtu: network.mtu.map_or(0, Into::into),
            subnet6: text(&network.subnet6),
            deny_egress: network.egress.is_denied(),
            mtls: text(&network.mtls),
        }
    }
}

impl TryFrom<v1::Node> for Node {
    type Error = WireError;
    fn try_from(message: v1::Node) -> Result<Self, WireError> {
        let at = In("Node");
        Ok(Self {
            name: at.parse("name", &message.name)?,
            underlay: at.parse("underlay", &message.underlay)?,
            // What is no sensible one says as much as none.
            mtu: Mtu::try_from(message.mtu).ok(),
        })
    }
}

impl From<&Node> for v1::Node {
    fn from(node: &Node) -> Self {
        let mtu = node.mtu.map_or(0, Into::into);
        Self { name: node.name.to_string(), underlay: node.underlay.to_string(), mtu }
    }
}

impl TryFrom<v1::Block> for Block {
    type Error = WireError;
    fn try_from(message: v1::Block) -> Result<Self, WireError> {
        let at = In("Block");
        Ok(Self { node: at.parse_option("node", &message.node)?, range: at.parse("range", &message.range)? })
    }
}

impl From<&Block> for v1::Block {
    fn from(block: &Block) -> Self {
        Self { node: text(&block.node), range: block.range.to_string() }
    }
}

impl v1::ListDocumentsResponse {
    /// The answer to who asks for documents of a kind, or of all when it is empty.
    ///
    /// # Errors
    /// When there is no such kind.
    pub fn of(kind: &str, documents: impl Iterator<Item = Document>) -> Result<Self, Status> {
        let wanted: Option<Kind> = match kind {
            "" => None,
            kind => {
                Some(kind.parse().map_err(|error: KindError| Status::invalid_argument(error.to_string()))?)
            }
        };
        let documents = documents.filter(|document| wanted.is_none_or(|kind| document.id().kind() == kind));
        let texts = documents.map(|document| document.to_json());
        let texts =
            texts.collect::<Result<Vec<_>, _>>().map_err(|error| Status::internal(error.to_string()))?;
        Ok(Self { documents: texts })
    }
}

impl TryFrom<v1::Service> for Service {
    type Error = WireError;
    fn try_from(message: v1::Service) -> Result<Self, WireError> {
        let at = In("Service");
        Ok(Self {
            name: at.parse("name", &message.name)?,
            hosts: at.names("hosts", &message.hosts)?,
            vip: at.parse("vip", &message.vip)?,
            ports: all(message.ports)?,
            declared: message.declared,
            mtls: at.parse_option("mtls", &message.mtls)?,
            external: External {
                instances: at.names("external", &message.external)?,
                check: message.check.map(TryInto::try_into).transpose()?,
                registrar: at.parse_option("registrar", &message.registrar)?,
            },
        })
    }
}

impl TryFrom<v1::Check> for Check {
    type Error = WireError;
    fn try_from(message: v1::Check) -> Result<Self, WireError> {
        let at = In("Check");
        let interval = Interval::try_from(Duration::from_millis(message.interval_millis.into()));
        Ok(Self {
            http: at.parse_option("http", &message.http)?,
            interval: interval.map_err(|error| at.invalid("interval_millis", &error))?,
        })
    }
}

impl From<&Check> for v1::Check {
    fn from(check: &Check) -> Self {
        Self { http: text(&check.http), interval_millis: check.interval.millis() }
    }
}

impl From<&Service> for v1::Service {
    fn from(service: &Service) -> Self {
        Self {
            name: service.name.to_string(),
            hosts: texts(service.hosts.iter()),
            vip: service.vip.to_string(),
            ports: each(&service.ports),
            declared: service.declared,
            mtls: text(&service.mtls),
            external: texts(&service.external.instances),
            check: service.external.check.as_ref().map(Into::into),
            registrar: text(&service.external.registrar),
        }
    }
}

impl TryFrom<v1::Workload> for Workload {
    type Error = WireError;
    fn try_from(message: v1::Workload) -> Result<Self, WireError> {
        let at = In("Workload");
        Ok(Self {
            name: at.parse("name", &message.name)?,
            network: at.parse("network", &message.network)?,
            node: at.parse("node", &message.node)?,
            address: at.parse("address", &message.address)?,
            mac: at.parse("mac", &message.mac)?,
            service: at.parse_option("service", &message.service)?,
            ports: all(message.ports)?,
            sidecar: message.sidecar,
            ready: message.ready,
            weight: weight(message.weight).map_err(|error| at.invalid("weight", &error))?,
            aliases: Aliases::parse(&message.aliases)
                .map_err(|error| at.invalid("aliases", &error))?
                .with_called(at.parse_option("called", &message.called)?)
                .with_group(at.parse_option("group", &message.group)?),
        })
    }
}

impl From<&Workload> for v1::Workload {
    fn from(workload: &Workload) -> Self {
        Self {
            name: workload.name.to_string(),
            network: workload.network.to_string(),
            node: workload.node.to_string(),
            address: workload.address.to_string(),
            mac: workload.mac.to_string(),
            service: text(&workload.service),
            ports: each(&workload.ports),
            sidecar: workload.sidecar,
            ready: workload.ready,
            weight: Some(workload.weight.get().into()),
            aliases: texts(workload.aliases.iter()),
            called: text(&workload.aliases.called()),
            group: text(&workload.aliases.group()),
        }
    }
}

/// A weight as messages carry it: older peers do not, and mean one.
///
/// # Errors
/// When it is out of range.
pub fn weight(number: Option<u32>) -> Result<Weight, WeightError> {
    number.map_or(Ok(Weight::default()), Weight::try_from)
}

fn serial(at: &In, octets: &[u8]) -> Result<SerialPrefix, WireError> {
    octets.try_into().map_err(|error: SerialPrefixError| at.invalid("revoked_serials", &error))
}

impl TryFrom<v1::NetworkChange> for NetworkChange {
    type Error = WireError;
    fn try_from(message: v1::NetworkChange) -> Result<Self, WireError> {
        let at = In("NetworkChange");
        Ok(Self {
            services: all(message.services)?,
            services_gone: at.names("services_gone", &message.services_gone)?,
            workloads: all(message.workloads)?,
            workloads_gone: at.names("workloads_gone", &message.workloads_gone)?,
        })
    }
}

impl From<&NetworkChange> for v1::NetworkChange {
    fn from(change: &NetworkChange) -> Self {
        Self {
            services: each(&change.services),
            services_gone: texts(&change.services_gone),
            workloads: each(&change.workloads),
            workloads_gone: texts(&change.workloads_gone),
        }
    }
}

impl TryFrom<v1::NetworkState> for NetworkSnapshot {
    type Error = WireError;
    fn try_from(message: v1::NetworkState) -> Result<Self, WireError> {
        let at = In("NetworkState");
        Ok(Self {
            generation: at.required("generation", message.generation)?.into(),
            network: at.required("network", message.network)?.try_into()?,
            nodes: all(message.nodes)?,
            blocks: all(message.blocks)?,
            services: all(message.services)?,
            workloads: all(message.workloads)?,
            revoked: message
                .revoked_serials
                .iter()
                .map(|octets| serial(&at, octets))
                .collect::<Result<_, _>>()?,
            drained: at.names("drained", &message.drained)?,
        })
    }
}

impl From<&NetworkSnapshot> for v1::NetworkState {
    fn from(snapshot: &NetworkSnapshot) -> Self {
        Self {
            generation: Some(snapshot.generation.into()),
            network: Some((&snapshot.network).into()),
            nodes: each(&snapshot.nodes),
            blocks: each(&snapshot.blocks),
            services: each(&snapshot.services),
            workloads: each(&snapshot.workloads),
            revoked_serials: snapshot.revoked.iter().map(|serial| serial.to_bytes().to_vec()).collect(),
            drained: texts(&snapshot.drained),
        }
    }
}
