//! Requests as routes and policy see them, whatever version of HTTP they came by. Pure.

use std::borrow::Cow;
use std::str;

/// Name of the field that names the called host, where nothing else does.
const HOST: &str = "host";

/// A request's head, read where it stands and only as far as it is asked: a view that is not looked at costs nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RequestView<'a> {
    /// The bytes of a head of HTTP/1 that [was parsed](crate::http::request::parse), with whatever stands behind it.
    Http1(&'a [u8]),
    /// A head of HTTP/2.
    Http2(&'a http::Request<()>),
}

impl<'a> RequestView<'a> {
    /// The method.
    pub(crate) fn method(self) -> &'a str {
        match self {
            Self::Http1(head) => first_line(head).0,
            Self::Http2(head) => head.method().as_str(),
        }
    }

    /// The path, without its query; `*` or nothing for a request that is about a whole server.
    pub(crate) fn path(self) -> &'a str {
        match self {
            Self::Http1(head) => {
                let (method, target) = first_line(head);
                let path = match target.split_once("://") {
                    _ if target.starts_with('/') => target,
                    Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
                    None if method == "CONNECT" => "",
                    None => target,
                };
                let end = path.bytes().position(|byte| matches!(byte, b'?' | b'#'));
                end.map_or(path, |end| &path[..end])
            }
            Self::Http2(head) => head.uri().path(),
        }
    }

    /// The query, without its question mark; nothing where there is none.
    pub(crate) fn query(self) -> &'a str {
        match self {
            Self::Http1(head) => {
                let target = first_line(head).1.split('#').next().unwrap_or_default();
                target.split_once('?').map_or("", |(_, query)| query)
            }
            Self::Http2(head) => head.uri().query().unwrap_or_default(),
        }
    }

    /// Returns true if the target has one of its forms (RFC 9112, section 3.2): others are read by everybody in another way.
    pub(crate) fn has_plain_target(self) -> bool {
        match self {
            Self::Http1(head) => {
                let (method, target) = first_line(head);
                let scheme = |scheme: &str| {
                    target.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme))
                };
                let has_form = target.starts_with('/')
                    || scheme("http://")
                    || scheme("https://")
                    || (method == "OPTIONS" && target == "*")
                    || method == "CONNECT";
                has_form && !target.contains('#')
            }
            // Its path was read as one.
            Self::Http2(_) => true,
        }
    }

    /// The called host with its port, as far as the request names it.
    pub(crate) fn authority(self) -> Option<&'a str> {
        let named = match self {
            Self::Http1(head) => {
                let (method, target) = first_line(head);
                match target.split_once("://") {
                    _ if target.starts_with('/') => None,
                    Some((_, rest)) => rest.split(['/', '?']).next(),
                    None => (method == "CONNECT").then_some(target),
                }
            }
            Self::Http2(head) => head.uri().authority().map(http::uri::Authority::as_str),
        };
        named.or_else(|| self.field(HOST).and_then(|host| str::from_utf8(host).ok()))
    }

    /// The value of the first field of this name.
    pub(crate) fn field(self, name: &str) -> Option<&'a [u8]> {
        match self {
            Self::Http1(head) => {
                let mut fields = fields(head);
                fields.find(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
            }
            Self::Http2(head) => head.headers().get(name).map(http::HeaderValue::as_bytes),
        }
    }

    /// The values of all fields of this name, as one (RFC 9110, section 5.3; RFC 9113, section 8.2.3).
    pub(crate) fn value(self, name: &str) -> Option<Cow<'a, [u8]>> {
        let joined = |values: &mut dyn Iterator<Item = &'a [u8]>| {
            let first = values.next()?;
            let Some(second) = values.next() else { return Some(Cow::Borrowed(first)) };
            let between: &[u8] = if name.eq_ignore_ascii_case("cookie") { b"; " } else { b"," };
            let mut all = [first, between, second].concat();
            values.for_each(|value| {
                all.extend_from_slice(between);
                all.extend_from_slice(value);
            });
            Some(Cow::Owned(all))
        };
        match self {
            Self::Http1(head) => {
                let fields = fields(head).filter(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes()));
                joined(&mut fields.map(|(_, value)| value))
            }
            Self::Http2(head) => {
                joined(&mut head.headers().get_all(name).iter().map(http::HeaderValue::as_bytes))
            }
        }
    }
}

/// The head of HTTP/1 without the empty lines before it, which parsers skip.
fn begun(head: &[u8]) -> &[u8] {
    &head[crate::http::empty_lines(head)..]
}

/// The method and the target of a head of HTTP/1.
fn first_line(head: &[u8]) -> (&str, &str) {
    let is_end = |byte: &u8| matches!(byte, b' ' | b'\r');
    let word = |text: &[u8]| text.iter().position(is_end).unwrap_or(text.len());
    let (method, rest) = {
        let head = begun(head);
        head.split_at(word(head))
    };
    let target = rest.strip_prefix(b" ").unwrap_or_default();
    let target = &target[..word(target)];
    (str::from_utf8(method).unwrap_or_default(), str::from_utf8(target).unwrap_or_default())
}

/// The fields of a head of HTTP/1, up to its empty line.
fn fields(head: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = begun(head).split(|&byte| byte == b'\n').skip(1).map(|line| line.trim_ascii_end());
    lines.take_while(|line| !line.is_empty()).filter_map(|line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks method, path, authority and the field `x`.
    fn check(view: RequestView<'_>, expected: (&str, &str, Option<&str>, Option<&str>)) {
        let x = view.field("x").map(|value| str::from_utf8(value).unwrap());
        assert_eq!((view.method(), view.path(), view.authority(), x), expected, "{view:?}");
    }

    #[test]
    fn a_request_looks_the_same_whatever_it_came_by() {
        let expected = ("POST", "/a/b", Some("api.shop:8080"), Some("y: z"));
        check(
            RequestView::Http1(b"POST /a/b?c=/d HTTP/1.1\r\nHost: api.shop:8080\r\nX:  y: z \r\n\r\nx: body"),
            expected,
        );
        check(
            RequestView::Http1(b"POST http://api.shop:8080/a/b?c HTTP/1.1\r\nhost: other\r\nx: y: z\r\n\r\n"),
            expected,
        );
        let behind_empty_lines = b"\r\n\r\nPOST /a/b HTTP/1.1\r\nHost: api.shop:8080\r\nX: y: z\r\n\r\n";
        check(RequestView::Http1(behind_empty_lines), expected);
        let http2 = http::Request::builder().method("POST").uri("http://api.shop:8080/a/b?c=/d");
        check(RequestView::Http2(&http2.header("x", "y: z").body(()).unwrap()), expected);
        let named_by_a_field = http::Request::builder().method("POST").uri("/a/b").header("x", "y: z");
        let named_by_a_field = named_by_a_field.header("host", "api.shop:8080").body(()).unwrap();
        check(RequestView::Http2(&named_by_a_field), expected);
    }

    #[test]
    fn forms_of_targets_are_told_apart() {
        let table: [(&[u8], _); 6] = [
            (b"GET / HTTP/1.0\r\n\r\n", ("GET", "/", None, None)),
            (b"GET /x?http://y/z HTTP/1.1\r\nHost: a\r\n\r\n", ("GET", "/x", Some("a"), None)),
            (b"GET http://a HTTP/1.1\r\n\r\n", ("GET", "/", Some("a"), None)),
            (b"GET http://a?q HTTP/1.1\r\n\r\n", ("GET", "/", Some("a"), None)),
            (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", ("OPTIONS", "*", Some("a"), None)),
            (b"CONNECT a:443 HTTP/1.1\r\nHost: b\r\n\r\n", ("CONNECT", "", Some("a:443"), None)),
        ];
        for (head, expected) in table {
            check(RequestView::Http1(head), expected);
        }
    }
}
