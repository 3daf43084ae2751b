//! Messages by ICMP about the lengths of tunnels' packets, which anybody can send. Pure.
//!
//! A message that a packet was too long (RFC 792, RFC 4443) quotes the packet's beginning, and nothing in there is a secret: the
//! kernel looks a VXLAN socket up by its port alone. So whoever can send to a host could shorten its packets to another one.
//! Echoes of hosts find out themselves which lengths pass.
//!
//! A message that the kernel believes holds for all packets to an address, and it believes whatever is said of ICMP's own: messages about
//! such packets to hosts of the mesh are dropped as well. Those about other packets go on.

use crate::nft::datum::{Datum, ICMP, ICMPV6};
use crate::nft::rule::{Rule, rule};
use crate::nft::ruleset::{Chain, Set};
use crate::nft::selector::{Ip, Selector};

/// The counter of these messages.
pub(crate) const LENGTHS: &str = "lengths";
/// Bits before the quoted packet.
const QUOTED: u32 = 64;
/// The first byte of an IPv4 header without options.
const PLAIN: u128 = 0x45;
const UDP: u128 = 17;
const ICMP4: u128 = 1;
const ICMP6: u128 = 58;
/// Headers between that of IPv6 and the transport's which the kernel skips, but for that of fragments: options for hops and
/// for the destination, routing, authentication.
const SKIPPED: [u128; 4] = [0, 60, 43, 51];
const FRAGMENT: u128 = 44;

/// The chain for messages of this family.
fn name(ip: Ip) -> &'static str {
    match ip {
        Ip::V4 => "lengths",
        Ip::V6 => "lengths6",
    }
}

/// The addresses of all hosts that share a network with this one.
pub(super) fn peers(ip: Ip) -> Set {
    let name = match ip {
        Ip::V4 => "peers",
        Ip::V6 => "peers6",
    };
    Set::of(name, ip.address())
}

/// So many bits of the quoted packet from this one on.
const fn quoted(offset: u32, length: u32) -> Selector {
    Selector::Transport { offset: QUOTED + offset, length }
}

fn byte(value: u128) -> Datum {
    Datum::Number(value, 1)
}

/// Leads messages about lengths to their chains.
pub(super) fn entries() -> [Rule; 2] {
    let [v4, v6] = Ip::ALL.map(|ip| rule().is(Selector::Family, ip.family()));
    // Destination unreachable: fragmentation needed.
    let v4 = v4.carried_by(ICMP).is(Selector::Transport { offset: 0, length: 16 }, Datum::Number(0x0304, 2));
    // Packet too big.
    let v6 = v6.carried_by(ICMPV6).is(Selector::Transport { offset: 0, length: 8 }, byte(2));
    [v4.visit(name(Ip::V4)), v6.visit(name(Ip::V6))]
}

/// The chains that drop messages about UDP from or to this port. A sender could hide the ports behind options and headers that
/// packets of tunnels do not have; those about UDP behind such ones are dropped whatever the port.
pub(super) fn chains(port: u16) -> [Chain; 2] {
    let drop = |rule: Rule| rule.count_by(LENGTHS).drop();
    let by_ports = |quoting: Rule, offset: u32| {
        [offset, offset + 16].map(|offset| drop(quoting.clone().is(quoted(offset, 16), port)))
    };
    let (length, protocol) = (quoted(0, 8), quoted(72, 8));
    let v4 = rule().is(protocol, byte(UDP));
    let hidden = drop(v4.clone().differs(length, byte(PLAIN)));
    let to_peer = drop(rule().is(protocol, byte(ICMP4)).in_set(quoted(128, 32), peers(Ip::V4).name));
    let v4 = by_ports(v4, 160).into_iter().chain([hidden, to_peer]);

    let (next, behind) = (quoted(48, 8), quoted(320, 8));
    let is = |selector, value| rule().is(selector, byte(value));
    let bytes = |values: &[u128]| values.iter().copied().map(byte).collect::<Vec<_>>();
    let deep = [&[FRAGMENT][..], &SKIPPED].concat();
    let hidden = [
        drop(rule().among(next, bytes(&SKIPPED)).among(behind, bytes(&[&[UDP, ICMP6][..], &deep].concat()))),
        drop(is(next, FRAGMENT).among(behind, bytes(&deep))),
    ];
    let fragment = by_ports(is(next, FRAGMENT).is(behind, byte(UDP)), 384);
    let to_peer = [is(next, ICMP6), is(next, FRAGMENT).is(behind, byte(ICMP6))]
        .map(|quoting| drop(quoting.in_set(quoted(192, 128), peers(Ip::V6).name)));
    let v6 = by_ports(is(next, UDP), 320).into_iter().chain(fragment).chain(hidden).chain(to_peer);
    [Chain::new(name(Ip::V4), v4), Chain::new(name(Ip::V6), v6)]
}
