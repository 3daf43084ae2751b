//! Bytes of connections, for fuzzing: each function panics where an invariant does not hold.

use crate::detect;
use crate::http::response::{Next, rewritten};
use crate::http::{Body, BodyScanner, HeadError, MAX_HEAD, Method, Parsed, has_head, request, response};
use crate::request::RequestView;

/// Reads HTTP/1 heads: the first byte says whether of a request, or of a response to which method.
pub fn http1_head(data: &[u8]) {
    let Some((&first, bytes)) = data.split_first() else { return };
    let method = match first % 5 {
        0 => {
            judged(bytes, request::parse);
            return viewed(bytes);
        }
        1 => Method::Head,
        2 => Method::Connect,
        3 => Method::Idempotent,
        _ => Method::Other,
    };
    judged(bytes, |bytes| response::parse(bytes, method));
    let Ok(Parsed::Complete(head, length)) = response::parse(bytes, method) else { return };
    if !head.is_clean {
        let clean = rewritten(&bytes[..length]);
        match response::parse(&clean, method) {
            Ok(Parsed::Complete(again, whole)) => {
                assert!(again.is_clean && whole == clean.len(), "{:?}", String::from_utf8_lossy(&clean));
                assert_eq!((again.status, again.next), (head.status, head.next));
            }
            other => panic!("a rewritten head is {other:?}: {:?}", String::from_utf8_lossy(&clean)),
        }
    }
    assert!(!matches!(head.next, Next::Body(Body::Length(0))), "a body of nothing is none");
}

/// A head's end is within what was read and the limit, and what stands behind it changes nothing.
fn judged<T: PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    parse: impl Fn(&[u8]) -> Result<Parsed<T>, HeadError>,
) {
    match parse(bytes) {
        Ok(Parsed::Complete(head, length)) => {
            assert!(length <= bytes.len() && length <= MAX_HEAD && has_head(&bytes[..length], 0));
            let alone = parse(&bytes[..length]);
            assert_eq!(alone, Ok(Parsed::Complete(head, length)));
            assert!(!matches!(parse(&bytes[..length - 1]), Ok(Parsed::Complete(..))), "its end is its end");
        }
        Ok(Parsed::Partial) => assert!(bytes.len() < MAX_HEAD),
        Err(_) => {}
    }
}

/// A request's view shows the head that was parsed, whatever stands behind it.
fn viewed(bytes: &[u8]) {
    let Ok(Parsed::Complete(head, length)) = request::parse(bytes) else { return };
    let see = |head| {
        let view = RequestView::Http1(head);
        (view.method(), view.path(), view.authority(), view.field("host"))
    };
    let seen = see(bytes);
    assert_eq!(seen, see(&bytes[..length]));
    let (method, path, _, host) = seen;
    let known = [("HEAD", Method::Head), ("CONNECT", Method::Connect)];
    assert!(known.iter().all(|&(name, known)| (method == name) == (head.method == known)), "{method:?}");
    assert!(!method.is_empty() && !path.contains(['\r', ' ', '?', '#']), "{method:?} {path:?}");
    assert!(host.is_none_or(|host| !host.contains(&b'\n')), "{host:?}");
}

/// Follows bodies whole and in pieces of a length that the first byte says: they end at the same place.
pub fn http1_body(data: &[u8]) {
    let Some((&first, bytes)) = data.split_first() else { return };
    let body = match first & 3 {
        0 => Body::Length(u64::from(first >> 2)),
        1 | 2 => Body::Chunked,
        _ => Body::UntilClose,
    };
    let follow = |cut: usize| {
        let (mut scanner, mut length) = (BodyScanner::new(body), 0);
        for piece in bytes.chunks(cut.max(1)) {
            let taken = scanner.advance(piece)?;
            assert!(taken == piece.len() || scanner.is_done(), "all is the body's until it ends");
            length += taken;
            if scanner.is_done() {
                break;
            }
        }
        Ok::<_, crate::http::body::ChunkError>((length, scanner))
    };
    let whole = follow(bytes.len());
    assert_eq!(follow(usize::from(first >> 2)), whole);
    if let (Ok((length, _)), Body::Length(expected)) = (whole, body) {
        assert!(length as u64 <= expected);
    }
}

/// Tells protocols by the first bytes of a client or a server: what is clear stays, whatever follows.
pub fn detection(data: &[u8]) {
    let detected = detect::client(data);
    if data.len() > 9 * 1024 {
        assert!(data[0] == 0x16 || detected.is_some(), "the waiting ends");
    }
    for end in (0..data.len()).rev().take(64) {
        let earlier = detect::client(&data[..end]);
        assert!(earlier.is_none() || earlier == detected, "{earlier:?} at {end}");
    }
    let _ = detect::is_http2_server(data);
    if let Ok(Some(name)) = detect::server_name(data) {
        assert!(name.len() <= 255 && name.is_ascii(), "{name:?}");
    }
}

/// Finds the rule of a request among those of routes, and changes it as they say.
pub fn rules(data: &[u8]) {
    crate::rules::fuzzing::rules(data);
}

/// Reads the frames of a tunnel.
pub fn tunnel_frames(data: &[u8]) {
    crate::tunnel::frame::fuzzing::frames(data);
}

/// Reads what a tunnel's stream is opened with.
pub fn tunnel_opening(data: &[u8]) {
    crate::tunnel::frame::fuzzing::opening(data);
}

/// Screens an HTTP/2 connection.
pub fn http2_screen(data: &[u8]) {
    crate::http2::screen::fuzzing::screened(data);
}
