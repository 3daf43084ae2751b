//! Frames of peers, for fuzzing.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use sealane_proto::peer::{LARGEST_FRAME, PeerFrame};

use super::session::{Heard, Said, Session};

/// Octets of the length in front of a frame.
const LENGTH: usize = 4;

/// Reads what a peer sends, in pieces, as one conversation; what is answered stays within its bounds and is read as it was written.
pub(crate) fn conversation(data: &[u8]) {
    let Ok(owner) = "host-a".parse() else { return };
    let now = Instant::now();
    let mut session = Session::new("1", Heard::of(owner), now);
    let networks = ["blog", "shop"].iter().filter_map(|name| name.parse().ok()).collect();
    session.handle_facts(Said::default(), &networks);
    let mut coming = BytesMut::new();
    for (count, piece) in (0_u32..).zip(data.chunks(7)) {
        coming.extend_from_slice(piece);
        let now = now + Duration::from_millis(10) * count;
        loop {
            match PeerFrame::take(&mut coming) {
                Ok(Some(frame)) => {
                    carried(&frame);
                    if session.handle_frame(frame, now).is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(coming.len() < LENGTH + LARGEST_FRAME, "{} octets wait", coming.len());
        while let Some(frame) = session.poll_frame(now) {
            carried(&frame);
        }
        while let Some(facts) = session.poll_heard() {
            assert!(
                facts
                    .workloads
                    .iter()
                    .all(|own| own.node.as_str() == "host-a" && own.network == facts.network)
            );
        }
    }
}

fn carried(frame: &PeerFrame) {
    let mut octets = BytesMut::new();
    frame.encode(&mut octets);
    assert!(octets.len() <= LENGTH + LARGEST_FRAME, "{} octets", octets.len());
    assert_eq!(PeerFrame::take(&mut octets).as_ref(), Ok(&Some(frame.clone())));
}
