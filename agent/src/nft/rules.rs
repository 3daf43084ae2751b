//! The rules as text. Pure.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use sealane_proto::sidecar::{MARK, SidecarPorts};
use sealane_proto::types::Subnet;

/// A table of its own, so that rules of others are never touched.
pub(super) const TABLE: &str = "sealane";

/// Removes the table, whether it is there or not.
pub(super) const REMOVAL: &str = "table inet sealane {}\ndelete table inet sealane\n";

/// The table of a workload with a sidecar.
pub(super) fn sidecar(subnet: Subnet, ports: SidecarPorts) -> String {
    text(subnet.to_net(), subnet.gateway().to_ipv4(), ports)
}

/// The script that puts `table` in the place of what is there, in one transaction.
pub(super) fn replacing(table: &str) -> String {
    format!("{REMOVAL}{table}")
}

/// Whether what nft lists is this table: the same fingerprint, and as many lines, so that a rule that was added
/// or removed by hand is seen. (Its spelling of a rule differs between versions.)
pub(super) fn same(listed: &str, table: &str) -> bool {
    let lines = |text: &str| text.lines().filter(|line| !line.trim().is_empty()).count();
    let fingerprint =
        |text: &str| text.lines().map(str::trim).find(|line| line.starts_with("comment ")).map(str::to_owned);
    lines(listed) == lines(table) && fingerprint(listed) == fingerprint(table)
}

/// One statement per line, as nft lists it: [`same`] counts them.
pub(super) fn text(subnet: Ipv4Net, gateway: Ipv4Addr, ports: SidecarPorts) -> String {
    let SidecarPorts { outbound, inbound, tunnel } = ports;
    // The guard: a peer that connects to a redirect port itself would make the sidecar call itself. Only what
    // a redirect brought may enter, and only if it was not for a sidecar's port to begin with.
    let body = format!(
        "\
    chain output {{
        type nat hook output priority -100; policy accept;
        meta mark 0x{MARK:08x} return
        oifname \"lo\" return
        ip daddr {{ 127.0.0.0/8, {gateway} }} return
        ip daddr {subnet} meta l4proto tcp redirect to :{outbound}
    }}
    chain prerouting {{
        type nat hook prerouting priority -100; policy accept;
        iifname \"eth0\" tcp dport {{ {outbound}, {inbound}, {tunnel} }} return
        iifname \"eth0\" meta nfproto ipv4 meta l4proto tcp redirect to :{inbound}
    }}
    chain guard {{
        type filter hook input priority 0; policy accept;
        tcp dport {{ {outbound}, {inbound} }} ct original proto-dst {outbound} reject with tcp reset
        tcp dport {{ {outbound}, {inbound} }} ct original proto-dst {inbound} reject with tcp reset
        tcp dport {{ {outbound}, {inbound} }} ct original proto-dst {tunnel} reject with tcp reset
        tcp dport {{ {outbound}, {inbound} }} ct status dnat accept
        tcp dport {{ {outbound}, {inbound} }} reject with tcp reset
    }}
}}
"
    );
    let fingerprint = crc32fast::hash(body.as_bytes());
    format!("table inet {TABLE} {{\n    comment \"sidecar {fingerprint:08x}\"\n{body}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(outbound: u16) -> String {
        let ports = SidecarPorts { outbound, ..SidecarPorts::default() };
        sidecar("10.42.0.0/16".parse().unwrap(), ports)
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
    fn the_sidecar_and_the_gateway_are_not_redirected() {
        let text = table(15001);
        let line = |part: &str| text.lines().position(|line| line.contains(part)).unwrap();
        assert!(line("meta mark 0x0005ea1a return") < line("redirect to :15001"));
        assert!(line("10.42.0.1 }") < line("redirect to :15001"));
    }
}
