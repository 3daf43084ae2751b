use proptest::prelude::*;

use super::said::{Said, joined, read};
use super::*;
use crate::protocol::Protocol;

proptest! {
    #[test]
    fn what_is_written_is_read_however_it_is_cut(
        said in prop::collection::vec(said(), 0..20),
        cuts in prop::collection::vec(1_usize..40, 1..200),
    ) {
        let mut bytes = Vec::new();
        said.iter().for_each(|said| said.write(&mut bytes));
        prop_assert_eq!(read(&bytes, cuts).unwrap(), joined(said));
    }

    #[test]
    fn arbitrary_bytes_are_frames_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        cuts in prop::collection::vec(1_usize..40, 1..200),
    ) {
        let whole = read(&bytes, [bytes.len().max(1)]);
        prop_assert_eq!(read(&bytes, cuts), whole);
    }

    #[test]
    fn arbitrary_payloads_of_every_type_are_understood_or_refused(
        kind in 0_u8..12,
        stream in any::<u32>(),
        payload in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let bytes = raw(kind, stream, &payload);
        let whole = read(&bytes, [bytes.len()]);
        prop_assert_eq!(read(&bytes, [1]), whole);
    }
}

#[test]
fn limits_are_enforced_at_the_header() {
    let header = |length: u32, kind, stream: u32| {
        let [_, a, b, c] = length.to_be_bytes();
        let [d, e, f, g] = stream.to_be_bytes();
        [a, b, c, kind, d, e, f, g]
    };
    let table = [
        (header(16_385, DATA, 1), FrameError::TooLong { kind: DATA, length: 16_385 }),
        (header(4_097, OPEN, 1), FrameError::TooLong { kind: OPEN, length: 4_097 }),
        (header(4_097, 77, 1), FrameError::TooLong { kind: 77, length: 4_097 }),
        (header(3, WINDOW, 1), FrameError::TooShort { kind: WINDOW, length: 3 }),
        (header(0, RESET, 1), FrameError::TooShort { kind: RESET, length: 0 }),
        (header(1, DATA, 0), FrameError::WrongStream { kind: DATA, stream: 0 }),
        (header(8, PING, 1), FrameError::WrongStream { kind: PING, stream: 1 }),
    ];
    for (header, expected) in table {
        let mut bytes = header.to_vec();
        bytes.extend_from_slice(&[0; 3]);
        let length =
            if matches!(expected, FrameError::TooShort { .. }) { 8 + expected_length(expected) } else { 8 };
        assert_eq!(read(&bytes[..length], [3]), Err(expected));
    }
}

#[test]
fn what_is_not_known_is_ignored() {
    let mut bytes = raw(99, 0, b"from the future");
    bytes.extend(raw(RESET, 3, &[0, 1, 2]));
    bytes.extend(raw(RESET, 5, &[200]));
    bytes.extend(raw(OPEN, 7, &[1, 0x1f, 0x90, 200, 2, 0xff, 0xff, 1, 3, b'a', b'p', b'i', 9]));
    let open = OpenHeader {
        service: Some("api".parse().unwrap()),
        ..OpenHeader::new(Protocol::Http1, 8080_u16.try_into().unwrap())
    };
    let expected = [
        Said::Reset(3, ResetCode::Refused, String::new()),
        Said::Reset(5, ResetCode::Internal, String::new()),
        Said::Open(7, open),
    ];
    assert_eq!(read(&bytes, [7]).unwrap(), expected);
}

#[test]
fn a_malformed_open_is_its_streams_affair() {
    let table: [(&[u8], OpenHeaderError); 6] = [
        (&[0, 0], OpenHeaderError::Short),
        (&[2, 0, 80], OpenHeaderError::Kind(2)),
        (&[0, 0, 0], OpenHeaderError::Port),
        (&[0, 0, 80, 1, 3, b'a'], OpenHeaderError::Field(1)),
        (&[0, 0, 80, 1, 1, b'A'], OpenHeaderError::Field(1)),
        (&[0, 0, 80, 2, 5, 1, 2, 3, 4, 5], OpenHeaderError::Field(2)),
    ];
    for (payload, expected) in table {
        assert_eq!(OpenHeader::decode(payload), Err(expected), "{payload:?}");
    }
}

fn raw(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.push(kind);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn expected_length(error: FrameError) -> usize {
    match error {
        FrameError::TooLong { length, .. } | FrameError::TooShort { length, .. } => length,
        FrameError::WrongStream { .. } => 0,
    }
}

fn said() -> impl Strategy<Value = Said> {
    let id = 1..=MAX_STREAM;
    prop_oneof![
        (id.clone(), open()).prop_map(|(id, header)| Said::Open(id, header)),
        (id.clone(), prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(id, data)| Said::Data(id, data)),
        id.clone().prop_map(Said::End),
        (id.clone(), prop::sample::select(&ResetCode::ALL), "([!-~äß][ -~äß]{0,80}[!-~äß])?")
            .prop_map(|(id, code, reason)| Said::Reset(id, code, reason)),
        (id.clone(), any::<u32>()).prop_map(|(id, credit)| Said::Window(id, credit)),
        any::<[u8; 8]>().prop_map(Said::Ping),
        any::<[u8; 8]>().prop_map(Said::Pong),
        id.prop_map(Said::GoAway),
        any::<u32>().prop_map(Said::Hello),
    ]
}

fn open() -> impl Strategy<Value = OpenHeader> {
    let protocol = prop::sample::select(&[Protocol::Opaque, Protocol::Http1, Protocol::Http2]);
    let service = prop::option::of("[a-z0-9]{1,63}".prop_map(|name| name.parse().unwrap()));
    let address = || prop::option::of((any::<std::net::IpAddr>(), any::<u16>()).prop_map(Into::into));
    let connection = prop::option::of(any::<u64>());
    (protocol, 1_u16.., service, address(), address(), connection).prop_map(
        |(protocol, port, service, original_destination, client, connection)| OpenHeader {
            protocol,
            port: port.try_into().unwrap(),
            service,
            original_destination,
            client,
            connection,
        },
    )
}
