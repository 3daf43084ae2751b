//! Reasons for which an instance is not ready, in words: for people who ask, not for the watch.

use std::io;
use std::net::Ipv4Addr;

use sealane_proto::types::{ServicePort, Transport};
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;

use super::listening::Listening;
use super::watch::ProbeTarget;

/// Finds the obstacle that keeps `target` from being ready; empty when nothing does any more.
///
/// # Errors
/// When its namespace cannot be looked into.
pub fn reason(hopper: &Hopper, ns: &NetNs, target: &ProbeTarget) -> io::Result<String> {
    let listening = Listening::open(hopper, ns)?;
    let (mut closed, mut inside, mut only6) = (Vec::new(), Vec::new(), Vec::new());
    for port in &target.ports {
        let alone = |address: Ipv4Addr| ProbeTarget {
            address,
            ipv6: None,
            ports: vec![port.clone()],
            ..target.clone()
        };
        let seen = listening.listening(&ProbeTarget { ports: vec![port.clone()], ..target.clone() })?;
        if seen.v4 {
            continue;
        }
        let loopback = listening.listening(&alone(Ipv4Addr::LOCALHOST))?.v4;
        let group = match (seen.v6, loopback) {
            (true, _) => &mut only6,
            (false, true) => &mut inside,
            (false, false) => &mut closed,
        };
        group.push(port);
    }
    Ok(words(target.address, &closed, &inside, &only6))
}

/// Ports as people write them: `80, 53/udp`.
pub(super) fn list(ports: &[&ServicePort]) -> String {
    let each = ports.iter().map(|port| {
        let transport = if port.protocol.transport() == Transport::Udp { "/udp" } else { "" };
        format!("{}{transport}", port.port)
    });
    each.collect::<Vec<_>>().join(", ")
}

fn words(
    address: Ipv4Addr,
    closed: &[&ServicePort],
    inside: &[&ServicePort],
    only6: &[&ServicePort],
) -> String {
    let only6 = (!only6.is_empty()).then(|| {
        format!(
            "it listens on port {} for IPv6 alone, and the service's address is IPv4: let it listen on 0.0.0.0 or {address} too",
            list(only6)
        )
    });
    let inside = (!inside.is_empty()).then(|| {
        format!(
            "it listens on port {} at 127.0.0.1 alone, where nobody else reaches it: let it listen on 0.0.0.0 or {address}",
            list(inside)
        )
    });
    let closed = (!closed.is_empty()).then(|| format!("nothing listens on its port {} yet", list(closed)));
    let parts: Vec<String> = only6.into_iter().chain(inside).chain(closed).collect();
    if parts.is_empty() { String::new() } else { format!("not ready: {}", parts.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_loopback_alone_is_told_where_to_listen() {
        let ports: Vec<ServicePort> = ["8080", "53/udp"].map(|port| port.parse().unwrap()).into();
        let address = Ipv4Addr::new(10, 42, 0, 3);
        let said = words(address, &[&ports[1]], &[&ports[0]], &[]);
        assert!(said.starts_with("not ready: it listens on port 8080 at 127.0.0.1 alone"), "{said}");
        assert!(said.contains("0.0.0.0 or 10.42.0.3; nothing listens on its port 53/udp yet"), "{said}");
        let said = words(address, &[], &[], &[&ports[0]]);
        assert!(said.starts_with("not ready: it listens on port 8080 for IPv6 alone"), "{said}");
        assert_eq!(words(address, &[], &[], &[]), "");
    }
}
