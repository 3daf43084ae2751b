//! Verbs that make and end workloads, and start commands in them.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use sealane_proto::types::{
    Alias, Check, Interval, MacAddr, Mtls, NetworkName, Port, Probe, ServiceName, ServicePort, StatusRange,
    Threshold, Weight, WorkloadName, WorkloadRef,
};

/// `sealane run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) attach: Attach,
    /// Longest time to wait until it can start, such as for an agent that restarts or for control [default: no limit]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// How a workload is attached to a network.
#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// Network to join; of several, names of the first one take precedence
    #[arg(long = "network", value_name = "NETWORK", required = true)]
    pub(crate) networks: Vec<NetworkName>,
    /// Service that it is an instance of, in each of its networks; without --port, nobody calls it
    #[arg(long, value_name = "SERVICE")]
    pub(crate) service: Option<ServiceName>,
    /// Port of the service, on which it listens
    #[arg(long = "port", id = "ports", value_name = "[NAME=]PORT[/PROTO]", requires = "service")]
    pub(crate) ports: Vec<ServicePort>,
    /// Calls that these ports take [default: as the network]; a document of the service takes precedence
    #[arg(long, value_name = "MODE", requires = "ports", value_parser = super::table::mode())]
    pub(crate) mtls: Option<Mtls>,
    /// Name of the workload [default: made from the service or the command]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<WorkloadName>,
    /// Address of the workload [default: the next free one of this host]
    #[arg(long = "ip", value_name = "[NETWORK=]ADDRESS")]
    pub(crate) ips: Vec<InNetwork<Ipv4Addr>>,
    /// Ethernet address of the workload [default: derived from its address]
    #[arg(long = "mac", value_name = "[NETWORK=]ADDRESS")]
    pub(crate) macs: Vec<InNetwork<MacAddr>>,
    /// Further name in the network, which several workloads may share: it resolves to the addresses of all of them
    #[arg(long = "alias", value_name = "[NETWORK=]NAME")]
    pub(crate) aliases: Vec<InNetwork<Alias>>,
    /// Weight among the instances of its service, from 0 to 1000; 0 gets no new calls
    #[arg(long, value_name = "WEIGHT", default_value_t, allow_negative_numbers = true)]
    pub(crate) weight: Weight,
    #[command(flatten)]
    pub(crate) health: HealthArgs,
    /// Run without a sidecar: no identity, no encryption, no retries
    #[arg(long)]
    pub(crate) no_sidecar: bool,
}

/// A check of a workload's own, in place of its service's.
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// Check that it must pass to get calls: tcp, http:PATH, grpc, grpc:SERVICE or exec:COMMAND [default: as its service's document]
    #[arg(long = "health", id = "health", value_name = "PROBE", requires = "service")]
    pub(crate) probe: Option<Probe>,
    /// Port that is checked [default: the first --port over TCP]
    #[arg(long = "health-port", id = "health-port", value_name = "PORT", requires = "health")]
    pub(crate) port: Option<Port>,
    /// Status that `http:` expects, or two with a hyphen [default: 200-399]
    #[arg(long = "health-status", id = "health-status", value_name = "STATUS", requires = "health")]
    pub(crate) status: Option<StatusRange>,
    /// Time from one check to the next, from 100ms to 1h [default: 5s]
    #[arg(long = "health-interval", id = "health-interval", value_name = "DURATION", requires = "health")]
    pub(crate) interval: Option<Interval>,
    /// Time within which an answer counts [default: the interval, 2s at most]
    #[arg(long = "health-timeout", id = "health-timeout", value_name = "DURATION", requires = "health")]
    pub(crate) timeout: Option<Interval>,
    /// Good answers in a row that make it healthy [default: 1]
    #[arg(long = "health-passes", id = "health-passes", value_name = "NUMBER", requires = "health")]
    pub(crate) healthy: Option<Threshold>,
    /// Bad answers in a row that make it unhealthy [default: 3]
    #[arg(long = "health-retries", id = "health-retries", value_name = "NUMBER", requires = "health")]
    pub(crate) unhealthy: Option<Threshold>,
    /// Time after its start in which bad answers do not count [default: none]
    #[arg(
        long = "health-start-period",
        id = "health-start-period",
        value_name = "DURATION",
        requires = "health"
    )]
    pub(crate) start_period: Option<Interval>,
}

impl HealthArgs {
    /// The check, if there is one.
    ///
    /// # Errors
    /// When it expects a status of something else than HTTP.
    pub(crate) fn check(&self) -> Result<Option<Check>, String> {
        let probe = match (self.probe.clone(), self.status) {
            (None, _) => return Ok(None),
            (Some(Probe::Http(path, _)), Some(status)) => Probe::Http(path, status),
            (Some(_), Some(_)) => {
                return Err("--health-status: only an answer to http: has a status; leave it out".to_owned());
            }
            (Some(probe), None) => probe,
        };
        Ok(Some(Check {
            probe,
            port: self.port,
            interval: self.interval.unwrap_or_default(),
            timeout: self.timeout,
            healthy: self.healthy,
            unhealthy: self.unhealthy,
            start_period: self.start_period,
        }))
    }
}

/// `sealane exec`.
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Name of the workload, as `sealane workload ls` shows it
    #[arg(value_name = "WORKLOAD[.NETWORK]")]
    pub(crate) workload: WorkloadRef,
    /// Command and its arguments
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
    /// Path of the network namespace, such as /run/netns/NAME or /proc/PID/ns/net
    #[arg(value_name = "NETNS_PATH")]
    pub(crate) path: Option<PathBuf>,
    /// Process in the namespace; the attachment ends with the process
    #[arg(long, value_name = "PID", value_parser = process)]
    pub(crate) pid: Option<u32>,
    /// Container whose namespace it is, by ID or the beginning of one; the attachment ends with the container
    #[arg(long, value_name = "ID")]
    pub(crate) container: Option<String>,
    /// Service of systemd, by the name of its unit: a namespace is created for it, which stays until `detach`
    #[arg(long, value_name = "UNIT")]
    pub(crate) unit: Option<UnitName>,
    /// TAP device to create for a virtual machine (`-netdev tap,ifname=DEVICE`); it stays until `detach`
    #[arg(long, value_name = "DEVICE")]
    pub(crate) tap: Option<String>,
}

/// `sealane detach`.
#[derive(Debug, Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("detached").required(true).args(["workload", "holder", "unit"]))]
pub(crate) struct Detach {
    /// Name of the workload, as `sealane workload ls` shows it
    #[arg(value_name = "WORKLOAD[.NETWORK]")]
    pub(crate) workload: Option<WorkloadRef>,
    /// Holder by which a container runtime holds the workload or has reserved an address
    #[arg(long, value_name = "HOLDER")]
    pub(crate) holder: Option<String>,
    /// Service of systemd that `attach --unit` has attached
    #[arg(long, value_name = "UNIT")]
    pub(crate) unit: Option<UnitName>,
    /// Longest time for open calls through its sidecar to end, when no host sends new ones any more
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    pub(crate) drain: Duration,
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
