//! A network's configuration, as a runtime gives it on standard input. A key that is not known is refused by name.

mod asked;

use std::path::PathBuf;

use sealane_proto::types::{NetworkName, ServiceName, ServicePort, Weight};
use serde_json::{Map, Value};

use super::call::is_word;
use super::failure::{CniError, Code};
use super::version::Version;
pub(super) use asked::{Asked, Dns};

/// Keys of ours.
const OWN: [&str; 8] = ["network", "service", "ports", "sidecar", "weight", "aliases", "socket", "dns"];
/// Keys of the specification.
const SPECIFIED: [&str; 14] = [
    "cniVersion",
    "cniVersions",
    "name",
    "type",
    "capabilities",
    "runtimeConfig",
    "args",
    "prevResult",
    "ipMasq",
    "ipam",
    "disableCheck",
    "disableGC",
    "loadOnlyInlinedPlugins",
    "plugins",
];
/// The prefix of keys that the specification keeps for itself.
const RESERVED: &str = "cni.dev/";

/// What every verb needs: DEL must work whatever else has become of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Basics {
    pub(super) version: Version,
    /// The name of the network among the runtime's, which is not ours.
    pub(super) name: String,
    pub(super) socket: Option<PathBuf>,
}

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) network: NetworkName,
    pub(super) service: Option<ServiceName>,
    pub(super) ports: Vec<ServicePort>,
    pub(super) sidecar: bool,
    pub(super) weight: Weight,
    pub(super) asked: Asked,
    pub(super) previous: Option<Map<String, Value>>,
}

/// An object of JSON, and where it is.
pub(super) fn object(text: &[u8]) -> Result<Map<String, Value>, CniError> {
    match serde_json::from_slice(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(CniError::new(Code::Decode, "the configuration is no JSON object")),
        Err(error) => Err(CniError::new(Code::Decode, format!("the configuration is no JSON: {error}"))),
    }
}

pub(super) fn wrong(key: &str, reason: impl std::fmt::Display) -> CniError {
    CniError::new(Code::Configuration, format!("{key}: {reason}"))
}

/// The text at `key`; null and nothing are the same.
fn text<'a>(conf: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, CniError> {
    match conf.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty()).map(String::as_str)),
        Some(other) => Err(wrong(key, format!("{other} is no text"))),
    }
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
    conf: &Map<String, Value>,
    key: &str,
) -> Result<Option<T>, CniError> {
    text(conf, key)?.map(str::parse).transpose().map_err(|error: T::Err| wrong(key, error))
}

impl Basics {
    /// Reads what every verb needs.
    pub(super) fn of(conf: &Map<String, Value>) -> Result<Self, CniError> {
        let number = text(conf, "cniVersion")?.unwrap_or_default();
        let version = Version::parse(number).ok_or_else(|| {
            let spoken = Version::ALL.map(|(_, number)| number).join(", ");
            CniError::new(Code::Version, format!("cniVersion {number:?} is not spoken here"))
                .hint(format!("write one of {spoken}"))
        })?;
        let name = text(conf, "name")?.unwrap_or_default();
        if !is_word(name) {
            let reason =
                "a network's name is letters, digits, `.`, `_` and `-`, and begins with a letter or digit";
            return Err(wrong("name", format!("{name:?}: {reason}")));
        }
        Ok(Self { version, name: name.to_owned(), socket: text(conf, "socket")?.map(PathBuf::from) })
    }
}

impl Config {
    /// Reads all of it.
    pub(super) fn of(conf: &Map<String, Value>) -> Result<Self, CniError> {
        refuse_unknown(conf)?;
        refuse_ipam(conf)?;
        let network = parsed(conf, "network")?.ok_or_else(|| {
            wrong("network", "it is missing")
                .hint("add \"network\": \"NAME\"; `sealane network ls` lists them")
        })?;
        let service = parsed::<ServiceName>(conf, "service")?;
        let ports = ports(conf.get("ports"))?;
        if service.is_none() && !ports.is_empty() {
            return Err(wrong("ports", "a port needs a service").hint("add \"service\": \"NAME\""));
        }
        let sidecar = match conf.get("sidecar") {
            None | Some(Value::Null) => true,
            Some(Value::Bool(sidecar)) => *sidecar,
            Some(other) => return Err(wrong("sidecar", format!("{other} is neither true nor false"))),
        };
        let weight = match conf.get("weight") {
            None | Some(Value::Null) => Weight::default(),
            Some(value) => value.to_string().parse().map_err(|error| wrong("weight", error))?,
        };
        let previous = match conf.get("prevResult") {
            None | Some(Value::Null) => None,
            Some(Value::Object(previous)) => Some(previous.clone()),
            Some(_) => return Err(wrong("prevResult", "it is no object")),
        };
        Ok(Self { network, service, ports, sidecar, weight, asked: Asked::of(conf)?, previous })
    }
}

fn refuse_unknown(conf: &Map<String, Value>) -> Result<(), CniError> {
    let known = |key: &str| OWN.contains(&key) || SPECIFIED.contains(&key) || key.starts_with(RESERVED);
    match conf.iter().find(|(key, _)| !known(key)) {
        Some((key, value)) => {
            Err(CniError::new(Code::Unsupported, format!("key {key:?} with value {value} is not known"))
                .hint(format!("keys of type sealane are {}", OWN.join(", "))))
        }
        None => Ok(()),
    }
}

/// Addresses are the network's, which every host gives from: a second giver would make duplicates.
fn refuse_ipam(conf: &Map<String, Value>) -> Result<(), CniError> {
    match conf.get("ipam") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Object(ipam)) if ipam.is_empty() => Ok(()),
        Some(ipam) => Err(CniError::new(
            Code::Unsupported,
            format!("key \"ipam\" with value {ipam} is not supported: addresses come from the network's subnet, on all hosts alike"),
        )
        .hint("leave \"ipam\" out; `sealane network create NAME --subnet CIDR` says which addresses there are")),
    }
}

fn ports(value: Option<&Value>) -> Result<Vec<ServicePort>, CniError> {
    let ports = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(ports)) => ports,
        Some(other) => {
            return Err(wrong("ports", format!("{other} is no list")).hint("\"ports\": [\"web=8080/http\"]"));
        }
    };
    let port = |port: &Value| {
        let text = port.as_str().map_or_else(|| port.to_string(), str::to_owned);
        text.parse().map_err(|error| wrong("ports", error))
    };
    ports.iter().map(port).collect()
}

#[cfg(test)]
mod tests;
