//! Routes of the Gateway API as sidecars act by them: real clients, and backends on two hosts.

use std::path::Path;
use std::time::{Duration, Instant};

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, Running, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Debian's, which has Debian's modules.
const PYTHON: &str = "/usr/bin/python3";

fn program(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
    folder.join(name).to_str().unwrap().to_owned()
}

/// A mesh of two hosts: `api` and `v1` on the first, `v2` and the client `web` on the second.
struct Shop {
    mesh: Mesh,
    folder: TempDir,
    _running: Vec<Running>,
}

/// An answer as curl shows it.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Shop {
    /// Services on this port, each an instance of this program.
    fn serving(port: &str, server: &str) -> Self {
        let mesh = Mesh::shop(2);
        let number = port.split('/').next().unwrap();
        let serve = |host: usize, service: &str| {
            let flags = ["--network", "shop", "--service", service, "--port", port, "--name", service];
            let mut server = mesh.site(host).run(&flags, &[PYTHON, &program(server), number, service]);
            server.wait_for("listening");
            server
        };
        let mut running = vec![serve(1, "api"), serve(1, "v1"), serve(2, "v2")];
        ["api", "v1", "v2"].iter().for_each(|service| mesh.await_instances(service, 1));
        let flags = ["--network", "shop", "--name", "web"];
        let mut client = mesh.site(2).run(&flags, &["sh", "-c", "echo ready; exec sleep 600"]);
        client.wait_for("ready");
        running.push(client);
        Self { mesh, folder: TempDir::new().unwrap(), _running: running }
    }

    /// Applies a route to `api` with these rules, and waits until hosts work by it.
    fn apply(&self, kind: &str, rules: &Value) {
        let document = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": { "name": "api", "namespace": "shop" },
            "spec": { "parentRefs": [{ "group": "", "kind": "Service", "name": "api" }], "rules": rules },
        });
        let path = self.folder.path().join("route.json");
        std::fs::write(&path, document.to_string()).unwrap();
        let _ = self.mesh.sealane(&["apply", "-f", path.to_str().unwrap(), "--wait"]).ok();
    }

    /// Asks `http://api:8080` from the client, with these words for curl behind the path.
    fn ask(&self, path: &str, words: &[&str]) -> Answer {
        let url = format!("http://api:8080{path}");
        let curl = [&["curl", "-sS", "-i", "--max-time", "20", &url], words].concat();
        let said = self.mesh.site(2).exec("web", &curl).ok().stdout;
        let (head, body) = said.split_once("\r\n\r\n").unwrap_or((&said, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Answer { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    /// The name of the backend that answers, and the path that it was asked for.
    fn seen(&self, path: &str, words: &[&str]) -> (String, String) {
        let said = self.ask(path, words).json();
        let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
        (text("name"), text("path"))
    }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{}\n{}", self.head, self.body))
    }

    /// The value of a field of the answer.
    fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// The value of a field that a backend has seen.
fn header<'a>(said: &'a Value, name: &str) -> Option<&'a str> {
    let headers = said["headers"].as_array().unwrap();
    headers.iter().find(|field| field[0] == name).and_then(|field| field[1].as_str())
}

fn to(service: &str) -> Value {
    json!([{ "name": service, "port": 8080 }])
}

fn pair(one: &str, other: &str) -> (String, String) {
    (one.to_owned(), other.to_owned())
}

#[test]
fn requests_go_by_path_header_query_and_method_and_are_split_by_weight() {
    if !isolated() {
        return;
    }
    let shop = Shop::serving("8080/http", "echo_backend.py");
    assert_eq!(shop.seen("/one", &[]).0, "api", "no route is there");
    shop.apply("HTTPRoute", &json!([
        { "matches": [{ "path": { "value": "/one" } }], "backendRefs": to("v1") },
        { "matches": [{ "path": { "type": "Exact", "value": "/one/two" } }], "backendRefs": to("v2") },
        { "matches": [{ "headers": [{ "name": "Version", "value": "two" }] }], "backendRefs": to("v2") },
        { "matches": [{ "queryParams": [{ "name": "to", "value": "v2" }] }, { "method": "PUT" }], "backendRefs": to("v2") },
        { "matches": [{ "path": { "type": "RegularExpression", "value": "/r[0-9]+" } }], "backendRefs": to("v2") },
        { "matches": [{ "path": { "value": "/split" } }], "backendRefs": [
            { "name": "v1", "port": 8080, "weight": 3 }, { "name": "v2", "port": 8080, "weight": 1 }, { "name": "api", "port": 8080, "weight": 0 },
        ] },
        { "matches": [{ "path": { "value": "/half" } }], "backendRefs": [{ "name": "v1", "port": 8080 }, { "name": "nobody", "port": 8080 }] },
        { "matches": [{ "path": { "value": "/gone" } }], "backendRefs": to("nobody") },
        { "matches": [{ "path": { "value": "/own" } }], "backendRefs": to("api") },
    ]));
    for (path, words, expected) in [
        ("/one", &[][..], "v1"),
        ("/one/more?x=y", &[], "v1"),
        ("/one/two", &[], "v2"),
        ("/one", &["-H", "version: two"], "v1"),
        ("/own", &[], "api"),
        ("/other", &["-H", "VERSION: two"], "v2"),
        ("/other?to=v2", &[], "v2"),
        ("/other", &["-X", "PUT"], "v2"),
        ("/r17", &[], "v2"),
        ("/own/../%6fne/./a", &["--path-as-is"], "v1"),
    ] {
        assert_eq!(shop.seen(path, words), pair(expected, path), "{words:?}");
    }
    for (path, status) in [("/other", 404), ("/oneself", 404), ("/r17/x", 404), ("/gone", 500)] {
        assert_eq!(shop.ask(path, &[]).status, status, "{path}");
    }
    let many: Vec<String> = (0..200).map(|n| format!("http://api:8080/split/{n}")).collect();
    let urls: Vec<&str> = many.iter().map(String::as_str).collect();
    let said =
        shop.mesh.site(2).exec("web", &[&["curl", "-sS", "-w", "\n"], urls.as_slice()].concat()).ok().stdout;
    let by = |name: &str| said.matches(&format!("\"name\": \"{name}\"")).count();
    assert!(
        (115..=185).contains(&by("v1")) && by("v1") + by("v2") == 200,
        "{} of v1, {} of v2",
        by("v1"),
        by("v2")
    );
    let statuses: Vec<u16> = (0..40).map(|_| shop.ask("/half", &[]).status).collect();
    let failed = statuses.iter().filter(|status| **status == 500).count();
    assert!((5..=35).contains(&failed), "{statuses:?}");
    let counted = |class: &str| {
        let labels = [("route", "shop/api"), ("code_class", class)];
        shop.mesh.site(2).metrics().sum("sealane_route_requests_total", &labels)
    };
    eventually(PATIENCE, "requests are counted by their route", || (counted("2xx") >= 210.0).then_some(()));
    // The calls of others are as before once the route is gone.
    let _ = shop.mesh.sealane(&["delete", "httproute", "api", "--network", "shop"]).ok();
    eventually(PATIENCE, "calls go to the service again", || {
        (shop.seen("/one", &[]).0 == "api").then_some(())
    });
}

#[test]
fn filters_change_requests_and_answers() {
    if !isolated() {
        return;
    }
    let shop = Shop::serving("8080/http", "echo_backend.py");
    let rule = |path: &str, filters: Value| json!({ "matches": [{ "path": { "value": path } }], "filters": filters, "backendRefs": to("v1") });
    let edits = json!({ "set": [{ "name": "X-Set", "value": "new" }], "add": [{ "name": "X-Add", "value": "2" }], "remove": ["X-Gone"] });
    let redirect = json!([{ "type": "RequestRedirect", "requestRedirect": {
        "scheme": "https", "hostname": "b.org", "statusCode": 308, "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "/new" },
    } }]);
    let cors = json!([{ "type": "CORS", "cors": {
        "allowOrigins": ["https://*.org"], "allowMethods": ["PUT"], "allowHeaders": ["x-1"], "exposeHeaders": ["x-backend"], "allowCredentials": true,
    } }]);
    let backend = json!([{ "type": "RequestHeaderModifier", "requestHeaderModifier": { "set": [{ "name": "X-Its", "value": "v2" }] } }]);
    shop.apply("HTTPRoute", &json!([
        rule("/fields", json!([
            { "type": "RequestHeaderModifier", "requestHeaderModifier": edits },
            { "type": "ResponseHeaderModifier", "responseHeaderModifier": { "set": [{ "name": "X-Backend", "value": "hidden" }] } },
        ])),
        rule("/path", json!([{ "type": "URLRewrite", "urlRewrite": {
            "hostname": "new.org", "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "/to" },
        } }])),
        { "matches": [{ "path": { "value": "/away" } }], "filters": redirect },
        rule("/browser", cors),
        rule("/mirror", json!([{ "type": "RequestMirror", "requestMirror": { "backendRef": { "name": "v2", "port": 8080 } } }])),
        { "matches": [{ "path": { "value": "/its" } }], "backendRefs": [{ "name": "v2", "port": 8080, "filters": backend }] },
        { "matches": [{ "path": { "value": "/log" } }], "backendRefs": to("v2") },
    ]));
    let answer =
        shop.ask("/fields", &["-H", "x-set: old", "-H", "X-Gone: 1", "-H", "X-Add: 1", "-d", "body"]);
    let said = answer.json();
    let seen = ["X-Set", "X-Add", "X-Gone", "Host"].map(|name| header(&said, name));
    assert_eq!(seen, [Some("new"), Some("1"), None, Some("api:8080")], "{said}");
    assert_eq!((&said["body"], answer.field("x-backend")), (&json!("body"), Some("hidden")));
    let said = shop.ask("/path/a?b=c", &[]).json();
    assert_eq!((&said["path"], header(&said, "Host")), (&json!("/to/a?b=c"), Some("new.org")));
    let answer = shop.ask("/away/a?b=c", &[]);
    assert_eq!((answer.status, answer.field("location")), (308, Some("https://b.org/new/a?b=c")));
    assert_eq!(header(&shop.ask("/its", &[]).json(), "X-Its"), Some("v2"));
    let origin = ["-H", "Origin: https://a.org"];
    let asks = ["-X", "OPTIONS", "-H", "Access-Control-Request-Method: PUT"];
    let preflight = shop.ask("/browser", &[&origin[..], &asks].concat());
    assert_eq!(
        (preflight.status, preflight.field("access-control-allow-origin")),
        (204, Some("https://a.org"))
    );
    assert_eq!(preflight.field("access-control-allow-methods"), Some("put"));
    let answer = shop.ask("/browser", &origin);
    assert_eq!((answer.status, answer.field("access-control-allow-origin")), (200, Some("https://a.org")));
    assert_eq!(
        shop.ask("/browser", &["-H", "Origin: https://a.com"]).field("access-control-allow-origin"),
        None
    );
    assert_eq!(shop.ask("/mirror/x", &["-d", "copied"]).json()["name"], "v1");
    let copied = |log: &Value| {
        let log = log.as_array().unwrap();
        log.iter().any(|said| said["path"] == "/mirror/x" && said["body"] == "copied")
    };
    eventually(PATIENCE, "the mirror has its copy", || copied(&shop.ask("/log", &[]).json()).then_some(()));
}

#[test]
fn a_route_sets_limits_of_time_and_asks_again() {
    if !isolated() {
        return;
    }
    let shop = Shop::serving("8080/http", "echo_backend.py");
    let timed = |path: &str, timeouts: Value, retry: Value| json!({ "matches": [{ "path": { "value": path } }], "backendRefs": to("v1"), "timeouts": timeouts, "retry": retry });
    shop.apply(
        "HTTPRoute",
        &json!([
            timed("/timed", json!({ "request": "500ms" }), json!({ "attempts": 0 })),
            timed("/again", json!({}), json!({ "codes": [503], "attempts": 2, "backoff": "100ms" })),
            { "backendRefs": to("v1") },
        ]),
    );
    let began = Instant::now();
    assert_eq!(shop.ask("/timed?delay=5", &[]).status, 504);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(shop.ask("/timed", &[]).status, 200);
    assert_eq!(shop.ask("/again?key=a&fails=2", &["-d", "body"]).status, 200);
    assert_eq!(shop.ask("/again?key=b&fails=3", &[]).status, 503);
    assert_eq!(shop.ask("/never?key=c&fails=1", &[]).status, 503);
    let again = |log: &Value, key: &str| {
        let paths = log.as_array().unwrap().iter().filter_map(|said| said["path"].as_str());
        paths.filter(|path| path.contains(&format!("key={key}"))).count()
    };
    let log = shop.ask("/log", &[]).json();
    assert_eq!(["a", "b", "c"].map(|key| again(&log, key)), [3, 3, 1], "{log}");
}

#[test]
fn calls_of_grpc_go_by_service_and_method() {
    if !isolated() {
        return;
    }
    let shop = Shop::serving("5000/grpc", "grpc_server.py");
    let to = |service: &str| json!([{ "name": service, "port": 5000 }]);
    let all = |service: &str| json!([{ "backendRefs": to(service) }]);
    shop.apply("GRPCRoute", &all("v1"));
    let call = || {
        let command = [PYTHON, &program("grpc_client.py"), "api:5000", "20"];
        shop.mesh.site(2).exec("web", &command)
    };
    let said = call().json();
    assert_eq!((&said["by"], &said["count"]), (&json!({ "v1": 20 }), &json!(1000)));
    shop.apply("GRPCRoute", &json!([
        { "matches": [{ "method": { "service": "shop.Test", "method": "Who" } }], "backendRefs": to("v2") },
        { "matches": [{ "method": { "service": "shop.Test" } }], "backendRefs": to("v1") },
    ]));
    assert_eq!(call().json()["by"], json!({ "v2": 20 }));
    shop.apply(
        "GRPCRoute",
        &json!([{ "matches": [{ "method": { "service": "shop.Other" } }], "backendRefs": to("v1") }]),
    );
    let refused = call();
    assert!(refused.stderr.contains("UNIMPLEMENTED"), "{refused}");
    assert!(refused.stderr.contains("no rule of the routes of api"), "{refused}");
    shop.apply("GRPCRoute", &all("nobody"));
    let refused = call();
    assert!(
        refused.stderr.contains("UNAVAILABLE") && refused.stderr.contains("which is not there"),
        "{refused}"
    );
}
