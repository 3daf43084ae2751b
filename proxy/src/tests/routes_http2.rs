//! Routes of HTTP through sidecars, for clients of HTTP/2 and gRPC.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use sealane_base::task::Task;
use tokio::sync::mpsc::unbounded_channel;

use super::http2::{Asked, application, ask, call, connect, get, text};
use super::mesh::{Mesh, Sidecar, within};
use super::routes::{at, path, route, to};
use crate::rules::{
    Cors, FieldEdits, Filters, Limits, Matching, Mirror, NewPath, PathMatch, Redirect, Retry, Rewrite,
    RouteRule,
};

/// Answers with a name, the request's target and two fields of it.
async fn echo((request, mut respond): Asked, name: &'static str) {
    let (head, mut body) = request.into_parts();
    let field = |name: &str| head.headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let words = format!("{name} {} {} {} {}", head.method, head.uri, field("x-set"), field("x-gone"));
    let words = format!("{words} {}", text(&mut body).await);
    let response = Response::builder().header("x-from", name).body(()).unwrap();
    let mut stream = respond.send_response(response, false).unwrap();
    stream.send_data(words.into(), true).unwrap();
}

async fn scene(rules: Vec<RouteRule>) -> (Mesh, Sidecar, [Sidecar; 2], [Task; 2]) {
    let mesh = Mesh::new("8080", 2).serving(1, "v1");
    let mut client = mesh.client().await;
    let servers = [mesh.instance(0).await, mesh.instance(1).await];
    let applications = [
        application(&mesh, 0, |asked| echo(asked, "api")).await,
        application(&mesh, 1, |asked| echo(asked, "v1")).await,
    ];
    route(&mut client, rules).await;
    (mesh, client, servers, applications)
}

#[tokio::test]
async fn each_request_of_a_connection_goes_where_its_rule_leads() {
    let filters = Filters {
        request: FieldEdits::new(&[("X-Set", "new")], &[], &["x-gone"]),
        response: FieldEdits::new(&[("X-From", "rule")], &[], &[]),
        rewrite: Some(Rewrite {
            host: Some("new.org".to_owned()),
            path: Some(NewPath::Prefix("/to".to_owned())),
        }),
        ..Filters::default()
    };
    let redirect =
        Redirect { scheme: Some("https".to_owned()), host: None, port: None, path: None, status: 308 };
    let away = Filters { redirect: Some(redirect), ..Filters::default() };
    let browsers = Filters {
        cors: Some(Cors { origins: vec!["*".to_owned()], ..Cors::default() }),
        ..Filters::default()
    };
    let (_mesh, client, _servers, _applications) = scene(vec![
        RouteRule { matches: path("/from"), filters, targets: to("v1"), ..RouteRule::default() },
        RouteRule { matches: path("/own"), targets: to("api"), ..RouteRule::default() },
        RouteRule { matches: path("/away"), filters: away, ..RouteRule::default() },
        RouteRule { matches: path("/browser"), filters: browsers, targets: to("v1"), ..RouteRule::default() },
        RouteRule { matches: path("/none"), ..RouteRule::default() },
    ])
    .await;
    let (send, _task) = connect(&client).await;
    let request =
        Request::get("http://api/from/a?b").header("x-set", "old").header("x-gone", "1").body(()).unwrap();
    let (head, body) = ask(&send, request).await.unwrap();
    assert_eq!(
        (head.headers()["x-from"].to_str().unwrap(), body.as_str()),
        ("rule", "v1 GET http://new.org/to/a?b new  ")
    );
    let own = Request::get("http://api/own").header("x-gone", "1").body(()).unwrap();
    assert_eq!(ask(&send, own).await.unwrap().1, "api GET http://api/own  1 ");
    let (head, _) = ask(&send, Request::get("http://api:8080/away").body(()).unwrap()).await.unwrap();
    assert_eq!(
        (head.status(), head.headers()["location"].to_str().unwrap()),
        (http::StatusCode::PERMANENT_REDIRECT, "https://api/away")
    );
    let (head, words) = ask(&send, get()).await.unwrap();
    assert_eq!(
        (head.status().as_u16(), words.as_str()),
        (404, "no rule of the routes of api is for this request\n")
    );
    let (head, _) = ask(&send, Request::get("http://api/none").body(()).unwrap()).await.unwrap();
    assert_eq!(head.status().as_u16(), 500);
    let origin = |method: &str| {
        let request =
            Request::builder().method(method).uri("http://api/browser").header("origin", "http://a");
        request.header("access-control-request-method", "PUT").body(()).unwrap()
    };
    for (method, status) in [("OPTIONS", 204), ("GET", 200)] {
        let (head, _) = ask(&send, origin(method)).await.unwrap();
        assert_eq!(
            (head.status().as_u16(), head.headers()["access-control-allow-origin"].to_str().unwrap()),
            (status, "http://a")
        );
    }
}

#[tokio::test]
async fn calls_of_grpc_are_refused_in_its_own_words() {
    let matching = |path| vec![Matching { path, ..Matching::default() }];
    let limits = Limits { request: Some(Duration::from_millis(100)), attempt: None };
    let rules = vec![
        RouteRule {
            matches: matching(PathMatch::Exact("/shop.Cart/None".to_owned())),
            ..RouteRule::default()
        },
        RouteRule {
            matches: matching(PathMatch::Method("Late".to_owned())),
            targets: to("api"),
            limits,
            ..RouteRule::default()
        },
    ];
    let mesh = Mesh::new("8080", 1);
    let (mut client, _server) = (mesh.client().await, mesh.instance(0).await);
    let hang = |asked: Asked| async move {
        let _asked = asked;
        std::future::pending().await
    };
    let _application = application(&mesh, 0, hang).await;
    route(&mut client, rules).await;
    let (send, _task) = connect(&client).await;
    let call_to = |method: &str| {
        let mut call = call();
        *call.uri_mut() = format!("http://api/shop.Cart/{method}").parse().unwrap();
        call
    };
    for (method, status) in [("Add", "12"), ("None", "14"), ("Late", "4")] {
        let (head, _) = ask(&send, call_to(method)).await.unwrap();
        assert_eq!(
            (head.status().as_u16(), head.headers()["grpc-status"].to_str().unwrap()),
            (200, status),
            "{method}"
        );
    }
}

#[tokio::test]
async fn an_answer_is_asked_for_again_and_what_takes_too_long_is_answered_in_its_place() {
    let mesh = Mesh::new("8080", 1);
    let (mut client, _server) = (mesh.client().await, mesh.instance(0).await);
    let asked = Arc::<AtomicUsize>::default();
    let counted = asked.clone();
    let handle = move |(request, mut respond): Asked| {
        let asked = counted.clone();
        async move {
            let times = asked.fetch_add(1, Ordering::Relaxed);
            if request.uri().path() == "/hang" {
                std::future::pending().await
            }
            let body = text(&mut request.into_body()).await;
            let response = Response::builder().status(if times < 2 { 503 } else { 200 }).body(()).unwrap();
            respond.send_response(response, false).unwrap().send_data(body.into(), true).unwrap();
        }
    };
    let _application = application(&mesh, 0, handle).await;
    let retry = Some(Retry { codes: vec![503], attempts: Some(2), backoff: None });
    let limits = Limits { request: None, attempt: Some(Duration::from_millis(100)) };
    let hang = RouteRule { matches: path("/hang"), targets: to("api"), limits, ..RouteRule::default() };
    let rules = vec![
        RouteRule { targets: to("api"), retry: retry.clone(), ..RouteRule::default() },
        RouteRule { retry, ..hang },
    ];
    route(&mut client, rules).await;
    let (send, _task) = connect(&client).await;
    let mut ready = send.clone().ready().await.unwrap();
    let (response, mut body) =
        ready.send_request(Request::post("http://api/").body(()).unwrap(), false).unwrap();
    body.send_data(Bytes::from_static(b"all of it"), true).unwrap();
    let (head, mut answer) = within(response).await.unwrap().into_parts();
    assert_eq!((head.status.as_u16(), text(&mut answer).await.as_str()), (200, "all of it"));
    assert_eq!(asked.swap(0, Ordering::Relaxed), 3);
    let (head, _) = ask(&send, Request::get("http://api/hang").body(()).unwrap()).await.unwrap();
    let late = client.metric("sealane_endpoint_failures_total", &[("reason", "timeout")]);
    assert_eq!((head.status().as_u16(), late), (504, 3.0));
}

#[tokio::test]
async fn mirrors_get_what_the_backend_gets() {
    let mesh = Mesh::new("8080", 2).serving(1, "v1");
    let (mut client, _servers) = (mesh.client().await, (mesh.instance(0).await, mesh.instance(1).await));
    let (told, mut heard) = unbounded_channel();
    let tell = move |(request, mut respond): Asked| {
        let told = told.clone();
        async move {
            let (head, mut body) = request.into_parts();
            told.send(format!("{} {}", head.uri, text(&mut body).await)).unwrap();
            respond.send_response(Response::builder().status(500).body(()).unwrap(), true).unwrap();
        }
    };
    let _applications =
        (application(&mesh, 0, |asked| echo(asked, "api")).await, application(&mesh, 1, tell).await);
    let filters =
        Filters { mirrors: vec![Mirror { service: Some(at("v1")), share: (1, 1) }], ..Filters::default() };
    route(&mut client, vec![RouteRule { filters, targets: to("api"), ..RouteRule::default() }]).await;
    let (send, _task) = connect(&client).await;
    assert!(ask(&send, get()).await.unwrap().1.starts_with("api GET"));
    assert_eq!(within(heard.recv()).await.unwrap(), "http://api/ ");
    let mut ready = send.clone().ready().await.unwrap();
    let (response, mut body) =
        ready.send_request(Request::post("http://api/x").body(()).unwrap(), false).unwrap();
    body.send_data(Bytes::from_static(b"all "), false).unwrap();
    body.send_data(Bytes::from_static(b"of it"), true).unwrap();
    let mut answer = within(response).await.unwrap().into_body();
    assert!(text(&mut answer).await.ends_with("all of it"));
    assert_eq!(within(heard.recv()).await.unwrap(), "http://api/x all of it");
}
