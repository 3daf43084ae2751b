//! The input from podman: a network of its own, or a container that joins one. Pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use sealane_agent::labels::{self, LabelledInstance as Instance, PREFIX};
use sealane_proto::types::{Aliases, MacAddr, Misread, NetworkName};
use sealane_proto::wire::v1;

use crate::failure::Failure;
use crate::plugin::as_called;
use crate::plugin::holding::{self, LONGEST};
use crate::plugin::json::{self, Object, Wrong};

/// The option that names the network.
const NETWORK: &str = "sealane.network";

/// A network of podman's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Network {
    /// podman's name for it.
    pub(super) name: String,
    /// Our network that it stands for.
    pub(super) network: NetworkName,
    /// The options that say which instances its containers are, unless they say otherwise.
    options: BTreeMap<String, String>,
    internal: bool,
    ipv6: bool,
}

/// A container that joins one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) network: Network,
    /// True when it is to publish ports.
    pub(super) publishes: bool,
    holder: String,
    name: String,
    interface: String,
    aliases: Aliases,
    address: Option<Ipv4Addr>,
    mac: Option<MacAddr>,
    instance: Instance,
}

/// Addresses that podman gives are the same ones on every host.
pub(super) fn refuse_subnets(asked: &Object, network: &Network) -> Result<(), Failure> {
    match json::list("subnets", asked.get("subnets"))?.first() {
        None => Ok(()),
        Some(subnet) => {
            let subnet = subnet.get("subnet").unwrap_or(subnet);
            let text = format!(
                "subnet {} cannot be podman's to give from: addresses come from network {}, on all hosts alike",
                json::shown(subnet),
                network.network
            );
            Err(Failure::new(text).hint(network.line()))
        }
    }
}

impl Network {
    /// Reads one.
    pub(super) fn of(asked: &Object) -> Result<Self, Failure> {
        let name = json::text("name", asked.get("name"))?.unwrap_or_default().to_owned();
        let mut options = json::pairs("options", asked.get("options"))?;
        let network = options.remove(NETWORK).ok_or_else(|| {
            Failure::new(format!("option {NETWORK} is missing: which network of `sealane network ls` it is"))
                .hint(format!("podman network create -d sealane --opt {NETWORK}=NETWORK {name}"))
        })?;
        let network = network.parse().map_err(|error| Wrong::new(&format!("option {NETWORK}"), error))?;
        instance(&options)?;
        let flag = |key: &str| Ok::<_, Wrong>(json::flag(key, asked.get(key))?.unwrap_or_default());
        let (internal, ipv6) = (flag("internal")?, flag("ipv6_enabled")?);
        Ok(Self { name, network, options, internal, ipv6 })
    }

    /// Refuses what our network cannot give its containers.
    pub(super) fn check(&self, known: &v1::Network) -> Result<(), Failure> {
        let Self { network, .. } = self;
        if self.internal && !known.deny_egress {
            return Err(Failure::new(format!("--internal: network {network} lets its containers reach the world outside"))
                .hint("leave it out, or make a network with `sealane network create NAME --subnet CIDR --egress deny`"));
        }
        if self.ipv6 && known.subnet6.is_empty() {
            return Err(Failure::new(format!("--ipv6: network {network} has no IPv6"))
                .hint("leave it out, or make a network with a second --subnet of IPv6"));
        }
        Ok(())
    }

    /// The line that makes it as it should be.
    fn line(&self) -> String {
        let Self { name, network, .. } = self;
        format!("podman network create -d sealane --opt {NETWORK}={network} {name}")
    }
}

/// Reads from options which instance a container is.
fn instance(options: &BTreeMap<String, String>) -> Result<Instance, Failure> {
    if let Some(other) = options.keys().find(|key| !key.starts_with(PREFIX)) {
        return Err(Failure::new(format!(
            "option {other} is not one of driver sealane; its options begin with {PREFIX}"
        )));
    }
    labels::read(options, "option").map_err(Failure::new)
}

impl Container {
    /// Reads one.
    pub(super) fn of(asked: &Object) -> Result<Self, Failure> {
        let none = Object::new();
        let network = Network::of(json::section("network", asked.get("network"))?.unwrap_or(&none))?;
        let own = json::section("network_options", asked.get("network_options"))?.unwrap_or(&none);
        let key = |key: &str| format!("network_options.{key}");
        let name = json::text("container_name", asked.get("container_name"))?.unwrap_or_default().to_owned();
        let mut aliases = json::words(&key("aliases"), own.get("aliases"))?;
        // podman gives the beginning of the container's id as well, which may be a number.
        let id = json::text("container_id", asked.get("container_id"))?.unwrap_or_default();
        aliases.retain(|alias| !id.starts_with(alias.as_str()) || Misread::of(alias).is_none());
        aliases.extend(as_called(&name));
        let aliases = Aliases::parse(aliases).map_err(|error| Wrong::new(&key("aliases"), error))?;
        let mut options = network.options.clone();
        options.extend(json::pairs(&key("options"), own.get("options"))?);
        let instance = instance(&options)?;
        instance.check_effect(&options, "option").map_err(Failure::new)?;
        Ok(Self {
            publishes: !json::list("port_mappings", asked.get("port_mappings"))?.is_empty(),
            holder: Self::holder(asked)?,
            interface: json::text(&key("interface_name"), own.get("interface_name"))?
                .unwrap_or_default()
                .to_owned(),
            address: json::address(&key("static_ips"), own.get("static_ips"))?,
            mac: json::mac(&key("static_mac"), own.get("static_mac"))?,
            instance,
            network,
            name,
            aliases,
        })
    }

    /// The name by which a container is held in its network: that is all that its end needs.
    pub(super) fn holder(asked: &Object) -> Result<String, Failure> {
        let id = json::text("container_id", asked.get("container_id"))?.unwrap_or_default();
        let network = json::section("network", asked.get("network"))?;
        let network = json::text("network.name", network.and_then(|network| network.get("name")))?;
        let (Some(network), false) = (network, id.is_empty()) else {
            return Err(Failure::new("container_id and network.name are missing: what is to be attached"));
        };
        let holder = format!("netavark/{id}/{network}");
        let fits = holder.len() <= LONGEST && holder.bytes().all(|c| c.is_ascii_graphic());
        let text =
            "container_id and network.name have more than 200 bytes together, or signs that are not visible";
        if fits { Ok(holder) } else { Err(Failure::new(text)) }
    }

    /// The request to the agent.
    pub(super) fn request(&self, netns: &Path) -> v1::AttachRequest {
        let choice = v1::NetworkChoice {
            network: self.network.network.to_string(),
            address: self.address.map(|address| address.to_string()).unwrap_or_default(),
            mac: self.mac.map(|mac| mac.to_string()).unwrap_or_default(),
            interface: self.interface.clone(),
            aliases: self.aliases.iter().map(ToString::to_string).collect(),
        };
        holding::request(self.holder.clone(), Some(netns), self.name.clone(), choice, &self.instance)
    }
}

#[cfg(test)]
mod tests;
