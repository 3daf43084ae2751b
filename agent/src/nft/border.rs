//! The tables at a network's border to the world outside: in the network's namespace and in the host's. Pure.
//!
//! Both masquerade: the first makes packets of networks whose subnets overlap different, the second gives them the
//! host's address.

use std::collections::BTreeSet;

use sealane_proto::resource::Egress;
use sealane_proto::types::Subnet;

use super::rules::{TABLE, same};
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
        ct state invalid drop
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
/// do not reach each other, and nobody outside reaches into one. Nor do they reach into a bridge or a veth (of
/// containers, of virtual machines) but by what that publishes: its own rules have come to trust FORWARD's policy.
/// Packets of others are let go by the first rule of every chain.
///
/// With masquerade begins conntrack; tunnels to those ports are exempt from it (`egress/tracking`). What may enter is
/// asked of every packet, not of flows alone: one that conntrack finds invalid (a FIN of no connection) has none, and the
/// host's TCP would answer it.
fn host_table() -> String {
    let body = format!(
        "    \
    set uplinks {{
        type ifname
    }}
    set tunnels {{
        type inet_service
    }}
    chain prerouting {{
        type filter hook prerouting priority -300; policy accept;
        udp dport @tunnels iifname != \"{HOST_LINK}*\" notrack
    }}
    chain output {{
        type filter hook output priority -300; policy accept;
        udp dport @tunnels notrack
    }}
    chain input {{
        type filter hook input priority -10; policy accept;
        iifname != \"{HOST_LINK}*\" accept
        ct state {{ established, related }} accept
        icmp type echo-request accept
        reject with icmpx admin-prohibited
    }}
    chain forward {{
        type filter hook forward priority -10; policy accept;
        iifname != \"{HOST_LINK}*\" oifname != \"{HOST_LINK}*\" accept
        iifname \"{HOST_LINK}*\" oifname \"{HOST_LINK}*\" reject with icmpx admin-prohibited
        oifname \"{HOST_LINK}*\" ct state {{ established, related }} accept
        oifname \"{HOST_LINK}*\" drop
        ct status dnat accept
        meta oifkind {{ \"bridge\", \"veth\" }} oifname != @uplinks reject with icmpx admin-prohibited
    }}
    chain postrouting {{
        type nat hook postrouting priority 100; policy accept;
        iifname \"{HOST_LINK}*\" masquerade
    }}
"
    );
    table::stamped(FAMILY, TABLE, "host", &body)
}

/// What a host is like for its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// The bridges and veths that lead outside.
    pub(crate) uplinks: BTreeSet<String>,
    /// The UDP port of this agent's tunnels.
    pub(crate) tunnel: u16,
    /// Whether rules that nft lists ask for the state of tunnels' packets; `None` when that is to be found out again.
    pub(crate) asked: Option<bool>,
    /// Whether tunnels go untracked.
    pub(crate) untracked: bool,
}

/// The script that makes the host's table what it should be; empty when it is that already. Ports of other agents'
/// tunnels stay.
pub(super) fn host(listed: Option<&str>, surroundings: &Surroundings) -> String {
    let table = host_table();
    let there = listed.and_then(table::without_rows).filter(|(bare, _)| same(bare, &table));
    let mut script = match there {
        Some(_) => String::new(),
        None => table::replacing(FAMILY, TABLE, &table),
    };
    let mut rows = there.map(|(_, rows)| rows).unwrap_or_default();
    let [uplinks, tunnels] = ["uplinks", "tunnels"].map(|set| rows.remove(set).unwrap_or_default());
    let wanted = surroundings.uplinks.iter().map(|name| format!("\"{name}\"")).collect();
    script += &table::changing_rows([FAMILY, TABLE, "uplinks"], &uplinks, &wanted);
    let mut wanted = tunnels.clone();
    let port = surroundings.tunnel.to_string();
    if surroundings.untracked {
        wanted.insert(port)
    } else {
        wanted.remove(&port)
    };
    script += &table::changing_rows([FAMILY, TABLE, "tunnels"], &tunnels, &wanted);
    script
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn the_hosts_table_follows_its_surroundings() {
        let like = |names: &[&str], untracked: bool| Surroundings {
            uplinks: names.iter().map(|&name| name.to_owned()).collect(),
            tunnel: 4789,
            asked: Some(!untracked),
            untracked,
        };
        let (fresh, table) = (host(None, &like(&[], false)), host_table());
        assert!(fresh.ends_with(&table), "{fresh}");
        let row = "ifname\n\t\telements = { \"br0\" }\n";
        let listed = table.replace("ifname\n", row).replace("    ", "\t");
        assert_eq!(host(Some(&listed), &like(&["br0"], false)), "");
        assert_eq!(
            host(Some(&listed), &like(&["br1"], true)),
            "delete element inet sealane uplinks { \"br0\" }\nadd element inet sealane uplinks { \"br1\" }\n\
             add element inet sealane tunnels { 4789 }\n"
        );
        assert_eq!(host(Some(&table), &like(&[], false)), "");
        let both = table.replace("inet_service\n", "inet_service\n\t\telements = { 4789, 14789 }\n");
        assert_eq!(host(Some(&both), &like(&[], true)), "");
        assert_eq!(host(Some(&both), &like(&[], false)), "delete element inet sealane tunnels { 4789 }\n");
        let broken = listed.replace("\t\tct status dnat accept\n", "");
        let added = format!("{fresh}add element inet sealane uplinks {{ \"br0\" }}\n");
        assert_eq!(host(Some(&broken), &like(&["br0"], false)), added);
    }
}
