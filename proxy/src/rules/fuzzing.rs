//! Any requests beside any rules, for fuzzing: each function panics where an invariant does not hold.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::SystemTime;

use super::path::canonical;
use super::{
    FieldEdits, Filters, Listener, Matching, NewPath, PathMatch, Plan, Redirect, Rewrite, Route, RouteRule,
    Rules, ServiceAt, Target,
};
use crate::http::{Parsed, request};
use crate::request::RequestView;

/// The most rules of an input.
const MAX_RULES: usize = 16;

/// Finds the rule of a request: a line of the input is a rule (`=/exact`, `^/prefix`, `~expression`, `.Method`), behind an empty one
/// comes the head.
pub(crate) fn rules(data: &[u8]) {
    let Some(at) = data.windows(2).position(|pair| pair == b"\n\n") else { return };
    let (Ok(text), head) = (str::from_utf8(&data[..at]), &data[at + 2..]) else { return };
    let paths: Vec<PathMatch> = text.lines().take(MAX_RULES).filter_map(path).collect();
    let Ok(Parsed::Complete(framing, length)) = request::parse(head) else { return };
    let view = RequestView::Http1(&head[..length]);
    let rule = |path: &PathMatch| RouteRule {
        matches: vec![Matching { path: path.clone(), ..Matching::default() }],
        targets: vec![Target { service: Some(service()), weight: 1, filters: Filters::default() }],
        filters: filters(text),
        ..RouteRule::default()
    };
    let route = Route {
        name: "shop/api".to_owned(),
        created: SystemTime::UNIX_EPOCH,
        rules: paths.iter().map(rule).collect(),
    };
    let rules = Rules::new([Arc::new(route)].into());
    let path = canonical(view.path());
    assert!(path == "/.." || !(path.starts_with('/') && path.contains("/../")), "{path:?}");
    let ranked = paths.iter().enumerate().filter_map(|(at, stated)| Some((rank(stated, &path)?, at)));
    let expected = ranked.min().map(|(_, at)| at);
    let found = rules.find(view);
    let position =
        found.map(|found| found.route.rules.iter().position(|rule| std::ptr::eq(rule, found.rule)));
    assert_eq!(position, expected.map(Some), "{path:?} by {paths:?}");
    match rules.plan(view, Listener { scheme: "http", port: 80 }, || 0) {
        Plan::Forward(forward) => {
            let changed = forward.changed_http1(&head[..length]);
            let again = request::parse(&changed);
            let shown = String::from_utf8_lossy(&changed);
            assert_eq!(
                again,
                Ok(Parsed::Complete(framing, changed.len())),
                "it frames the same message: {shown:?}"
            );
            assert_eq!(RequestView::Http1(&changed).method(), view.method(), "{shown:?}");
        }
        Plan::Answer(_, answer) => {
            let is_value = |text: &String| http::HeaderValue::from_str(text).is_ok();
            assert!(answer.fields.iter().all(|(_, text)| is_value(text)), "{answer:?}");
        }
        Plan::NoRule | Plan::Unresolved(_) => assert_eq!(found.is_none(), expected.is_none()),
    }
}

fn service() -> ServiceAt {
    let (name, port) = ("v1".parse(), "80".parse());
    ServiceAt { name: name.expect("a name"), port: port.expect("a port") }
}

/// Filters by the length of the text, so that each kind is met.
fn filters(text: &str) -> Filters {
    let path = match text.len() % 3 {
        0 => None,
        1 => Some(NewPath::Full("/full".to_owned())),
        _ => Some(NewPath::Prefix("/other/".to_owned())),
    };
    if text.len().is_multiple_of(5) {
        let redirect = Redirect { scheme: None, host: None, port: None, path, status: 302 };
        return Filters { redirect: Some(redirect), ..Filters::default() };
    }
    let host = text.len().is_multiple_of(2).then(|| "new.org".to_owned());
    let set = [("X-Set", "1"), ("Content-Length", "7"), ("Transfer-Encoding", "chunked")];
    Filters {
        request: FieldEdits::new(
            &set,
            &[("X-Add", "1"), ("Host", "evil")],
            &["accept", "connection", "host"],
        ),
        rewrite: Some(Rewrite { host, path }),
        ..Filters::default()
    }
}

fn path(line: &str) -> Option<PathMatch> {
    let rest = line.get(1..)?.to_owned();
    match line.as_bytes().first()? {
        b'=' => Some(PathMatch::Exact(rest)),
        b'^' => Some(PathMatch::Prefix(rest)),
        b'~' => Some(PathMatch::Expression(rest)),
        b'.' => Some(PathMatch::Method(rest)),
        _ => None,
    }
}

/// The rank of a match by its path, by a plain reading; `None` where it does not match.
fn rank(stated: &PathMatch, path: &str) -> Option<(u8, Reverse<usize>)> {
    let elements = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
    match stated {
        PathMatch::Exact(exact) => (canonical(exact) == path).then_some((0, Reverse(0))),
        PathMatch::Expression(text) => {
            let whole = super::condition::expression(text)?;
            whole.is_match(path.as_bytes()).then_some((1, Reverse(whole.as_str().len())))
        }
        PathMatch::Prefix(prefix) => {
            let prefix = canonical(prefix);
            let prefix = prefix.trim_end_matches('/');
            let depth = prefix.split('/').count() - 1;
            let is_prefix = prefix.is_empty() || elements(path).get(1..)?.starts_with(&elements(prefix)[1..]);
            let applies = depth == 0 || path.starts_with('/');
            (is_prefix && applies).then_some((2, Reverse(if depth == 0 { 0 } else { depth * 1000 })))
        }
        PathMatch::Method(method) => {
            let elements = elements(path);
            let is_last = path.starts_with('/') && elements.len() > 2 && elements[2..].join("/") == *method;
            is_last.then_some((2, Reverse(method.len())))
        }
    }
}
