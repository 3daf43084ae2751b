//! Decisions on Docker's requests, and their answers. Pure.

pub(super) mod ipv6;

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;
use sealane_proto::resource::Network;
use sealane_proto::types::{MacAddr, NetworkName, OverlayIp, Subnet};
use serde_json::{Map, Value, json};

use super::book::{self, Book, Endpoint};
use super::wire::{CreateNetwork, OfAddress, OfEndpoint, RequestPool};
use crate::attachment::{FailureKind, Hold, RequestFailure};

/// Name of our address space.
pub(super) const SPACE: &str = "sealane";
/// The option that names a network of ours.
pub(super) const OPTION: &str = "sealane.network";
/// Prefix of the ids of our pools.
const POOL: &str = "sealane/";
/// The pool of a network that was asked for without a subnet: one that Docker does not compare with the host's routes.
const EVERYTHING: &str = "0.0.0.0/0";
/// Option under which Docker keeps those that users give a network.
pub(super) const GENERIC: &str = "com.docker.network.generic";
pub(super) const INTERNAL: &str = "com.docker.network.internal";
/// Part of the names of holders of addresses that are left out, behind [`Hold::DOCKER`].
const LEFT_OUT: &str = "aux/";
const KIND: &str = "RequestAddressType";
const GATEWAY: &str = "com.docker.network.gateway";

/// The addresses of a network of Docker's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pool {
    /// Addresses of this network of ours.
    Of(NetworkName),
    /// Addresses of a network that is not known yet: a mark, which comes back as the gateway when the network is
    /// created.
    Later(Ipv4Addr),
}

fn wrong(text: impl std::fmt::Display) -> RequestFailure {
    RequestFailure::new(FailureKind::Wrong, format!("sealane: {text}"))
}

/// The line that makes a network of Docker's in ours.
fn line(network: &str) -> String {
    format!("docker network create -d sealane --ipam-driver sealane -o {OPTION}={network} {network}")
}

impl Pool {
    /// Returns the id of the pool.
    pub(super) fn id(&self) -> String {
        match self {
            Self::Of(network) => format!("{POOL}{network}"),
            Self::Later(mark) => format!("{POOL}{mark}"),
        }
    }

    /// The pool of an id.
    fn parse(id: &str) -> Option<Self> {
        let name = id.strip_prefix(POOL)?;
        match name.parse() {
            Ok(mark) => Some(Self::Later(mark)),
            Err(_) => name.parse().ok().map(Self::Of),
        }
    }

    /// A mark: an address of nobody (RFC 1122, section 3.2.1.3).
    pub(super) fn later(random: u32) -> Self {
        let [_, a, b, c] = random.to_be_bytes();
        Self::Later(Ipv4Addr::new(0, a, b, c.max(1)))
    }

    /// Builds the answer to Docker; `network` is the one of [`Pool::Of`], where its subnet was asked for.
    pub(super) fn answer(&self, network: Option<&Network>) -> Value {
        match (self, network) {
            (Self::Of(_), Some(network)) => {
                json!({"PoolID": self.id(), "Pool": network.subnet.to_string(), "Data": {}})
            }
            (Self::Of(_), None) | (Self::Later(_), _) => {
                let data = match self {
                    Self::Later(mark) => json!({GATEWAY: format!("{mark}/32")}),
                    Self::Of(_) => json!({}),
                };
                json!({"PoolID": self.id(), "Pool": EVERYTHING, "Data": data})
            }
        }
    }
}

/// Finds the network whose addresses are asked for: by its name, or by its subnet. `hinted` was named just before.
pub(super) fn pool(
    request: &RequestPool,
    hinted: Option<NetworkName>,
    known: &[Network],
    random: u32,
) -> Result<Pool, RequestFailure> {
    if !request.sub_pool.is_empty() {
        return Err(wrong("leave --ip-range out: each host has its own blocks of a network's addresses"));
    }
    let options = request.options.iter().flatten();
    if let Some((unknown, _)) = options.clone().find(|(key, _)| *key != OPTION) {
        return Err(wrong(format!("there is no IPAM option {unknown}; there is {OPTION}")));
    }
    let named = options.map(|(_, name)| name).next();
    let named = named.map(|name| name.parse::<NetworkName>()).transpose().map_err(wrong)?;
    if request.pool.is_empty() || request.pool == EVERYTHING {
        return Ok(named.or(hinted).map_or_else(|| Pool::later(random), Pool::Of));
    }
    if let Some(network) = named.or(hinted) {
        return Ok(Pool::Of(network));
    }
    let mut of = known.iter().filter(|network| is_subnet_of(network, &request.pool));
    match (of.next(), of.next()) {
        (Some(only), None) => Ok(Pool::Of(only.name.clone())),
        (_, more) => Err(wrong(format!(
            "{} has subnet {} here; leave --subnet out, or name the network as well: --ipam-opt {OPTION}=NETWORK",
            if more.is_some() { "more than one network" } else { "no network" },
            request.pool
        ))),
    }
}

/// Checks the subnet of a network that was asked for with one of its own.
pub(super) fn check_subnet(request: &RequestPool, network: &Network) -> Result<(), RequestFailure> {
    if request.pool.is_empty() || request.pool == EVERYTHING || is_subnet_of(network, &request.pool) {
        return Ok(());
    }
    let Network { name, subnet, .. } = network;
    Err(wrong(format!(
        "network {name} has subnet {subnet}, not {}: leave --subnet out, or give that one",
        request.pool
    )))
}

/// Returns true if this is a network's subnet, or was before it grew: Docker asks at each of its starts with what it knows.
fn is_subnet_of(network: &Network, pool: &str) -> bool {
    let own = network.subnet;
    pool.parse::<Subnet>()
        .is_ok_and(|pool| own.to_net().contains(&pool.to_net()) && own.gateway() == pool.gateway())
}

/// The network that `-o` names, in what Docker calls options.
pub(super) fn named(request: &CreateNetwork) -> Result<Option<NetworkName>, RequestFailure> {
    let empty = Map::new();
    let options = request.options.as_ref().and_then(|options| options.get(GENERIC)?.as_object());
    let options = options.unwrap_or(&empty);
    if let Some(unknown) = options.keys().find(|key| *key != OPTION && !key.starts_with("com.docker.")) {
        return Err(wrong(format!("there is no option {unknown}; there is -o {OPTION}=NETWORK")));
    }
    let Some(name) = options.get(OPTION) else { return Ok(None) };
    let name = name.as_str().unwrap_or_default();
    name.parse().map(Some).map_err(|error| wrong(format!("-o {OPTION}: {error}")))
}

/// A network of Docker's that may come to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NetworkPlan {
    pub(super) network: NetworkName,
    pool: Pool,
    internal: bool,
    subnet: String,
    pool6: Option<String>,
}

/// Plans Docker's new network.
pub(super) fn network(request: &CreateNetwork, book: &Book) -> Result<NetworkPlan, RequestFailure> {
    let named = named(request)?;
    let shown = named.as_ref().map_or("NETWORK", NetworkName::as_str);
    let ipv4 = request.ipv4.as_deref().unwrap_or_default();
    let Some(data) = ipv4.first().filter(|data| data.address_space == SPACE) else {
        return Err(wrong(format!(
            "addresses must be Sealane's, or every host gives the same ones; type: {}",
            line(shown)
        )));
    };
    if ipv4.len() > 1 {
        return Err(wrong("a network has one subnet; leave the others out"));
    }
    let mark = data.gateway.split('/').next().and_then(|gateway| gateway.parse::<Ipv4Addr>().ok());
    let marked = mark.filter(|mark| data.pool == EVERYTHING && mark.octets()[0] == 0);
    let network =
        named.ok_or_else(|| wrong(format!("which network of Sealane's? type: {}", line("NETWORK"))))?;
    let mut others =
        book.networks().filter(|(id, known)| **id != request.network_id && known.network == network);
    if let Some((id, _)) = others.next() {
        let id: String = id.chars().take(12).collect();
        return Err(wrong(format!(
            "network {network} is Docker's network {id} here already: use that one (`docker network ls` has its name; a Compose file \
             says `external: true` and `name:`)"
        )));
    }
    let pool = marked.map_or_else(|| Pool::Of(network.clone()), Pool::Later);
    let internal = request.options.as_ref().and_then(|options| options.get(INTERNAL)?.as_bool());
    let pool6 = ipv6::pool_of(request.ipv6.as_deref().unwrap_or_default(), network.as_str())?;
    let internal = internal.unwrap_or_default();
    Ok(NetworkPlan { network, pool, internal, subnet: data.pool.clone(), pool6 })
}

impl NetworkPlan {
    /// Compares it with the network of ours.
    pub(super) fn check(self, network: &Network) -> Result<book::Network, RequestFailure> {
        let Network { name, subnet, egress, .. } = network;
        let any = matches!(self.pool, Pool::Later(_)) || self.subnet == EVERYTHING;
        if !any && !is_subnet_of(network, &self.subnet) {
            return Err(wrong(format!(
                "network {name} has subnet {subnet}, not {}; type: {}",
                self.subnet,
                line(name.as_str())
            )));
        }
        if self.internal && !egress.is_denied() {
            return Err(wrong(format!(
                "network {name} lets packets out, so it cannot be --internal; leave that out, or make the network with \
                 `sealane network create {name} --egress deny`"
            )));
        }
        if self.pool6.is_some() {
            ipv6::subnet(network)?;
        }
        let Self { network, pool, internal, pool6, .. } = self;
        Ok(book::Network { network, pool: pool.id(), internal, pool6 })
    }
}

/// Action on addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AddressPlan {
    /// The network's own, which containers have no use for.
    Gateway(NetworkName),
    /// An address for an endpoint.
    Endpoint(NetworkName, Option<OverlayIp>),
    /// A mark.
    Mark,
    /// An address of IPv6 for an endpoint.
    Endpoint6(NetworkName, Option<Ipv6Addr>),
    /// A mark of a pool of IPv6.
    Mark6(Ipv6Addr),
}

/// Plans the action on a request for an address, or for its return.
pub(super) fn address(request: &OfAddress, book: &Book) -> Result<AddressPlan, RequestFailure> {
    if let Some(plan) = ipv6::address(request, book)? {
        return Ok(plan);
    }
    let of = |pool: &str| {
        book.networks().find(|(_, network)| network.pool == pool).map(|(_, known)| &known.network)
    };
    let network = match (Pool::parse(&request.pool_id), of(&request.pool_id)) {
        (_, Some(known)) => known.clone(),
        (Some(Pool::Of(network)), None) => network,
        (Some(Pool::Later(_)), None) if is_gateway(request) || request.address.starts_with("0.") => {
            return Ok(AddressPlan::Mark);
        }
        (Some(Pool::Later(_)) | None, None) => return Err(unknown(&request.pool_id)),
    };
    let address = match request.address.as_str() {
        "" => None,
        text => Some(text.parse::<OverlayIp>().map_err(wrong)?),
    };
    if address.is_some_and(|address| address.to_ipv4().octets()[0] == 0) {
        return Ok(AddressPlan::Mark);
    }
    Ok(if is_gateway(request) {
        AddressPlan::Gateway(network)
    } else {
        AddressPlan::Endpoint(network, address)
    })
}

fn unknown(pool: &str) -> RequestFailure {
    let text = format!("sealane: pool {pool:?} is of no network that this host knows");
    RequestFailure::new(FailureKind::NotFound, text)
}

fn is_gateway(request: &OfAddress) -> bool {
    request.options.as_ref().and_then(|options| options.get(KIND)).is_some_and(|kind| kind == GATEWAY)
}

/// An address, as Docker is answered.
pub(super) fn address_answer(address: OverlayIp, network: &Network) -> Value {
    let len = network.subnet.to_net().prefix_len();
    json!({"Address": format!("{address}/{len}"), "Data": {}})
}

/// An endpoint to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EndpointPlan {
    pub(super) network: NetworkName,
    pub(super) address: OverlayIp,
    /// A certain Ethernet address.
    pub(super) mac: Option<MacAddr>,
    /// The address of IPv6 that Docker has for it, in a network with that; otherwise empty.
    pub(super) address6: String,
}

/// Plans a container's end.
pub(super) fn endpoint(request: &OfEndpoint, book: &Book) -> Result<EndpointPlan, RequestFailure> {
    let network = known(request, book)?.network.clone();
    let interface = request.interface.clone().unwrap_or_default();
    let address = interface.address.parse::<Ipv4Net>().map_err(|_| {
        wrong(format!(
            "an endpoint of network {network} needs an address of Sealane's; type: {}",
            line(network.as_str())
        ))
    })?;
    let mac = Some(&interface.mac).filter(|mac| !mac.is_empty()).map(|mac| mac.parse()).transpose();
    let mac = mac.map_err(|error| wrong(format!("--mac-address: {error}")))?;
    Ok(EndpointPlan { network, address: address.addr().into(), mac, address6: interface.address6 })
}

/// The network of ours that a request is about.
pub(super) fn known<'a>(request: &OfEndpoint, book: &'a Book) -> Result<&'a book::Network, RequestFailure> {
    book.network(&request.network_id).ok_or_else(|| {
        let id: String = request.network_id.chars().take(12).collect();
        RequestFailure::new(
            FailureKind::NotFound,
            format!(
                "sealane: Docker's network {id} is not known on this host any more; remove it (docker network rm) and type: {}",
                line("NETWORK")
            ),
        )
    })
}

/// The end that a request is about.
pub(super) fn joined<'a>(request: &OfEndpoint, book: &'a Book) -> Result<&'a Endpoint, RequestFailure> {
    book.endpoint(&request.endpoint_id).ok_or_else(|| {
        let id: String = request.endpoint_id.chars().take(12).collect();
        RequestFailure::new(FailureKind::NotFound, format!("sealane: there is no endpoint {id} on this host"))
    })
}

/// Tells Docker how a container's namespace gets its interface. Without a gateway of ours Docker gives it its own way
/// out, by which it publishes ports as well.
pub(super) fn join_answer(source: &str, internal: bool) -> Value {
    json!({
        "InterfaceName": {"SrcName": source, "DstPrefix": "eth"},
        "Gateway": "",
        "DisableGatewayService": internal,
    })
}

/// The name by which an endpoint's address is held, or one that a network is to leave out (`--aux-address`).
pub(super) fn hold(random: u64, of_endpoint: bool) -> Result<Hold, RequestFailure> {
    let left_out = if of_endpoint { "" } else { LEFT_OUT };
    let name = format!("{}{left_out}{random:016x}", Hold::DOCKER);
    name.parse().map_err(|error| RequestFailure::new(FailureKind::Broken, error))
}

/// Returns true if an address is held for an endpoint.
pub(super) fn is_of_endpoint(hold: &Hold) -> bool {
    hold.as_str().strip_prefix(Hold::DOCKER).is_some_and(|rest| !rest.starts_with(LEFT_OUT))
}

#[cfg(test)]
mod mutations;
#[cfg(test)]
mod tests;
