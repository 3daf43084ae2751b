//! Wishes of a runtime for this one container: capabilities in `runtimeConfig`, and `args`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use sealane_proto::types::{Aliases, MacAddr};
use serde_json::Value;

use super::super::failure::{CniError, Code};
use super::wrong;
use crate::plugin::dns::Dns;
use crate::plugin::json::{self, Object, Wrong};

/// The capability by which containerd and CRI-O tell a pod's annotations.
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";
/// The section of `args` in which Mesos says for which task a container is.
const MESOS: &str = "org.apache.mesos";
/// The capabilities that a configuration may declare, and a runtime give.
const CAPABILITIES: [&str; 5] = ["ips", "mac", "aliases", "dns", ANNOTATIONS];

/// Requests of a runtime for one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RuntimeRequest {
    pub(crate) ip: Option<Ipv4Addr>,
    pub(crate) mac: Option<MacAddr>,
    pub(crate) aliases: Aliases,
    /// The resolvers that the result names behind ours.
    pub(crate) dns: Dns,
    /// The pod's annotations.
    pub(crate) annotations: BTreeMap<String, String>,
    /// The labels of a Mesos task's network.
    pub(crate) labels: BTreeMap<String, String>,
}

impl RuntimeRequest {
    pub(super) fn of(conf: &Object) -> Result<Self, CniError> {
        let none = Object::new();
        let section = |key: &str| json::section(key, conf.get(key)).map(|found| found.unwrap_or(&none));
        let (declared, capable, args) =
            (section("capabilities")?, section("runtimeConfig")?, section("args")?);
        let wanted = declared.iter().filter(|(_, wanted)| **wanted != Value::Bool(false));
        wanted.chain(capable).try_for_each(|(key, value)| refuse_other(key, value))?;
        let labels = labels(args)?;
        let args = json::section("args.cni", args.get("cni"))?.unwrap_or(&none);
        let either = |key: &str| capable.get(key).or_else(|| args.get(key)).filter(|value| !value.is_null());
        let (mac, ip) = (json::mac("mac", either("mac"))?, json::address("ips", either("ips"))?);
        let mut aliases = json::words("aliases", conf.get("aliases"))?;
        aliases.extend(names(capable.get("aliases"), conf.get("name").and_then(Value::as_str))?);
        let aliases = Aliases::parse(aliases).map_err(|error| wrong("aliases", error))?;
        let mut dns = Dns::of("dns", section("dns")?)?;
        if let Some(given) = json::section("runtimeConfig.dns", capable.get("dns"))? {
            dns.extend(Dns::of("runtimeConfig.dns", given)?);
        }
        let annotations = json::pairs(ANNOTATIONS, capable.get(ANNOTATIONS))?;
        Ok(Self { ip, mac, aliases, dns, annotations, labels })
    }
}

/// Reads the labels of a Mesos task's network, each an object of a key and perhaps a value.
fn labels(args: &Object) -> Result<BTreeMap<String, String>, CniError> {
    let mut key = format!("args.{MESOS}");
    let mut section = json::section(&key, args.get(MESOS))?;
    for name in ["network_info", "labels"] {
        key = format!("{key}.{name}");
        section = json::section(&key, section.and_then(|section| section.get(name)))?;
    }
    key = format!("{key}.labels");
    let list = json::list(&key, section.and_then(|section| section.get("labels")))?;
    let label = |label: &Value| -> Result<(String, String), Wrong> {
        let text = |name: &str| json::text(&format!("{key}.{name}"), label.get(name));
        Ok((text("key")?.unwrap_or_default().to_owned(), text("value")?.unwrap_or_default().to_owned()))
    };
    Ok(list.iter().map(label).collect::<Result<_, _>>()?)
}

/// Refuses a capability that would have no effect here: what other plugins do is theirs to declare.
fn refuse_other(key: &str, value: &Value) -> Result<(), CniError> {
    let nothing = match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(section) => section.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    };
    if nothing || CAPABILITIES.contains(&key) {
        return Ok(());
    }
    let hint = match key {
        "portMappings" => {
            "leave it out here, and put a plugin that gives the container a leg on the host, such as bridge, before sealane, and \
             {\"type\": \"portmap\", \"capabilities\": {\"portMappings\": true}} behind it"
                .to_owned()
        }
        "bandwidth" => {
            "leave it out here, and put {\"type\": \"bandwidth\", \"capabilities\": {\"bandwidth\": true}} behind the plugin whose \
             interface it is for"
                .to_owned()
        }
        "ipRanges" => "leave it out: addresses come from the network's subnet, on all hosts alike".to_owned(),
        _ => format!("type sealane has {}", CAPABILITIES.join(", ")),
    };
    let text = format!("capability {key:?} with value {} is not one of type sealane", json::shown(value));
    Err(CniError::new(Code::Unsupported, text).hint(hint))
}

/// Aliases are a list, or, from podman, one for each of its networks.
fn names(value: Option<&Value>, network: Option<&str>) -> Result<Vec<String>, CniError> {
    let own = match value {
        Some(Value::Object(networks)) => network.and_then(|network| networks.get(network)),
        other => other,
    };
    Ok(json::words("aliases", own)?)
}
