//! Verbs about what the mesh consists of.

use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand, ValueEnum};
use sealane_proto::types::{AnySubnet, Mtls, Mtu, NetworkName, NodeName, Subnet};

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
    /// List networks
    Ls,
    /// Show all that is known about a network
    Inspect {
        /// Name of the network
        #[arg(value_name = "NETWORK")]
        name: NetworkName,
    },
    /// Change the mTLS mode of a network
    Set(SetNetwork),
    /// Give a network more addresses while it works
    Grow {
        /// Name of the network
        #[arg(value_name = "NETWORK")]
        name: NetworkName,
        /// Subnet in place of its own: a larger one that begins with the same address, such as 10.42.0.0/16 for 10.42.0.0/24
        #[arg(long, value_name = "CIDR")]
        subnet: Subnet,
    },
    /// Remove a network without workloads
    Rm {
        /// Name of the network
        #[arg(value_name = "NETWORK")]
        name: NetworkName,
    },
}

/// `sealane network create`.
#[derive(Debug, Args)]
pub(crate) struct CreateNetwork {
    /// Name of the network, which is the last part of its DNS names
    #[arg(value_name = "NETWORK")]
    pub(crate) name: NetworkName,
    /// Subnet of the network, such as 10.42.0.0/16; a second one of IPv6, such as fd42::/64, gives every address a twin in it
    #[arg(long, required = true, value_name = "CIDR")]
    pub(crate) subnet: Vec<AnySubnet>,
    /// Encryption of the overlay; calls between sidecars are always encrypted
    #[arg(long, value_enum, default_value_t)]
    pub(crate) encryption: Encryption,
    /// Largest packet inside the network, from 576 (with IPv6 from 1280) to 9000 bytes [default: by the underlay]
    #[arg(long, value_name = "BYTES")]
    pub(crate) mtu: Option<Mtu>,
    /// Hosts that may carry the network [default: all]
    #[arg(long, value_name = "NODE,...", value_delimiter = ',')]
    pub(crate) hosts: Vec<NodeName>,
    /// Policy on packets to the outside world, which leave through the workload's host
    #[arg(long, value_enum, default_value_t)]
    pub(crate) egress: Egress,
    /// Calls that its services take: strict takes calls by mutual TLS at offered ports alone, permissive also plain calls and
    /// other ports
    #[arg(long, value_name = "MODE", default_value_t = Mtls::Strict, value_parser = mode())]
    pub(crate) mtls: Mtls,
}

/// `sealane network set`.
#[derive(Debug, Args)]
pub(crate) struct SetNetwork {
    /// Name of the network
    #[arg(value_name = "NETWORK")]
    pub(crate) name: NetworkName,
    /// Calls that its services take: strict takes calls by mutual TLS at offered ports alone, permissive also plain calls and
    /// other ports
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
        /// Lifetime of the token
        #[arg(long, default_value = "24h", value_name = "DURATION", value_parser = lifetime)]
        ttl: Duration,
        /// Number of hosts that may join with it, or `unlimited`
        #[arg(long, value_name = "N", default_value = "1", value_parser = uses)]
        uses: u32,
        /// Name of the only host that may join with it [default: any]
        #[arg(long, value_name = "NODE")]
        node: Option<NodeName>,
        /// Networks that a host which joins with it may carry [default: all]
        #[arg(long, value_name = "NETWORK,...", value_delimiter = ',')]
        networks: Vec<NetworkName>,
    },
    /// List tokens without their secrets; one that has ended is shown for a week
    Ls,
    /// Revoke a token; hosts that joined with it stay
    Revoke {
        /// ID of the token, which is its second part; the whole token works as well
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
