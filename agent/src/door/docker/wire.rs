//! Requests of dockerd to a plugin (libnetwork's remote and IPAM drivers), in the form of its JSON. `null` is as good as
//! nothing.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::attachment::{FailureKind, RequestFailure};

/// `IpamDriver.RequestPool`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct RequestPool {
    #[serde(rename = "Pool")]
    pub(super) pool: String,
    #[serde(rename = "SubPool")]
    pub(super) sub_pool: String,
    #[serde(rename = "Options")]
    pub(super) options: Option<BTreeMap<String, String>>,
    #[serde(rename = "V6")]
    pub(super) v6: bool,
}

/// `IpamDriver.RequestAddress` and `ReleaseAddress`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct OfAddress {
    #[serde(rename = "PoolID")]
    pub(super) pool_id: String,
    #[serde(rename = "Address")]
    pub(super) address: String,
    #[serde(rename = "Options")]
    pub(super) options: Option<BTreeMap<String, String>>,
}

/// Addresses that IPAM has given a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct IpamData {
    #[serde(rename = "AddressSpace")]
    pub(super) address_space: String,
    #[serde(rename = "Pool")]
    pub(super) pool: String,
    #[serde(rename = "Gateway")]
    pub(super) gateway: String,
}

/// `NetworkDriver.CreateNetwork`, and `GwAllocCheck` with nothing but options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct CreateNetwork {
    #[serde(rename = "NetworkID")]
    pub(super) network_id: String,
    #[serde(rename = "Options")]
    pub(super) options: Option<Map<String, Value>>,
    #[serde(rename = "IPv4Data")]
    pub(super) ipv4: Option<Vec<IpamData>>,
    #[serde(rename = "IPv6Data")]
    pub(super) ipv6: Option<Vec<IpamData>>,
}

/// An endpoint's interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Interface {
    #[serde(rename = "Address")]
    pub(super) address: String,
    #[serde(rename = "AddressIPv6")]
    pub(super) address6: String,
    #[serde(rename = "MacAddress")]
    pub(super) mac: String,
}

/// Whatever is about an endpoint, or about a network alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct OfEndpoint {
    #[serde(rename = "NetworkID")]
    pub(super) network_id: String,
    #[serde(rename = "EndpointID")]
    pub(super) endpoint_id: String,
    #[serde(rename = "SandboxKey")]
    pub(super) sandbox: String,
    #[serde(rename = "Interface")]
    pub(super) interface: Option<Interface>,
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Asks for the plugin's kinds.
    Activate,
    /// Asks for the network driver's capabilities.
    NetworkCapabilities,
    /// Asks for the IPAM driver's requirements.
    IpamCapabilities,
    /// Asks for the names of its address spaces.
    AddressSpaces,
    /// Of no consequence here: other hosts' comings and goings, ports that Docker itself publishes.
    Ignored,
    /// Asks if the network wants gateways.
    GatewayCheck(CreateNetwork),
    RequestPool(RequestPool),
    ReleasePool,
    RequestAddress(OfAddress),
    ReleaseAddress(OfAddress),
    CreateNetwork(CreateNetwork),
    DeleteNetwork(OfEndpoint),
    CreateEndpoint(OfEndpoint),
    EndpointInfo,
    DeleteEndpoint(OfEndpoint),
    Join(OfEndpoint),
    Leave(OfEndpoint),
}

impl Call {
    /// Reads a call. An empty body is what dockerd sends when it tries again after a connection that broke: what it asked for
    /// is not known any more.
    ///
    /// # Errors
    /// When there is no such call, or its body is not what it should be.
    pub(super) fn parse(path: &str, body: &[u8]) -> Result<Self, RequestFailure> {
        Ok(match path.trim_start_matches('/') {
            "Plugin.Activate" => Self::Activate,
            "NetworkDriver.GetCapabilities" => Self::NetworkCapabilities,
            "IpamDriver.GetCapabilities" => Self::IpamCapabilities,
            "IpamDriver.GetDefaultAddressSpaces" => Self::AddressSpaces,
            "NetworkDriver.DiscoverNew"
            | "NetworkDriver.DiscoverDelete"
            | "NetworkDriver.ProgramExternalConnectivity"
            | "NetworkDriver.RevokeExternalConnectivity" => Self::Ignored,
            "NetworkDriver.GwAllocCheck" => Self::GatewayCheck(read(body)?),
            "IpamDriver.RequestPool" => Self::RequestPool(read(body)?),
            "IpamDriver.ReleasePool" => Self::ReleasePool,
            "IpamDriver.RequestAddress" => Self::RequestAddress(read(body)?),
            "IpamDriver.ReleaseAddress" => Self::ReleaseAddress(read(body)?),
            "NetworkDriver.CreateNetwork" => Self::CreateNetwork(read(body)?),
            "NetworkDriver.DeleteNetwork" => Self::DeleteNetwork(read(body)?),
            "NetworkDriver.CreateEndpoint" => Self::CreateEndpoint(read(body)?),
            "NetworkDriver.EndpointOperInfo" => Self::EndpointInfo,
            "NetworkDriver.DeleteEndpoint" => Self::DeleteEndpoint(read(body)?),
            "NetworkDriver.Join" => Self::Join(read(body)?),
            "NetworkDriver.Leave" => Self::Leave(read(body)?),
            other => {
                let shown: String = other.chars().take(80).collect();
                return Err(RequestFailure::new(
                    FailureKind::Wrong,
                    format!("sealane does not offer {shown:?} to Docker"),
                ));
            }
        })
    }

    /// Under which name dockerd looks for an error of this path.
    #[must_use]
    pub(super) fn error_name(path: &str) -> &'static str {
        if path.trim_start_matches('/').starts_with("IpamDriver.") { "Error" } else { "Err" }
    }
}

fn read<T: for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, RequestFailure> {
    let wrong = |why: String| {
        RequestFailure::new(FailureKind::Wrong, format!("sealane: Docker's request cannot be read: {why}"))
    };
    let fields: Map<String, Value> =
        serde_json::from_slice(body).map_err(|error| wrong(error.to_string()))?;
    if fields.is_empty() {
        return Err(wrong("it is empty; try again".to_owned()));
    }
    serde_json::from_value(Value::Object(fields))
        .map_err(|error| wrong(format!("{}{error}", culprit::<T>(body))))
}

/// The field that cannot be read, in front of why.
fn culprit<T: for<'a> Deserialize<'a>>(body: &[u8]) -> String {
    let fields: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    let alone = |(name, value): (String, Value)| {
        let field = Value::Object(Map::from_iter([(name.clone(), value)]));
        serde_json::from_value::<T>(field).is_err().then(|| format!("{name}: "))
    };
    fields.into_iter().find_map(alone).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_with_nulls_for_nothing() {
        let body = br#"{"PoolID":"sealane/shop","Address":"10.42.0.9","Options":null}"#;
        let expected =
            OfAddress { pool_id: "sealane/shop".to_owned(), address: "10.42.0.9".to_owned(), options: None };
        assert_eq!(Call::parse("/IpamDriver.RequestAddress", body).unwrap(), Call::RequestAddress(expected));
        assert_eq!(Call::parse("/Plugin.Activate", b"").unwrap(), Call::Activate);
        let more = br#"{"NetworkID":"n","SomethingNew":{"a":[1]}}"#;
        assert!(matches!(Call::parse("/NetworkDriver.DeleteNetwork", more).unwrap(), Call::DeleteNetwork(_)));
    }

    #[test]
    fn what_is_empty_or_unknown_is_refused_in_words() {
        for (path, body) in [
            ("/IpamDriver.RequestAddress", &b""[..]),
            ("/IpamDriver.RequestAddress", b" {} "),
            ("/NetworkDriver.Join", b"[]"),
            ("/NetworkDriver.Join", b"{\"EndpointID\":1}"),
            ("/NetworkDriver.Jump", b"{}"),
        ] {
            assert!(Call::parse(path, body).is_err(), "{path}");
        }
        assert_eq!(Call::error_name("/IpamDriver.RequestPool"), "Error");
        assert_eq!(Call::error_name("/NetworkDriver.Join"), "Err");
    }
}
