//! A network's configuration, as a runtime gives it on standard input. A key that is not known is refused by name.

mod asked;

use std::collections::BTreeMap;
use std::path::PathBuf;

use sealane_agent::labels::{self, LabelledInstance as Instance};
use sealane_proto::types::{NetworkName, ServiceName, ServicePort, Weight};
use serde_json::Value;

use super::call::is_word;
use super::failure::{CniError, Code};
use super::version::Version;
use crate::plugin::json::{self, Object, Wrong};
pub(super) use asked::RuntimeRequest;

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

/// Part that every verb needs: DEL must work whatever else has become of the configuration.
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
    /// The instance that every container of it is, but for those whose pod or task says otherwise.
    pub(super) instance: Instance,
    pub(super) asked: RuntimeRequest,
    pub(super) previous: Option<Object>,
}

/// A configuration as JSON.
pub(super) fn object(text: &[u8]) -> Result<Object, CniError> {
    json::object("the configuration", text).map_err(|told| CniError { code: Code::Decode, told })
}

pub(super) fn wrong(key: &str, reason: impl std::fmt::Display) -> CniError {
    Wrong::new(key, reason).into()
}

impl Basics {
    /// Reads what every verb needs.
    pub(super) fn of(conf: &Object) -> Result<Self, CniError> {
        let version = Version::of(conf).map_err(|asked| {
            let spoken = Version::ALL.map(|(_, number)| number).join(", ");
            CniError::new(Code::Version, format!("cniVersion {} is not spoken here", json::shown(asked)))
                .hint(format!("write one of {spoken}"))
        })?;
        let name = json::text("name", conf.get("name"))?.unwrap_or_default();
        if !is_word(name) {
            let reason =
                "a network's name is letters, digits, `.`, `_` and `-`, and begins with a letter or digit";
            return Err(wrong("name", format!("{name:?}: {reason}")));
        }
        let socket = json::text("socket", conf.get("socket"))?.map(PathBuf::from);
        Ok(Self { version, name: name.to_owned(), socket })
    }
}

impl Config {
    /// Reads all of it.
    pub(super) fn of(conf: &Object) -> Result<Self, CniError> {
        refuse_unknown(conf)?;
        refuse_ipam(conf)?;
        let network = json::parsed("network", conf.get("network"))?.ok_or_else(|| {
            wrong("network", "it is missing")
                .hint("add \"network\": \"NAME\"; `sealane network ls` lists them")
        })?;
        let asked = RuntimeRequest::of(conf)?;
        let common = instance(conf)?;
        let own = labelled(&asked.annotations, "annotation")?.or(labelled(&asked.labels, "label")?);
        let instance = own.unwrap_or(common);
        let previous = json::section("prevResult", conf.get("prevResult"))?.cloned();
        Ok(Self { network, instance, asked, previous })
    }
}

/// Reads from a pod's annotations or a task's labels, by the runtime's word for one, which instance it is; nothing when none of
/// them is about that.
fn labelled(of: &BTreeMap<String, String>, kind: &str) -> Result<Option<Instance>, CniError> {
    if !of.keys().any(|key| key.starts_with(labels::PREFIX)) {
        return Ok(None);
    }
    let read = labels::read(of, kind).and_then(|read| read.check_effect(of, kind).map(|()| read));
    read.map(Some).map_err(|error| CniError::new(Code::Configuration, error))
}

fn instance(conf: &Object) -> Result<Instance, CniError> {
    let service = json::parsed::<ServiceName>("service", conf.get("service"))?;
    let ports = ports(conf.get("ports"))?;
    if service.is_none() && !ports.is_empty() {
        return Err(wrong("ports", "a port needs a service").hint("add \"service\": \"NAME\""));
    }
    let sidecar = json::flag("sidecar", conf.get("sidecar"))?.unwrap_or(true);
    let weight = match conf.get("weight") {
        None | Some(Value::Null) => Weight::default(),
        Some(value) => json::shown(value).parse().map_err(|error| wrong("weight", error))?,
    };
    if service.is_none() && weight != Weight::default() {
        return Err(wrong("weight", "it shares out the calls of a service")
            .hint("add \"service\": \"NAME\", or leave it out"));
    }
    Ok(Instance { service, ports, sidecar, weight })
}

fn refuse_unknown(conf: &Object) -> Result<(), CniError> {
    let known = |key: &str| OWN.contains(&key) || SPECIFIED.contains(&key) || key.starts_with(RESERVED);
    match conf.iter().find(|(key, _)| !known(key)) {
        Some((key, value)) => Err(CniError::new(
            Code::Unsupported,
            format!("key {key:?} with value {} is not known", json::shown(value)),
        )
        .hint(format!("keys of type sealane are {}", OWN.join(", ")))),
        None => Ok(()),
    }
}

/// Addresses are the network's, which every host gives from: a second giver would make duplicates.
fn refuse_ipam(conf: &Object) -> Result<(), CniError> {
    match conf.get("ipam") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Object(ipam)) if ipam.is_empty() => Ok(()),
        Some(ipam) => Err(CniError::new(
            Code::Unsupported,
            format!(
                "key \"ipam\" with value {} is not supported: addresses come from the network's subnet, on all hosts alike",
                json::shown(ipam)
            ),
        )
        .hint("leave \"ipam\" out; `sealane network create NAME --subnet CIDR` says which addresses there are")),
    }
}

fn ports(value: Option<&Value>) -> Result<Vec<ServicePort>, CniError> {
    let port = |port: &Value| {
        let text = port.as_str().map_or_else(|| json::shown(port), str::to_owned);
        text.parse().map_err(|error| wrong("ports", error))
    };
    let list = json::list("ports", value)
        .map_err(|wrong| CniError::from(wrong).hint("\"ports\": [\"web=8080/http\"]"))?;
    list.iter().map(port).collect()
}

#[cfg(test)]
mod tests;
