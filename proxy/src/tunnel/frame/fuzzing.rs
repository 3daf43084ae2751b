//! Frames and openings from anywhere.

use super::said::{Said, read};
use super::{MAX_REASON, OpenHeader};

/// Reads frames whole and in pieces of a length that the first byte says: both read the same, and what was read is written
/// so that it is read again.
pub(crate) fn frames(data: &[u8]) {
    let Some((&cut, bytes)) = data.split_first() else { return };
    let whole = read(bytes, [bytes.len()]);
    assert_eq!(read(bytes, [usize::from(cut)]), whole, "in pieces of {cut}");
    let Ok(said) = whole else { return };
    let mut written = Vec::new();
    for said in &said {
        if let Said::Data(id, data) = said {
            let pieces = data.chunks(super::DATA_SENT).map(|piece| Said::Data(*id, piece.to_vec()));
            pieces.for_each(|piece| piece.write(&mut written));
        } else if matches!(said, Said::Reset(_, _, reason) if reason.len() > MAX_REASON) {
            // What is no UTF-8 is longer when it is shown than it was.
            return;
        } else {
            said.write(&mut written);
        }
    }
    assert_eq!(read(&written, [written.len()]), Ok(said));
}

/// Reads what a stream is opened with.
pub(crate) fn opening(data: &[u8]) {
    let Ok(header) = OpenHeader::decode(data) else { return };
    let mut written = Vec::new();
    header.encode(&mut written);
    assert!(written.len() <= 3 + 2 + 63 + 2 * (2 + 18) + 4 + 10, "an opening is short");
    assert_eq!(OpenHeader::decode(&written), Ok(header));
}
