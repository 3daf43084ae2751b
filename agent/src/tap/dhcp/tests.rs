use proptest::prelude::*;

use super::*;

const MAC: MacAddr = MacAddr::new([2, 0, 10, 42, 0, 7]);
const OWN: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 7);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 1);
const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn lease() -> Lease {
    Lease {
        mac: MAC,
        address: OWN,
        mask: Ipv4Addr::new(255, 255, 0, 0),
        gateway: GATEWAY,
        mtu: 1450,
        domain: "shop".to_owned(),
        seconds: 3600,
    }
}

/// A client's message; options as they are.
fn message(mac: MacAddr, flags: u16, client: Ipv4Addr, options: &[&[u8]]) -> Vec<u8> {
    let mut message = vec![1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 9];
    message.extend(flags.to_be_bytes());
    message.extend(client.octets());
    message.resize(28, 0);
    message.extend(mac.octets());
    message.resize(FIXED, 0);
    message.extend(COOKIE);
    message.extend(options.concat());
    message.push(255);
    message
}

fn kind(number: u8) -> Vec<u8> {
    vec![53, 1, number]
}

fn address(number: u8, address: Ipv4Addr) -> Vec<u8> {
    [&[number, 4][..], &address.octets()].concat()
}

fn answer(message: &[u8]) -> Answer {
    match lease().handle(message) {
        Outcome::Answer(answer) => answer,
        other @ (Outcome::Ignored | Outcome::Stranger(_)) => panic!("{other:?}"),
    }
}

fn option(answer: &Answer, wanted: u8) -> Option<Vec<u8>> {
    let mut options = Options(&answer.message[FIXED + 4..]);
    options.find(|(number, _)| *number == wanted).map(|(_, value)| value.to_vec())
}

#[test]
fn a_machine_gets_its_address_in_four_messages() {
    let offer = answer(&message(MAC, 0, NONE, &[&kind(1)]));
    assert_eq!((offer.kind, offer.to), (MessageType::Offer, OWN));
    assert_eq!(offer.message[..8], [2, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef]);
    assert_eq!((&offer.message[12..16], &offer.message[16..20]), (&[0; 4][..], &OWN.octets()[..]));
    assert_eq!(offer.message[28..34], MAC.octets());
    let request = message(MAC, 0, NONE, &[&kind(3), &address(50, OWN), &address(54, GATEWAY)]);
    let ack = answer(&request);
    assert_eq!((ack.kind, ack.to), (MessageType::Ack, OWN));
    for (number, value) in [
        (1, vec![255, 255, 0, 0]),
        (3, GATEWAY.octets().to_vec()),
        (6, GATEWAY.octets().to_vec()),
        (15, b"shop".to_vec()),
        (26, 1450_u16.to_be_bytes().to_vec()),
        (51, 3600_u32.to_be_bytes().to_vec()),
        (54, GATEWAY.octets().to_vec()),
    ] {
        assert_eq!(option(&ack, number), Some(value), "option {number}");
    }
    assert!(ack.message.len() >= SHORTEST);
}

#[test]
fn answers_go_where_the_machine_hears_them() {
    let other = Ipv4Addr::new(10, 42, 0, 8);
    let discover = |flags| answer(&message(MAC, flags, NONE, &[&kind(1)]));
    assert_eq!(discover(TO_BROADCAST).to, Ipv4Addr::BROADCAST);
    assert_eq!(discover(0).to, OWN);
    // Renewing and rebinding: what it has is what it asks for.
    let renewed = answer(&message(MAC, 0, OWN, &[&kind(3)]));
    assert_eq!(
        (renewed.kind, renewed.to, &renewed.message[12..16]),
        (MessageType::Ack, OWN, &OWN.octets()[..])
    );
    // Of a network that it was in before.
    let moved = answer(&message(MAC, 0, NONE, &[&kind(3), &address(50, other)]));
    assert_eq!((moved.kind, moved.to), (MessageType::Nak, Ipv4Addr::BROADCAST));
    assert_eq!((&moved.message[16..20], option(&moved, 51)), (&[0; 4][..], None));
    let informed = answer(&message(MAC, 0, OWN, &[&kind(8)]));
    assert_eq!(
        (informed.kind, option(&informed, 51), &informed.message[16..20]),
        (MessageType::Ack, None, &[0; 4][..])
    );
}

#[test]
fn whoever_else_asks_and_whatever_else_is_asked_gets_no_answer() {
    let stranger = MacAddr::new([2, 0, 10, 42, 0, 8]);
    assert_eq!(lease().handle(&message(stranger, 0, NONE, &[&kind(1)])), Outcome::Stranger(stranger));
    let mut relayed = message(MAC, 0, NONE, &[&kind(1)]);
    relayed[24] = 10;
    let mut token_ring = message(MAC, 0, NONE, &[&kind(1)]);
    token_ring[1] = 6;
    let mut answer = message(MAC, 0, NONE, &[&kind(1)]);
    answer[0] = 2;
    let whole = message(MAC, 0, NONE, &[&kind(1)]);
    let ignored = [
        message(MAC, 0, NONE, &[]),
        message(MAC, 0, NONE, &[&kind(4)]),
        message(MAC, 0, NONE, &[&kind(7)]),
        message(MAC, 0, NONE, &[&kind(5)]),
        message(MAC, 0, NONE, &[&[53, 2, 1, 1]]),
        message(MAC, 0, NONE, &[&[53, 200, 1]]),
        message(MAC, 0, NONE, &[&kind(3)]),
        message(MAC, 0, NONE, &[&kind(3), &address(50, OWN), &address(54, OWN)]),
        relayed,
        token_ring,
        answer,
        whole[..FIXED + 4].to_vec(),
        whole[..FIXED].to_vec(),
        vec![],
    ];
    for (place, message) in ignored.iter().enumerate() {
        assert_eq!(lease().handle(message), Outcome::Ignored, "{place}");
    }
}

proptest! {
    #[test]
    fn whatever_comes_an_answer_is_for_the_machine_and_well_formed(
        mut head in prop::collection::vec(any::<u8>(), FIXED),
        options in prop::collection::vec(any::<u8>(), 0..400),
        good in any::<bool>(),
    ) {
        if good {
            head[..3].copy_from_slice(&[1, 1, 6]);
            head[24..28].fill(0);
            head[28..34].copy_from_slice(&MAC.octets());
        }
        let asked = [&head[..], &COOKIE, &[53, 1, options.first().copied().unwrap_or(1) % 9], &options].concat();
        if let Outcome::Answer(answer) = lease().handle(&asked) {
            prop_assert_eq!(&answer.message[28..34], &MAC.octets()[..]);
            prop_assert_eq!(&answer.message[4..8], &head[4..8]);
            let own = &answer.message[16..20];
            prop_assert!(own == [0; 4] || own == OWN.octets());
            prop_assert!(answer.message.len() >= SHORTEST && answer.message.len() < 576);
            prop_assert_eq!(option(&answer, 53), Some(vec![answer.kind as u8]));
        }
    }

    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
        let _ = lease().handle(&bytes);
    }
}
