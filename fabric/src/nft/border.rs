//! The tables at a network's border to the world outside: in the network's namespace and in the host's. Pure.
//!
//! Both masquerade: the first makes packets of networks whose subnets overlap different, the second gives them the
//! host's address.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;
use sealane_proto::resource::Egress;
use sealane_proto::types::Subnet;

use super::rules::{TABLE, same};
use super::table;

pub(super) const FAMILY: &str = "inet";

/// Prefix of the host's ends of all networks' links to the world outside.
pub const HOST_LINK: &str = "sealane";
/// The network's end of its link.
pub(crate) const NETWORK_LINK: &str = "egress0";

/// Addresses of clouds' services for their hosts alone, and link-local addresses (RFC 3927, section 2.7), behind which are
/// also the hosts' ends of the links: Alibaba Cloud, Azure, everybody else, Oracle Cloud.
const METADATA: &str = "100.100.100.200, 168.63.129.16, 169.254.0.0/16, 192.0.0.192";

/// The ports of the mesh itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MeshPorts {
    /// VXLAN, over UDP.
    pub(crate) tunnel: u16,
    /// Control, metrics and what hosts say to each other.
    pub(crate) services: BTreeSet<u16>,
}

/// The table of a network's namespace. What is refused is refused at once (RFC 1812, section 5.2.7.1: code 13).
///
/// VXLAN is not forwarded: the host's address would be on it, and other hosts would take it for the host's own. Nor is
/// what the hosts of the mesh offer each other, for the same reason.
pub(super) fn network(subnet: Subnet, egress: Egress, ports: &MeshPorts) -> String {
    let (gateway, net, vxlan_port) = (subnet.gateway(), subnet.to_net(), ports.tunnel);
    let services: Vec<String> = ports.services.iter().map(ToString::to_string).collect();
    let services = services.join(", ");
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
    set hosts {{
        type ipv4_addr
        flags interval
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
        iifname \"br0\" ip daddr {{ {METADATA} }} {refuse}
        iifname \"br0\" udp dport {vxlan_port} {refuse}
        iifname \"br0\" ip daddr @hosts meta l4proto {{ tcp, udp }} th dport {{ {services} }} {refuse}
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

/// The script that makes the table of a network's namespace what it should be, and how many tables and rows were not. Of the
/// mesh's hosts, those that are there stay where none are told.
pub(super) fn settle(
    there: &mut Option<Border>,
    wanted: Border,
    hosts: Option<&BTreeSet<Ipv4Net>>,
) -> (String, usize) {
    let known = there.take().filter(|known| known.is(&wanted));
    let mut script = match &known {
        Some(_) => String::new(),
        None => table::replacing(FAMILY, TABLE, &wanted.text),
    };
    let from = known.as_ref().map(|known| known.hosts.clone()).unwrap_or_default();
    let to = match hosts {
        // A denied network forwards nothing, and has no such set.
        _ if !wanted.text.contains("set hosts") => BTreeSet::new(),
        Some(hosts) => hosts.clone(),
        None => from.clone(),
    };
    let rows = |hosts: &BTreeSet<Ipv4Net>| hosts.iter().map(row).collect();
    script += &table::changing_rows([FAMILY, TABLE, "hosts"], &rows(&from), &rows(&to));
    let changes = usize::from(known.is_none()) + usize::from(from != to);
    *there = Some(Border { hosts: to, ..wanted });
    (script, changes)
}

/// As nft lists it.
fn row(net: &Ipv4Net) -> String {
    if net.prefix_len() == 32 { net.addr().to_string() } else { net.to_string() }
}

fn net(row: &str) -> Option<Ipv4Net> {
    row.parse().ok().or_else(|| Some(Ipv4Net::from(row.parse::<std::net::Ipv4Addr>().ok()?)))
}

/// A table of a network's namespace, and the hosts that it keeps workloads from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Border {
    text: String,
    hosts: BTreeSet<Ipv4Net>,
}

impl Border {
    /// Makes a border without hosts.
    pub(super) fn of(text: String) -> Self {
        Self { text, hosts: BTreeSet::new() }
    }

    /// Reads a border from the output of nft.
    pub(super) fn listed(text: &str) -> Option<Self> {
        let (text, mut rows) = table::without_rows(text)?;
        let hosts = rows.remove("hosts").unwrap_or_default();
        let hosts = hosts.iter().map(|row| net(row)).collect::<Option<_>>()?;
        Some(Self { text, hosts })
    }

    fn is(&self, wanted: &Self) -> bool {
        same(&self.text, &wanted.text)
    }
}

/// Properties of a host that its table depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// The bridges and veths that lead outside.
    pub(crate) uplinks: BTreeSet<String>,
    /// The UDP port of this agent's tunnels.
    pub(crate) tunnel: u16,
    /// True if rules that nft lists ask for the state of tunnels' packets; `None` when that is to be found out again.
    pub(crate) asked: Option<bool>,
    /// True if tunnels go untracked.
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

    fn ports(tunnel: u16) -> MeshPorts {
        MeshPorts { tunnel, services: [7443, 9464].into() }
    }

    #[test]
    fn hosts_of_the_mesh_are_rows_that_come_and_go() {
        let subnet = "10.42.0.0/16".parse().unwrap();
        let [allow, deny] =
            [Egress::Allow, Egress::Deny].map(|egress| Border::of(network(subnet, egress, &ports(4789))));
        let hosts = |last: &[u8]| {
            last.iter()
                .map(|&last| Ipv4Net::from(std::net::Ipv4Addr::new(192, 0, 2, last)))
                .collect::<BTreeSet<_>>()
        };
        let mut there = None;
        let (script, changes) = settle(&mut there, allow.clone(), Some(&hosts(&[1, 2])));
        assert!(
            script.ends_with("add element inet sealane hosts { 192.0.2.1, 192.0.2.2 }\n") && changes == 2
        );
        assert_eq!(settle(&mut there, allow.clone(), None), (String::new(), 0));
        let change =
            "delete element inet sealane hosts { 192.0.2.1 }\nadd element inet sealane hosts { 192.0.2.3 }\n";
        assert_eq!(settle(&mut there, allow.clone(), Some(&hosts(&[2, 3]))), (change.to_owned(), 1));
        let rows = "flags interval\n\t\telements = { 192.0.2.2, 192.0.2.3 }\n";
        let mut listed = Border::listed(&allow.text.replace("flags interval\n", rows));
        assert_eq!(settle(&mut listed, allow.clone(), None), (String::new(), 0));
        let lan = ["198.51.100.0/24".parse().unwrap()].into();
        let (script, _) = settle(&mut listed, allow, Some(&lan));
        assert!(script.ends_with("add element inet sealane hosts { 198.51.100.0/24 }\n"), "{script}");
        assert_eq!(net(&row(&"198.51.100.0/24".parse().unwrap())), "198.51.100.0/24".parse().ok());
        let (script, _) = settle(&mut there, deny, Some(&hosts(&[2])));
        assert!(!script.contains("element"), "{script}");
    }

    #[test]
    fn a_denied_network_has_another_table() {
        let table = |egress| network("10.42.0.0/16".parse().unwrap(), egress, &ports(4789));
        assert!(!same(&table(Egress::Allow), &table(Egress::Deny)));
        assert!(same(&table(Egress::Deny).replace("    ", "\t"), &table(Egress::Deny)));
    }

    #[test]
    fn what_is_refused_comes_before_what_leaves() {
        let text = network("10.42.0.0/16".parse().unwrap(), Egress::Allow, &ports(14789));
        let line = |part: &str| text.lines().position(|line| line.contains(part)).unwrap();
        assert!(line("169.254.0.0/16") < line("ip saddr 10.42.0.0/16 accept"));
        assert!(line("udp dport 14789") < line("ip saddr 10.42.0.0/16 accept"));
        assert!(line("@hosts") < line("ip saddr 10.42.0.0/16 accept"));
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
