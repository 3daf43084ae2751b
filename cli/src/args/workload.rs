//! Verbs that make and end workloads, and start commands in them.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use sealane_proto::types::{
    Alias, MacAddr, Mtls, NetworkName, ServiceName, ServicePort, Weight, WorkloadName, WorkloadRef,
};

/// `sealane run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) attach: Attach,
    /// How long to wait until it can start, such as for an agent that restarts or a control plane; for ever when not given
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// How a workload is attached to a network.
#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// A network it joins; of several, the first one's names stand before the others'
    #[arg(long = "network", value_name = "NAME", required = true)]
    pub(crate) networks: Vec<NetworkName>,
    /// The service that it is an instance of, in each of its networks; without --port, one that nobody calls
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<ServiceName>,
    /// A port of the service that it listens on
    #[arg(long = "port", id = "ports", value_name = "[NAME=]PORT[/PROTO]", requires = "service")]
    pub(crate) ports: Vec<ServicePort>,
    /// Whose calls these ports take; as the network says when not given. A document of the service has the last word
    #[arg(long, value_name = "MODE", requires = "ports", value_parser = super::table::mode())]
    pub(crate) mtls: Option<Mtls>,
    /// Its own name; made from the service or the command when not given
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<WorkloadName>,
    /// Its address; the next free one of this host when not given
    #[arg(long = "ip", value_name = "[NETWORK=]ADDRESS")]
    pub(crate) ips: Vec<InNetwork<Ipv4Addr>>,
    /// Its Ethernet address; made from its address when not given
    #[arg(long = "mac", value_name = "[NETWORK=]ADDRESS")]
    pub(crate) macs: Vec<InNetwork<MacAddr>>,
    /// A further name of it in the network, which others may have as well: whoever asks gets the addresses of all of them
    #[arg(long = "alias", value_name = "[NETWORK=]NAME")]
    pub(crate) aliases: Vec<InNetwork<Alias>>,
    /// Its share of its service's new calls beside the other instances' weights, 0 to 1000; 0: none
    #[arg(long, value_name = "WEIGHT", default_value_t)]
    pub(crate) weight: Weight,
    /// Plain packets only: no identity, no encryption, no retries
    #[arg(long)]
    pub(crate) no_sidecar: bool,
}

/// `sealane exec`.
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// The workload, as `sealane workload ls` names it
    #[arg(value_name = "WORKLOAD[.NETWORK]")]
    pub(crate) workload: WorkloadRef,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// `sealane attach`.
#[derive(Debug, Args)]
pub(crate) struct AttachTo {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) attach: Attach,
}

/// The namespace that is attached.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Target {
    /// Its path, such as /run/netns/NAME or /proc/PID/ns/net
    #[arg(value_name = "NETNS_PATH")]
    pub(crate) path: Option<PathBuf>,
    /// A process in it; the attachment ends with that
    #[arg(long, value_name = "PID", value_parser = process)]
    pub(crate) pid: Option<u32>,
    /// The container it is of, by id or the beginning of one; the attachment ends with that
    #[arg(long, value_name = "ID")]
    pub(crate) container: Option<String>,
    /// A service of systemd, by its unit's name without `.service`: a namespace is made for it, which stays until `detach`
    #[arg(long, value_name = "UNIT")]
    pub(crate) unit: Option<UnitName>,
    /// A virtual machine, by the TAP device that is made for it and stays until `detach`: `-netdev tap,ifname=NAME`
    #[arg(long, value_name = "NAME")]
    pub(crate) tap: Option<String>,
}

/// `sealane detach`.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Detach {
    /// The workload, as `sealane workload ls` names it
    #[arg(value_name = "WORKLOAD[.NETWORK]")]
    pub(crate) workload: Option<WorkloadRef>,
    /// What a container runtime holds by this name, and the address that it has reserved by it
    #[arg(long, value_name = "HOLDER")]
    pub(crate) holder: Option<String>,
    /// What `attach --unit` made for this service of systemd
    #[arg(long, value_name = "UNIT")]
    pub(crate) unit: Option<UnitName>,
}

/// The name of a unit of systemd, without its kind (systemd.unit(5)); good as the name of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnitName(String);

impl UnitName {
    /// Less than systemd allows: a holder's name, which it is part of, is shorter.
    const LONGEST: usize = 180;

    /// The name as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UnitName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.strip_suffix(".service").unwrap_or(text);
        let is_ours = |c: char| c.is_ascii_alphanumeric() || r":-_.\@".contains(c);
        let fits = !name.is_empty() && name.len() <= Self::LONGEST && !name.starts_with('.');
        if fits && name.chars().all(is_ours) {
            return Ok(Self(name.to_owned()));
        }
        Err(format!(
            "a unit's name has 1 to {} letters, digits and `:-_.\\@`, and does not begin with a dot",
            Self::LONGEST
        ))
    }
}

fn process(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|pid: &u32| *pid > 0);
    number.ok_or_else(|| format!("process {text:?} is not a number from 1 on"))
}

/// A value for one of a workload's networks; which one need not be said where there is but one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InNetwork<T> {
    pub(crate) network: Option<NetworkName>,
    pub(crate) value: T,
}

impl<T: FromStr<Err: ToString>> FromStr for InNetwork<T> {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (network, value) = match text.split_once('=') {
            Some((network, value)) => (
                Some(network.parse().map_err(|error: sealane_proto::types::NameError| error.to_string())?),
                value,
            ),
            None => (None, text),
        };
        let value = value.parse().map_err(|error: T::Err| error.to_string())?;
        Ok(Self { network, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_s_name_is_one_of_systemd_s_and_of_a_file() {
        let table = [
            ("api", Ok("api")),
            ("api@1.service", Ok("api@1")),
            (r"dev-disk\x2d1", Ok(r"dev-disk\x2d1")),
            ("", Err(())),
            (".service", Err(())),
            ("..", Err(())),
            ("a/b", Err(())),
            ("a b", Err(())),
        ];
        for (text, expected) in table {
            let parsed = text.parse::<UnitName>();
            assert_eq!(parsed.as_ref().map(UnitName::as_str).map_err(|_| ()), expected, "{text}");
        }
        assert!("x".repeat(181).parse::<UnitName>().is_err());
    }
}
