//! The rules as text. Pure.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use sealane_proto::sidecar::{MARK, SidecarPorts};
use sealane_proto::types::{OverlayIp, Subnet};

use super::table;
use crate::seat::Seat;

/// The table of everything that is there once in a namespace; tables of others are never touched.
pub(super) const TABLE: &str = "sealane";

/// The calls that go through a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The network's addresses.
    pub subnet: Subnet,
    /// The workload's own.
    pub address: OverlayIp,
    /// Seat in its namespace.
    pub seat: Seat,
    /// Ports of its sidecar: `outbound` at the seat's loopback address, the others at the workload's.
    pub ports: SidecarPorts,
}

/// Removes the seat's table, whether it is there or not. It is its own, so that rules of others are never touched.
pub(super) fn removal(seat: Seat) -> String {
    table::removal("inet", &seat.table())
}

/// The script that removes what is ours of the tables that nft lists.
pub(super) fn ours(tables: &str) -> String {
    let ours = tables.lines().map(str::trim).filter(|line| {
        let families = ["table inet ", "table ip6 ", "table ip "];
        let name = families.iter().find_map(|family| line.strip_prefix(family)).unwrap_or_default();
        // A name may hold anything, also another command; ours do not.
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        is_plain && (name == "sealane" || name.starts_with("sealane-"))
    });
    ours.map(|line| format!("delete {line}\n")).collect()
}

/// The script that puts `table` in the place of what is there, in one transaction.
pub(super) fn replacing(seat: Seat, table: &str) -> String {
    table::replacing("inet", &seat.table(), table)
}

/// Returns true if nft lists this table: the same fingerprint, and as many lines, so that a rule that was added or
/// removed by hand is seen. (Its spelling of a rule differs between versions.)
pub(super) fn same(listed: &str, table: &str) -> bool {
    let lines = |text: &str| text.lines().filter(|line| !line.trim().is_empty()).count();
    let fingerprint =
        |text: &str| text.lines().map(str::trim).find(|line| line.starts_with("comment ")).map(str::to_owned);
    lines(listed) == lines(table) && fingerprint(listed) == fingerprint(table)
}

/// The table of a workload with a sidecar: one statement per line, as nft lists it; [`same`] counts them.
pub(super) fn sidecar(redirect: &Redirect) -> String {
    let Redirect { subnet, address, seat, ports } = *redirect;
    text(subnet.to_net(), [subnet.gateway().to_ipv4(), address.to_ipv4()], seat, ports)
}

/// Builds a table that the kernel is tried with.
pub(super) fn example(seat: Seat) -> String {
    let addresses = [1, 2].map(|last| Ipv4Addr::new(10, 0, 0, last));
    text(Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8), addresses, seat, SidecarPorts::default())
}

fn text(subnet: Ipv4Net, [gateway, address]: [Ipv4Addr; 2], seat: Seat, ports: SidecarPorts) -> String {
    let (interface, loopback) = (seat.interface(), seat.loopback());
    let SidecarPorts { outbound, inbound, tunnel } = ports;
    let redirected = redirected(ports);
    let broadcast = subnet.broadcast();
    // By the packet's address, whatever Ethernet address brought it; the interface's own traffic comes by no other one.
    let body = format!(
        "\
    chain output {{
        type nat hook output priority -100; policy accept;
        meta mark 0x{MARK:08x} return
        oifname \"lo\" return
        ip daddr {{ 127.0.0.0/8, {gateway} }} return
        ip daddr {subnet} meta l4proto tcp dnat ip to {loopback}:{outbound}
    }}
    chain prerouting {{
        type nat hook prerouting priority -100; policy accept;
        iifname \"{interface}\" ip daddr {address} tcp dport {{ {outbound}, {inbound}, {tunnel} }} return
        iifname \"{interface}\" ip daddr {address} meta l4proto tcp redirect to :{inbound}
    }}
    chain guard {{
        type filter hook input priority 0; policy accept;
        ct state {{ established, related }} accept
        iifname \"{interface}\" meta nfproto ipv4 ip saddr != {subnet} counter drop
        iifname \"{interface}\" ip daddr != {{ {address}, {broadcast}, 224.0.0.0/4, 255.255.255.255 }} counter drop
        iifname != {{ \"lo\", \"{interface}\" }} ip saddr {subnet} counter drop
        iifname != {{ \"lo\", \"{interface}\" }} ip daddr {address} counter drop
        ip daddr {{ {address}, {loopback} }} tcp dport {{ {outbound}, {inbound} }} goto redirected
    }}
{redirected}"
    );
    table::stamped("inet", &seat.table(), "sidecar", &body)
}

/// The end of the guard, of either family: a peer that connects to a redirect port itself would make the sidecar call
/// itself. Only what a redirect brought may enter, and only if it was not for a sidecar's port to begin with. Whether it
/// may is settled by its first packet.
pub(super) fn redirected(ports: SidecarPorts) -> String {
    let SidecarPorts { outbound, inbound, tunnel } = ports;
    format!(
        "    \
    chain redirected {{
        meta l4proto tcp ct original proto-dst {outbound} reject with tcp reset
        meta l4proto tcp ct original proto-dst {inbound} reject with tcp reset
        meta l4proto tcp ct original proto-dst {tunnel} reject with tcp reset
        ct status dnat accept
        meta l4proto tcp reject with tcp reset
    }}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(outbound: u16) -> String {
        let ports = SidecarPorts { outbound, ..SidecarPorts::default() };
        let subnet = "10.42.0.0/16".parse().unwrap();
        sidecar(&Redirect { subnet, address: "10.42.0.9".parse().unwrap(), seat: Seat::default(), ports })
    }

    #[test]
    fn a_table_is_known_again_by_its_fingerprint_and_its_length() {
        let here = table(15001);
        let listed = here.replace("    ", "\t").replace("    }\n", "    }\n\n");
        assert!(same(&listed, &here));
        assert!(!same(&listed, &table(15002)));
        assert!(!same(&listed.replace("\t\toifname \"lo\" return\n", ""), &here));
    }

    #[test]
    fn tables_of_others_stay() {
        let tables = "table ip nat\ntable inet sealane\ntable inet sealaned\ntable inet sealane-1\ntable ip6 sealane\n\
            table inet sealane-;flush ruleset\n";
        assert_eq!(
            ours(tables),
            "delete table inet sealane\ndelete table inet sealane-1\ndelete table ip6 sealane\n"
        );
    }

    #[test]
    fn the_sidecar_and_the_gateway_are_not_redirected() {
        let text = table(15001);
        let line = |part: &str| text.lines().position(|line| line.contains(part)).unwrap();
        assert!(line("meta mark 0x0005ea1a return") < line("dnat ip to 127.15.0.1:15001"));
        assert!(line("10.42.0.1 }") < line("dnat ip to 127.15.0.1:15001"));
    }
}
