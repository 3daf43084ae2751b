//! Verbs about what the mesh consists of.

use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand, ValueEnum};
use sealane_proto::types::{AnySubnet, Mtls, Mtu, NetworkName, NodeName};

/// `sealane network`.
#[derive(Debug, Args)]
pub(crate) struct Network {
    #[command(subcommand)]
    pub(crate) action: NetworkAction,
}

/// What can be done with networks.
#[derive(Debug, Subcommand)]
pub(crate) enum NetworkAction {
    /// Create a network
    Create(CreateNetwork),
    /// List the networks
    Ls,
    /// Show all that is known about a network
    Inspect {
        /// Its name
        name: NetworkName,
    },
    /// Change what can change while a network is there
    Set(SetNetwork),
    /// Remove a network that has no workloads
    Rm {
        /// Its name
        name: NetworkName,
    },
}

/// `sealane network create`.
#[derive(Debug, Args)]
pub(crate) struct CreateNetwork {
    /// Its name, the last part of its workloads' DNS names
    pub(crate) name: NetworkName,
    /// Its addresses, such as 10.42.0.0/16; a second one of IPv6, such as fd42::/64, gives every address a twin there
    #[arg(long, required = true, value_name = "CIDR")]
    pub(crate) subnet: Vec<AnySubnet>,
    /// How the overlay is encrypted; calls between sidecars always are
    #[arg(long, value_enum, default_value_t)]
    pub(crate) encryption: Encryption,
    /// Bytes per packet inside, 576 to 9000, with IPv6 at least 1280; by the underlay when not given
    #[arg(long, value_name = "BYTES")]
    pub(crate) mtu: Option<Mtu>,
    /// The hosts that may carry it; all when not given
    #[arg(long, value_name = "NODE,...", value_delimiter = ',')]
    pub(crate) hosts: Vec<NodeName>,
    /// Whether workloads reach the world outside, through their hosts
    #[arg(long, value_enum, default_value_t)]
    pub(crate) egress: Egress,
    /// Whose calls its services take: strict, by mutual TLS alone and at offered ports alone; permissive, plain calls and
    /// other ports as well
    #[arg(long, value_name = "MODE", default_value_t = Mtls::Strict, value_parser = mode())]
    pub(crate) mtls: Mtls,
}

/// `sealane network set`.
#[derive(Debug, Args)]
pub(crate) struct SetNetwork {
    /// Its name
    pub(crate) name: NetworkName,
    /// Whose calls its services take: strict, by mutual TLS alone and at offered ports alone; permissive, plain calls and
    /// other ports as well
    #[arg(long, value_name = "MODE", value_parser = mode())]
    pub(crate) mtls: Mtls,
}

/// Reads a mode, and lists both in help and completions.
pub(super) fn mode() -> impl TypedValueParser<Value = Mtls> {
    PossibleValuesParser::new(Mtls::NAMES.map(|(name, _)| name)).try_map(|text| text.parse::<Mtls>())
}

/// What becomes of packets to the world outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Egress {
    /// They leave through the workload's host, with its address.
    #[default]
    Allow,
    /// They are refused at once.
    Deny,
}

/// How an overlay is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Encryption {
    /// Not at all: plain VXLAN.
    #[default]
    None,
}

/// `sealane token`.
#[derive(Debug, Args)]
pub(crate) struct Token {
    #[command(subcommand)]
    pub(crate) action: TokenAction,
}

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenAction {
    /// Create a token and print it, alone, on the last line
    Create {
        /// How long it can be used
        #[arg(long, default_value = "24h", value_name = "DURATION", value_parser = lifetime)]
        ttl: Duration,
        /// How many hosts may join by it, or `unlimited`
        #[arg(long, value_name = "N", default_value = "1", value_parser = uses)]
        uses: u32,
        /// The one name that a host may join with by it; any when not given
        #[arg(long, value_name = "NAME")]
        node: Option<NodeName>,
        /// The networks that a host which joins by it may carry; all when not given
        #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
        networks: Vec<NetworkName>,
    },
    /// List the tokens, without what proves them; one that has ended is shown for a week
    Ls,
    /// Take a token back: it lets nobody in any more. Hosts that joined by it stay
    Revoke {
        /// Its id, the second part of the token; the whole token is understood too
        #[arg(value_name = "ID")]
        id: String,
    },
}

/// A year, a leap year too: control makes no token that lives longer.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3_600);

/// A number of hosts; 0 stands for any number.
fn uses(text: &str) -> Result<u32, String> {
    match text {
        "unlimited" => Ok(0),
        text => match text.parse() {
            Ok(0) | Err(_) => Err("it must be a number of hosts from 1 on, or unlimited".to_owned()),
            Ok(number) => Ok(number),
        },
    }
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let length =
        humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 24h or 90m"))?;
    if length < Duration::from_secs(1) {
        Err("a token must last at least 1s".to_owned())
    } else if length > LONGEST {
        Err("a token must not last longer than a year".to_owned())
    } else {
        Ok(length)
    }
}
