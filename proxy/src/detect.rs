//! Detection of a connection's protocol by its first bytes: HTTP/1, HTTP/2, TLS or something else. Pure; the waiting is done
//! by the outbound side.

use std::time::Duration;

use crate::protocol::Protocol;

/// Time that a client may take from an unclear first byte to a clear one, however many come between; then it is taken
/// for opaque.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// The longest TLS ClientHello whose server name is waited for.
pub(crate) const MAX_HELLO: usize = 16 * 1024;
/// The longest method that is believed to be one.
const MAX_METHOD: usize = 24;
/// Length at which a request line that has not ended is given up.
const MAX_LINE: usize = 8 * 1024;

/// Preface of HTTP/2's clients (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Detects a protocol by the first bytes of a client, as early as can be; `None` when more of them are needed.
pub(crate) fn client(bytes: &[u8]) -> Option<Protocol> {
    if bytes.first() == Some(&PREFACE[0]) && PREFACE.starts_with(&bytes[..bytes.len().min(PREFACE.len())]) {
        return if bytes.len() < PREFACE.len() { None } else { Some(Protocol::Http2) };
    }
    match *bytes {
        // A handshake record of TLS (RFC 8446, section 5.1) that begins with a ClientHello (section 4).
        [0x16] => None,
        [0x16, 3, ..] if bytes.len() < 6 => None,
        [0x16, 3, _, _, _, 1, ..] => Some(Protocol::Tls),
        _ => http1(bytes),
    }
}

/// Returns true if a server that speaks first speaks HTTP/2: its preface is a SETTINGS frame (RFC 9113, sections 3.4
/// and 6.5).
pub(crate) fn is_http2_server(bytes: &[u8]) -> bool {
    matches!(*bytes, [0, 0..2, length, 4, 0, 0, 0, 0, 0, ..] if (usize::from(bytes[1]) * 256 + usize::from(length)) % 6 == 0)
}

/// The name of the server in a ClientHello (RFC 6066, section 3); `Err` when more of it is needed.
pub(crate) fn server_name(hello: &[u8]) -> Result<Option<String>, Incomplete> {
    let mut acceptor = rustls::server::Acceptor::default();
    let mut rest = hello;
    // A slice always reads; the record layer takes in no more than a record at a time.
    while !rest.is_empty() && acceptor.read_tls(&mut rest).is_ok() {
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                return Ok(accepted.client_hello().server_name().map(str::to_owned));
            }
            Ok(None) => {}
            // Whatever it is, the application will judge it.
            Err(_) => return Ok(None),
        }
    }
    Err(Incomplete)
}

/// A ClientHello whose end is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Incomplete;

/// `method SP target SP HTTP/` (RFC 9112, section 3): other protocols have verbs and paths as well, so that the version
/// alone decides.
fn http1(bytes: &[u8]) -> Option<Protocol> {
    // Empty lines before a request are to be ignored (RFC 9112, section 2.2).
    let bytes = &bytes[crate::http::empty_lines(bytes)..];
    if bytes == b"\r" {
        return None;
    }
    let method = bytes.iter().take(MAX_METHOD + 1).take_while(|byte| is_method(**byte)).count();
    match bytes.get(method) {
        _ if method > MAX_METHOD => Some(Protocol::Opaque),
        None => None,
        Some(b' ') if method > 0 => target(&bytes[..method], &bytes[method + 1..]),
        Some(_) => Some(Protocol::Opaque),
    }
}

/// Methods are tokens; those that are in use are capital letters and hyphens.
fn is_method(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte == b'-'
}

fn target(method: &[u8], rest: &[u8]) -> Option<Protocol> {
    const KNOWN: [&[u8]; 9] =
        [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"CONNECT"];
    let is_target = |byte: &&u8| byte.is_ascii_graphic() || !byte.is_ascii();
    let length = rest.iter().take(MAX_LINE + 1).take_while(is_target).count();
    match rest.get(length) {
        // Nobody else has lines so long; one of HTTP that is too long even for that is answered as such.
        _ if length > MAX_LINE && KNOWN.contains(&method) && rest.starts_with(b"/") => Some(Protocol::Http1),
        _ if length > MAX_LINE => Some(Protocol::Opaque),
        None => None,
        Some(b' ') if length > 0 => version(&rest[length + 1..]),
        Some(_) => Some(Protocol::Opaque),
    }
}

/// Whichever version of HTTP it is: one that is not spoken here is answered as such.
fn version(rest: &[u8]) -> Option<Protocol> {
    const VERSION: &[u8] = b"HTTP/";
    let seen = rest.len().min(VERSION.len());
    match (rest[..seen] == VERSION[..seen], seen == VERSION.len()) {
        (true, true) => Some(Protocol::Http1),
        (true, false) => None,
        (false, _) => Some(Protocol::Opaque),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn first_bytes_are_told_apart_as_early_as_can_be() {
        use Protocol::{Http1, Http2, Opaque, Tls};
        let table: &[(&[u8], Option<Protocol>)] = &[
            (b"", None),
            (b"G", None),
            (b"GET ", None),
            (b"GET /", None),
            (b"GET /x HT", None),
            (b"GET /x HTTP/", Some(Http1)),
            (b"GET /x HTTP/1.1\r\n", Some(Http1)),
            (b"GET / HTTP/3\r\n", Some(Http1)),
            (b"GET key\r\n", Some(Opaque)),
            (b"GET /\r\n", Some(Opaque)),
            (b"POST / bar\r\n", Some(Opaque)),
            (b"POST / HTTX", Some(Opaque)),
            (b"OPTIONS * HTTP/1.1\r\n", Some(Http1)),
            (b"CONNECT a:1 HTTP/1.1\r\n", Some(Http1)),
            (b"PROPFIND /", None),
            (b"PROPFIND / HTTP/1.1\r\n", Some(Http1)),
            (b"M-SEARCH * HTTP/1.1\r\n", Some(Http1)),
            (b"\r\nGET / HTTP/1.0", Some(Http1)),
            (b"\r", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04", Some(Http2)),
            (PREFACE, Some(Http2)),
            (b"PRI * HTTP/2.0\r\n\r\n", None),
            (b"PRI * HTTP/", None),
            (b"PRI * HTTP/2.0\r\n\r\nXX", Some(Http1)),
            (b"PRI * HTTP/1.1\r\n", Some(Http1)),
            (b"*1\r\n$4\r\nPING\r\n", Some(Opaque)),
            (b"PING\r\n", Some(Opaque)),
            (b"SET a b\r\n", Some(Opaque)),
            (b"EHLO mail.example\r\n", Some(Opaque)),
            (b"\x16", None),
            (b"\x16\x03\x01\x02\x00", None),
            (b"\x16\x03\x01\x02\x00\x01", Some(Tls)),
            (b"\x16\x03\x01\x02\x00\x02", Some(Opaque)),
            (b"\x16\x02", Some(Opaque)),
            (b"SSH-2.0-x\r\n", Some(Opaque)),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", Some(Opaque)),
            (b"get / HTTP/1.1\r\n", Some(Opaque)),
            (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", Some(Opaque)),
            (b"ABCDEFGHIJKLMNOPQRSTUVWXY", Some(Opaque)),
            (b"ABCDEFGHIJKLMNOPQRSTUVWX", None),
            (b"ABCDEFGHIJKLMNOPQRSTUVWX / HTTP/1.1\r\n", Some(Http1)),
            (b" / HTTP/1.1\r\n", Some(Opaque)),
            (b"GET  HTTP/1.1\r\n", Some(Opaque)),
        ];
        for &(bytes, expected) in table {
            assert_eq!(client(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_line_without_end_is_given_up_or_left_to_http() {
        for (method, expected) in [("GET", Some(Protocol::Http1)), ("PROPFIND", Some(Protocol::Opaque))] {
            let line = |length| format!("{method} /{}", "x".repeat(length));
            assert_eq!(client(line(MAX_LINE - 1).as_bytes()), None);
            for end in ["", " HTTP/1.1\r\n", " bar\r\n"] {
                assert_eq!(client((line(MAX_LINE) + end).as_bytes()), expected, "{method} {end}");
            }
        }
    }

    #[test]
    fn a_server_of_http2_is_told_by_its_settings() {
        let table: &[(&[u8], bool)] = &[
            (b"\0\0\x12\x04\0\0\0\0\0\0\x03", true),
            (b"\0\0\0\x04\0\0\0\0\0", true),
            (b"\0\0\0\x04\x01\0\0\0\0", false),
            (b"\0\0\x05\x04\0\0\0\0\0", false),
            (b"220 mail.example ESMTP\r\n", false),
            (b"J\0\0\0\n8.0.36\0", false),
            (b"\0\0", false),
        ];
        for &(bytes, expected) in table {
            assert_eq!(is_http2_server(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn the_name_of_a_tls_server_is_read_from_a_whole_hello_only() {
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        for (server, expected) in [("api.shop", Some("api.shop")), ("10.42.0.1", None)] {
            let name = rustls::pki_types::ServerName::try_from(server).unwrap();
            let mut client = rustls::ClientConnection::new(config.clone().into(), name).unwrap();
            let mut hello = Vec::new();
            client.write_tls(&mut hello).unwrap();
            assert_eq!(super::client(&hello), Some(Protocol::Tls));
            assert_eq!(server_name(&hello[..hello.len() - 1]), Err(Incomplete));
            assert_eq!(server_name(&hello), Ok(expected.map(str::to_owned)));
        }
        assert_eq!(server_name(b"\x16\x03\x01\0\x05\x01\0\0\x01\0"), Ok(None));
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_a_verdict(
            bytes in prop_oneof![
                proptest::collection::vec(prop_oneof![any::<u8>(), Just(b' '), Just(b'G'), Just(b'/'), Just(0x16), Just(3), Just(1)], 0..60),
                "(\r\n)?(GET|POST|PRI|X) [/*x]{1,3} (HTTP/)?[1-3.HT]{0,5}(\r\n)?".prop_map(String::into_bytes),
            ],
        ) {
            let mut before = None;
            for cut in 0..=bytes.len() {
                let verdict = client(&bytes[..cut]);
                prop_assert!(before.is_none() || before == verdict, "at {}", cut);
                before = verdict;
            }
        }
    }
}
