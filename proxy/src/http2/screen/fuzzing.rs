//! HTTP/2 from anywhere, before crate h2 reads it.

use bytes::Bytes;

use super::frames::{Frames, Peer};
use crate::http::MAX_HEAD;

/// The most that is held back of a connection: a block of fields in the frames that carry it.
const MOST: usize = 2 << 20;

/// Screens a connection in pieces of a length that the first byte says: nothing is lost on the way, and what is held back is
/// bounded.
pub(crate) fn screened(data: &[u8]) {
    let Some((&first, bytes)) = data.split_first() else { return };
    let (peer, cut) =
        if first & 0x80 == 0 { (Peer::Client, first) } else { (Peer::Application, first & 0x7f) };
    let mut frames = Frames::new(peer, MAX_HEAD);
    let (mut passed, mut condemned) = (0, 0);
    for piece in bytes.chunks(usize::from(cut.max(1))) {
        frames.handle(Bytes::copy_from_slice(piece), |_, _| condemned += 1);
        while let Some((bytes, _)) = frames.pass() {
            passed += bytes.len();
        }
    }
    assert!(condemned > 0 || passed <= bytes.len(), "{passed} bytes of {}", bytes.len());
    assert!(passed > 0 || bytes.len() <= MOST, "all of {} bytes is held back", bytes.len());
}
