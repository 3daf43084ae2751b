//! CHECK: what is in the container's namespace, beside what should be there.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use sealane_fabric::netlink::{NetlinkError, Socket};
use sealane_proto::wire::v1;
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;
use serde_json::Value;

use super::failure::{CniError, Code};
use crate::plugin::json::Object;

/// The port of DNS.
const DNS: u16 = 53;

/// An interface as the kernel shows it, and what goes by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct InterfaceState {
    there: bool,
    up: bool,
    mac: String,
    /// Addresses, each with the length of its prefix.
    addresses: Vec<(IpAddr, u32)>,
    routes: Vec<Route>,
    /// True when a socket takes questions for names where the container asks them.
    names: bool,
}

/// A route by the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Route {
    destination: Ipv4Addr,
    prefix_len: u32,
    gateway: Option<Ipv4Addr>,
}

/// Looks at the interface of `seat` in `netns`.
pub(super) fn look(
    netns: &Path,
    seat: &v1::Attachment,
    nameserver: &str,
) -> Result<InterfaceState, CniError> {
    let wrong = |error: String| CniError::new(Code::Environment, format!("CNI_NETNS: {error}"));
    let io = |error: String| CniError::new(Code::Io, error);
    let netns = NetNs::open(netns).map_err(|error| wrong(error.to_string()))?;
    let hopper = Hopper::start().map_err(|error| io(error.to_string()))?;
    // Of the calling thread's namespace.
    let sockets = hopper.run(&netns, || std::fs::read_to_string("/proc/thread-self/net/udp"));
    let sockets = sockets.map_err(|error| wrong(error.to_string()))?.unwrap_or_default();
    let names = nameserver.parse().is_ok_and(|at| listens(&sockets, at));
    let seen = seen(&hopper, &netns, &seat.interface).map_err(|error| io(error.to_string()))?;
    Ok(InterfaceState { names, ..seen })
}

fn seen(hopper: &Hopper, netns: &NetNs, interface: &str) -> Result<InterfaceState, NetlinkError> {
    let mut kernel = Socket::open(hopper, netns)?;
    let Some(link) = kernel.link(interface)? else { return Ok(InterfaceState::default()) };
    let addresses = kernel.addresses()?.into_iter().filter(|address| address.index == link.index);
    let routes = kernel.routes()?.into_iter().filter(|route| route.index == link.index);
    Ok(InterfaceState {
        there: true,
        up: link.up,
        mac: link.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        addresses: addresses.map(|address| (address.address, address.prefix_len.into())).collect(),
        routes: routes
            .map(|route| Route {
                destination: route.destination.addr(),
                prefix_len: route.destination.prefix_len().into(),
                gateway: route.gateway,
            })
            .collect(),
        names: false,
    })
}

/// Tells whether a table of sockets has one for names at `address`.
fn listens(table: &str, address: Ipv4Addr) -> bool {
    let place = format!("{:08X}:{DNS:04X}", u32::from_ne_bytes(address.octets()));
    table.lines().any(|line| line.split_ascii_whitespace().nth(1) == Some(place.as_str()))
}

/// Compares what is there with what the agent holds and what the runtime was told.
pub(super) fn compare(
    seat: &v1::Attachment,
    nameserver: &str,
    seen: &InterfaceState,
    previous: &Object,
) -> Result<(), CniError> {
    let found = difference(seat, nameserver, seen).or_else(|| untold(seat, previous));
    match found {
        Some(what) => Err(CniError::new(Code::Differs, what).hint("remove the container and start it again")),
        None => Ok(()),
    }
}

/// The addresses of an attachment, each with the length of its prefix.
fn addresses(seat: &v1::Attachment) -> impl Iterator<Item = (&str, u32)> {
    let both = [(seat.address.as_str(), seat.prefix_len), (seat.address6.as_str(), seat.prefix_len6)];
    both.into_iter().filter(|(address, _)| !address.is_empty())
}

/// Names the first thing that is there and should not be, or the other way round.
fn difference(seat: &v1::Attachment, nameserver: &str, seen: &InterfaceState) -> Option<String> {
    let interface = &seat.interface;
    if !seen.there {
        return Some(format!("interface {interface} is gone"));
    }
    if !seen.up {
        return Some(format!("interface {interface} is down"));
    }
    if seen.mac != seat.mac {
        return Some(format!("interface {interface} has MAC address {}, not {}", seen.mac, seat.mac));
    }
    let has =
        |address: &str, len| address.parse().is_ok_and(|address| seen.addresses.contains(&(address, len)));
    if let Some((address, len)) = addresses(seat).find(|(address, len)| !has(address, *len)) {
        return Some(format!("interface {interface} has no address {address}/{len}"));
    }
    let (Ok(own), Ok(gateway)) = (seat.address.parse::<Ipv4Addr>(), seat.gateway.parse::<Ipv4Addr>()) else {
        return Some("the agent's answer cannot be read".to_owned());
    };
    let mask = u32::MAX.checked_shl(32 - seat.prefix_len.min(32)).unwrap_or_default();
    let subnet = Ipv4Addr::from_bits(own.to_bits() & mask);
    let ways = [
        Route { destination: subnet, prefix_len: seat.prefix_len, gateway: None },
        Route { destination: Ipv4Addr::UNSPECIFIED, prefix_len: 0, gateway: Some(gateway) },
    ];
    if let Some(missing) = ways.iter().find(|way| !seen.routes.contains(way)) {
        let Route { destination, prefix_len, .. } = missing;
        return Some(format!("there is no route to {destination}/{prefix_len} by interface {interface}"));
    }
    // The gateway's answers come from another namespace.
    (!seen.names && nameserver != seat.gateway)
        .then(|| format!("nobody answers names at {nameserver} in the container's namespace"))
}

/// Names the first thing of an attachment that the runtime was not told, or was told otherwise.
fn untold(seat: &v1::Attachment, previous: &Object) -> Option<String> {
    let interface = &seat.interface;
    let told = |key: &str| previous.get(key).and_then(Value::as_array).into_iter().flatten();
    let text = |of: &Value, key: &str| of.get(key).and_then(Value::as_str).map(str::to_owned);
    // A network that has grown since has a shorter prefix.
    let is_told = |(address, len): (&str, u32)| {
        let mut all = told("ips").filter_map(|ip| text(ip, "address"));
        all.any(|told| {
            let told = told.split_once('/').and_then(|(told, len)| Some((told, len.parse::<u32>().ok()?)));
            told.is_some_and(|(told, then)| told == address && then >= len)
        })
    };
    if let Some((missing, len)) = addresses(seat).find(|known| !is_told(*known)) {
        return Some(format!("prevResult does not have address {missing}/{len} of interface {interface}"));
    }
    let named = |link: &Value| {
        text(link, "name").as_ref() == Some(interface)
            && text(link, "mac").is_none_or(|mac| mac.eq_ignore_ascii_case(&seat.mac))
    };
    let mac = &seat.mac;
    (!told("interfaces").any(named))
        .then(|| format!("prevResult does not have interface {interface} with MAC address {mac}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DEFAULT: Route = Route {
        destination: Ipv4Addr::UNSPECIFIED,
        prefix_len: 0,
        gateway: Some(Ipv4Addr::new(10, 42, 0, 1)),
    };
    const CONNECTED: Route =
        Route { destination: Ipv4Addr::new(10, 42, 0, 0), prefix_len: 16, gateway: None };

    fn seat() -> v1::Attachment {
        v1::Attachment {
            address: "10.42.0.9".into(),
            prefix_len: 16,
            gateway: "10.42.0.1".into(),
            interface: "eth0".into(),
            mac: "02:00:00:00:00:09".into(),
            ..Default::default()
        }
    }

    fn right() -> InterfaceState {
        InterfaceState {
            there: true,
            up: true,
            mac: seat().mac,
            addresses: vec![("10.42.0.9".parse().unwrap(), 16)],
            routes: vec![DEFAULT, CONNECTED],
            names: true,
        }
    }

    #[test]
    fn every_difference_in_the_namespace_is_named() {
        let check = |seen: InterfaceState| difference(&seat(), "127.0.0.11", &seen).unwrap_or_default();
        assert_eq!(check(right()), "");
        for (seen, expected) in [
            (InterfaceState::default(), "interface eth0 is gone"),
            (InterfaceState { up: false, ..right() }, "is down"),
            (InterfaceState { mac: "x".into(), ..right() }, "has MAC address x, not"),
            (InterfaceState { addresses: vec![], ..right() }, "has no address 10.42.0.9/16"),
            (
                InterfaceState { addresses: vec![("10.42.0.9".parse().unwrap(), 24)], ..right() },
                "has no address 10.42.0.9/16",
            ),
            (InterfaceState { routes: vec![CONNECTED], ..right() }, "no route to 0.0.0.0/0"),
            (InterfaceState { routes: vec![], ..right() }, "no route to 10.42.0.0/16"),
            (InterfaceState { names: false, ..right() }, "nobody answers names at 127.0.0.11"),
        ] {
            let found = check(seen);
            assert!(found.contains(expected), "{found}");
        }
        assert_eq!(difference(&seat(), "10.42.0.1", &InterfaceState { names: false, ..right() }), None);
    }

    #[test]
    fn what_the_runtime_was_told_is_compared_too() {
        let check = |told: Value| untold(&seat(), told.as_object().unwrap()).unwrap_or_default();
        let (link, ip) =
            (json!([{ "name": "eth0", "mac": "02:00:00:00:00:09" }]), json!([{ "address": "10.42.0.9/16" }]));
        assert_eq!(check(json!({ "interfaces": link, "ips": ip })), "");
        let before = json!([{ "address": "10.42.0.9/24" }]);
        assert_eq!(check(json!({ "interfaces": link, "ips": before })), "", "the network has grown since");
        for (told, expected) in [
            (json!({ "interfaces": link }), "does not have address 10.42.0.9/16"),
            (json!({ "interfaces": link, "ips": [{ "address": "10.42.0.9/12" }] }), "does not have address"),
            (json!({ "interfaces": [], "ips": ip }), "does not have interface eth0"),
            (json!({ "interfaces": 7, "ips": ip }), "does not have interface eth0"),
        ] {
            let found = check(told);
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn sockets_for_names_are_found_in_the_kernel_s_table() {
        let place = u32::from_ne_bytes([127, 0, 0, 11]);
        let table = format!("  sl  local_address rem_address\n  12: {place:08X}:0035 00000000:0000 07\n");
        assert!(listens(&table, Ipv4Addr::new(127, 0, 0, 11)));
        assert!(!listens(&table, Ipv4Addr::new(127, 0, 0, 12)) && !listens("", Ipv4Addr::LOCALHOST));
    }
}
