//! The redirect rules of a workload's IPv6 calls as text. Pure.

use std::net::Ipv6Addr;

use sealane_proto::sidecar::{MARK, SidecarPorts};
use sealane_proto::types::{OverlayIp, Subnet, Subnet6};

use super::rules::redirected;
use super::table;
use crate::seat::Seat;

pub(super) const FAMILY: &str = "ip6";

/// The IPv6 calls that go through a sidecar. It listens at the workload's own address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirect6 {
    subnet: Subnet6,
    gateway: Ipv6Addr,
    own: Ipv6Addr,
    pub(super) seat: Seat,
    ports: SidecarPorts,
}

impl Redirect6 {
    /// Builds the rules of the workload at `address`, in its own table.
    #[must_use]
    pub fn new(
        subnet6: Subnet6,
        subnet: Subnet,
        address: OverlayIp,
        seat: Seat,
        ports: SidecarPorts,
    ) -> Self {
        let (gateway, own) = (subnet6.address(subnet.gateway()), subnet6.address(address));
        Self { subnet: subnet6, gateway, own, seat, ports }
    }

    /// The table: the same as over IPv4, one statement per line.
    pub(super) fn table(&self) -> String {
        let (subnet, gateway, own) = (self.subnet, self.gateway, self.own);
        let interface = self.seat.interface();
        let SidecarPorts { outbound, inbound, tunnel } = self.ports;
        let redirected = redirected(self.ports);
        let body = format!(
            "    \
    chain output {{
        type nat hook output priority -100; policy accept;
        meta mark 0x{MARK:08x} return
        oifname \"lo\" return
        ip6 daddr {gateway} return
        ip6 daddr {subnet} meta l4proto tcp dnat to [{own}]:{outbound}
    }}
    chain prerouting {{
        type nat hook prerouting priority -100; policy accept;
        ip6 daddr {own} tcp dport {{ {outbound}, {inbound}, {tunnel} }} return
        ip6 daddr {own} meta l4proto tcp dnat to [{own}]:{inbound}
    }}
    chain guard {{
        type filter hook input priority 0; policy accept;
        ct state {{ established, related }} accept
        iifname \"{interface}\" icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
        iifname \"{interface}\" ip6 saddr != {subnet} counter drop
        iifname \"{interface}\" ip6 daddr != {{ {own}, ff00::/8 }} counter drop
        iifname != {{ \"lo\", \"{interface}\" }} ip6 saddr {subnet} counter drop
        iifname != {{ \"lo\", \"{interface}\" }} ip6 daddr {own} counter drop
        ip6 daddr {own} tcp dport {{ {outbound}, {inbound} }} goto redirected
    }}
{redirected}"
        );
        table::stamped(FAMILY, &self.seat.table(), "sidecar", &body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sidecar_and_the_gateway_are_not_redirected() {
        let (subnet6, subnet) = ("fd42::/64".parse().unwrap(), "10.42.0.0/16".parse().unwrap());
        let address = "10.42.0.9".parse().unwrap();
        let redirect = Redirect6::new(subnet6, subnet, address, Seat::default(), SidecarPorts::default());
        let text = redirect.table();
        let line = |part: &str| text.lines().position(|line| line.contains(part)).unwrap();
        let redirect = "ip6 daddr fd42::/64 meta l4proto tcp dnat to [fd42::a2a:9]:15001";
        assert!(line("meta mark 0x0005ea1a return") < line(redirect));
        assert!(line("ip6 daddr fd42::a2a:1 return") < line(redirect));
    }
}
