//! As much of gRPC as it takes to count its calls and to answer them in its own words.

use http::{HeaderMap, HeaderValue, header};

/// `UNAVAILABLE`: the call may be made again.
pub(super) const UNAVAILABLE: u16 = 14;
/// `PERMISSION_DENIED`: the call may not pass.
pub(super) const PERMISSION_DENIED: u16 = 7;
/// `UNIMPLEMENTED`: nobody is for such calls.
pub(super) const UNIMPLEMENTED: u16 = 12;
/// `DEADLINE_EXCEEDED`: the time is over.
pub(super) const DEADLINE_EXCEEDED: u16 = 4;
/// `INTERNAL`: something is wrong on the way.
pub(super) const INTERNAL: u16 = 13;
/// `RESOURCE_EXHAUSTED`: too large to be passed on.
pub(super) const RESOURCE_EXHAUSTED: u16 = 8;
/// `CANCELLED`, for calls that the client gave up.
pub(super) const CANCELLED: u16 = 1;
/// `UNKNOWN`, which also stands for a call that ended without a status.
const UNKNOWN: u16 = 2;

/// Returns true if a message is gRPC's, by its content type.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| match kind.strip_prefix(b"application/grpc") {
        Some(rest) => matches!(rest, [] | [b'+' | b';', ..]),
        None => false,
    })
}

/// The status that the trailers, or a response without a body, say.
pub(super) fn status(trailers: &HeaderMap) -> Option<u16> {
    trailers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// The HTTP status that means the same (google.rpc.Code), so that one set of classes counts both.
pub(super) fn http_status(status: Option<u16>) -> u16 {
    match status.unwrap_or(UNKNOWN) {
        0 => 200,
        3 | 9 | 11 => 400,
        16 => 401,
        PERMISSION_DENIED => 403,
        5 => 404,
        6 | 10 => 409,
        RESOURCE_EXHAUSTED => 429,
        CANCELLED => 499,
        UNIMPLEMENTED => 501,
        UNAVAILABLE => 503,
        DEADLINE_EXCEEDED => 504,
        _ => 500,
    }
}

/// The text as grpc-message has it: percent-encoded (PROTOCOL-HTTP2 of gRPC).
pub(super) fn message(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    // Printable ASCII is always a value.
    HeaderValue::try_from(encoded).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_by_its_content_type() {
        let table = [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ];
        for (kind, expected) in table {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
            assert_eq!(is_grpc(&headers), expected, "{kind}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn every_status_has_a_class_and_none_is_an_error() {
        let table =
            [(Some(0), 200), (Some(1), 499), (Some(5), 404), (Some(14), 503), (Some(99), 500), (None, 500)];
        for (status, expected) in table {
            assert_eq!(http_status(status), expected, "{status:?}");
        }
    }

    #[test]
    fn a_message_is_percent_encoded() {
        assert_eq!(message("100% schön\n"), "100%25 sch%C3%B6n%0A");
    }
}
