//! The IPv6 half of Docker's networks (`--ipv6`): an address follows from the IPv4 address that Docker has asked for just before, for the
//! same container: it makes the ends of a network one after another.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use sealane_proto::resource::Network;
use sealane_proto::types::{NetworkName, OverlayIp, Subnet6};
use serde_json::{Value, json};

use super::super::book::Book;
use super::super::wire::{IpamData, OfAddress, RequestPool};
use super::{AddressPlan, GATEWAY, RequestFailure, SPACE, is_gateway, line, unknown, wrong};
use crate::attachment::FailureKind;

/// Prefix of the ids of our pools of IPv6.
const POOL: &str = "sealane6/";
/// The pool of every network: one that Docker does not compare with the host's routes.
const EVERYTHING: &str = "::/0";
/// Bit of all marks, which no address that is made from an IPv4 one has.
const MARK: u128 = 1 << 32;

/// Answers a request for a pool. Which network's it is, is known when that is created: its mark comes back as the gateway.
pub(in crate::door::docker) fn pool(request: &RequestPool, random: u32) -> Result<Value, RequestFailure> {
    if !matches!(request.pool.as_str(), "" | EVERYTHING) || !request.sub_pool.is_empty() {
        return Err(wrong(
            "leave the IPv6 subnet out: with --ipv6 alone, containers have addresses of the network's own",
        ));
    }
    let mark = Ipv6Addr::from_bits(MARK | u128::from(random));
    Ok(json!({"PoolID": id(mark), "Pool": EVERYTHING, "Data": {GATEWAY: format!("{mark}/128")}}))
}

fn id(mark: Ipv6Addr) -> String {
    format!("{POOL}{mark}")
}

/// Finds the pool of a network that is created.
pub(super) fn pool_of(data: &[IpamData], shown: &str) -> Result<Option<String>, RequestFailure> {
    let Some(first) = data.first() else { return Ok(None) };
    if first.address_space != SPACE {
        return Err(wrong(format!("addresses of IPv6 must be Sealane's as well; type: {}", line(shown))));
    }
    let mark = first.gateway.split('/').next().and_then(|gateway| gateway.parse().ok());
    let mark = mark.filter(|mark: &Ipv6Addr| data.len() == 1 && mark.to_bits() & MARK != 0);
    mark.map(|mark| Some(id(mark)))
        .ok_or_else(|| wrong("a network has one subnet of IPv6, its own; leave others and --gateway out"))
}

/// Plans the action on a request for an address of IPv6, or for its return; nothing for one of IPv4.
pub(super) fn address(request: &OfAddress, book: &Book) -> Result<Option<AddressPlan>, RequestFailure> {
    let Some(mark) = request.pool_id.strip_prefix(POOL) else { return Ok(None) };
    let mark: Ipv6Addr = mark.parse().map_err(|_| unknown(&request.pool_id))?;
    let asked = Some(request.address.as_str()).filter(|text| !text.is_empty()).map(str::parse::<Ipv6Addr>);
    let asked = asked.transpose().map_err(wrong)?;
    if is_gateway(request) || asked == Some(mark) {
        return Ok(Some(AddressPlan::Mark6(mark)));
    }
    let mut networks = book.networks().map(|(_, network)| network);
    let of = networks.find(|network| network.pool6.as_ref() == Some(&request.pool_id));
    let network = of.ok_or_else(|| unknown(&request.pool_id))?.network.clone();
    Ok(Some(AddressPlan::Endpoint6(network, asked)))
}

/// Answers a request for an address: for the one `before` of IPv4, or for one of those that are `known`.
pub(in crate::door::docker) fn answer(
    network: &Network,
    asked: Option<Ipv6Addr>,
    before: Option<OverlayIp>,
    known: &[OverlayIp],
) -> Result<Value, RequestFailure> {
    let subnet = subnet(network)?;
    let is_asked = |address: &OverlayIp| Some(subnet.address(*address)) == asked;
    let address = match asked {
        None => before.ok_or_else(|| mixed_up(&network.name))?,
        Some(other) => *known.iter().chain(&before).find(|own| is_asked(own)).ok_or_else(|| {
            wrong(format!("{other} cannot be asked for: an IPv6 address follows from the IPv4 address; leave --ip6 out, and ask for that by --ip"))
        })?,
    };
    let address = Ipv6Net::new_assert(subnet.address(address), subnet.to_net().prefix_len());
    Ok(json!({"Address": address.to_string(), "Data": {}}))
}

/// Checks the address that Docker has for an end, in the form of a prefix, beside its IPv4 address.
pub(in crate::door::docker) fn check(
    network: &Network,
    address: OverlayIp,
    six: &str,
) -> Result<(), RequestFailure> {
    let own = subnet(network)?.address(address);
    let six = six.parse::<Ipv6Net>().ok().filter(|six| six.addr() == own);
    six.map(drop).ok_or_else(|| mixed_up(&network.name))
}

/// Finds the subnet of a network that is to have one.
pub(super) fn subnet(network: &Network) -> Result<Subnet6, RequestFailure> {
    let Network { name, subnet6, .. } = network;
    subnet6.ok_or_else(|| {
        wrong(format!(
            "network {name} has no IPv6; leave --ipv6 out, or take a network that was made with a subnet of it, as by \
             `sealane network create NAME --subnet 10.43.0.0/16 --subnet fd43::/64`"
        ))
    })
}

fn mixed_up(network: &NetworkName) -> RequestFailure {
    let text =
        format!("sealane: Docker's addresses of IPv4 and IPv6 in network {network} do not go together");
    RequestFailure::new(FailureKind::Broken, text).hint("try again")
}

#[cfg(test)]
mod tests {
    use super::super::super::book::testing;
    use super::*;

    fn twin() -> Network {
        Network { subnet6: "fd42::/64".parse().ok(), ..crate::testing::snapshot().content.network }
    }

    fn data(gateway: &str) -> IpamData {
        IpamData { address_space: SPACE.to_owned(), pool: EVERYTHING.to_owned(), gateway: gateway.to_owned() }
    }

    #[test]
    fn a_pool_of_ipv6_is_known_by_its_mark_when_its_network_is_created() {
        let answer = pool(&RequestPool::default(), 7).unwrap();
        assert_eq!(
            answer,
            json!({"PoolID": "sealane6/::1:0:7", "Pool": "::/0", "Data": {GATEWAY: "::1:0:7/128"}})
        );
        assert_eq!(pool_of(&[data("::1:0:7/128")], "shop").unwrap().as_deref(), Some("sealane6/::1:0:7"));
        assert_eq!(pool_of(&[], "shop").unwrap(), None);
        assert!(pool_of(&[data("fd42::1/64")], "shop").is_err() && pool_of(&[data("")], "shop").is_err());
        let docker_s = IpamData { address_space: "LocalDefault".to_owned(), ..data("::1:0:7/128") };
        assert!(
            pool_of(&[docker_s], "shop").unwrap_err().to_string().contains("type: docker network create")
        );
        let own = RequestPool { pool: "fd42::/64".to_owned(), ..RequestPool::default() };
        assert!(pool(&own, 7).unwrap_err().to_string().contains("leave the IPv6 subnet out"));
    }

    #[test]
    fn an_address_of_ipv6_goes_with_the_one_of_ipv4() {
        let (_dir, mut book) = testing::book();
        let pool6 = Some("sealane6/::1:0:7".to_owned());
        book.put_network("n", super::super::book::Network { pool6, ..testing::network() }).unwrap();
        let plan = |pool: &str, address: &str| {
            let json = json!({"PoolID": pool, "Address": address});
            address_of(&json, &book)
        };
        let name = twin().name;
        let six: Ipv6Addr = "fd42::a2a:9".parse().unwrap();
        assert_eq!(plan("sealane6/::1:0:7", "").unwrap(), Some(AddressPlan::Endpoint6(name.clone(), None)));
        assert_eq!(
            plan("sealane6/::1:0:7", "fd42::a2a:9").unwrap(),
            Some(AddressPlan::Endpoint6(name, Some(six)))
        );
        let mark = AddressPlan::Mark6("::1:0:7".parse().unwrap());
        assert_eq!(plan("sealane6/::1:0:7", "::1:0:7").unwrap(), Some(mark));
        assert!(plan("sealane6/::1:0:8", "").is_err() && plan("sealane6/x", "").is_err());
        assert_eq!(plan("sealane/shop", "").unwrap(), None);

        let ours: OverlayIp = "10.42.0.9".parse().unwrap();
        let expected = json!({"Address": "fd42::a2a:9/64", "Data": {}});
        assert_eq!(answer(&twin(), None, Some(ours), &[]).unwrap(), expected);
        assert_eq!(answer(&twin(), Some(six), None, &[ours]).unwrap(), expected);
        assert!(answer(&twin(), None, None, &[ours]).unwrap_err().to_string().contains("try again"));
        let other = answer(&twin(), "fd42::7".parse().ok(), Some(ours), &[ours]).unwrap_err().to_string();
        assert!(other.contains("leave --ip6 out"), "{other}");
        let none = Network { subnet6: None, ..twin() };
        assert!(answer(&none, None, Some(ours), &[]).unwrap_err().to_string().contains("has no IPv6"));
        assert!(check(&twin(), ours, "fd42::a2a:9/64").is_ok());
        assert!(check(&twin(), ours, "fd42::a2a:8/64").is_err() && check(&twin(), ours, "x").is_err());
    }

    fn address_of(json: &Value, book: &Book) -> Result<Option<AddressPlan>, RequestFailure> {
        address(&serde_json::from_value(json.clone()).unwrap(), book)
    }
}
