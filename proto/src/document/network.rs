//! `kind: Network`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ApiVersion;
use crate::resource::{Egress, Network};
use crate::types::{NetworkName, Subnet};

/// An overlay network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "Network")]
pub struct NetworkDocument {
    /// The version of the document's shape.
    pub api_version: ApiVersion,
    /// What the document is about.
    pub kind: NetworkKind,
    /// Which network.
    pub metadata: NetworkMetadata,
    /// What it should be.
    pub spec: NetworkSpec,
}

/// The kind of a network's document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NetworkKind {
    /// The only one.
    #[default]
    Network,
}

/// Which network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkMetadata {
    /// Its name, unique in the mesh, and the last part of its workloads' DNS names.
    #[schemars(with = "super::schema::Label")]
    pub name: NetworkName,
}

/// What a network should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkSpec {
    /// Its addresses: one IPv4 prefix from /8 to /26 without host bits. Fixed once the network is there.
    #[schemars(with = "super::schema::OneSubnet")]
    pub subnets: Subnets,
    /// Bytes per packet inside; by the underlay when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<super::schema::MtuBytes>")]
    pub mtu: Option<Mtu>,
    /// How the overlay itself is encrypted; calls between sidecars always are.
    #[serde(default, skip_serializing_if = "Encryption::is_default")]
    pub encryption: Encryption,
    /// Whether workloads reach the world outside; they do when not given.
    #[serde(default, skip_serializing_if = "EgressSpec::is_default")]
    pub egress: EgressSpec,
}

/// Whether workloads reach the world outside.
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

/// How an overlay is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encryption {
    /// Not at all: plain VXLAN.
    #[default]
    None,
}

impl From<&Network> for NetworkDocument {
    fn from(network: &Network) -> Self {
        let Network { name, subnet, vni: _, mtu, egress } = network;
        Self {
            api_version: ApiVersion::V1,
            kind: NetworkKind::Network,
            metadata: NetworkMetadata { name: name.clone() },
            spec: NetworkSpec {
                subnets: (*subnet).into(),
                mtu: mtu.map(Mtu),
                encryption: Encryption::None,
                egress: (*egress).into(),
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

/// The addresses of a network: a list, of which one is offered so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Subnet>", into = "Vec<Subnet>")]
pub struct Subnets(Subnet);

/// A list that is not one subnet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a network has one subnet, not {0}")]
pub struct SubnetsError(usize);

impl Subnets {
    /// The only one.
    #[must_use]
    pub fn first(self) -> Subnet {
        self.0
    }
}

impl From<Subnet> for Subnets {
    fn from(subnet: Subnet) -> Self {
        Self(subnet)
    }
}

impl From<Subnets> for Vec<Subnet> {
    fn from(subnets: Subnets) -> Self {
        vec![subnets.0]
    }
}

impl TryFrom<Vec<Subnet>> for Subnets {
    type Error = SubnetsError;
    fn try_from(subnets: Vec<Subnet>) -> Result<Self, SubnetsError> {
        match subnets.as_slice() {
            [subnet] => Ok(Self(*subnet)),
            _ => Err(SubnetsError(subnets.len())),
        }
    }
}

/// An inner MTU: what every IPv4 host must take (RFC 791) to jumbo frames, 576 to 9000 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u16")]
pub struct Mtu(u16);

/// A number that is no sensible MTU.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("mtu {0} must be from {min} to {max} bytes, or left out", min = Mtu::MIN, max = Mtu::MAX)]
pub struct MtuError(u32);

impl Mtu {
    /// The smallest.
    pub const MIN: u16 = 576;
    /// The largest.
    pub const MAX: u16 = 9_000;

    /// Bytes.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u32> for Mtu {
    type Error = MtuError;
    fn try_from(bytes: u32) -> Result<Self, MtuError> {
        let sensible = u16::try_from(bytes).ok().filter(|bytes| (Self::MIN..=Self::MAX).contains(bytes));
        sensible.map(Self).ok_or(MtuError(bytes))
    }
}

impl From<Mtu> for u16 {
    fn from(mtu: Mtu) -> Self {
        mtu.0
    }
}
