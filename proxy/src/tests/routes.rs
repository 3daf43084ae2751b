//! Routes of HTTP through sidecars, for clients of HTTP/1.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use sealane_base::task::Task;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::mesh::{Mesh, Sidecar, answer_with, read_until, within};
use crate::route::Attached;
use crate::rules::{
    FieldEdits, Filters, Limits, Matching, Mirror, NewPath, PathMatch, Redirect, Retry, Rewrite, Route,
    RouteRule, ServiceAt, Target, ValueMatch,
};

/// A backend of all requests to a rule.
pub(super) fn to(service: &str) -> Vec<Target> {
    vec![Target { service: Some(at(service)), weight: 1, filters: Filters::default() }]
}

pub(super) fn at(service: &str) -> ServiceAt {
    ServiceAt { name: service.parse().unwrap(), port: "8080".parse().unwrap() }
}

pub(super) fn path(prefix: &str) -> Vec<Matching> {
    vec![Matching { path: PathMatch::Prefix(prefix.to_owned()), ..Matching::default() }]
}

/// Attaches one route with these rules to `api`.
pub(super) async fn route(client: &mut Sidecar, rules: Vec<RouteRule>) {
    let route = Route { name: "shop/api".to_owned(), created: SystemTime::UNIX_EPOCH, rules };
    client.core.attach("api", vec![Attached { port: None, section: None, route: Arc::new(route) }]).await;
}

/// A client and services `v1` and `v2` beside `api`, all of which answer with their name and what they were asked.
struct Scene {
    mesh: Mesh,
    client: Sidecar,
    _servers: [Sidecar; 3],
    _applications: Vec<Task>,
}

impl Scene {
    async fn new(rules: Vec<RouteRule>) -> Self {
        let mesh = Mesh::new("8080", 3).serving(1, "v1").serving(2, "v2");
        let mut client = mesh.client().await;
        let servers = [mesh.instance(0).await, mesh.instance(1).await, mesh.instance(2).await];
        let mut applications = Vec::new();
        for (n, name) in ["api", "v1", "v2"].into_iter().enumerate() {
            applications.push(mesh.application(n, move |stream| echo(stream, name)).await);
        }
        route(&mut client, rules).await;
        Self { mesh, client, _servers: servers, _applications: applications }
    }

    /// The answer to a request with this first line and fields, `\n` for an end of line.
    async fn ask(&self, request: &str) -> String {
        self.client.ask(&format!("{}\r\n\r\n", request.replace('\n', "\r\n"))).await.unwrap()
    }
}

/// Answers each request with a name, the request's head and its body.
async fn echo(mut stream: TcpStream, name: &'static str) {
    loop {
        let head = read_until(&mut stream, "\r\n\r\n").await;
        if !head.ends_with("\r\n\r\n") {
            return;
        }
        let length =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let text = format!("{name}\n{head}{}", String::from_utf8_lossy(&body));
        let answer =
            format!("HTTP/1.1 200 OK\r\nX-From: {name}\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[tokio::test]
async fn a_request_goes_where_its_rule_leads_and_all_else_is_as_without_routes() {
    let header = vec![Matching {
        fields: vec![("Version".to_owned(), ValueMatch::Exact("two".to_owned()))],
        ..Matching::default()
    }];
    let scene = Scene::new(vec![
        RouteRule { matches: path("/one"), targets: to("v1"), ..RouteRule::default() },
        RouteRule { matches: header, targets: to("v2"), ..RouteRule::default() },
        RouteRule { matches: path("/own"), targets: to("api"), ..RouteRule::default() },
        RouteRule { matches: path("/gone"), targets: to("nobody"), ..RouteRule::default() },
        RouteRule { matches: path("/none"), ..RouteRule::default() },
    ])
    .await;
    for (request, expected) in [
        ("GET /one/x?y=%20 HTTP/1.1\nhOst:  whatever \nX-Odd:a", "v1"),
        ("GET /two HTTP/1.1\nversion: two", "v2"),
        ("GET /own HTTP/1.1\nHost: api", "api"),
    ] {
        let answer = scene.ask(request).await;
        let expected = format!("{expected}\n{}\r\n\r\n", request.replace('\n', "\r\n"));
        assert_eq!(body(&answer), expected);
    }
    for (request, status, words) in [
        ("GET /other HTTP/1.1\nHost: a", "404 Not Found", "no rule of the routes of api is for this request"),
        (
            "GET /gone HTTP/1.1\nHost: a",
            "500 Internal",
            "route shop/api leads to port 8080 of nobody, which is not there",
        ),
        ("GET /none HTTP/1.1\nHost: a", "500 Internal", "the rule of the route has no backend"),
    ] {
        let answer = scene.ask(request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(words), "{answer}");
    }
    // What is asked on one connection goes different ways.
    let both = scene.ask("GET /one HTTP/1.1\nHost: a\n\nGET /own HTTP/1.1\nHost: a").await;
    assert!(both.contains("X-From: v1") && both.contains("X-From: api"), "{both}");
    let count = |class| {
        scene.client.metric("sealane_route_requests_total", &[("route", "shop/api"), ("code_class", class)])
    };
    assert_eq!((count("2xx"), count("5xx")), (5.0, 1.0));
    assert_eq!(scene.client.metric("sealane_requests_total", &[("destination_service", "v1")]), 2.0);
    let mut scene = scene;
    scene.client.core.attach("api", Vec::new()).await;
    assert!(scene.ask("GET /one HTTP/1.1\nHost: a").await.contains("X-From: api"));
    assert_eq!(scene.client.metric("sealane_route_requests_total", &[]), 0.0);
    scene.mesh.set_ready(&mut scene.client, &[0, 1, 2]).await;
}

#[tokio::test]
async fn what_is_no_http_gets_past_no_rule_at_a_port_of_no_declared_protocol() {
    let rules = vec![RouteRule { matches: path("/open"), targets: to("v1"), ..RouteRule::default() }];
    let scene = Scene::new(rules).await;
    let method = format!("{} /closed HTTP/1.1\nHost: a", "M".repeat(40));
    for odd in [
        "GET /closed\u{7f} HTTP/1.1\nHost: a",
        "GET  /closed HTTP/1.1\nHost: a",
        "get /closed",
        "GET /open#/../closed HTTP/1.1\nHost: a",
        "GET open HTTP/1.1\nHost: a",
        "GET http:/open HTTP/1.1\nHost: a",
        " GET /closed HTTP/1.1\nHost: a",
        "GET /closed http/1.1\nHost: a",
        "GET /\u{7f} HTTP/1.1\nHost: a\n\nGET /closed HTTP/1.1\nHost: a",
        &method,
    ] {
        let answer = scene.ask(odd).await;
        assert!(!answer.contains("X-From"), "{odd:?}: {answer}");
    }
    // Nor what is late: the rest of the first line comes when nobody would wait for it.
    let mut stream = TcpStream::connect(scene.client.outbound()).await.unwrap();
    stream.write_all(b"G").await.unwrap();
    tokio::time::sleep(crate::detect::PATIENCE + Duration::from_millis(200)).await;
    // The sidecar may have answered and ended it already.
    let _ = stream.write_all(b"ET /closed HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = within(stream.read_to_end(&mut answer)).await;
    assert!(!String::from_utf8_lossy(&answer).contains("X-From"), "{answer:?}");
}

#[tokio::test]
async fn filters_change_what_they_say_and_nothing_else() {
    let filters = Filters {
        request: FieldEdits::new(&[("X-Set", "new")], &[("X-Add", "2")], &["x-gone"]),
        response: FieldEdits::new(&[("X-From", "rule")], &[], &[]),
        rewrite: Some(Rewrite {
            host: Some("new.org".to_owned()),
            path: Some(NewPath::Prefix("/to".to_owned())),
        }),
        ..Filters::default()
    };
    let redirect =
        Redirect { scheme: None, host: Some("b.org".to_owned()), port: None, path: None, status: 301 };
    let away = Filters { redirect: Some(redirect), ..Filters::default() };
    let scene = Scene::new(vec![
        RouteRule { matches: path("/from"), filters, targets: to("v1"), ..RouteRule::default() },
        RouteRule { matches: path("/away"), filters: away, ..RouteRule::default() },
    ])
    .await;
    let request = "POST /from/a?b HTTP/1.1\nHost: api\nx-SET: old\nX-Add: 1\nX-GONE: 3\nOther:  kept \nContent-Length: 4\n\nbody";
    let answer = scene.client.ask(&request.replace('\n', "\r\n")).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\nX-From: rule\r\nContent-Length: "), "{answer}");
    let expected = "v1\nPOST /to/a?b HTTP/1.1\r\nHost: new.org\r\nX-Set: new\r\nX-Add: 1\r\nOther:  kept \r\nContent-Length: 4\r\n\
        X-Add: 2\r\n\r\nbody";
    assert_eq!(body(&answer), expected);
    let answer = scene.ask("GET /away/x?y HTTP/1.1\nHost: api:99").await;
    let expected = "HTTP/1.1 301 Moved Permanently\r\nserver: sealane\r\nLocation: http://b.org:8080/away/x?y\r\n\
        content-length: 0\r\n\r\n";
    assert_eq!(answer, expected);
}

/// Answers with a status of a list, one after another, and counts requests; behind its end the connection is reset for each.
async fn fickle(mut stream: TcpStream, statuses: &'static [u16], asked: Arc<AtomicUsize>) {
    loop {
        let head = read_until(&mut stream, "\r\n\r\n").await;
        if !head.ends_with("\r\n\r\n") {
            return;
        }
        let Some(status) = statuses.get(asked.fetch_add(1, Ordering::Relaxed)) else {
            return stream.set_zero_linger().unwrap();
        };
        let answer = format!("HTTP/1.1 {status} Odd\r\nContent-Length: 2\r\n\r\nok");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Checks the status that comes of an application with these statuses, and how often it was asked.
async fn check_retries(retry: Retry, request: &str, statuses: &'static [u16], expected: (&str, usize)) {
    let mesh = Mesh::new("8080", 1);
    let (mut client, _server) = (mesh.client().await, mesh.instance(0).await);
    let asked = Arc::<AtomicUsize>::default();
    let counted = asked.clone();
    let _application = mesh.application(0, move |stream| fickle(stream, statuses, counted.clone())).await;
    let rule = RouteRule { targets: to("api"), retry: Some(retry.clone()), ..RouteRule::default() };
    route(&mut client, vec![rule]).await;
    let answer = client.ask(&format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n")).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap_or_default();
    assert_eq!((status, asked.load(Ordering::Relaxed)), expected, "{retry:?} {request} {statuses:?}");
}

#[tokio::test]
async fn an_answer_is_asked_for_again_as_often_as_the_rule_says() {
    let retry = |codes: &[u16], attempts| Retry { codes: codes.to_vec(), attempts, backoff: None };
    for (retry, request, statuses, expected) in [
        (retry(&[500, 503], Some(2)), "GET /", &[500, 503, 200][..], ("200", 3)),
        (retry(&[500], Some(2)), "POST /", &[500, 500, 200], ("200", 3)),
        (retry(&[500], Some(1)), "GET /", &[500, 500, 200], ("500", 2)),
        (retry(&[500], Some(0)), "GET /", &[500, 200], ("500", 1)),
        (retry(&[503], Some(2)), "GET /", &[500, 200], ("500", 1)),
        (retry(&[500], None), "GET /", &[500, 500, 500, 200], ("200", 4)),
        (retry(&[], Some(2)), "GET /", &[], ("502", 3)),
        (retry(&[], Some(2)), "POST /", &[], ("502", 1)),
        (retry(&[], Some(0)), "GET /", &[], ("502", 1)),
    ] {
        check_retries(retry, request, statuses, expected).await;
    }
}

#[tokio::test]
async fn a_pause_lies_between_attempts() {
    let backoff = Some(Duration::from_millis(60));
    let began = Instant::now();
    let retry = Retry { codes: vec![500], attempts: Some(2), backoff };
    check_retries(retry, "GET /", &[500, 500, 200], ("200", 3)).await;
    assert!(began.elapsed() >= Duration::from_millis(180), "{:?}", began.elapsed());
}

#[tokio::test]
async fn what_takes_too_long_is_answered_in_its_place() {
    let limits = |request, attempt| Limits {
        request: Some(request).filter(|limit| *limit > 0).map(Duration::from_millis),
        attempt: Some(attempt).filter(|limit| *limit > 0).map(Duration::from_millis),
    };
    let again = Some(Retry { codes: Vec::new(), attempts: Some(2), backoff: None });
    for (limits, retry, expected) in [
        (limits(150, 0), None, 1.0),
        (limits(0, 100), None, 1.0),
        (limits(0, 100), again.clone(), 3.0),
        (limits(1000, 400), again, 3.0),
    ] {
        let mesh = Mesh::new("8080", 1);
        let (mut client, _server) = (mesh.client().await, mesh.instance(0).await);
        let serve = |mut stream: TcpStream| async move {
            read_until(&mut stream, "\r\n\r\n").await;
            let _ = stream.read(&mut [0]).await;
        };
        let _application = mesh.application(0, serve).await;
        let rule = RouteRule { targets: to("api"), limits, retry, ..RouteRule::default() };
        route(&mut client, vec![rule]).await;
        let began = Instant::now();
        let answer = client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 504") && answer.contains("in the time that the route allows"),
            "{answer}"
        );
        let tried = client.metric("sealane_endpoint_failures_total", &[("reason", "timeout")]);
        assert_eq!(tried, expected, "{limits:?}");
        assert!(began.elapsed() >= Duration::from_millis(100), "{limits:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_over_in_time_breaks_off() {
    let mesh = Mesh::new("8080", 1);
    let (mut client, _server) = (mesh.client().await, mesh.instance(0).await);
    let serve = |mut stream: TcpStream| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nha").await.unwrap();
        let _ = stream.read(&mut [0]).await;
    };
    let _application = mesh.application(0, serve).await;
    let limits = Limits { request: Some(Duration::from_millis(200)), attempt: None };
    route(&mut client, vec![RouteRule { targets: to("api"), limits, ..RouteRule::default() }]).await;
    let mut stream = client.call().await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert!(read_until(&mut stream, "ha").await.ends_with("ha"));
    assert!(within(stream.read(&mut [0])).await.is_err(), "the client sees that something is missing");
}

/// Tells each request's head and body, whose length is said, and answers it.
async fn tell(mut stream: TcpStream, heard: UnboundedSender<String>) {
    loop {
        let head = read_until(&mut stream, "\r\n\r\n").await;
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        if !head.ends_with("\r\n\r\n") || stream.read_exact(&mut body).await.is_err() {
            return;
        }
        heard.send(head + &String::from_utf8(body).unwrap()).unwrap();
        if stream.write_all(b"HTTP/1.1 500 Ignored\r\nContent-Length: 2\r\n\r\nno").await.is_err() {
            return;
        }
    }
}

async fn heard(heard: &mut UnboundedReceiver<String>) -> String {
    within(heard.recv()).await.unwrap()
}

#[tokio::test]
async fn mirrors_get_what_the_backend_gets_and_their_answers_are_not_heard() {
    let mesh = Mesh::new("8080", 3).serving(1, "v1").serving(2, "v2").bare(2);
    let mut client = mesh.client().await;
    let _servers = (mesh.instance(0).await, mesh.instance(1).await);
    let (first, mut one) = unbounded_channel();
    let (second, mut two) = unbounded_channel();
    let _applications = (
        mesh.application(0, |stream| echo(stream, "api")).await,
        mesh.application(1, move |stream| tell(stream, first.clone())).await,
        mesh.application(2, move |stream| tell(stream, second.clone())).await,
    );
    let mirror = |service: &str, share| Mirror { service: Some(at(service)), share };
    let filters = Filters {
        request: FieldEdits::new(&[("X-Rule", "1")], &[], &[]),
        mirrors: vec![
            mirror("v1", (1, 1)),
            mirror("v2", (100, 100)),
            mirror("nobody", (1, 1)),
            mirror("v1", (0, 100)),
        ],
        ..Filters::default()
    };
    let its = Filters { request: FieldEdits::new(&[("X-Its", "1")], &[], &[]), ..Filters::default() };
    let targets = vec![Target { filters: its, ..to("api").remove(0) }];
    route(&mut client, vec![RouteRule { filters, targets, ..RouteRule::default() }]).await;
    let mut stream = client.call().await;
    let head = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n";
    stream.write_all(format!("{head}\r\nall ").as_bytes()).await.unwrap();
    // The head and a part of the body are on their way before the rest is there.
    stream.write_all(b"of it").await.unwrap();
    let copied = format!("{head}X-Rule: 1\r\n\r\nall of it");
    assert_eq!((heard(&mut one).await, heard(&mut two).await), (copied.clone(), copied));
    let answer = read_until(&mut stream, "all of it").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\nX-From: api\r\n"), "{answer}");
    assert!(answer.ends_with(&format!("{head}X-Rule: 1\r\nX-Its: 1\r\n\r\nall of it")), "{answer}");
    let copies = |outcome| client.metric("sealane_request_copies_total", &[("outcome", outcome)]);
    let all_sent = async {
        while copies("sent") < 2.0 {
            tokio::task::yield_now().await;
        }
    };
    within(all_sent).await;
    assert_eq!(copies("failed"), 1.0);
}

#[tokio::test]
async fn a_mirror_that_reads_nothing_holds_up_nobody() {
    let mesh = Mesh::new("8080", 2).serving(1, "v1").bare(1);
    let (mut client, _server) = (mesh.client().await, mesh.instance(0).await);
    let _applications = (
        mesh.application(0, |stream| echo(stream, "api")).await,
        mesh.application(1, |stream| async move {
            let _open = stream;
            std::future::pending().await
        })
        .await,
    );
    let mirrors = vec![Mirror { service: Some(at("v1")), share: (1, 1) }];
    let filters = Filters { mirrors, ..Filters::default() };
    route(&mut client, vec![RouteRule { filters, targets: to("api"), ..RouteRule::default() }]).await;
    let long = "x".repeat(16 << 20);
    let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{long}", long.len());
    assert!(client.ask(&request).await.unwrap().ends_with(&long));
    let abandoned = async {
        while client.metric("sealane_request_copies_total", &[("outcome", "abandoned")]) < 1.0 {
            tokio::task::yield_now().await;
        }
    };
    within(abandoned).await;
}

#[tokio::test]
async fn browsers_are_told_who_may_call() {
    let cors =
        crate::rules::Cors { origins: vec!["https://*.org".to_owned()], ..crate::rules::Cors::default() };
    let filters = Filters { cors: Some(cors), ..Filters::default() };
    let scene = Scene::new(vec![RouteRule { filters, targets: to("v1"), ..RouteRule::default() }]).await;
    let asked = scene
        .ask("OPTIONS / HTTP/1.1\nHost: a\nOrigin: https://a.org\nAccess-Control-Request-Method: PUT")
        .await;
    assert!(asked.starts_with("HTTP/1.1 204 No Content\r\n"), "{asked}");
    assert!(asked.contains("\r\nAccess-Control-Allow-Origin: https://a.org\r\n"), "{asked}");
    let answer = scene.ask("GET / HTTP/1.1\nHost: a\nOrigin: https://a.org").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\nX-From: v1\r\n"), "{answer}");
    assert!(answer.contains("\r\nAccess-Control-Allow-Origin: https://a.org\r\n"), "{answer}");
    let answer = scene.ask("GET / HTTP/1.1\nHost: a\nOrigin: https://a.com").await;
    assert!(!answer.contains("Access-Control"), "{answer}");
}

#[tokio::test]
async fn a_connection_may_become_another_by_a_rule_that_changes_heads() {
    let mesh = Mesh::new("8080", 2).serving(1, "v1");
    let (mut client, _servers) = (mesh.client().await, (mesh.instance(0).await, mesh.instance(1).await));
    let _applications = (
        mesh.application(0, |stream| answer_with(stream, "api")).await,
        mesh.application(1, |mut stream| async move {
            read_until(&mut stream, "\r\n\r\n").await;
            let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nhi";
            stream.write_all(head.as_bytes()).await.unwrap();
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        })
        .await,
    );
    let edits = || FieldEdits::new(&[("X-Rule", "1")], &[], &[]);
    let filters = Filters { request: edits(), response: edits(), ..Filters::default() };
    route(&mut client, vec![RouteRule { filters, targets: to("v1"), ..RouteRule::default() }]).await;
    let mut stream = client.call().await;
    let request = "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = read_until(&mut stream, "\r\n\r\nhi").await;
    assert!(head.contains("\r\nX-Rule: 1\r\n"), "{head}");
    stream.write_all(b"bytes").await.unwrap();
    assert_eq!(read_until(&mut stream, "bytes").await, "bytes");
}
