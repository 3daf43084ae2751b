//! Words for browsers about calls from other sites (CORS, fetch.spec.whatwg.org).

use std::time::Duration;

use super::edit::FieldEdits;
use crate::request::RequestView;

const ALLOW_ORIGIN: &str = "Access-Control-Allow-Origin";
const ALLOW_CREDENTIALS: &str = "Access-Control-Allow-Credentials";
const ALLOW_METHODS: &str = "Access-Control-Allow-Methods";
const ALLOW_HEADERS: &str = "Access-Control-Allow-Headers";
const EXPOSE_HEADERS: &str = "Access-Control-Expose-Headers";
const MAX_AGE: &str = "Access-Control-Max-Age";
/// All of them: only the rule says them, not the application.
const ALL: [&str; 6] =
    [ALLOW_ORIGIN, ALLOW_CREDENTIALS, ALLOW_METHODS, ALLOW_HEADERS, EXPOSE_HEADERS, MAX_AGE];
/// Stands for everything.
const ANY: &str = "*";

/// The sites whose scripts may call, and what they may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cors {
    /// Origins as `https://*.example.com:8443`, or `*`.
    pub(crate) origins: Vec<String>,
    /// Tells browsers to send what they know of the user.
    pub(crate) credentials: bool,
    /// Methods, or `*`.
    pub(crate) methods: Vec<String>,
    /// Fields of requests, or `*`.
    pub(crate) headers: Vec<String>,
    /// Fields of answers that scripts see, or `*`.
    pub(crate) exposed: Vec<String>,
    /// Time for which browsers keep these words.
    pub(crate) max_age: Duration,
}

/// The parts of an origin: scheme, host, port.
fn parts(origin: &str) -> Option<(&str, &str, u16)> {
    let (scheme, rest) = origin.split_once("://")?;
    let own = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => Some((scheme, host, port.parse().ok()?)),
        _ => Some((scheme, rest, own)),
    }
}

/// Returns true if `host` is what `pattern` says, in which `*` stands for any number of labels and parts of them.
fn is_host(pattern: &str, host: &str) -> bool {
    let Some((start, end)) = pattern.split_once('*') else { return pattern.eq_ignore_ascii_case(host) };
    let (pattern, host) = (start.to_ascii_lowercase(), host.to_ascii_lowercase());
    let Some(rest) = host.strip_prefix(&pattern) else { return false };
    let end = end.to_ascii_lowercase();
    let last = end.rsplit('*').next().unwrap_or_default();
    let Some(mut rest) = rest.strip_suffix(last) else { return false };
    let middle = end.strip_suffix(last).unwrap_or_default().split('*').filter(|part| !part.is_empty());
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

/// Returns true if a request asks in advance if another one may be made.
pub(super) fn is_preflight(request: RequestView<'_>, method: &str) -> bool {
    method == "OPTIONS"
        && request.field("origin").is_some()
        && request.field("access-control-request-method").is_some()
}

impl Cors {
    fn admits(&self, origin: &str) -> bool {
        let is_like = |allowed: &String| {
            let same = |(scheme, host, port): (&str, &str, u16), (its, pattern, at): (&str, &str, u16)| {
                scheme == its && port == at && is_host(pattern, host)
            };
            allowed == ANY
                || parts(origin).zip(parts(allowed)).is_some_and(|(origin, allowed)| same(origin, allowed))
        };
        self.origins.iter().any(is_like)
    }

    /// Text in place of the list: `*` means what was asked for where a list must be exact.
    fn said(&self, list: &[String], asked: Option<&str>) -> Option<String> {
        match list {
            [] => None,
            [any] if any == ANY => asked.map(str::to_owned),
            list => Some(list.join(", ")),
        }
    }

    /// The fields of the answer to a request that [asks in advance](is_preflight).
    pub(crate) fn preflight(&self, request: RequestView<'_>) -> Vec<(&'static str, String)> {
        let text = |name| request.field(name).and_then(|value| str::from_utf8(value).ok());
        let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        let mut fields = vec![("Vary", vary.to_owned())];
        let Some(origin) = text("origin").filter(|origin| self.admits(origin)) else { return fields };
        fields.push((ALLOW_ORIGIN, origin.to_owned()));
        if self.credentials {
            fields.push((ALLOW_CREDENTIALS, "true".to_owned()));
        }
        let asked = text("access-control-request-method");
        fields.extend(self.said(&self.methods, asked).map(|methods| (ALLOW_METHODS, methods)));
        let asked = text("access-control-request-headers");
        fields.extend(self.said(&self.headers, asked).map(|headers| (ALLOW_HEADERS, headers)));
        fields.push((MAX_AGE, self.max_age.as_secs().to_string()));
        fields
    }

    /// The changes of the answer to any other request.
    pub(crate) fn edits(&self, request: RequestView<'_>) -> FieldEdits {
        let mut edits = FieldEdits::default();
        let origin = request.field("origin").and_then(|origin| str::from_utf8(origin).ok());
        let Some(origin) = origin else { return edits };
        if !self.admits(origin) {
            ALL.iter().for_each(|name| edits.remove(name));
            return edits;
        }
        edits.set(ALLOW_ORIGIN, origin);
        let mut silent = vec![ALLOW_METHODS, ALLOW_HEADERS, MAX_AGE];
        if self.credentials {
            edits.set(ALLOW_CREDENTIALS, "true");
        } else {
            silent.push(ALLOW_CREDENTIALS);
        }
        // With credentials `*` is the name of a field.
        let exposed = self.exposed.iter().filter(|name| !self.credentials || *name != ANY);
        match exposed.map(String::as_str).collect::<Vec<_>>().join(", ") {
            exposed if exposed.is_empty() => silent.push(EXPOSE_HEADERS),
            exposed => edits.set(EXPOSE_HEADERS, &exposed),
        }
        silent.into_iter().for_each(|name| edits.remove(name));
        edits.add("Vary", "Origin");
        edits
    }
}

#[cfg(test)]
mod tests {
    use super::super::edit::changed;
    use super::*;

    fn cors(origins: &[&str], credentials: bool) -> Cors {
        let list = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Cors {
            origins: list(origins),
            credentials,
            methods: list(&["GET", "PUT"]),
            headers: list(&["*"]),
            exposed: list(&["X-One", "*"]),
            max_age: Duration::from_secs(5),
        }
    }

    #[test]
    fn origins_are_admitted_by_scheme_host_and_port() {
        for (allowed, origin, expected) in [
            ("*", "http://anything", true),
            ("https://www.foo.com", "https://www.foo.com", true),
            ("https://www.foo.com", "https://WWW.foo.com", true),
            ("https://www.foo.com", "http://www.foo.com", false),
            ("https://www.foo.com", "https://www.foo.com:443", true),
            ("https://www.foo.com", "https://www.foo.com:8443", false),
            ("https://*.foo.com", "https://a.b.foo.com", true),
            ("https://*.foo.com", "https://foo.com", false),
            ("https://*.foo.com", "https://foo.com.evil", false),
            ("https://*", "https://foo.com", true),
            ("https://*", "http://foo.com", false),
            ("https://a*b*.com", "https://axxbyy.com", true),
            ("https://a*b*.com", "https://axx.com", false),
            ("https://*:8443", "https://a:8443", true),
            ("https://*:8443", "https://a", false),
            ("http://[::1]", "http://[::1]", true),
            ("https://*.foo.com", "null", false),
        ] {
            assert_eq!(cors(&[allowed], false).admits(origin), expected, "{allowed} {origin}");
        }
    }

    const ASKED: &str = "OPTIONS / HTTP/1.1\r\nOrigin: https://a.org\r\naccess-control-request-method: PUT\r\n\
        Access-Control-Request-Headers: x-1, x-2\r\n\r\n";

    #[test]
    fn a_browser_that_asks_in_advance_hears_what_it_may_do() {
        let request = RequestView::Http1(ASKED.as_bytes());
        assert!(is_preflight(request, request.method()));
        let fields = cors(&["https://a.org"], true).preflight(request);
        let expected = [
            ("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
            (ALLOW_ORIGIN, "https://a.org"),
            (ALLOW_CREDENTIALS, "true"),
            (ALLOW_METHODS, "GET, PUT"),
            (ALLOW_HEADERS, "x-1, x-2"),
            (MAX_AGE, "5"),
        ];
        assert_eq!(fields.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>(), expected);
        let others = cors(&["https://b.org"], true).preflight(request);
        assert_eq!(others.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["Vary"]);
        for none in [
            "OPTIONS / HTTP/1.1\r\nOrigin: a\r\n\r\n",
            "GET / HTTP/1.1\r\nOrigin: a\r\naccess-control-request-method: PUT\r\n\r\n",
        ] {
            let request = RequestView::Http1(none.as_bytes());
            assert!(!is_preflight(request, request.method()));
        }
    }

    #[test]
    fn an_answer_says_who_may_read_it_and_the_application_does_not() {
        let request = RequestView::Http1(b"GET / HTTP/1.1\r\nOrigin: https://a.org\r\n\r\n");
        let answer = b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\naccess-control-allow-credentials: true\r\n\r\n";
        for (cors, expected) in [
            (
                cors(&["*"], false),
                "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://a.org\r\nAccess-Control-Expose-Headers: X-One, *\r\n\
                 Vary: Origin\r\n\r\n",
            ),
            (
                cors(&["*"], true),
                "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://a.org\r\nAccess-Control-Allow-Credentials: true\r\n\
                 Access-Control-Expose-Headers: X-One\r\nVary: Origin\r\n\r\n",
            ),
            (cors(&["https://b.org"], true), "HTTP/1.1 200 OK\r\n\r\n"),
        ] {
            let edits = cors.edits(request);
            assert_eq!(String::from_utf8(changed(answer, None, &[&edits])).unwrap(), expected);
        }
        let same_site = RequestView::Http1(b"GET / HTTP/1.1\r\n\r\n");
        assert!(cors(&["*"], true).edits(same_site).is_empty());
    }
}
