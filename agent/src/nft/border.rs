//! The tables at a network's border to the world outside: in the network's namespace and in the host's. Pure.
//!
//! Both masquerade: the first makes packets of networks whose subnets overlap different, the second gives them the
//! host's address.

use sealane_proto::resource::Egress;
use sealane_proto::types::Subnet;

use super::rules::TABLE;
use super::table;

pub(super) const FAMILY: &str = "inet";

/// What the host's ends of all networks' links to the world outside begin with.
pub const HOST_LINK: &str = "sealane";
/// The network's end of its link.
pub(crate) const NETWORK_LINK: &str = "egress0";

/// The table of a network's namespace. What is refused is refused at once (RFC 1812, section 5.2.7.1: code 13).
///
/// Link-local addresses are not forwarded (RFC 3927, section 2.7): behind them are the hosts' ends of the links, and
/// in clouds the credentials of the host. Nor is VXLAN: the host's address would be on it, and other hosts would
/// take it for the host's own.
pub(super) fn network(subnet: Subnet, egress: Egress, vxlan_port: u16) -> String {
    let (gateway, net) = (subnet.gateway(), subnet.to_net());
    let refuse = "counter name \"refused\" reject with icmp admin-prohibited";
    let body = match egress {
        Egress::Deny => format!(
            "    \
    counter refused {{
    }}
    chain prerouting {{
        type filter hook prerouting priority 0; policy accept;
        iifname \"br0\" fib daddr type unicast ip daddr != {net} {refuse}
    }}
"
        ),
        // DNS at the gateway address needs no connection tracking.
        Egress::Allow => format!(
            "    \
    counter refused {{
    }}
    chain raw {{
        type filter hook prerouting priority -300; policy accept;
        iifname \"br0\" ip daddr {gateway} notrack
    }}
    chain output {{
        type filter hook output priority -300; policy accept;
        oifname \"br0\" notrack
    }}
    chain input {{
        type filter hook input priority 0; policy accept;
        iifname \"{NETWORK_LINK}\" ct state != {{ established, related }} drop
    }}
    chain forward {{
        type filter hook forward priority 0; policy drop;
        iifname \"{NETWORK_LINK}\" oifname \"br0\" ct state {{ established, related }} accept
        iifname \"br0\" ip daddr 169.254.0.0/16 {refuse}
        iifname \"br0\" udp dport {vxlan_port} {refuse}
        iifname \"br0\" oifname \"{NETWORK_LINK}\" ip saddr {net} accept
    }}
    chain postrouting {{
        type nat hook postrouting priority 100; policy accept;
        oifname \"{NETWORK_LINK}\" masquerade
    }}
"
        ),
    };
    table::stamped(FAMILY, TABLE, "border", &body)
}

/// The table of the host: for the links of all networks, of every agent on it. Its own services answer nobody who
/// comes by a link but for ping: such a packet passes by the rules that the host has for its real devices. Links
/// do not reach each other, and nobody outside reaches into one.
pub(super) fn host() -> String {
    let body = format!(
        "    \
    chain input {{
        type filter hook input priority -10; policy accept;
        iifname \"{HOST_LINK}*\" ct state {{ established, related }} accept
        iifname \"{HOST_LINK}*\" icmp type echo-request accept
        iifname \"{HOST_LINK}*\" reject with icmpx admin-prohibited
    }}
    chain forward {{
        type filter hook forward priority -10; policy accept;
        iifname \"{HOST_LINK}*\" oifname \"{HOST_LINK}*\" reject with icmpx admin-prohibited
        oifname \"{HOST_LINK}*\" ct state != {{ established, related }} drop
    }}
    chain postrouting {{
        type nat hook postrouting priority 100; policy accept;
        iifname \"{HOST_LINK}*\" masquerade
    }}
"
    );
    table::stamped(FAMILY, TABLE, "host", &body)
}

#[cfg(test)]
mod tests {
    use super::super::rules::same;
    use super::*;

    #[test]
    fn a_denied_network_has_another_table() {
        let table = |egress| network("10.42.0.0/16".parse().unwrap(), egress, 4789);
        assert!(!same(&table(Egress::Allow), &table(Egress::Deny)));
        assert!(same(&table(Egress::Deny).replace("    ", "\t"), &table(Egress::Deny)));
    }

    #[test]
    fn what_is_refused_comes_before_what_leaves() {
        let text = network("10.42.0.0/16".parse().unwrap(), Egress::Allow, 14789);
        let line = |part: &str| text.lines().position(|line| line.contains(part)).unwrap();
        assert!(line("169.254.0.0/16") < line("ip saddr 10.42.0.0/16 accept"));
        assert!(line("udp dport 14789") < line("ip saddr 10.42.0.0/16 accept"));
    }
}
