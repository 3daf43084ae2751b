//! CHECK: what is in the container's namespace, beside what should be there.

use std::net::IpAddr;
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use sealane_proto::wire::v1;
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;
use serde_json::{Map, Value};

use super::failure::{CniError, Code};

/// An interface as the kernel shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) up: bool,
    pub(super) mac: String,
    pub(super) addresses: Vec<IpAddr>,
}

/// Looks at `interface` in `netns`; nothing when there is none.
pub(super) fn look(netns: &Path, interface: &str) -> Result<Option<Seen>, CniError> {
    let wrong = |error: String| CniError::new(Code::Environment, format!("CNI_NETNS: {error}"));
    let netns = NetNs::open(netns).map_err(|error| wrong(error.to_string()))?;
    let hopper = Hopper::start().map_err(|error| CniError::new(Code::Io, error.to_string()))?;
    let name = interface.to_owned();
    let seen = hopper.run(&netns, move || seen(&name)).map_err(|error| wrong(error.to_string()))?;
    seen.map_err(|error| CniError::new(Code::Io, error.to_string()))
}

fn seen(name: &str) -> nix::Result<Option<Seen>> {
    let mut found: Option<Seen> = None;
    for entry in getifaddrs()?.filter(|entry| entry.interface_name == name) {
        let seen = found.get_or_insert_with(Seen::default);
        seen.up = entry.flags.contains(InterfaceFlags::IFF_UP);
        let Some(address) = entry.address else { continue };
        if let Some(link) = address.as_link_addr().and_then(nix::sys::socket::LinkAddr::addr) {
            let octets: Vec<String> = link.iter().map(|octet| format!("{octet:02x}")).collect();
            seen.mac = octets.join(":");
        }
        seen.addresses.extend(address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip())));
        seen.addresses.extend(address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())));
    }
    Ok(found)
}

/// Compares what is there with what the agent holds and what the runtime was told.
pub(super) fn compare(
    interface: &str,
    seat: &v1::Attachment,
    seen: Option<&Seen>,
    previous: &Map<String, Value>,
) -> Result<(), CniError> {
    let differs = |what: String| {
        Err(CniError::new(Code::Differs, what).hint("remove the container and start it again"))
    };
    if seat.interface != interface {
        return differs(format!("the attachment's interface is {}, not {interface}", seat.interface));
    }
    let Some(seen) = seen else { return differs(format!("interface {interface} is gone")) };
    if !seen.up {
        return differs(format!("interface {interface} is down"));
    }
    if seen.mac != seat.mac {
        return differs(format!("interface {interface} has MAC address {}, not {}", seen.mac, seat.mac));
    }
    let ours = [&seat.address, &seat.address6].into_iter().filter(|address| !address.is_empty());
    for address in ours.clone() {
        if !address.parse().is_ok_and(|address| seen.addresses.contains(&address)) {
            return differs(format!("interface {interface} has no address {address}"));
        }
    }
    let told = |key: &str| previous.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let at = |ip: &Value, address: &str| {
        let text = ip.get("address").and_then(Value::as_str).unwrap_or_default();
        text.split('/').next() == Some(address)
    };
    if let Some(missing) = ours.clone().find(|address| !told("ips").iter().any(|ip| at(ip, address))) {
        return differs(format!("prevResult does not have address {missing} of interface {interface}"));
    }
    let named = |link: &Value| {
        let mac = link.get("mac").and_then(Value::as_str);
        link.get("name").and_then(Value::as_str) == Some(interface)
            && mac.is_none_or(|mac| mac.eq_ignore_ascii_case(&seat.mac))
    };
    if told("interfaces").iter().any(named) {
        Ok(())
    } else {
        differs(format!("prevResult does not have interface {interface} with MAC address {}", seat.mac))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_difference_is_named() {
        let seat = v1::Attachment {
            address: "10.42.0.9".into(),
            interface: "eth0".into(),
            mac: "02:00:00:00:00:09".into(),
            ..Default::default()
        };
        let seen = Seen { up: true, mac: seat.mac.clone(), addresses: vec!["10.42.0.9".parse().unwrap()] };
        let told = json!({
            "interfaces": [{ "name": "eth0", "mac": "02:00:00:00:00:09" }], "ips": [{ "address": "10.42.0.9/16" }],
        });
        let check = |seen: Option<&Seen>, told: &Value| {
            compare("eth0", &seat, seen, told.as_object().unwrap()).map_err(|error| error.message)
        };
        assert_eq!(check(Some(&seen), &told), Ok(()));
        assert!(check(None, &told).unwrap_err().contains("is gone"));
        assert!(check(Some(&Seen { up: false, ..seen.clone() }), &told).unwrap_err().contains("is down"));
        assert!(check(Some(&Seen { mac: "x".into(), ..seen.clone() }), &told).unwrap_err().contains("MAC"));
        assert!(
            check(Some(&Seen { addresses: vec![], ..seen.clone() }), &told)
                .unwrap_err()
                .contains("no address")
        );
        assert!(check(Some(&seen), &json!({})).unwrap_err().contains("prevResult"));
        let other = json!({ "interfaces": [], "ips": [{ "address": "10.42.0.9/16" }] });
        assert!(check(Some(&seen), &other).unwrap_err().contains("prevResult does not have interface"));
    }
}
