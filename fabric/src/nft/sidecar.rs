//! The redirects in the namespace of a workload with a sidecar. Pure.
//!
//! Both families have the same rules, each in a table of its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sealane_proto::sidecar::{MARK, SidecarPorts};
use sealane_proto::types::{OverlayIp, Subnet, Subnet6};

use super::datum::{DNAT, Datum, ESTABLISHED, IPV4, NEIGHBOR_ADVERT, NEIGHBOR_SOLICIT, RELATED};
use super::rule::{Rejection, Rule, rule};
use super::ruleset::{Chain, Family, Hook, Point, Table, TableName};
use super::selector::{End, Ip, Selector};
use crate::seat::Seat;

/// Beginning of the names of all tables of ours.
pub(super) const TABLE: &str = "sealane";
/// Priority of a chain that translates destinations.
const DSTNAT: i32 = -100;

/// The calls of one family that go through a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The network's addresses.
    net: IpNet,
    gateway: IpAddr,
    /// The workload's own address.
    own: IpAddr,
    /// Address at which the sidecar takes the workload's own calls.
    listens: IpAddr,
    seat: Seat,
    ports: SidecarPorts,
}

impl Redirect {
    /// The IPv4 calls of the workload at `address`. `ports.outbound` is at the seat's loopback address, the others at the
    /// workload's.
    #[must_use]
    pub fn v4(subnet: Subnet, address: OverlayIp, seat: Seat, ports: SidecarPorts) -> Self {
        Self {
            net: subnet.to_net().into(),
            gateway: subnet.gateway().to_ipv4().into(),
            own: address.to_ipv4().into(),
            listens: seat.loopback().into(),
            seat,
            ports,
        }
    }

    /// The IPv6 calls of the workload at `address` of the IPv4 subnet. The sidecar listens at the workload's own address.
    #[must_use]
    pub fn v6(subnet6: Subnet6, subnet: Subnet, address: OverlayIp, seat: Seat, ports: SidecarPorts) -> Self {
        let own = IpAddr::V6(subnet6.address(address));
        let gateway = IpAddr::V6(subnet6.address(subnet.gateway()));
        Self { net: subnet6.to_net().into(), gateway, own, listens: own, seat, ports }
    }

    /// A redirect that the kernel is tried with.
    pub(super) fn example(seat: Seat) -> Self {
        let [gateway, own] = [1, 2].map(|last| IpAddr::from(Ipv4Addr::new(10, 0, 0, last)));
        let net = Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8).into();
        Self { net, gateway, own, listens: seat.loopback().into(), seat, ports: SidecarPorts::default() }
    }

    fn ip(&self) -> Ip {
        if self.own.is_ipv4() { Ip::V4 } else { Ip::V6 }
    }

    fn source(&self) -> Selector {
        Selector::Address(self.ip(), End::Source)
    }

    fn destination(&self) -> Selector {
        Selector::Address(self.ip(), End::Destination)
    }

    /// A rule for packets that come by the workload's interface.
    fn inbound(&self) -> Rule {
        rule().is(Selector::InputName, self.interface().as_str())
    }

    /// A rule for packets that come by another interface than the workload's.
    fn strange(&self) -> Rule {
        rule().outside(Selector::InputName, ["lo", self.interface().as_str()])
    }

    fn interface(&self) -> String {
        self.seat.interface().to_string()
    }

    /// The table.
    pub(super) fn table(&self) -> Table {
        let table = TableName::new(family(self.ip()), self.seat.table());
        let chains = [self.output(), self.prerouting(), self.guard(), self.redirected()];
        chains.into_iter().fold(table.table().comment("sidecar"), Table::chain)
    }

    /// The workload's own calls, but for those of its sidecar, to itself and to the gateway.
    fn output(&self) -> Chain {
        let beside: Vec<Datum> = match self.ip() {
            Ip::V4 => vec![Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into(), self.gateway.into()],
            Ip::V6 => vec![self.gateway.into()],
        };
        let outbound = SocketAddr::new(self.listens, self.ports.outbound);
        let rules = [
            rule().is(Selector::Mark, Datum::Mark(MARK)).leave(),
            rule().is(Selector::OutputName, "lo").leave(),
            rule().among_any(self.destination(), beside).leave(),
            rule().is(self.destination(), self.net).tcp().lead_to(outbound),
        ];
        Chain::new("output", rules).at(Hook::nat(Point::Output, DSTNAT))
    }

    /// Calls to the workload.
    fn prerouting(&self) -> Chain {
        let SidecarPorts { outbound, inbound, tunnel } = self.ports;
        let port = Selector::TcpPort(End::Destination);
        let to_own = match self.ip() {
            Ip::V4 => self.inbound(),
            Ip::V6 => rule(),
        };
        let to_own = to_own.is(self.destination(), self.own);
        let led = match self.ip() {
            Ip::V4 => to_own.clone().tcp().redirect(Some(inbound)),
            Ip::V6 => to_own.clone().tcp().lead_to(SocketAddr::new(self.own, inbound)),
        };
        let rules = [to_own.among(port, [outbound, inbound, tunnel]).leave(), led];
        Chain::new("prerouting", rules).at(Hook::nat(Point::Prerouting, DSTNAT))
    }

    /// Lets in what is for the workload, by the packet's address, whatever Ethernet address brought it; the interface's own traffic comes
    /// by no other one.
    fn guard(&self) -> Chain {
        let SidecarPorts { outbound, inbound, .. } = self.ports;
        let mut rules = vec![rule().among(Selector::State, [ESTABLISHED, RELATED]).accept()];
        let (from_own, meant, listening): (_, Vec<Datum>, Vec<Datum>) = match self.ip() {
            Ip::V4 => {
                let groups = Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4).into();
                let broadcast = self.net.broadcast().into();
                let meant = vec![self.own.into(), broadcast, groups, Ipv4Addr::BROADCAST.into()];
                let from_own = self.inbound().is(Selector::Family, IPV4);
                (from_own, meant, vec![self.own.into(), self.listens.into()])
            }
            Ip::V6 => {
                let neighbours = [NEIGHBOR_SOLICIT, NEIGHBOR_ADVERT];
                rules.push(self.inbound().among(Selector::Message(Ip::V6), neighbours).accept());
                let first = Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0);
                let groups = Ipv6Net::new_assert(first, 8).into();
                (self.inbound(), vec![self.own.into(), groups], vec![self.own.into()])
            }
        };
        rules.extend([
            from_own.differs(self.source(), self.net).count().drop(),
            self.inbound().outside(self.destination(), meant).count().drop(),
            self.strange().is(self.source(), self.net).count().drop(),
            self.strange().is(self.destination(), self.own).count().drop(),
            rule()
                .among_any(self.destination(), listening)
                .among(Selector::TcpPort(End::Destination), [outbound, inbound])
                .go_to("redirected"),
        ]);
        Chain::new("guard", rules).at(Hook::filter(Point::Input, 0))
    }

    /// The end of the guard: a peer that connects to a redirect port itself would make the sidecar call itself. Only what a
    /// redirect brought may enter, and only if it was not for a sidecar's port to begin with. Whether it may is settled by
    /// its first packet.
    fn redirected(&self) -> Chain {
        let SidecarPorts { outbound, inbound, tunnel } = self.ports;
        let for_sidecar = [outbound, inbound, tunnel]
            .map(|port| rule().tcp().is(Selector::OriginalPort, port).reject(Rejection::Reset));
        let rest = [rule().is(Selector::Status, DNAT).accept(), rule().tcp().reject(Rejection::Reset)];
        Chain::new("redirected", for_sidecar.into_iter().chain(rest))
    }
}

fn family(ip: Ip) -> Family {
    match ip {
        Ip::V4 => Family::Inet,
        Ip::V6 => Family::Ip6,
    }
}

/// The tables of a seat. They are its own, so that rules of others are never touched.
pub(super) fn names(seat: Seat) -> [TableName; 2] {
    Ip::ALL.map(|ip| TableName::new(family(ip), seat.table()))
}

/// Returns true if a table of this name in a workload's namespace is ours.
pub(super) fn is_ours(name: &str) -> bool {
    name == TABLE || name.strip_prefix(TABLE).is_some_and(|rest| rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_others_stay() {
        let names = ["nat", "sealane", "sealaned", "sealane-1", "sealane-names"];
        let ours: Vec<&str> = names.into_iter().filter(|name| is_ours(name)).collect();
        assert_eq!(ours, ["sealane", "sealane-1", "sealane-names"]);
    }

    #[test]
    fn the_sidecar_and_the_gateway_are_not_redirected() {
        let (subnet6, subnet) = ("fd42::/64".parse().unwrap(), "10.42.0.0/16".parse().unwrap());
        let (address, seat, ports) = ("10.42.0.9".parse().unwrap(), Seat::default(), SidecarPorts::default());
        for (redirect, led, gateway) in [
            (
                Redirect::v4(subnet, address, seat, ports),
                "ip daddr 10.42.0.0/16 meta l4proto tcp dnat ip to 127.15.0.1:15001",
                "10.42.0.1 } return",
            ),
            (
                Redirect::v6(subnet6, subnet, address, seat, ports),
                "ip6 daddr fd42::/64 meta l4proto tcp dnat to [fd42::a2a:9]:15001",
                "ip6 daddr fd42::a2a:1 return",
            ),
        ] {
            let text = redirect.table().to_string();
            let line = |part: &str| text.lines().position(|line| line.contains(part)).unwrap();
            assert!(line("meta mark 0x0005ea1a return") < line(led), "{text}");
            assert!(line(gateway) < line(led), "{text}");
        }
    }
}
