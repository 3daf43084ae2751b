//! Rules of routes from the documents that say them.

use std::time::Duration;

use sealane_proto::resource::gateway::{
    self, BackendObjectRef, BackendRef, Fraction, GrpcAction, GrpcFilter, GrpcMatch, GrpcMethodMatch,
    GrpcRouteSpec, HeaderMatch, HeaderModifier, HttpAction, HttpFilter, HttpMatch, HttpRouteSpec,
    HttpTimeouts, MatchType, PathMatchType, PathModifier, PathReplacement, QueryMatch, RedirectScheme,
    RequestMirror, RequestRedirect, UrlRewrite,
};
use sealane_proto::types::NetworkName;

use super::{
    Cors, FieldEdits, Filters, Limits, Matching, Mirror, NewPath, PathMatch, Redirect, Retry, Rewrite,
    RouteRule, ServiceAt, Target, ValueMatch,
};

/// Networks that a reference is read between: that of the route, and the one whose services can be reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Between<'a> {
    /// Network of the route.
    pub(crate) own: &'a NetworkName,
    /// The network whose services can be reached.
    pub(crate) reached: &'a NetworkName,
}

/// The rules of an HTTPRoute.
pub(crate) fn http_rules(spec: &HttpRouteSpec, between: Between<'_>) -> Vec<RouteRule> {
    let rules = spec.rules.iter().map(|rule| RouteRule {
        name: rule.name.as_ref().map(|name| name.as_str().to_owned()),
        matches: rule.matches.iter().map(http_matching).collect(),
        filters: http_filters(&rule.filters, between),
        targets: rule
            .backend_refs
            .iter()
            .map(|backend| target(backend, |filters| http_filters(filters, between), between))
            .collect(),
        limits: rule.timeouts.as_ref().map_or_else(Limits::default, limits),
        retry: rule.retry.as_ref().map(|retry| Retry {
            codes: retry.codes.iter().map(|code| code.get()).collect(),
            attempts: retry.attempts,
            backoff: retry.backoff.as_ref().map(|backoff| backoff.get()),
        }),
    });
    rules.collect()
}

/// The rules of a GRPCRoute.
pub(crate) fn grpc_rules(spec: &GrpcRouteSpec, between: Between<'_>) -> Vec<RouteRule> {
    let rules = spec.rules.iter().map(|rule| RouteRule {
        name: rule.name.as_ref().map(|name| name.as_str().to_owned()),
        matches: rule.matches.iter().map(grpc_matching).collect(),
        filters: grpc_filters(&rule.filters, between),
        targets: rule
            .backend_refs
            .iter()
            .map(|backend| target(backend, |filters| grpc_filters(filters, between), between))
            .collect(),
        limits: Limits::default(),
        retry: None,
    });
    rules.collect()
}

fn http_matching(matching: &HttpMatch) -> Matching {
    let value = matching.path.value.clone();
    Matching {
        path: match matching.path.kind {
            PathMatchType::Exact => PathMatch::Exact(value),
            PathMatchType::PathPrefix => PathMatch::Prefix(value),
            PathMatchType::RegularExpression => PathMatch::Expression(value),
        },
        method: matching.method.map(|method| method.as_str().to_owned()),
        fields: matching.headers.iter().map(field).collect(),
        params: matching.query_params.iter().map(param).collect(),
    }
}

fn grpc_matching(matching: &GrpcMatch) -> Matching {
    Matching {
        path: matching.method.as_ref().map_or_else(PathMatch::default, method_path),
        fields: matching.headers.iter().map(field).collect(),
        ..Matching::default()
    }
}

/// The path of a service's method, `/SERVICE/METHOD`.
fn method_path(matching: &GrpcMethodMatch) -> PathMatch {
    fn said(text: &Option<String>) -> Option<&str> {
        text.as_deref().filter(|text| !text.is_empty())
    }
    match (matching.kind, said(&matching.service), said(&matching.method)) {
        (_, None, None) => PathMatch::default(),
        (MatchType::Exact, Some(service), Some(method)) => PathMatch::Exact(format!("/{service}/{method}")),
        (MatchType::Exact, Some(service), None) => PathMatch::Prefix(format!("/{service}")),
        (MatchType::Exact, None, Some(method)) => PathMatch::Method(method.to_owned()),
        (MatchType::RegularExpression, service, method) => {
            let (service, method) = (service.unwrap_or("[^/]+"), method.unwrap_or("[^/]+"));
            PathMatch::Expression(format!("/(?:{service})/(?:{method})"))
        }
    }
}

fn value(kind: MatchType, value: &str) -> ValueMatch {
    match kind {
        MatchType::Exact => ValueMatch::Exact(value.to_owned()),
        MatchType::RegularExpression => ValueMatch::Expression(value.to_owned()),
    }
}

fn field(header: &HeaderMatch) -> (String, ValueMatch) {
    (header.name.as_str().to_owned(), value(header.kind, &header.value))
}

fn param(param: &QueryMatch) -> (String, ValueMatch) {
    (param.name.as_str().to_owned(), value(param.kind, &param.value))
}

/// The port of a service that a reference means; `None` where it is no service that can be reached.
fn service(object: &BackendObjectRef, between: Between<'_>) -> Option<ServiceAt> {
    let (name, port) = object.service(between.own, between.reached).ok()?;
    Some(ServiceAt { name, port })
}

fn target<F>(backend: &BackendRef<F>, filters: impl FnOnce(&[F]) -> Filters, between: Between<'_>) -> Target {
    Target {
        service: service(&backend.object(), between),
        weight: backend.weight,
        filters: filters(&backend.filters),
    }
}

fn http_filters(filters: &[HttpFilter], between: Between<'_>) -> Filters {
    let mut all = Filters::default();
    for action in filters.iter().filter_map(HttpFilter::action) {
        match action {
            HttpAction::RequestHeaders(modifier) => all.request = edits(modifier),
            HttpAction::ResponseHeaders(modifier) => all.response = edits(modifier),
            HttpAction::Mirror(copied) => all.mirrors.push(mirror(copied, between)),
            HttpAction::Redirect(place) => all.redirect = Some(redirect(place)),
            HttpAction::Rewrite(place) => all.rewrite = Some(rewrite(place)),
            HttpAction::Cors(words) => all.cors = Some(cors(words)),
        }
    }
    all
}

fn grpc_filters(filters: &[GrpcFilter], between: Between<'_>) -> Filters {
    let mut all = Filters::default();
    for action in filters.iter().filter_map(GrpcFilter::action) {
        match action {
            GrpcAction::RequestHeaders(modifier) => all.request = edits(modifier),
            GrpcAction::ResponseHeaders(modifier) => all.response = edits(modifier),
            GrpcAction::Mirror(copied) => all.mirrors.push(mirror(copied, between)),
        }
    }
    all
}

fn edits(modifier: &HeaderModifier) -> FieldEdits {
    fn pairs(settings: &[gateway::HeaderSetting]) -> Vec<(&str, &str)> {
        settings.iter().map(|setting| (setting.name.as_str(), setting.value.as_str())).collect()
    }
    let remove: Vec<&str> = modifier.remove.iter().map(gateway::HeaderName::as_str).collect();
    FieldEdits::new(&pairs(&modifier.set), &pairs(&modifier.add), &remove)
}

fn mirror(mirror: &RequestMirror, between: Between<'_>) -> Mirror {
    let Fraction { numerator, denominator } = mirror.share();
    Mirror { service: service(&mirror.backend_ref, between), share: (numerator, denominator) }
}

fn new_path(modifier: &PathModifier) -> Option<NewPath> {
    Some(match modifier.replacement()? {
        PathReplacement::Full(path) => NewPath::Full(path.to_owned()),
        PathReplacement::Prefix(prefix) => NewPath::Prefix(prefix.to_owned()),
    })
}

fn redirect(redirect: &RequestRedirect) -> Redirect {
    Redirect {
        scheme: redirect.scheme.map(|scheme| match scheme {
            RedirectScheme::Http => "http".to_owned(),
            RedirectScheme::Https => "https".to_owned(),
        }),
        host: redirect.hostname.as_ref().map(|host| host.as_str().to_owned()),
        port: redirect.port.map(|port| port.get()),
        path: redirect.path.as_ref().and_then(new_path),
        status: redirect.status_code.get(),
    }
}

fn rewrite(rewrite: &UrlRewrite) -> Rewrite {
    Rewrite {
        host: rewrite.hostname.as_ref().map(|host| host.as_str().to_owned()),
        path: rewrite.path.as_ref().and_then(new_path),
    }
}

fn cors(words: &gateway::Cors) -> Cors {
    let names = |names: &[gateway::HeaderName]| names.iter().map(|name| name.as_str().to_owned()).collect();
    Cors {
        origins: words.allow_origins.iter().map(|origin| origin.as_str().to_owned()).collect(),
        credentials: words.allow_credentials.unwrap_or_default(),
        methods: words.allow_methods.iter().map(|method| method.as_str().to_owned()).collect(),
        headers: names(&words.allow_headers),
        exposed: names(&words.expose_headers),
        max_age: Duration::from_secs(words.max_age.into()),
    }
}

fn limits(timeouts: &HttpTimeouts) -> Limits {
    let limit =
        |time: &Option<gateway::GatewayDuration>| time.as_ref().and_then(gateway::GatewayDuration::limit);
    Limits { request: limit(&timeouts.request), attempt: limit(&timeouts.backend_request) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn http(rules: Value) -> Vec<RouteRule> {
        let spec: HttpRouteSpec = serde_json::from_value(json!({ "rules": rules })).unwrap();
        let own = "shop".parse().unwrap();
        http_rules(&spec, Between { own: &own, reached: &own })
    }

    fn at(name: &str) -> Option<ServiceAt> {
        Some(ServiceAt { name: name.parse().unwrap(), port: "80".parse().unwrap() })
    }

    #[test]
    fn a_rule_says_what_its_document_says() {
        let rules = http(json!([{
            "name": "one",
            "matches": [
                { "path": { "type": "Exact", "value": "/a" }, "method": "PUT", "headers": [{ "name": "X", "value": "1" }] },
                { "queryParams": [{ "name": "q", "type": "RegularExpression", "value": "a+" }] },
            ],
            "filters": [
                { "type": "RequestHeaderModifier", "requestHeaderModifier": { "set": [{ "name": "A", "value": "1" }], "remove": ["B"] } },
                { "type": "ResponseHeaderModifier", "responseHeaderModifier": { "add": [{ "name": "C", "value": "2" }] } },
                { "type": "RequestMirror", "requestMirror": { "backendRef": { "name": "copy", "port": 80 }, "percent": 5 } },
                { "type": "URLRewrite", "urlRewrite": { "hostname": "x.org", "path": { "type": "ReplaceFullPath", "replaceFullPath": "/z" } } },
            ],
            "backendRefs": [{ "name": "v1", "port": 80, "weight": 9 }, { "name": "v2", "namespace": "other", "port": 80 }],
            "timeouts": { "request": "10s", "backendRequest": "0s" },
            "retry": { "codes": [500], "attempts": 2, "backoff": "100ms" },
        }]));
        let exact = |text: &str| ValueMatch::Exact(text.to_owned());
        let expected = RouteRule {
            name: Some("one".to_owned()),
            matches: vec![
                Matching {
                    path: PathMatch::Exact("/a".to_owned()),
                    method: Some("PUT".to_owned()),
                    fields: vec![("X".to_owned(), exact("1"))],
                    params: Vec::new(),
                },
                Matching {
                    params: vec![("q".to_owned(), ValueMatch::Expression("a+".to_owned()))],
                    ..Matching::default()
                },
            ],
            filters: Filters {
                request: FieldEdits::new(&[("A", "1")], &[], &["B"]),
                response: FieldEdits::new(&[], &[("C", "2")], &[]),
                mirrors: vec![Mirror { service: at("copy"), share: (5, 100) }],
                rewrite: Some(Rewrite {
                    host: Some("x.org".to_owned()),
                    path: Some(NewPath::Full("/z".to_owned())),
                }),
                ..Filters::default()
            },
            targets: vec![
                Target { service: at("v1"), weight: 9, filters: Filters::default() },
                Target { service: None, weight: 1, filters: Filters::default() },
            ],
            limits: Limits { request: Some(Duration::from_secs(10)), attempt: None },
            retry: Some(Retry {
                codes: vec![500],
                attempts: Some(2),
                backoff: Some(Duration::from_millis(100)),
            }),
        };
        assert_eq!(rules, [expected]);
    }

    #[test]
    fn filters_that_answer_are_taken_over() {
        let rules = http(json!([
            { "filters": [{ "type": "RequestRedirect", "requestRedirect": {
                "scheme": "https", "port": 8443, "statusCode": 308,
                "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "/z" },
            } }] },
            { "filters": [{ "type": "CORS", "cors": {
                "allowOrigins": ["https://a.org"], "allowCredentials": true, "allowMethods": ["*"], "allowHeaders": ["x"],
                "exposeHeaders": ["y"],
            } }] },
        ]));
        let redirect = Redirect {
            scheme: Some("https".to_owned()),
            host: None,
            port: Some(8443),
            path: Some(NewPath::Prefix("/z".to_owned())),
            status: 308,
        };
        assert_eq!(rules[0].filters, Filters { redirect: Some(redirect), ..Filters::default() });
        assert_eq!(rules[0].matches, [Matching::default()]);
        let list = |text: &str| vec![text.to_owned()];
        let cors = Cors {
            origins: list("https://a.org"),
            credentials: true,
            methods: list("*"),
            headers: list("x"),
            exposed: list("y"),
            max_age: Duration::from_secs(5),
        };
        assert_eq!(rules[1].filters, Filters { cors: Some(cors), ..Filters::default() });
    }

    #[test]
    fn methods_of_grpc_are_paths() {
        for (method, expected) in [
            (
                json!({ "service": "shop.Cart", "method": "Add" }),
                PathMatch::Exact("/shop.Cart/Add".to_owned()),
            ),
            (json!({ "service": "shop.Cart" }), PathMatch::Prefix("/shop.Cart".to_owned())),
            (json!({ "service": "", "method": "Add" }), PathMatch::Method("Add".to_owned())),
            (
                json!({ "type": "RegularExpression", "service": "shop\\..*|x" }),
                PathMatch::Expression("/(?:shop\\..*|x)/(?:[^/]+)".to_owned()),
            ),
        ] {
            let spec = json!({ "rules": [{
                "matches": [{ "method": method, "headers": [{ "name": "x", "value": "1" }] }],
                "backendRefs": [{ "name": "v1", "port": 80 }],
            }] });
            let spec: GrpcRouteSpec = serde_json::from_value(spec).unwrap();
            let own = "shop".parse().unwrap();
            let rules = grpc_rules(&spec, Between { own: &own, reached: &own });
            assert_eq!((&rules[0].matches[0].path, rules[0].matches[0].fields.len()), (&expected, 1));
            assert_eq!(rules[0].targets[0].service, at("v1"));
        }
    }
}
