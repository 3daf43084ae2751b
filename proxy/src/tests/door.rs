//! The door before the application: whatever way a call comes by, nothing passes beside it.

use std::io::ErrorKind;

use http::{Request, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::http2::{application, ask, connect, say};
use super::mesh::{Mesh, PORTS, Sidecar, answer_with, read_until, within};
use crate::policy::{Call, Denial, Voice};
use crate::request::RequestView;

/// Lets requests pass for anything but `/secret`, and no bytes that are not read as requests.
fn no_secrets(_: Call<'_>, request: Option<RequestView<'_>>) -> Result<(), Denial> {
    match request {
        Some(request) if request.path() != "/secret" => Ok(()),
        Some(_) | None => Err(Denial::NotOffered(Voice::Service)),
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: api\r\n\r\n")
}

fn denied(sidecar: &Sidecar) -> f64 {
    sidecar.metric("sealane_connections_refused_total", &[("reason", "not_offered")])
}

#[tokio::test]
async fn a_request_of_http1_that_may_not_pass_is_answered_and_the_next_one_is_served() {
    let mesh = Mesh::new("8080/http", 1);
    let (client, mut server) = (mesh.client().await, mesh.instance(0).await);
    server.core.restrict(no_secrets).await;
    let _application = mesh.application(0, |stream| answer_with(stream, "served")).await;
    for (path, expected) in [("/", "200"), ("/secret", "403"), ("/secret?x", "403"), ("/x", "200")] {
        let response = client.ask(&get(path)).await.unwrap();
        assert!(response.starts_with(&format!("HTTP/1.1 {expected}")), "{path}: {response}");
    }
    assert_eq!(denied(&server), 2.0);
}

#[tokio::test]
async fn a_request_of_http2_that_may_not_pass_is_answered_beside_others_that_are_served() {
    let mesh = Mesh::new("8080", 1);
    let (client, mut server) = (mesh.client().await, mesh.instance(0).await);
    server.core.restrict(no_secrets).await;
    let _application = application(&mesh, 0, |(_, respond)| say(respond, "served")).await;
    let (send, _connection) = connect(&client).await;
    for (path, expected) in
        [("/", StatusCode::OK), ("/secret", StatusCode::FORBIDDEN), ("/x", StatusCode::OK)]
    {
        let request = Request::get(format!("http://api{path}")).body(()).unwrap();
        let (head, text) = ask(&send, request).await.unwrap();
        assert_eq!(head.status(), expected, "{path}: {text}");
    }
    assert_eq!(denied(&server), 1.0);
}

#[tokio::test]
async fn bytes_that_are_no_requests_pass_the_door_too() {
    let mesh = Mesh::new("6379/tcp", 1);
    let (client, mut server) = (mesh.client().await, mesh.instance(0).await);
    server.core.restrict(no_secrets).await;
    let _application = mesh.application(0, |stream| answer_with(stream, "served")).await;
    let mut stream = client.call().await;
    stream.write_all(b"PING\r\n\r\n").await.unwrap();
    let error = within(stream.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    assert_eq!(denied(&server), 1.0);
}

#[tokio::test]
async fn plain_requests_pass_the_door_one_by_one_and_other_plain_bytes_as_they_begin() {
    let mesh = Mesh::new("8080", 1);
    let mut server = mesh.instance_called_plainly(0).await;
    server.core.restrict(no_secrets).await;
    let _application = mesh.application(0, |stream| answer_with(stream, "served")).await;
    let mut stream = TcpStream::connect((server.address, PORTS.inbound)).await.unwrap();
    stream.write_all(get("/").as_bytes()).await.unwrap();
    assert!(read_until(&mut stream, "served").await.ends_with("served"));
    // Denied with its last byte, however it comes.
    let secret = get("/secret");
    let (first, rest) = secret.split_at(12);
    stream.write_all(first.as_bytes()).await.unwrap();
    tokio::task::yield_now().await;
    stream.write_all(rest.as_bytes()).await.unwrap();
    let mut response = String::new();
    within(stream.read_to_string(&mut response)).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{response}");
    assert_eq!(denied(&server), 1.0);
    // Servers skip empty lines before a request.
    for (path, expected) in [("/", "200"), ("/secret", "403")] {
        let mut stream = TcpStream::connect((server.address, PORTS.inbound)).await.unwrap();
        stream.write_all(format!("\r\n{}", get(path)).as_bytes()).await.unwrap();
        let response = read_until(&mut stream, "\r\n\r\n").await;
        assert!(response.starts_with(&format!("HTTP/1.1 {expected}")), "{path}: {response}");
    }
    assert_eq!(denied(&server), 2.0);
    let mut stream = TcpStream::connect((server.address, PORTS.inbound)).await.unwrap();
    stream.write_all(b"PING\r\n\r\n").await.unwrap();
    let error = within(stream.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    assert_eq!(denied(&server), 3.0);
}
