//! `kind: Network`.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Egress, Network};
use crate::resource::document::{ApiVersion, DocumentType};
use crate::types::{AnySubnet, Hosts, Mtls, Mtu, NetworkName, Subnet, Subnet6};

/// An overlay network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "Network")]
pub struct NetworkDocument {
    /// The version of the document's shape.
    pub api_version: ApiVersion,
    /// Kind of the document's object.
    pub kind: NetworkKind,
    /// Identity of the network.
    pub metadata: NetworkMetadata,
    /// Desired state of the network.
    pub spec: NetworkSpec,
}

/// The kind of a network's document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NetworkKind {
    /// The only one.
    #[default]
    Network,
}

/// Identity of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkMetadata {
    /// Name, unique in the mesh, and the last part of its workloads' DNS names.
    #[schemars(with = "crate::resource::document::schema::Label")]
    pub name: NetworkName,
}

/// Desired state of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkSpec {
    /// Address prefixes: one IPv4 prefix from /8 to /28 without host bits, and at most one of IPv6 from /16 to /96.
    /// Once the network is there, the IPv4 prefix may become a larger one that begins with the same address.
    #[schemars(with = "crate::resource::document::schema::SubnetList")]
    pub subnets: Subnets,
    /// The hosts that may carry it, by name; all when none is named.
    #[serde(default, skip_serializing_if = "Hosts::are_all")]
    #[schemars(with = "Vec<crate::resource::document::schema::Label>")]
    pub hosts: Hosts,
    /// Bytes per packet inside; by the underlay when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::resource::document::schema::MtuBytes>")]
    pub mtu: Option<Mtu>,
    /// Encryption of the overlay itself; calls between sidecars are always encrypted.
    #[serde(default, skip_serializing_if = "Encryption::is_default")]
    pub encryption: Encryption,
    /// Access of workloads to the world outside; allowed when not given.
    #[serde(default, skip_serializing_if = "EgressSpec::is_default")]
    pub egress: EgressSpec,
    /// Callers that its services accept: those by mutual TLS alone and at offered ports alone (strict), or anybody of the
    /// network (permissive). When not given, a new network is strict, and one that is there stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::resource::document::schema::MtlsMode>")]
    pub mtls: Option<Mtls>,
}

/// Access of workloads to the world outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EgressSpec {
    /// Through their hosts.
    #[default]
    Allow,
    /// Not at all.
    Deny,
}

impl EgressSpec {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl From<Egress> for EgressSpec {
    fn from(egress: Egress) -> Self {
        match egress {
            Egress::Allow => Self::Allow,
            Egress::Deny => Self::Deny,
        }
    }
}

impl From<EgressSpec> for Egress {
    fn from(spec: EgressSpec) -> Self {
        match spec {
            EgressSpec::Allow => Self::Allow,
            EgressSpec::Deny => Self::Deny,
        }
    }
}

/// Encryption of an overlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encryption {
    /// Not at all: plain VXLAN.
    #[default]
    None,
}

impl DocumentType for NetworkDocument {
    const KIND: &'static str = "Network";
    const WORDS: [&'static str; 3] = ["network", "networks", "net"];
}

impl From<&Network> for NetworkDocument {
    fn from(network: &Network) -> Self {
        let Network { name, hosts, subnet, vni: _, mtu, egress, subnet6, mtls } = network;
        Self {
            api_version: ApiVersion::V1,
            kind: NetworkKind::Network,
            metadata: NetworkMetadata { name: name.clone() },
            spec: NetworkSpec {
                subnets: Subnets { ipv4: *subnet, ipv6: *subnet6 },
                hosts: hosts.clone(),
                mtu: *mtu,
                encryption: Encryption::None,
                egress: (*egress).into(),
                mtls: *mtls,
            },
        }
    }
}

impl Encryption {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The addresses of a network: a list of one IPv4 prefix and at most one of IPv6, in either order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<AnySubnet>", into = "Vec<AnySubnet>")]
pub struct Subnets {
    /// Prefix of the IPv4 addresses.
    pub ipv4: Subnet,
    /// Prefix of the IPv6 addresses that are made from them.
    pub ipv6: Option<Subnet6>,
}

/// A list that is not one subnet, or one of each family.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubnetsError {
    /// IPv6 addresses end in IPv4 ones.
    #[error("a network has one IPv4 subnet, not {0}")]
    Ipv4(usize),
    /// At most one IPv6 subnet is allowed.
    #[error("a network has at most one IPv6 subnet, not {0}")]
    Ipv6(usize),
}

impl fmt::Display for Subnets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.ipv4)?;
        self.ipv6.map_or(Ok(()), |ipv6| write!(f, ", {ipv6}"))
    }
}

impl From<Subnets> for Vec<AnySubnet> {
    fn from(subnets: Subnets) -> Self {
        [Some(AnySubnet::V4(subnets.ipv4)), subnets.ipv6.map(AnySubnet::V6)].into_iter().flatten().collect()
    }
}

impl TryFrom<Vec<AnySubnet>> for Subnets {
    type Error = SubnetsError;
    fn try_from(subnets: Vec<AnySubnet>) -> Result<Self, SubnetsError> {
        let (mut ipv4, mut ipv6) = (vec![], vec![]);
        for subnet in subnets {
            match subnet {
                AnySubnet::V4(subnet) => ipv4.push(subnet),
                AnySubnet::V6(subnet) => ipv6.push(subnet),
            }
        }
        let [only] = ipv4.as_slice() else { return Err(SubnetsError::Ipv4(ipv4.len())) };
        match ipv6.as_slice() {
            [] => Ok(Self { ipv4: *only, ipv6: None }),
            [twin] => Ok(Self { ipv4: *only, ipv6: Some(*twin) }),
            several => Err(SubnetsError::Ipv6(several.len())),
        }
    }
}
