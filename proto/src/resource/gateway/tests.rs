//! Tables of what is read, refused, and how it is written.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::resource::document::DocumentType;

fn http(text: &str) -> Result<HttpRouteDocument, String> {
    let document: HttpRouteDocument = serde_json::from_str(text).map_err(|error| error.to_string())?;
    document.check().map_err(|error| error.to_string())?;
    Ok(document)
}

fn grpc(text: &str) -> Result<GrpcRouteDocument, String> {
    let document: GrpcRouteDocument = serde_json::from_str(text).map_err(|error| error.to_string())?;
    document.check().map_err(|error| error.to_string())?;
    Ok(document)
}

/// A route with these rules.
fn route(kind: &str, rules: &Value) -> String {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
        "metadata": { "name": "split", "namespace": "shop" },
        "spec": { "parentRefs": [{ "group": "", "kind": "Service", "name": "api" }], "rules": rules },
    })
    .to_string()
}

fn written(document: &impl serde::Serialize) -> Value {
    serde_json::to_value(document).unwrap()
}

#[test]
fn defaults_are_those_of_the_api() {
    let document = http(&route(
        "HTTPRoute",
        &json!([{ "backendRefs": [{ "name": "v1", "port": 80 }] }, { "matches": [] }]),
    ));
    let any = json!([{ "path": { "type": "PathPrefix", "value": "/" } }]);
    assert_eq!(
        written(&document.unwrap())["spec"]["rules"],
        json!([
            {
                "matches": any,
                "backendRefs": [{ "group": "", "kind": "Service", "name": "v1", "port": 80, "weight": 1 }],
            },
            { "matches": any },
        ])
    );
    let text = r#"{"apiVersion":"gateway.networking.k8s.io/v1","kind":"HTTPRoute","metadata":{"name":"a","namespace":"shop"},"spec":{"parentRefs":[{"name":"edge"}]}}"#;
    let document = http(text).unwrap();
    assert_eq!(document.spec.rules, vec![HttpRule::default()]);
    let parent = &document.spec.parent_refs[0];
    assert_eq!((parent.group.as_str(), parent.kind.as_str()), ("gateway.networking.k8s.io", "Gateway"));
    assert!(!parent.is_service());
    let filters = json!([{ "filters": [
        { "type": "RequestRedirect", "requestRedirect": {} },
        { "type": "CORS", "cors": {} },
        { "type": "RequestMirror", "requestMirror": { "backendRef": { "name": "v2", "port": 80 }, "fraction": { "numerator": 5 } } },
    ] }]);
    let document = http(&route("HTTPRoute", &filters)).unwrap();
    let actions: Vec<HttpAction> =
        document.spec.rules[0].filters.iter().filter_map(HttpFilter::action).collect();
    let [HttpAction::Redirect(redirect), HttpAction::Cors(cors), HttpAction::Mirror(mirror)] = actions[..]
    else {
        panic!("{actions:?}")
    };
    assert_eq!((redirect.status_code.get(), cors.max_age), (302, 5));
    assert_eq!(mirror.share(), Fraction { numerator: 5, denominator: 100 });
}

#[test]
fn documents_of_a_cluster_lose_what_its_server_said() {
    let exported = json!({
        "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "HTTPRoute",
        "metadata": {
            "name": "split", "namespace": "shop", "labels": { "app": "shop" },
            "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "{}", "note": "kept" },
            "uid": "0b1", "resourceVersion": "12", "generation": 3, "creationTimestamp": null,
            "managedFields": [{ "manager": "kubectl", "fieldsV1": { "f:spec": {} } }], "selfLink": "/x",
            "finalizers": ["x"], "ownerReferences": [],
        },
        "spec": { "parentRefs": [{ "name": "edge" }] },
        "status": { "parents": [{ "controllerName": "example.com/x" }] },
    });
    let document = http(&exported.to_string()).unwrap();
    assert_eq!(
        written(&document),
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": { "name": "split", "namespace": "shop", "labels": { "app": "shop" }, "annotations": { "note": "kept" } },
            "spec": {
                "parentRefs": [{ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge" }],
                "rules": [{ "matches": [{ "path": { "type": "PathPrefix", "value": "/" } }] }],
            },
        })
    );
    let null = exported.to_string().replace(r#"{"app":"shop"}"#, "null");
    assert!(http(&null).unwrap().metadata.labels.is_empty());
}

/// Asserts that a rule of an HTTP route is refused in such words.
fn refused(rule: &Value, expected: &str) {
    let error = http(&route("HTTPRoute", &json!([rule]))).expect_err(expected);
    assert!(error.contains(expected), "{rule}: {error}");
}

/// Asserts that a filter of an HTTP route is refused in such words, of a rule and of a backend.
fn refused_filters(filters: &Value, expected: &str) {
    refused(&json!({ "filters": filters }), &format!("spec.rules[0].filters{expected}"));
    let backend = json!({ "backendRefs": [{ "name": "v1", "port": 80, "filters": filters }] });
    refused(&backend, &format!("spec.rules[0].backendRefs[0].filters{expected}"));
}

#[test]
fn matches_that_cannot_be_are_refused_by_name() {
    let path = |kind: &str, value: &str| json!({ "matches": [{ "path": { "type": kind, "value": value } }] });
    for (value, expected) in [
        ("v1", "spec.rules[0].matches[0].path.value: \"v1\" must begin with a slash"),
        ("", "must begin with a slash"),
        ("/a//b", "must not contain \"//\""),
        ("/a/./b", "must not contain \"/./\""),
        ("/a/../b", "must not contain \"/../\""),
        ("/a%2fb", "must not contain \"%2f\""),
        ("/a%2Fb", "must not contain \"%2F\""),
        ("/a#b", "must not contain \"#\""),
        ("/a/..", "must not end in a dot or two"),
        ("/a/.", "must not end in a dot or two"),
        ("/a b", "a character that paths do not have"),
        ("/a%zz", "a character that paths do not have"),
        (&format!("/{}", "a".repeat(1024)), "it has 1025 bytes; at most 1024"),
    ] {
        refused(&path("Exact", value), expected);
        refused(&path("PathPrefix", value), expected);
    }
    refused(&path("RegularExpression", "("), "matches[0].path.value: it is no regular expression");
    refused(&path("Regex", "/"), "unknown variant `Regex`");
    let headers = |headers: Value| json!({ "matches": [{ "headers": headers }] });
    refused(&headers(json!([{ "name": ":path", "value": "a" }])), "\":path\" is no name of a header");
    refused(
        &headers(json!([{ "name": "a", "value": "" }])),
        "matches[0].headers[0].value: it must not be empty",
    );
    let twice = json!([{ "name": "a", "value": "1" }, { "name": "a", "value": "2" }]);
    refused(
        &headers(twice.clone()),
        "headers[1].name: a is there already, as spec.rules[0].matches[0].headers[0]",
    );
    refused(&json!({ "matches": [{ "queryParams": twice }] }), "queryParams[1].name: a is there already");
    let bad = json!([{ "type": "RegularExpression", "name": "a", "value": "[" }]);
    refused(&headers(bad), "headers[0].value: it is no regular expression");
    refused(&json!({ "matches": [{ "method": "get" }] }), "unknown variant `get`");
    refused(&json!({ "matches": [{ "paths": {} }] }), "unknown field `paths`");
    refused(&json!({ "matches": vec![json!({}); 65] }), "spec.rules[0].matches: 65 are too many");
    let many: Vec<Value> = (0..17).map(|at| json!({ "name": format!("a{at}"), "value": "1" })).collect();
    refused(&headers(many.into()), "matches[0].headers: 17 are too many; at most 16");
}

#[test]
fn filters_that_cannot_be_are_refused_by_name() {
    let set = |name: &str| json!({ "type": "RequestHeaderModifier", "requestHeaderModifier": { "set": [{ "name": name, "value": "1" }] } });
    let rewrite = json!({ "type": "URLRewrite", "urlRewrite": { "hostname": "example.org" } });
    let redirect = |redirect: Value| json!({ "type": "RequestRedirect", "requestRedirect": redirect });
    refused_filters(&json!([set("a"), set("b")]), "[1].type: RequestHeaderModifier is there already");
    refused_filters(&json!([redirect(json!({})), rewrite.clone()]), "[1]: ");
    refused_filters(&json!([{ "type": "CORS" }]), "[0].cors: it is missing, and type CORS needs it");
    refused_filters(
        &json!([{ "type": "CORS", "cors": {}, "requestRedirect": {} }]),
        "[0].requestRedirect: it is for filters of type RequestRedirect, and this one's type is CORS",
    );
    refused_filters(
        &json!([{ "type": "ExtensionRef", "extensionRef": { "group": "example.com", "kind": "Mine", "name": "a" } }]),
        "[0].type: filters of type ExtensionRef are not supported",
    );
    refused_filters(
        &json!([{ "type": "ExternalAuth", "externalAuth": {} }]),
        "[0].type: filters of type ExternalAuth",
    );
    for name in ["Transfer-Encoding", "content-length", "CONNECTION", "Upgrade"] {
        refused_filters(&json!([set(name)]), "[0].requestHeaderModifier.set[0]: ");
    }
    refused_filters(
        &json!([set("Host")]),
        "[0].requestHeaderModifier.set[0]: Host is changed by a filter URLRewrite",
    );
    let modifier = json!({ "set": [{ "name": "a", "value": "1" }], "add": [{ "name": "b", "value": "1" }], "remove": ["A"] });
    refused_filters(
        &json!([{ "type": "ResponseHeaderModifier", "responseHeaderModifier": modifier }]),
        "[0].responseHeaderModifier.remove[0]: A is spec.rules[0]",
    );
}

#[test]
fn settings_of_filters_that_cannot_be_are_refused_by_name() {
    let redirect = |redirect: Value| json!({ "type": "RequestRedirect", "requestRedirect": redirect });
    let path = |path: Value| json!([redirect(json!({ "path": path }))]);
    let place = "[0].requestRedirect.path";
    refused(
        &json!({ "filters": path(json!({ "type": "ReplaceFullPath" })) }),
        &format!("filters{place}.replaceFullPath: it is missing"),
    );
    refused(
        &json!({ "filters": path(json!({ "type": "ReplaceFullPath", "replaceFullPath": "/", "replacePrefixMatch": "/" })) }),
        &format!("filters{place}.replacePrefixMatch: the type is ReplaceFullPath"),
    );
    let mirror = |mirror: Value| json!([{ "type": "RequestMirror", "requestMirror": mirror }]);
    let to = json!({ "name": "v2", "port": 80 });
    let place = "[0].requestMirror";
    refused_filters(
        &mirror(json!({ "backendRef": { "name": "v2" } })),
        &format!("{place}.backendRef.port: the port of"),
    );
    refused_filters(
        &mirror(json!({ "backendRef": to, "percent": 101 })),
        &format!("{place}.percent: 101 is more"),
    );
    let both = json!({ "backendRef": to, "percent": 1, "fraction": { "numerator": 1 } });
    refused_filters(&mirror(both), &format!("{place}.fraction: percent says the same"));
    let more = json!({ "backendRef": to, "fraction": { "numerator": 3, "denominator": 2 } });
    refused_filters(&mirror(more), &format!("{place}.fraction: 3/2 is no part"));
    let none = json!({ "backendRef": to, "fraction": { "numerator": 0, "denominator": 0 } });
    refused_filters(&mirror(none), &format!("{place}.fraction.denominator: it must be 1"));
    let cors = |cors: Value| json!([{ "type": "CORS", "cors": cors }]);
    refused_filters(
        &cors(json!({ "allowMethods": ["*", "GET"] })),
        "[0].cors.allowMethods[0]: `*` stands for all",
    );
    refused_filters(
        &cors(json!({ "allowHeaders": ["a", "a"] })),
        "[0].cors.allowHeaders[1]: a is there already",
    );
    refused_filters(&cors(json!({ "maxAge": 0 })), "[0].cors.maxAge: it must be 1");
    let too_many: Vec<Value> = (0..17).map(|_| mirror(json!({ "backendRef": to }))[0].clone()).collect();
    refused_filters(&too_many.into(), ": 17 are too many");
    refused(
        &json!({ "filters": cors(json!({ "allowOrigins": ["example.com"] })) }),
        "\"example.com\" is no origin",
    );
    refused(&json!({ "filters": path(json!({ "type": "Prefix" })) }), "unknown variant `Prefix`");
    refused(
        &json!({ "filters": [redirect(json!({ "statusCode": 300 }))] }),
        "300 is no status of a redirection",
    );
    refused(
        &json!({ "filters": [redirect(json!({ "hostname": "10.0.0.1" }))] }),
        "\"10.0.0.1\" is no host name",
    );
}

#[test]
fn rules_that_contradict_themselves_are_refused_by_name() {
    let backend = json!([{ "name": "v1", "port": 80 }]);
    let prefix = json!([{ "type": "URLRewrite", "urlRewrite": { "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "/" } } }]);
    let expected = "filters[0]: ReplacePrefixMatch needs a rule with exactly one match";
    for matches in [
        json!([{ "path": { "value": "/a" } }, { "path": { "value": "/b" } }]),
        json!([{ "path": { "type": "Exact", "value": "/a" } }]),
    ] {
        refused(&json!({ "matches": matches, "filters": prefix, "backendRefs": backend }), expected);
        let own = json!([{ "name": "v1", "port": 80, "filters": prefix }]);
        refused(&json!({ "matches": matches, "backendRefs": own }), expected);
    }
    let redirect = json!([{ "type": "RequestRedirect", "requestRedirect": {} }]);
    refused(
        &json!({ "filters": redirect, "backendRefs": backend }),
        "spec.rules[0].backendRefs: spec.rules[0].filters[0] redirects",
    );
    refused(
        &json!({ "backendRefs": [{ "name": "v1" }] }),
        "spec.rules[0].backendRefs[0].port: the port of Service v1",
    );
    refused(
        &json!({ "backendRefs": [{ "name": "v1", "port": 80, "weight": 1_000_001 }] }),
        "backendRefs[0].weight: 1000001",
    );
    refused(&json!({ "backendRefs": vec![&backend[0]; 17] }), "backendRefs: 17 are too many");
    refused(
        &json!({ "timeouts": { "request": "1s", "backendRequest": "2s" } }),
        "timeouts.backendRequest: 2s is longer than 1s",
    );
    refused(&json!({ "timeouts": { "request": "1" } }), "\"1\" is no time");
    refused(&json!({ "retry": { "codes": [200] } }), "200 is no status to try again after");
    refused(&json!({ "retry": { "codes": [500, 500] } }), "retry.codes[1]: 500 is there already");
    refused(
        &json!({ "sessionPersistence": { "cookieConfig": { "lifetimeType": "Permanent" } } }),
        "sessionPersistence.absoluteTimeout: it is missing",
    );
    refused(&json!({ "sessionPersistence": {} }), "sessionPersistence: sessions are not supported yet");
    refused(&json!({ "name": "Rule" }), "\"Rule\" is no name of a section");
    let names = json!([{ "name": "a" }, { "name": "a" }]);
    let error = http(&route("HTTPRoute", &names)).unwrap_err();
    assert!(error.contains("spec.rules[1].name: a is there already, as spec.rules[0]"), "{error}");
    let many = json!(vec![json!({ "matches": vec![json!({}); 43] }); 3]);
    let error = http(&route("HTTPRoute", &many)).unwrap_err();
    assert!(error.contains("spec.rules: they have 129 matches together"), "{error}");
    let error = http(&route("HTTPRoute", &json!([]))).unwrap_err();
    assert!(error.contains("spec.rules: at least one rule is needed"), "{error}");
    let error = http(&route("HTTPRoute", &json!(vec![json!({}); 17]))).unwrap_err();
    assert!(error.contains("spec.rules: 17 are too many"), "{error}");
}

#[test]
fn parents_of_one_object_need_parts_of_their_own() {
    let with = |parents: Value| {
        let text = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": { "name": "a", "namespace": "shop" }, "spec": { "parentRefs": parents },
        });
        http(&text.to_string())
    };
    let parent = |more: Value| {
        let mut parent = json!({ "name": "edge" });
        parent.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        parent
    };
    for good in [
        json!([parent(json!({ "port": 80 })), parent(json!({ "port": 81 }))]),
        json!([parent(json!({ "sectionName": "a" })), parent(json!({ "sectionName": "b" }))]),
        json!([parent(json!({})), parent(json!({ "namespace": "office" }))]),
        json!([parent(json!({})), parent(json!({ "group": "", "kind": "Service" }))]),
        json!([
            parent(json!({ "port": 80, "sectionName": "a" })),
            parent(json!({ "port": 80, "sectionName": "b" }))
        ]),
    ] {
        assert_eq!(with(good.clone()).err(), None, "{good}");
    }
    for (bad, expected) in [
        (json!([parent(json!({})), parent(json!({}))]), "spec.parentRefs[1]: edge is named twice"),
        (
            json!([parent(json!({})), parent(json!({ "port": 80 }))]),
            "spec.parentRefs[1]: edge is spec.parentRefs[0] too",
        ),
        (
            json!([parent(json!({ "port": 80 })), parent(json!({ "sectionName": "a" }))]),
            "edge is spec.parentRefs[0] too",
        ),
        (json!([parent(json!({ "port": 80 })), parent(json!({ "port": 80 }))]), "edge is named twice"),
        (json!(vec![parent(json!({})); 33]), "spec.parentRefs: 33 are too many"),
        (json!([parent(json!({ "port": 0 }))]), "port \"0\" is not a number from 1 to 65535"),
    ] {
        let error = with(bad.clone()).unwrap_err();
        assert!(error.contains(expected), "{bad}: {error}");
    }
}

#[test]
fn calls_are_matched_by_service_and_method() {
    let rule = |method: Value| route("GRPCRoute", &json!([{ "matches": [{ "method": method }] }]));
    for good in [
        json!({ "service": "shop.v1.Cart" }),
        json!({ "service": ".shop.Cart", "method": "Add" }),
        json!({ "method": "Add" }),
        json!({ "type": "RegularExpression", "service": "shop\\..*" }),
    ] {
        assert_eq!(grpc(&rule(good.clone())).err(), None, "{good}");
    }
    for (bad, expected) in [
        (json!({}), "spec.rules[0].matches[0].method: it needs a service or a method"),
        (json!({ "service": "", "method": "" }), "it needs a service or a method"),
        (json!({ "service": "shop/Cart" }), "method.service: \"shop/Cart\" is no name of a service"),
        (json!({ "method": "1st" }), "method.method: \"1st\" is no name of a method"),
        (json!({ "method": "a.b" }), "is no name of a method"),
        (json!({ "type": "RegularExpression", "method": "(" }), "method.method: it is no regular expression"),
        (json!({ "type": "Prefix", "method": "a" }), "unknown variant `Prefix`"),
    ] {
        let error = grpc(&rule(bad.clone())).unwrap_err();
        assert!(error.contains(expected), "{bad}: {error}");
    }
    for (filters, expected) in [
        (
            json!([{ "type": "ExtensionRef", "extensionRef": {} }]),
            "filters[0].type: filters of type ExtensionRef",
        ),
        (json!([{ "type": "URLRewrite" }]), "unknown variant `URLRewrite`"),
        (json!([{ "type": "RequestMirror" }]), "filters[0].requestMirror: it is missing"),
        (
            json!([{ "type": "RequestHeaderModifier", "requestMirror": { "backendRef": { "name": "a", "port": 1 } } }]),
            "[0].requestMirror: it is for",
        ),
    ] {
        let error = grpc(&route("GRPCRoute", &json!([{ "filters": filters }]))).unwrap_err();
        assert!(error.contains(expected), "{filters}: {error}");
    }
    assert_eq!(grpc(&route("GRPCRoute", &json!([]))).err(), None, "a route may have no rule");
}

#[test]
fn texts_have_their_forms() {
    for good in ["example.com", "*.example.com", "a", "1a.b"] {
        assert!(good.parse::<Hostname>().is_ok(), "{good}");
    }
    for bad in [
        "",
        "*",
        "*.",
        "*example.com",
        "a.*.com",
        "Example.com",
        "10.0.0.1",
        "a..b",
        "a.",
        "-a",
        "a_b",
        "a:80",
    ] {
        assert!(bad.parse::<Hostname>().is_err(), "{bad}");
    }
    assert_eq!("*.example.com".parse::<Hostname>().unwrap().wildcard(), Some(".example.com"));
    for good in ["*", "http://a", "https://*.example.com:8443", "https://*", "http://*:80"] {
        assert!(good.parse::<CorsOrigin>().is_ok(), "{good}");
    }
    for bad in [
        "",
        "**",
        "a",
        "ftp://a",
        "http://",
        "http://a:0",
        "http://a:x",
        "http://a:70000",
        "http://a/b",
        "http://a*b",
    ] {
        assert!(bad.parse::<CorsOrigin>().is_err(), "{bad}");
    }
    for bad in ["", " a", "a ", "a\r\nb: c", "a\0", "ä", "\t"] {
        assert!(bad.parse::<HeaderValue>().is_err(), "{bad:?}");
    }
    assert!("a; b=c,  d".parse::<HeaderValue>().is_ok());
    assert!("x-A".parse::<HeaderName>().unwrap().is(&"X-a".parse().unwrap()));
}

/// Any rule that its check accepts.
fn rules() -> impl Strategy<Value = Value> {
    let condition = ("(/[a-z]{1,4}){1,3}", prop::bool::ANY, prop::option::of("[A-Za-z-]{1,8}"), 0_usize..3)
        .prop_map(|(path, exact, header, method)| {
            let kind = if exact { "Exact" } else { "PathPrefix" };
            let mut condition = json!({ "path": { "type": kind, "value": path } });
            if let Some(name) = header {
                condition["headers"] = json!([{ "type": "Exact", "name": name, "value": "1" }]);
            }
            if let Some(method) = ["GET", "POST"].get(method) {
                condition["method"] = json!(method);
            }
            condition
        });
    let backend = ("[a-z]{1,8}", 1_u16.., 0_u32..=1_000_000)
        .prop_map(|(name, port, weight)| json!({ "group": "", "kind": "Service", "name": name, "port": port, "weight": weight }));
    let rule = (
        prop::collection::vec(condition, 1..4),
        prop::collection::vec(backend, 1..4),
        prop::option::of(1_u32..9),
    )
        .prop_map(|(matches, backends, seconds)| {
            let mut rule = json!({ "matches": matches, "backendRefs": backends });
            if let Some(seconds) = seconds {
                rule["timeouts"] = json!({ "request": format!("{seconds}s") });
                rule["retry"] = json!({ "codes": [503], "attempts": seconds });
            }
            rule
        });
    prop::collection::vec(rule, 1..5).prop_map(Value::from)
}

proptest! {
    #[test]
    fn routes_are_written_as_they_were_read(rules in rules()) {
        let document = http(&route("HTTPRoute", &rules)).unwrap();
        prop_assert_eq!(&written(&document)["spec"]["rules"], &rules);
        let again = http(&written(&document).to_string()).unwrap();
        prop_assert_eq!(again, document);
    }
}
