//! Frames there and back.

use super::*;
use crate::resource::Whereabouts;

fn frames() -> Vec<PeerFrame> {
    let held = HeldFacts {
        network: "shop".parse().unwrap(),
        edition: Edition { incarnation: 3, revision: 9 },
        digest: row_digest(b"row"),
    };
    let part = FactsPart {
        network: "shop".parse().unwrap(),
        edition: Edition { incarnation: 3, revision: 9 },
        base: Some(8),
        workloads: vec![Bytes::from_static(b"row")],
        gone: vec!["api-1".to_owned()],
        last: true,
    };
    vec![
        PeerFrame::Hello(PeerHello::own("1.2.3")),
        PeerFrame::Digest { held: vec![], last: true },
        PeerFrame::Facts(part.clone()),
        PeerFrame::Facts(FactsPart { base: None, last: false, ..part }),
        PeerFrame::Alive,
        PeerFrame::Held(held.clone()),
        PeerFrame::Digest { held: vec![held.clone(), held], last: false },
        PeerFrame::Hint(["host-1", "host-2"].map(|name| name.parse().unwrap()).into()),
        PeerFrame::Works("shop".parse().unwrap(), Edition { incarnation: 3, revision: 9 }),
        PeerFrame::Places(
            [("host-1", "192.0.2.1"), ("host-2", "2001:db8::2,192.0.2.2")]
                .map(|(name, underlay)| {
                    let underlay = underlay.parse().unwrap();
                    (
                        name.parse().unwrap(),
                        Whereabouts { underlay, edition: Edition { incarnation: 7, revision: 2 } },
                    )
                })
                .into(),
        ),
    ]
}

#[test]
fn frames_are_read_as_they_were_written_however_they_arrive() {
    let mut wire = BytesMut::new();
    frames().iter().for_each(|frame| frame.encode(&mut wire));
    for step in [1, 3, 7, wire.len()] {
        let (mut buffer, mut read) = (BytesMut::new(), Vec::new());
        for piece in wire.chunks(step) {
            buffer.extend_from_slice(piece);
            while let Some(frame) = PeerFrame::take(&mut buffer).unwrap() {
                read.push(frame);
            }
        }
        assert_eq!((read, buffer.len()), (frames(), 0), "{step}");
    }
}

#[test]
fn what_is_no_frame_is_refused_before_it_is_all_there() {
    let read = |octets: &[u8]| PeerFrame::take(&mut BytesMut::from(octets));
    assert_eq!(read(&[0, 1, 0, 1]), Err(FrameError::TooLarge(65_537)));
    assert_eq!(read(&[0, 1, 0, 0]), Ok(None));
    assert_eq!(read(&[0, 0, 0, 1, 7]), Err(FrameError::Malformed));
    assert_eq!(read(&[0, 0, 0, 0]), Ok(Some(PeerFrame::Alive)));
    let held = v1::PeerHeld { network: "No Network".to_owned(), ..Default::default() };
    let frame = v1::PeerFrame { frame: Some(v1::peer_frame::Frame::Held(held)) };
    let mut octets = BytesMut::from(&[0, 0, 0, u8::try_from(frame.encoded_len()).unwrap()][..]);
    octets.extend_from_slice(&frame.encode_to_vec());
    let refused = PeerFrame::take(&mut octets).unwrap_err().to_string();
    assert!(refused.starts_with("PeerHeld.network: "), "{refused}");
}

#[test]
fn an_edition_that_nothing_could_follow_is_refused() {
    let frame = |incarnation, revision| {
        let part =
            v1::PeerFacts { network: "shop".to_owned(), incarnation, revision, ..v1::PeerFacts::default() };
        PeerFrame::try_from(v1::PeerFrame { frame: Some(v1::peer_frame::Frame::Facts(part)) })
    };
    assert!(frame(1 << 62, 1 << 62).is_ok());
    for (incarnation, revision) in [(u64::MAX, 1), (7, u64::MAX), ((1 << 62) + 1, 1)] {
        let refused = frame(incarnation, revision).unwrap_err().to_string();
        assert!(refused.contains("no count or clock"), "{refused}");
    }
}

#[test]
fn a_message_of_a_later_version_is_a_sign_of_life() {
    // Field 15 of PeerFrame, of two octets.
    let later = [0, 0, 0, 4, 0x7a, 2, 1, 1];
    assert_eq!(PeerFrame::take(&mut BytesMut::from(&later[..])), Ok(Some(PeerFrame::Alive)));
}

#[test]
fn hosts_whose_protocols_overlap_understand_each_other() {
    let fits = |oldest, protocol| PeerHello { protocol, oldest, ..PeerHello::own("1") }.fits();
    assert!(fits(1, 1) && fits(1, 2) && fits(0, 1));
    assert!(!fits(2, 3) && !fits(0, 0));
}
