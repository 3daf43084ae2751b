use sealane_proto::types::MacAddr;

use super::*;
use crate::nft::datum::{DNAT, FRAME_IP, IPV4, IPV6, TCP, UDP};
use crate::nft::rule::rule;
use crate::nft::selector::End;

const PORT: Selector = Selector::TcpPort(End::Destination);
const SOURCE: Selector = Selector::Address(Ip::V4, End::Source);

fn compared(relation: Relation, value: Datum) -> Expression {
    Expression::Compare { relation, value: value.bytes() }
}

fn inet(rule: &Rule) -> Vec<Expression> {
    expressions(rule, Family::Inet)
}

#[test]
fn facts_that_a_rule_has_established_are_not_looked_at_again() {
    let (port, address) = (rule().is(PORT, 80), rule().is(SOURCE, IpAddr::from([10, 42, 0, 9])));
    assert_eq!(inet(&port.clone().tcp()), inet(&port));
    assert_eq!(inet(&rule().tcp().is(PORT, 80)), inet(&port));
    assert_eq!(inet(&address.clone().is(Selector::Family, IPV4)), inet(&address));
    assert_eq!(
        inet(&rule().is(Selector::Family, IPV4).is(SOURCE, IpAddr::from([10, 42, 0, 9]))),
        inet(&address)
    );
    let loads = |rule: &Rule, family, load: Expression| {
        expressions(rule, family).into_iter().filter(|one| *one == load).count()
    };
    let ports = port.clone().is(Selector::TcpPort(End::Source), 81);
    assert_eq!(loads(&ports, Family::Inet, Selector::Protocol.load(FIRST)), 1);
    let frame = Expression::Meta { key: META_IIFTYPE, register: FIRST };
    let frames =
        rule().is(Selector::EtherType, FRAME_IP).differs(Selector::EtherSource, MacAddr::new([2; 6]));
    for (family, times) in [(Family::Netdev, 1), (Family::Bridge, 0)] {
        assert_eq!(loads(&frames, family, frame.clone()), times, "{family}");
    }
    let both = inet(&port.clone().carried_by(UDP));
    assert!(both.ends_with(&[Selector::Protocol.load(FIRST), compared(Relation::Equal, UDP.into())]));
}

#[test]
fn nothing_is_known_of_a_packet_by_its_being_something_else() {
    let tcp = compared(Relation::Equal, TCP.into());
    let port = inet(&rule().differs(Selector::Protocol, TCP).is(PORT, 80));
    assert!(port.contains(&tcp), "{port:?}");
    let never = inet(&rule().tcp().differs(Selector::Protocol, TCP));
    assert!(never.ends_with(&[compared(Relation::Differs, TCP.into())]), "{never:?}");
}

#[test]
fn the_protocol_that_a_frame_says_is_looked_at_even_where_it_is_known() {
    let known = rule().is(Selector::Frame, FRAME_IP);
    let [short, long] = [known.clone(), known.is(Selector::EtherType, FRAME_IP)]
        .map(|rule| expressions(&rule, Family::Bridge));
    let rest = long.strip_prefix(short.as_slice()).unwrap();
    assert_eq!(rest, [Selector::EtherType.load(FIRST), compared(Relation::Equal, FRAME_IP.into())]);
}

#[test]
fn what_is_no_fact_of_a_packet_s_family_neither_gives_nor_takes_one() {
    let family = expressions(&rule().is(SOURCE, IpAddr::from([10, 42, 0, 9])), Family::Bridge);
    let written = expressions(&rule().is(Selector::EtherType, FRAME_IP), Family::Bridge);
    let both = rule().is(Selector::EtherType, FRAME_IP).is(SOURCE, IpAddr::from([10, 42, 0, 9]));
    assert_eq!(expressions(&both, Family::Bridge), [written, family].concat());
    let address = || rule().is(SOURCE, IpAddr::from([10, 42, 0, 9]));
    let again = inet(&address().is(Selector::Status, DNAT).is(SOURCE, IpAddr::from([10, 42, 0, 9])));
    assert_eq!(again.iter().filter(|load| **load == Selector::Family.load(FIRST)).count(), 1);
    let neither = inet(&address().is(Selector::Family, IPV6));
    assert!(neither.ends_with(&[Selector::Family.load(FIRST), compared(Relation::Equal, IPV6.into())]));
}

#[test]
fn whole_bytes_of_a_network_are_compared_and_other_bits_by_a_mask() {
    for (net, loaded) in [
        ("10.0.0.0/8", Some(1)),
        ("10.42.0.0/16", Some(2)),
        ("10.42.7.0/24", None),
        ("10.42.0.0/12", None),
        ("fd42::/16", Some(2)),
        ("fd42:0:0:7::/64", Some(8)),
        ("fd42:0:0:8::/61", None),
    ] {
        let net: IpNet = net.parse().unwrap();
        let ip = if net.network().is_ipv4() { Ip::V4 } else { Ip::V6 };
        let done = inet(&rule().is(Selector::Address(ip, End::Source), net));
        let whole = u32::try_from(octets(net.network()).len()).unwrap();
        let length = |expression: &Expression| {
            if let Expression::Payload { length, .. } = expression { Some(*length) } else { None }
        };
        assert_eq!(done.iter().find_map(length), Some(loaded.unwrap_or(whole)), "{net}");
        let mask = Expression::Masked { mask: octets(net.netmask()) };
        assert_eq!(done.contains(&mask), loaded.is_none(), "{net}");
        let value = octets(net.network())[..loaded.unwrap_or(whole) as usize].to_vec();
        assert_eq!(done.last(), Some(&Expression::Compare { relation: Relation::Equal, value }), "{net}");
    }
}

#[test]
fn a_map_of_a_rule_has_its_rows() {
    let rows = vec![(80.into(), Verdict::Accept), (81.into(), Verdict::Drop)];
    let done = inet(&rule().mapped(PORT, rows));
    let Some(Expression::Lookup { set: SetUse::Anonymous(map), into: Some(VERDICT), .. }) = done.last()
    else {
        panic!("{done:?}");
    };
    let row = |verdict| Row { until: None, data: Some(RowData::Verdict(verdict)) };
    assert_eq!(map.rows, [(vec![0, 80], row(Verdict::Accept)), (vec![0, 81], row(Verdict::Drop))].into());
}

#[test]
fn a_refusal_by_icmp_is_for_ipv4_and_comes_before_the_count() {
    let family = [Selector::Family.load(FIRST), compared(Relation::Equal, IPV4.into())];
    let refused = || Expression::Reject { kind: ICMP_UNREACHABLE, code: PACKET_FILTERED };
    let counted = rule().count().reject(Rejection::IcmpAdmin);
    let [load, compare] = family.clone();
    assert_eq!(inet(&counted), [load, compare, Expression::Count, refused()]);
    assert_eq!(expressions(&counted, Family::Ip), [Expression::Count, refused()]);
    let known = rule().is(Selector::Family, IPV4).reject(Rejection::IcmpAdmin);
    let [load, compare] = family;
    assert_eq!(inet(&known), [load, compare, refused()]);
}

#[test]
fn a_choice_leads_to_the_registers_that_its_map_fills() {
    for (places, with_port, behind) in [
        (["10.42.0.9:80", "10.42.0.10:81"], true, Some(9)),
        (["10.42.0.9:80", "10.42.0.10:81"], false, None),
        (["[fd42::9]:80", "[fd42::a]:81"], true, Some(12)),
    ] {
        let [first, second]: [SocketAddr; 2] = places.map(|place| place.parse().unwrap());
        let done = inet(&rule().choose(Choice { of: vec![(first, 2), (second, 1)], with_port }));
        let [random, ordered, Expression::Lookup { set: SetUse::Anonymous(map), into, .. }, place] =
            done.as_slice()
        else {
            panic!("{done:?}");
        };
        assert_eq!((random, ordered), (&Expression::Random { below: 3 }, &Expression::Ordered));
        let rows =
            [(0, Some(2), first), (2, Some(3), second)].map(|(from, until, place): (u32, Option<u32>, _)| {
                let port = if with_port {
                    vec![place.port().to_be_bytes()[0], place.port() as u8, 0, 0]
                } else {
                    vec![]
                };
                let value = RowData::Value([octets(place.ip()), port].concat());
                let until = until.map(|until| until.to_be_bytes().to_vec());
                (from.to_be_bytes().to_vec(), Row { until, data: Some(value) })
            });
        assert_eq!((&map.rows, *into), (&rows.into(), Some(FIRST)));
        assert_eq!(*place, destination(first.ip(), behind), "{places:?}");
    }
}

#[test]
fn a_network_is_known_by_its_number_in_frames_and_by_its_family() {
    for ip in Ip::ALL {
        assert_eq!([ip.family(), Network::Ip(ip).frame()].map(Network::of), [Some(Network::Ip(ip)); 2]);
    }
    assert_eq!(Network::of(Network::Arp.frame()), Some(Network::Arp));
    assert_eq!(Network::of(TCP), None);
}

#[test]
fn parts_of_a_packet_take_as_many_registers_as_they_have_bytes() {
    let address6 = Selector::Address(Ip::V6, End::Source);
    for (selector, length) in [
        (Selector::EtherSource, 6),
        (Selector::ArpSenderMac, 6),
        (PORT, 2),
        (Selector::InputName, 16),
        (address6, 16),
    ] {
        assert_eq!(selector.length(), length, "{selector}");
    }
    let set = rule().are_in(&[Selector::EtherSource, SOURCE, PORT], "senders");
    let loads = [(Selector::EtherSource, FIRST), (SOURCE, NEXT + 1), (PORT, NEXT + 2)];
    let done = inet(&set);
    let [.., mac, address, port, _] = done.as_slice() else { panic!("{done:?}") };
    assert_eq!([mac, address, port], loads.map(|(selector, register)| selector.load(register)).each_ref());
}
