//! The plan for a request by the rules of a service.

use super::cors::is_preflight;
use super::edit::{FieldEdits, changed};
use super::rewrite::{Listener, Rewrite};
use super::{Filters, Found, Limits, Mirror, Retry, RouteRule, Rules, ServiceAt, Target};
use crate::request::RequestView;

/// Outcome of a request's rule.
#[derive(Debug)]
pub(crate) enum Plan<'a> {
    /// The request is passed on.
    Forward(Box<Forward<'a>>),
    /// The request is answered here.
    Answer(Found<'a>, Answer),
    /// No rule is for it.
    NoRule,
    /// The chosen reference of its rule does not resolve, or there is none.
    Unresolved(Found<'a>),
}

/// An answer of the rule's own.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// Fields beside those that every answer has.
    pub(crate) fields: Vec<(&'static str, String)>,
}

/// Terms on which a request is passed on.
#[derive(Debug)]
pub(crate) struct Forward<'a> {
    /// The rule.
    pub(crate) found: Found<'a>,
    /// The port of the service that serves it.
    pub(crate) service: &'a ServiceAt,
    /// Another path or host.
    rewrite: Rewrite,
    /// The same for copies.
    copied: Option<&'a Rewrite>,
    /// Changes of its fields, in order; copies have the first.
    request: [&'a FieldEdits; 2],
    /// Changes of its answer's fields, in order.
    response: [&'a FieldEdits; 2],
    /// Changes of its answer's fields for browsers, which come last.
    cors: FieldEdits,
    /// Backends that get a copy.
    pub(crate) mirrors: Vec<&'a ServiceAt>,
    /// Limits of time.
    pub(crate) limits: Limits,
    /// Terms of further attempts.
    pub(crate) retry: Option<&'a Retry>,
}

impl Forward<'_> {
    /// Returns true if the request passes as it came.
    pub(crate) fn keeps_request(&self) -> bool {
        self.rewrite.is_empty() && self.request.iter().all(|edits| edits.is_empty())
    }

    /// Returns true if the answer passes as it came.
    pub(crate) fn keeps_response(&self) -> bool {
        self.response.iter().all(|edits| edits.is_empty()) && self.cors.is_empty()
    }

    /// The request's head of HTTP/1 as it is passed on.
    pub(crate) fn changed_http1(&self, head: &[u8]) -> Vec<u8> {
        self.rewrite.change_http1(head, self.found.prefix, &self.request)
    }

    /// The request's head of HTTP/1 as copies have it.
    pub(crate) fn copied_http1(&self, head: &[u8]) -> Vec<u8> {
        self.copied.unwrap_or(&Rewrite::NONE).change_http1(head, self.found.prefix, &self.request[..1])
    }

    /// Changes the request's head of HTTP/2 to what is passed on.
    pub(crate) fn change_http2(&self, head: &mut http::Request<()>) {
        self.rewrite.change_http2(head, self.found.prefix);
        self.request.iter().for_each(|edits| edits.change(head.headers_mut()));
    }

    /// Changes the request's head of HTTP/2 to what copies have.
    pub(crate) fn copy_http2(&self, head: &mut http::Request<()>) {
        self.copied.unwrap_or(&Rewrite::NONE).change_http2(head, self.found.prefix);
        self.request[0].change(head.headers_mut());
    }

    /// The answer's head of HTTP/1 as it is passed on.
    pub(crate) fn changed_answer(&self, head: &[u8]) -> Vec<u8> {
        let [its, own] = self.response;
        changed(head, None, &[its, own, &self.cors])
    }

    /// Changes the answer's fields of HTTP/2 to what is passed on.
    pub(crate) fn change_answer(&self, fields: &mut http::HeaderMap) {
        self.response.iter().for_each(|edits| edits.change(fields));
        self.cors.change(fields);
    }
}

/// The one of these whose share the random number falls in; `None` where all have none.
fn chosen(targets: &[Target], random: u64) -> Option<&Target> {
    let total: u64 = targets.iter().map(|target| u64::from(target.weight)).sum();
    let mut at = random.checked_rem(total)?;
    targets.iter().find(|target| match at.checked_sub(u64::from(target.weight)) {
        Some(rest) => {
            at = rest;
            false
        }
        None => true,
    })
}

impl Mirror {
    /// Returns true if this request is one that is copied.
    fn takes(&self, random: u64) -> bool {
        let (some, of) = self.share;
        random.checked_rem(u64::from(of)).is_some_and(|at| at < u64::from(some))
    }
}

impl Rules {
    /// Finds out what becomes of a request; each number of `random` is another one.
    pub(crate) fn plan(
        &self,
        request: RequestView<'_>,
        listener: Listener,
        mut random: impl FnMut() -> u64,
    ) -> Plan<'_> {
        let method = request.method();
        let is_preflight = is_preflight(request, method);
        let Some(found) =
            self.find_as(request, method).or_else(|| self.find_preflight(request, is_preflight))
        else {
            return Plan::NoRule;
        };
        let rule = found.rule;
        let target = chosen(&rule.targets, random());
        let all = [Some(&rule.filters), target.map(|target| &target.filters)];
        let each = || all.into_iter().flatten();
        let cors = each().filter_map(|filters| filters.cors.as_ref()).next_back();
        if let Some(cors) = cors.filter(|_| is_preflight) {
            return Plan::Answer(found, Answer { status: 204, fields: cors.preflight(request) });
        }
        let cors = cors.map_or_else(FieldEdits::default, |cors| cors.edits(request));
        if let Some(redirect) = each().find_map(|filters| filters.redirect.as_ref()) {
            let location = redirect.location(request, found.prefix, listener);
            return Plan::Answer(
                found,
                Answer { status: redirect.status, fields: vec![("Location", location)] },
            );
        }
        let Some((target, service)) = target.and_then(|target| Some((target, target.service.as_ref()?)))
        else {
            return Plan::Unresolved(found);
        };
        let (own, its) = (&rule.filters, &target.filters);
        let rewrites = each().filter_map(|filters| filters.rewrite.as_ref());
        Plan::Forward(Box::new(Forward {
            found,
            service,
            copied: own.rewrite.as_ref(),
            rewrite: rewrites.fold(Rewrite::default(), |before, rewrite| before.joined(rewrite)),
            request: [&own.request, &its.request],
            response: [&its.response, &own.response],
            cors,
            mirrors: each()
                .flat_map(|filters| &filters.mirrors)
                .filter(|mirror| mirror.takes(random()))
                .filter_map(|mirror| mirror.service.as_ref())
                .collect(),
            limits: rule.limits,
            retry: rule.retry.as_ref(),
        }))
    }

    /// The rule with words for browsers of the request that is asked about in advance.
    fn find_preflight(&self, request: RequestView<'_>, is_preflight: bool) -> Option<Found<'_>> {
        let method = request.field("access-control-request-method").filter(|_| is_preflight)?;
        let found = self.find_as(request, str::from_utf8(method).ok()?)?;
        let has_words = |filters: &Filters| filters.cors.is_some();
        let RouteRule { filters, targets, .. } = found.rule;
        (has_words(filters) || targets.iter().any(|target| has_words(&target.filters))).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::SystemTime;

    use super::super::{Cors, Matching, NewPath, Redirect, Route};
    use super::*;

    const LISTENER: Listener = Listener { scheme: "http", port: 80 };

    fn target(service: &str, weight: u32) -> Target {
        let named = (!service.is_empty()).then(|| at(service));
        Target { service: named, weight, filters: Filters::default() }
    }

    fn at(service: &str) -> ServiceAt {
        ServiceAt { name: service.parse().unwrap(), port: "80".parse().unwrap() }
    }

    fn rules(rules: Vec<RouteRule>) -> Rules {
        Rules::new(
            [Route { name: "shop/api".to_owned(), created: SystemTime::UNIX_EPOCH, rules }.into()].into(),
        )
    }

    /// The share of each outcome over all random numbers below 100.
    fn shares(targets: Vec<Target>) -> BTreeMap<String, usize> {
        let rules = rules(vec![RouteRule { targets, ..RouteRule::default() }]);
        let mut shares = BTreeMap::new();
        for random in 0..100 {
            let name = match rules.plan(RequestView::Http1(b"GET / HTTP/1.1\r\n\r\n"), LISTENER, || random) {
                Plan::Forward(forward) => forward.service.name.to_string(),
                Plan::Unresolved(_) => "unresolved".to_owned(),
                plan @ (Plan::Answer(..) | Plan::NoRule) => panic!("{plan:?}"),
            };
            *shares.entry(name).or_default() += 1;
        }
        shares
    }

    #[test]
    fn backends_share_requests_by_their_weights() {
        for (targets, expected) in [
            (vec![("a", 1)], vec![("a", 100)]),
            (vec![("a", 9), ("b", 1), ("c", 0)], vec![("a", 90), ("b", 10)]),
            (vec![("a", 1), ("", 1)], vec![("a", 50), ("unresolved", 50)]),
            (vec![("a", 0), ("b", 0)], vec![("unresolved", 100)]),
            (vec![], vec![("unresolved", 100)]),
        ] {
            let targets: Vec<Target> =
                targets.into_iter().map(|(name, weight)| target(name, weight)).collect();
            let expected: BTreeMap<String, usize> =
                expected.into_iter().map(|(name, share)| (name.to_owned(), share)).collect();
            assert_eq!(shares(targets), expected);
        }
    }

    #[test]
    fn a_mirror_gets_its_share_and_nothing_without_a_service() {
        let mirror = |service: Option<&str>, share| Mirror { service: service.map(at), share };
        let filters = Filters {
            mirrors: vec![
                mirror(Some("all"), (100, 100)),
                mirror(None, (1, 1)),
                mirror(Some("some"), (1, 4)),
            ],
            ..Filters::default()
        };
        let rules = rules(vec![RouteRule { filters, targets: vec![target("a", 1)], ..RouteRule::default() }]);
        let mut counts = BTreeMap::<String, usize>::new();
        for random in 0..100 {
            let plan = rules.plan(RequestView::Http1(b"GET / HTTP/1.1\r\n\r\n"), LISTENER, || random);
            let Plan::Forward(forward) = plan else { panic!() };
            forward
                .mirrors
                .iter()
                .for_each(|mirror| *counts.entry(mirror.name.to_string()).or_default() += 1);
        }
        assert_eq!(counts, [("all".to_owned(), 100), ("some".to_owned(), 25)].into());
        assert!(!mirror(Some("none"), (1, 0)).takes(0) && !mirror(Some("none"), (0, 100)).takes(0));
    }

    #[test]
    fn a_backend_has_filters_beside_those_of_its_rule() {
        let edits = |name: &str| FieldEdits::new(&[(name, "1")], &[], &[]);
        let rewrite = |host: Option<&str>, path: &str| Rewrite {
            host: host.map(str::to_owned),
            path: Some(NewPath::Full(path.to_owned())),
        };
        let filters = |name: &str, rewrite| Filters {
            request: edits(name),
            response: edits(name),
            rewrite: Some(rewrite),
            ..Filters::default()
        };
        let own = Target { filters: filters("its", rewrite(None, "/its")), ..target("a", 1) };
        let rule = RouteRule {
            filters: filters("rule", rewrite(Some("x"), "/rule")),
            targets: vec![own],
            ..RouteRule::default()
        };
        let rules = rules(vec![rule]);
        let Plan::Forward(forward) =
            rules.plan(RequestView::Http1(b"GET / HTTP/1.1\r\n\r\n"), LISTENER, || 0)
        else {
            panic!()
        };
        assert_eq!(forward.rewrite, rewrite(Some("x"), "/its"));
        assert_eq!(forward.request, [&edits("rule"), &edits("its")]);
        assert_eq!(forward.response, [&edits("its"), &edits("rule")]);
        assert!(!forward.keeps_request() && !forward.keeps_response());
    }

    #[test]
    fn a_redirect_of_one_backend_answers_its_share() {
        let redirect =
            Redirect { scheme: None, host: Some("b".to_owned()), port: None, path: None, status: 303 };
        let filters = Filters { redirect: Some(redirect), ..Filters::default() };
        let rule = RouteRule {
            targets: vec![target("a", 1), Target { filters, ..target("", 1) }],
            ..RouteRule::default()
        };
        let rules = rules(vec![rule]);
        let plan = |random| rules.plan(RequestView::Http1(b"GET /x HTTP/1.1\r\n\r\n"), LISTENER, || random);
        assert!(
            matches!(plan(0), Plan::Forward(forward) if forward.keeps_request() && forward.keeps_response())
        );
        let expected = Answer { status: 303, fields: vec![("Location", "http://b/x".to_owned())] };
        assert!(matches!(plan(1), Plan::Answer(_, answer) if answer == expected));
    }

    #[test]
    fn a_browser_that_asks_in_advance_is_answered_by_the_rule_of_what_it_asks_about() {
        let cors = Cors { origins: vec!["*".to_owned()], ..Cors::default() };
        let filters = Filters { cors: Some(cors), ..Filters::default() };
        let matching =
            |method: &str| vec![Matching { method: Some(method.to_owned()), ..Matching::default() }];
        let with = RouteRule {
            matches: matching("PUT"),
            filters,
            targets: vec![target("a", 1)],
            ..RouteRule::default()
        };
        let without =
            RouteRule { matches: matching("GET"), targets: vec![target("b", 1)], ..RouteRule::default() };
        let rules = rules(vec![with, without]);
        let asked = |method: &str| {
            let head = format!(
                "OPTIONS / HTTP/1.1\r\nOrigin: http://a\r\nAccess-Control-Request-Method: {method}\r\n\r\n"
            );
            match rules.plan(RequestView::Http1(head.as_bytes()), LISTENER, || 0) {
                Plan::Answer(_, answer) => answer.status,
                Plan::NoRule => 404,
                plan @ (Plan::Forward(_) | Plan::Unresolved(_)) => panic!("{plan:?}"),
            }
        };
        assert_eq!((asked("PUT"), asked("GET")), (204, 404));
        let request = RequestView::Http1(b"PUT / HTTP/1.1\r\nOrigin: http://a\r\n\r\n");
        assert!(
            matches!(rules.plan(request, LISTENER, || 0), Plan::Forward(forward) if !forward.keeps_response())
        );
    }
}
