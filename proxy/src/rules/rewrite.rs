//! Other paths and hosts: in a redirect, and in a request that is passed on.

use std::borrow::Cow;

use super::edit::{FieldEdits, changed, is_named, lines};
use super::path::canonical;
use crate::request::RequestView;

/// An answer that leads elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Redirect {
    /// `http` or `https`, where it is to be that.
    pub(crate) scheme: Option<String>,
    /// The host, where it is another.
    pub(crate) host: Option<String>,
    /// The port, where it is said.
    pub(crate) port: Option<u16>,
    /// The path, where it is another.
    pub(crate) path: Option<NewPath>,
    /// The status.
    pub(crate) status: u16,
}

/// Another path or host for a request that is passed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rewrite {
    /// The host.
    pub(crate) host: Option<String>,
    /// The path.
    pub(crate) path: Option<NewPath>,
}

/// Another path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NewPath {
    /// In place of all of it.
    Full(String),
    /// In place of the prefix by which it matched.
    Prefix(String),
}

/// Scheme and port at which a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// The port.
    pub(crate) port: u16,
}

impl NewPath {
    /// The path in place of `path`, which matched by `prefix`.
    fn of(&self, path: &str, prefix: &str) -> String {
        match self {
            Self::Full(path) => rooted(path),
            Self::Prefix(new) => {
                let path = canonical(path);
                let rest = path.strip_prefix(prefix).unwrap_or(&path);
                let replaced = [new.trim_end_matches('/'), rest].concat();
                rooted(&replaced)
            }
        }
    }
}

/// The path, which begins with a slash whatever a document says.
fn rooted(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// The path and the query of a request whose path is replaced.
fn target(path: &str, query: &str) -> String {
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

impl Redirect {
    /// The place that a request which matched by `prefix` is sent to.
    pub(crate) fn location(&self, request: RequestView<'_>, prefix: &str, listener: Listener) -> String {
        let path = match &self.path {
            Some(path) => Cow::Owned(path.of(request.path(), prefix)),
            None => Cow::Borrowed(request.path()),
        };
        let path = target(if path.starts_with('/') { &path } else { "/" }, request.query());
        let named = request.authority().map(host_of);
        let Some(host) = self.host.as_deref().or(named).filter(|host| is_host(host)) else {
            // Nobody has said a host: the place is on the one that was asked, and two slashes would begin another one.
            return format!("/{}", path.trim_start_matches(['/', '\\']));
        };
        let scheme = self.scheme.as_deref().unwrap_or(listener.scheme);
        let own = if scheme == "https" { 443 } else { 80 };
        let port = self.port.unwrap_or(if self.scheme.is_some() { own } else { listener.port });
        if port == own {
            format!("{scheme}://{host}{path}")
        } else {
            format!("{scheme}://{host}:{port}{path}")
        }
    }
}

/// The host of an authority, without its port.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') && !host.is_empty() => host,
        _ => authority,
    }
}

/// Returns true if this may stand in an answer: a request's host is anybody's word.
fn is_host(host: &str) -> bool {
    !host.is_empty()
        && host.starts_with('[') == host.ends_with(']')
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~[]:%".contains(&byte))
}

impl Rewrite {
    /// Nothing is rewritten.
    pub(super) const NONE: Self = Self { host: None, path: None };

    /// Both, of which `over` has the last word.
    pub(crate) fn joined(&self, over: &Self) -> Self {
        let (host, path) =
            (over.host.as_ref().or(self.host.as_ref()), over.path.as_ref().or(self.path.as_ref()));
        Self { host: host.cloned(), path: path.cloned() }
    }

    /// Returns true if nothing is rewritten.
    pub(crate) fn is_empty(&self) -> bool {
        self.host.is_none() && self.path.is_none()
    }

    /// The path in place of a request's; `None` where it stays, or the request is about no path.
    fn new_path(&self, request: RequestView<'_>, prefix: &str) -> Option<String> {
        let path = self.path.as_ref()?.of(request.path(), prefix);
        let is_about_a_path = request.path().starts_with('/') && request.method() != "CONNECT";
        is_about_a_path.then(|| target(&path, request.query()))
    }

    /// Writes a request's head of HTTP/1 anew, where it matched by `prefix`.
    pub(crate) fn change_http1(&self, head: &[u8], prefix: &str, edits: &[&FieldEdits]) -> Vec<u8> {
        if self.is_empty() {
            return changed(head, None, edits);
        }
        let request = RequestView::Http1(head);
        let first = lines(head).next().unwrap_or_default();
        let mut words = first.split(|&byte| byte == b' ');
        let (method, old) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let version = words.next().unwrap_or_default();
        let is_absolute = !old.starts_with(b"/") && old.windows(3).any(|part| part == b"://");
        let path = self.new_path(request, prefix).or_else(|| {
            // The host stands in the target as well: it goes into its field alone (RFC 9112, section 3.2.2).
            is_absolute.then(|| target(request.path(), request.query()))
        });
        let first = path.map(|path| [method, path.as_bytes(), version].join(&b" "[..]));
        let host = self.host.as_deref().or(if is_absolute { request.authority() } else { None });
        let Some(host) = host else { return changed(head, first.as_deref(), edits) };
        changed(&with_host(head, host), first.as_deref(), edits)
    }

    /// Changes a request's head of HTTP/2, which matched by `prefix`.
    pub(crate) fn change_http2(&self, head: &mut http::Request<()>, prefix: &str) {
        let path = self.new_path(RequestView::Http2(head), prefix);
        let mut parts = head.uri().clone().into_parts();
        if let Some(path) = path.and_then(|path| path.parse().ok()) {
            parts.path_and_query = Some(path);
        }
        if let Some(host) = &self.host {
            let value = http::HeaderValue::from_str(host).ok();
            if let (Some(field), Some(value)) = (head.headers_mut().get_mut(http::header::HOST), value) {
                *field = value;
            }
            if let (Some(_), Ok(host)) = (&parts.authority, host.parse()) {
                parts.authority = Some(host);
            }
        }
        if let Ok(uri) = http::Uri::from_parts(parts) {
            *head.uri_mut() = uri;
        }
    }
}

/// A head of HTTP/1 with this host.
fn with_host(head: &[u8], host: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(head.len() + host.len() + 8);
    let field = ["Host: ", host, "\r\n"].concat();
    let mut lines = head.split_inclusive(|&byte| byte == b'\n');
    out.extend_from_slice(lines.next().unwrap_or_default());
    let has_host = head.split(|&byte| byte == b'\n').skip(1).any(|line| is_named(line, "host"));
    if !has_host {
        out.extend_from_slice(field.as_bytes());
    }
    for line in lines {
        out.extend_from_slice(if is_named(line, "host") { field.as_bytes() } else { line });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_replaced_as_the_specification_has_it() {
        for (path, prefix, new, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/bar", "", "/xyz", "/xyz/bar"),
            ("/%66oo/./bar%20", "/foo", "/xyz", "/xyz/bar%20"),
            ("/foo/bar", "/foo", "xyz", "/xyz/bar"),
        ] {
            assert_eq!(NewPath::Prefix(new.to_owned()).of(path, prefix), expected, "{path} {prefix} {new}");
        }
    }

    #[test]
    fn a_full_replacement_is_a_path() {
        for (new, expected) in [("", "/"), ("y", "/y"), ("/y", "/y"), ("http://x/y", "/http://x/y")] {
            assert_eq!(NewPath::Full(new.to_owned()).of("/a", "/a"), expected);
        }
    }

    fn redirect(
        scheme: Option<&str>,
        host: Option<&str>,
        port: Option<u16>,
        path: Option<NewPath>,
    ) -> Redirect {
        Redirect { scheme: scheme.map(str::to_owned), host: host.map(str::to_owned), port, path, status: 302 }
    }

    #[test]
    fn a_location_has_scheme_host_and_port_as_the_specification_has_them() {
        const HEAD: &[u8] = b"GET /a/b?c=%20 HTTP/1.1\r\nHost: api.shop:8080\r\n\r\n";
        let full = |path: &str| Some(NewPath::Full(path.to_owned()));
        for (redirect, port, expected) in [
            (redirect(None, None, None, None), 80, "http://api.shop/a/b?c=%20"),
            (redirect(None, None, None, None), 8080, "http://api.shop:8080/a/b?c=%20"),
            (redirect(None, Some("x.org"), None, None), 8080, "http://x.org:8080/a/b?c=%20"),
            (redirect(Some("https"), None, None, None), 8080, "https://api.shop/a/b?c=%20"),
            (redirect(Some("http"), None, None, None), 8080, "http://api.shop/a/b?c=%20"),
            (redirect(Some("https"), None, Some(8443), None), 80, "https://api.shop:8443/a/b?c=%20"),
            (redirect(None, None, Some(80), None), 8080, "http://api.shop/a/b?c=%20"),
            (redirect(Some("https"), None, Some(443), None), 80, "https://api.shop/a/b?c=%20"),
            (redirect(None, None, None, full("/z")), 80, "http://api.shop/z?c=%20"),
            (redirect(None, None, None, Some(NewPath::Prefix("/z".into()))), 80, "http://api.shop/z/b?c=%20"),
        ] {
            let listener = Listener { scheme: "http", port };
            assert_eq!(redirect.location(RequestView::Http1(HEAD), "/a", listener), expected, "{redirect:?}");
        }
        let listener = Listener { scheme: "http", port: 80 };
        for (head, expected) in [
            ("GET /a HTTP/1.0\r\n\r\n", "/a"),
            ("GET /a HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "http://[::1]/a"),
            ("GET /a HTTP/1.1\r\nHost: [::1]\r\n\r\n", "http://[::1]/a"),
            ("GET /a HTTP/1.1\r\nHost: a<b\r\n\r\n", "/a"),
            ("GET //evil.org/x HTTP/1.1\r\nHost: \r\n\r\n", "/evil.org/x"),
            ("GET /a HTTP/1.1\r\nHost: [::1\r\n\r\n", "/a"),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "http://a/"),
        ] {
            let request = RequestView::Http1(head.as_bytes());
            assert_eq!(
                redirect(None, None, None, None).location(request, "", listener),
                expected,
                "{head:?}"
            );
        }
    }

    #[test]
    fn a_request_is_rewritten_and_the_rest_of_it_stays() {
        let (host, path) = (Some("new.org".to_owned()), Some(NewPath::Prefix("/new".to_owned())));
        let both = Rewrite { host: host.clone(), path: path.clone() };
        let (host, path) = (Rewrite { host, path: None }, Rewrite { host: None, path });
        for (rewrite, head, expected) in [
            (
                &both,
                "GET /a/b?c HTTP/1.1\r\nx: 1\r\nhOst: api\r\n\r\n",
                "GET /new/b?c HTTP/1.1\r\nx: 1\r\nHost: new.org\r\n\r\n",
            ),
            (&host, "GET /a//b HTTP/1.1\r\nhOst: api\r\n\r\n", "GET /a//b HTTP/1.1\r\nHost: new.org\r\n\r\n"),
            (&host, "GET /a HTTP/1.0\r\n\r\n", "GET /a HTTP/1.0\r\nHost: new.org\r\n\r\n"),
            (&path, "GET /a?b HTTP/1.1\r\nhOst:api\r\n\r\n", "GET /new?b HTTP/1.1\r\nhOst:api\r\n\r\n"),
            (&path, "GET http://x/a HTTP/1.1\r\nHost: y\r\n\r\n", "GET /new HTTP/1.1\r\nHost: x\r\n\r\n"),
            (&both, "OPTIONS * HTTP/1.1\r\nHost: y\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: new.org\r\n\r\n"),
        ] {
            let changed = rewrite.change_http1(head.as_bytes(), "/a", &[]);
            assert_eq!(String::from_utf8(changed).unwrap(), expected);
        }
        assert_eq!(host.joined(&path), both);
        let mut request = http::Request::builder().uri("http://api:80/a/b?c").body(()).unwrap();
        both.change_http2(&mut request, "/a");
        assert_eq!(request.uri(), "http://new.org/new/b?c");
        let mut request = http::Request::builder().uri("/a").header("host", "api").body(()).unwrap();
        both.change_http2(&mut request, "/a");
        assert_eq!(
            (request.uri().to_string().as_str(), &request.headers()["host"]),
            ("/new", &http::HeaderValue::from_static("new.org"))
        );
    }
}
