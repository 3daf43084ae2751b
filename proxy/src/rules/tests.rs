//! The rule of a request, by tables and beside a naive reading of the specification.

use std::cmp::Reverse;
use std::time::{Duration, SystemTime};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::path::canonical;
use super::*;

fn route(name: &str, age: u64, rules: Vec<RouteRule>) -> Route {
    let created = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 - age);
    Route { name: name.to_owned(), created, rules }
}

fn rule(name: &str, matches: Vec<Matching>) -> RouteRule {
    RouteRule { name: Some(name.to_owned()), matches, ..RouteRule::default() }
}

fn path(path: PathMatch) -> Matching {
    Matching { path, ..Matching::default() }
}

fn exact(text: &str) -> PathMatch {
    PathMatch::Exact(text.to_owned())
}

fn prefix(text: &str) -> PathMatch {
    PathMatch::Prefix(text.to_owned())
}

fn expression(text: &str) -> PathMatch {
    PathMatch::Expression(text.to_owned())
}

fn fields(fields: &[(&str, &str)]) -> Vec<(String, ValueMatch)> {
    let exact = |value: &str| match value.strip_prefix('~') {
        Some(expression) => ValueMatch::Expression(expression.to_owned()),
        None => ValueMatch::Exact(value.to_owned()),
    };
    fields.iter().map(|(name, value)| ((*name).to_owned(), exact(value))).collect()
}

/// Checks which rule each head of a request finds.
fn check(rules: Vec<RouteRule>, table: &[(&str, Option<&str>)]) {
    let rules = Rules::new([Arc::new(route("shop/api", 0, rules))].into());
    for (head, expected) in table {
        let head = head.replace('\n', "\r\n");
        let found = rules.find(RequestView::Http1(head.as_bytes()));
        assert_eq!(found.and_then(|found| found.rule.name.as_deref()), *expected, "{head:?}");
    }
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: api\r\n\r\n")
}

#[test]
fn a_prefix_matches_by_elements_and_an_exact_path_by_all_of_it() {
    let rules = || {
        vec![
            rule("abc", vec![path(prefix("/abc/"))]),
            rule("abc/def", vec![path(prefix("/abc/def"))]),
            rule("exact", vec![path(exact("/abc/def/x"))]),
            rule("folder", vec![path(exact("/folder/"))]),
        ]
    };
    let table = [
        ("/abc", Some("abc")),
        ("/abc/", Some("abc")),
        ("/abc?x=/abc/def", Some("abc")),
        ("/abc//def", Some("abc")),
        ("/abcd", None),
        ("/ABC", None),
        ("/", None),
        ("/abc/def", Some("abc/def")),
        ("/abc/def/y", Some("abc/def")),
        ("/abc/defy", Some("abc")),
        ("/abc/def/x", Some("exact")),
        ("/abc/def/x?y", Some("exact")),
        ("/abc/def/x/", Some("abc/def")),
        ("http://other/abc/def/x", Some("exact")),
        ("/folder", None),
        ("/folder/", Some("folder")),
        ("/x/../abc/%64ef/x", Some("exact")),
        ("*", None),
    ];
    let table = table.map(|(target, expected)| (get(target), expected));
    let table: Vec<_> = table.iter().map(|(head, expected)| (head.as_str(), *expected)).collect();
    check(rules(), &table);
    let mut everything = rules();
    everything.push(rule("rest", Vec::new()));
    check(
        everything,
        &[("OPTIONS * HTTP/1.1\n\n", Some("rest")), ("CONNECT a:1 HTTP/1.1\n\n", Some("rest"))],
    );
}

#[test]
fn a_match_needs_all_of_its_conditions_and_a_rule_one_of_its_matches() {
    let matching = Matching {
        path: prefix("/v2"),
        method: Some("POST".to_owned()),
        fields: fields(&[("Version", "two"), ("version", "ignored"), ("color", "~(blue|green).*")]),
        params: fields(&[("animal", "whale"), ("size", "~[0-9]+")]),
    };
    let other =
        Matching { fields: fields(&[("cookie", "a=1; b=2"), ("list", "x,y")]), ..Matching::default() };
    let host = Matching { fields: fields(&[("host", "api:8080")]), ..Matching::default() };
    let rules = vec![rule("all", vec![matching, other, host])];
    check(
        rules,
        &[
            (
                "POST /v2?x&animal=whale&size=12&animal=dog HTTP/1.1\nVERSION: two\nColor: blue-ish\n\n",
                Some("all"),
            ),
            ("POST /v2?%61nimal=whal%65&size=1 HTTP/1.1\nversion: two\ncolor: green\n\n", Some("all")),
            ("POST /v2?animal=dog&animal=whale&size=1 HTTP/1.1\nversion: two\ncolor: green\n\n", None),
            ("POST /v2?animal=whale&size=1x HTTP/1.1\nversion: two\ncolor: green\n\n", None),
            ("POST /v2?animal=whale&size=1 HTTP/1.1\nversion: Two\ncolor: green\n\n", None),
            ("POST /v2?animal=whale&size=1 HTTP/1.1\nversion: two\ncolor: dark green\n\n", None),
            ("post /v2?animal=whale&size=1 HTTP/1.1\nversion: two\ncolor: green\n\n", None),
            ("GET / HTTP/1.1\nCookie: a=1\nlist: x\nCookie: b=2\nLIST: y\n\n", Some("all")),
            ("GET / HTTP/1.1\nlist: y\nlist: x\nCookie: a=1; b=2\n\n", None),
            ("GET / HTTP/1.1\nHost: api:8080\n\n", Some("all")),
            ("GET http://api:8080/ HTTP/1.1\nHost: b\n\n", Some("all")),
        ],
    );
}

#[test]
fn precedence_follows_the_specification() {
    let with = |path: PathMatch, method: Option<&str>, names: &[(&str, &str)], params: &[(&str, &str)]| {
        Matching { path, method: method.map(str::to_owned), fields: fields(names), params: fields(params) }
    };
    let rules = vec![
        rule("rest", Vec::new()),
        rule("param", vec![with(prefix("/"), None, &[], &[("p", "1")])]),
        rule("fields", vec![with(prefix("/"), None, &[("a", "1"), ("b", "1")], &[])]),
        rule("field", vec![with(prefix("/"), None, &[("a", "1")], &[("p", "1"), ("q", "1")])]),
        rule("method", vec![with(prefix("/"), Some("PUT"), &[], &[])]),
        rule("call", vec![path(PathMatch::Method("Get".to_owned()))]),
        rule("expression", vec![path(expression("/[a-z]+/long"))]),
        rule("longer expression", vec![path(expression("/[a-z]+/long|/no"))]),
        rule("long", vec![path(prefix("/very/long"))]),
        rule("exact", vec![with(exact("/very/long"), None, &[("a", "1")], &[])]),
        rule("later exact", vec![with(exact("/very/long"), None, &[("a", "1")], &[])]),
    ];
    check(
        rules,
        &[
            ("GET / HTTP/1.1\n\n", Some("rest")),
            ("GET /?p=1 HTTP/1.1\n\n", Some("param")),
            ("GET /?p=1&q=1 HTTP/1.1\na: 1\nb: 1\n\n", Some("fields")),
            ("GET /?p=1&q=1 HTTP/1.1\na: 1\n\n", Some("field")),
            ("PUT /?p=1&q=1 HTTP/1.1\na: 1\nb: 1\n\n", Some("method")),
            ("PUT /shop.Orders/Get HTTP/1.1\n\n", Some("call")),
            ("PUT /shop.Orders/Get/more HTTP/1.1\n\n", Some("method")),
            ("PUT /very/long/x HTTP/1.1\n\n", Some("long")),
            ("PUT /very/long HTTP/1.1\n\n", Some("longer expression")),
            ("PUT /very/long HTTP/1.1\na: 1\n\n", Some("exact")),
        ],
    );
}

#[test]
fn of_equal_matches_the_oldest_route_has_precedence_then_the_first_by_name() {
    let table = [([("b", 1), ("a", 0)], "b"), ([("b", 0), ("a", 0)], "a"), ([("a", 3), ("b", 4)], "b")];
    for (routes, expected) in table {
        let routes = routes.map(|(name, age)| Arc::new(route(name, age, vec![RouteRule::default()])));
        let rules = Rules::new(routes.into());
        let found = rules.find(RequestView::Http1(b"GET / HTTP/1.1\r\n\r\n")).unwrap();
        assert_eq!(found.route.name, expected);
    }
}

#[test]
fn the_prefix_of_a_match_is_known() {
    let rules = vec![rule("", vec![path(prefix("/a/b/")), path(exact("/c"))])];
    let rules = Rules::new([Arc::new(route("shop/api", 0, rules))].into());
    for (target, expected) in [("/a/b/c", "/a/b"), ("/a/b", "/a/b"), ("/c", "")] {
        let head = get(target);
        assert_eq!(rules.find(RequestView::Http1(head.as_bytes())).unwrap().prefix, expected);
    }
}

/// A request of the model.
#[derive(Clone, Debug)]
struct Asked {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    fields: Vec<(String, String)>,
}

impl Asked {
    fn head(&self) -> String {
        let query: Vec<String> = self.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let fields = self.fields.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let fields: String = fields.collect();
        format!("{} {}?{} HTTP/1.1\r\n{fields}\r\n", self.method, self.path, query.join("&"))
    }

    fn http2(&self) -> http::Request<()> {
        let head = self.head();
        let target = head.split(' ').nth(1).unwrap();
        let request = http::Request::builder().method(&*self.method).uri(target);
        self.fields
            .iter()
            .fold(request, |request, (name, value)| request.header(name, value))
            .body(())
            .unwrap()
    }
}

/// A place of a match: path rank, its length, method, numbers of fields and parameters, then route and rule.
type Place = (u8, Reverse<usize>, Reverse<bool>, Reverse<usize>, Reverse<usize>);

/// Reads one match as the specification says it, word by word; `None` where the request does not match.
fn naive(matching: &Matching, asked: &Asked) -> Option<Place> {
    let path = canonical(&asked.path).into_owned();
    let elements = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
    let (rank, length) = match &matching.path {
        PathMatch::Exact(exact) => (canonical(exact) == path).then_some((0, 0)),
        PathMatch::Expression(text) => {
            let whole = regex::Regex::new(&format!(r"\A(?:{text})\z")).unwrap();
            whole.is_match(&path).then_some((1, whole.as_str().len()))
        }
        PathMatch::Prefix(prefix) => {
            let prefix = prefix.trim_end_matches('/');
            elements(&path)
                .starts_with(&elements(prefix))
                .then_some((2, prefix.len() + usize::from(!prefix.is_empty()) * 100))
        }
        PathMatch::Method(method) => {
            let path = elements(&path);
            (path.len() == 3 && path[2] == *method).then_some((2, method.len()))
        }
    }?;
    let joined = |name: &str| {
        let same = asked.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        same.map(|(_, value)| value.clone()).reduce(|all, value| format!("{all},{value}"))
    };
    let first =
        |name: &str| asked.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let meets = |found: Option<String>, value: &ValueMatch| match value {
        ValueMatch::Exact(value) => found.as_ref() == Some(value),
        ValueMatch::Expression(text) => {
            let whole = regex::Regex::new(&format!("^(?:{text})$")).unwrap();
            found.is_some_and(|found| whole.is_match(&found))
        }
    };
    let unique = |names: &[(String, ValueMatch)], lower: bool| {
        let mut seen: Vec<(String, ValueMatch)> = Vec::new();
        for (name, value) in names {
            let name = if lower { name.to_lowercase() } else { name.clone() };
            if seen.iter().all(|(known, _)| *known != name) {
                seen.push((name, value.clone()));
            }
        }
        seen
    };
    let (fields, params) = (unique(&matching.fields, true), unique(&matching.params, false));
    let meets_all = matching.method.as_ref().is_none_or(|method| *method == asked.method)
        && fields.iter().all(|(name, value)| meets(joined(name), value))
        && params.iter().all(|(name, value)| meets(first(name), value));
    let method = Reverse(matching.method.is_some());
    meets_all.then_some((rank, Reverse(length), method, Reverse(fields.len()), Reverse(params.len())))
}

/// The rule that a naive reading finds: route, rule.
fn naive_rule(routes: &[Route], asked: &Asked) -> Option<(usize, usize)> {
    let mut found = Vec::new();
    for (at, route) in routes.iter().enumerate() {
        for (number, rule) in route.rules.iter().enumerate() {
            let everything = vec![Matching::default()];
            let matches = if rule.matches.is_empty() { &everything } else { &rule.matches };
            for matching in matches {
                if let Some(place) = naive(matching, asked) {
                    found.push((place, (route.created, route.name.clone(), number), (at, number)));
                }
            }
        }
    }
    found.into_iter().min().map(|(_, _, rule)| rule)
}

fn paths() -> impl Strategy<Value = String> {
    let element = select(vec!["a", "b", "ab", "", "%61", "..", "."]);
    vec(element, 1..4).prop_map(|elements| format!("/{}", elements.join("/")))
}

fn clean_paths() -> impl Strategy<Value = String> {
    let element = select(vec!["a", "b", "ab", "%61"]);
    (vec(element, 0..4), any::<bool>()).prop_map(|(elements, slash)| {
        let slash = if slash && !elements.is_empty() { "/" } else { "" };
        format!("/{}{slash}", elements.join("/"))
    })
}

fn conditions() -> impl Strategy<Value = Vec<(String, ValueMatch)>> {
    let value = prop_oneof![
        select(vec!["1", "2", "1,2"]).prop_map(|value| ValueMatch::Exact(value.to_owned())),
        select(vec!["[12]", "1.*", "1|12"]).prop_map(|text| ValueMatch::Expression(text.to_owned())),
    ];
    vec((select(vec!["x", "y", "X"]).prop_map(str::to_owned), value), 0..3)
}

fn routes() -> impl Strategy<Value = Vec<Route>> {
    let path = prop_oneof![
        3 => clean_paths().prop_map(|path| PathMatch::Exact(canonical(&path).into_owned())),
        4 => clean_paths().prop_map(|path| PathMatch::Prefix(canonical(&path).into_owned())),
        1 => select(vec!["/a.*", "/(a|b)/.*", "/[ab]+"]).prop_map(|text| PathMatch::Expression(text.to_owned())),
        1 => select(vec!["a", "ab"]).prop_map(|method| PathMatch::Method(method.to_owned())),
    ];
    let method = option::of(select(vec!["GET", "PUT"]).prop_map(str::to_owned));
    let matching = (path, method, conditions(), conditions());
    let matching =
        matching.prop_map(|(path, method, fields, params)| Matching { path, method, fields, params });
    let rule = vec(matching, 0..3).prop_map(|matches| RouteRule { matches, ..RouteRule::default() });
    let route = (0..3_u64, vec(rule, 0..4));
    vec(route, 0..5).prop_map(|stated| {
        let named = stated.into_iter().enumerate();
        named.map(|(at, (age, rules))| super::tests::route(&format!("shop/{}", 9 - at), age, rules)).collect()
    })
}

fn asked() -> impl Strategy<Value = Asked> {
    let value = || select(vec!["1", "2", "12"]).prop_map(str::to_owned);
    let names = || select(vec!["x", "y", "X"]).prop_map(str::to_owned);
    let (query, fields) = (vec((names(), value()), 0..4), vec((names(), value()), 0..4));
    let method = select(vec!["GET", "PUT", "POST"]).prop_map(str::to_owned);
    (method, paths(), query, fields).prop_map(|(method, path, query, fields)| Asked {
        method,
        path,
        query,
        fields,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]
    #[test]
    fn the_table_finds_what_a_naive_reading_of_the_specification_finds(routes in routes(), asked in asked()) {
        let expected = naive_rule(&routes, &asked);
        let rules = Rules::new(routes.into_iter().map(Arc::new).collect());
        let position = |found: Found<'_>| {
            let route = rules.routes.iter().position(|route| std::ptr::eq(&**route, found.route))?;
            Some((route, found.route.rules.iter().position(|rule| std::ptr::eq(rule, found.rule))?))
        };
        let (head, http2) = (asked.head(), asked.http2());
        for view in [RequestView::Http1(head.as_bytes()), RequestView::Http2(&http2)] {
            prop_assert_eq!(rules.find(view).and_then(position), expected, "{:?}", view);
        }
    }

    #[test]
    fn a_canonical_path_stays_as_it_is(path in "(/(%[0-9a-fA-F]{2}|[a.%]){0,3}){0,4}") {
        let once = canonical(&path).into_owned();
        prop_assert!(!once.contains("/../") && !once.contains("/./") && !once.ends_with("/.."));
        prop_assert!(once.len() <= path.len().max(1) + 1);
    }
}
