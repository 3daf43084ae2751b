//! Refusals of a sidecar where mutual TLS is asked for, and the callers' view of them.

use std::io::ErrorKind;

use http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::mesh::{Mesh, PORTS, Sidecar, answer_with, read_until, within};

const GET: &str = "GET / HTTP/1.1\r\nHost: api\r\n\r\n";

/// A plain connection to the workload, as the redirect rules would deliver it.
async fn plain(sidecar: &Sidecar) -> TcpStream {
    TcpStream::connect((sidecar.address, PORTS.inbound)).await.unwrap()
}

fn refused(sidecar: &Sidecar, reason: &str) -> f64 {
    sidecar.metric("sealane_connections_refused_total", &[("reason", reason)])
}

#[tokio::test]
async fn a_plain_request_is_refused_in_words_and_one_by_mutual_tls_is_served() {
    let mesh = Mesh::new("8080", 1).strict();
    let (server, client) = (mesh.instance_called_plainly(0).await, mesh.client().await);
    let _application = mesh.application(0, |stream| answer_with(stream, "served")).await;
    let mut stream = plain(&server).await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    let mut response = String::new();
    within(stream.read_to_string(&mut response)).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{response}");
    assert!(
        response.contains("api takes calls to port 8080 by mutual TLS alone (mtls: strict)"),
        "{response}"
    );
    assert_eq!(refused(&server, "plain"), 1.0);
    assert!(client.ask(GET).await.unwrap().ends_with("served"));
    let served = [("direction", "inbound"), ("tls", "true")];
    assert_eq!(server.metric("sealane_requests_total", &served), 1.0);
}

#[tokio::test]
async fn a_plain_caller_that_speaks_something_else_or_nothing_sees_its_connection_reset() {
    let mesh = Mesh::new("6379/tcp", 1).strict();
    let server = mesh.instance_called_plainly(0).await;
    let _application = mesh.application(0, |stream| answer_with(stream, "served")).await;
    for said in ["PING\r\n", ""] {
        let mut stream = plain(&server).await;
        stream.write_all(said.as_bytes()).await.unwrap();
        let error = within(stream.read_u8()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{said:?}: {error}");
    }
    assert_eq!(refused(&server, "plain"), 2.0);
}

#[tokio::test]
async fn plain_calls_of_http2_and_grpc_are_refused_in_their_own_words() {
    let mesh = Mesh::new("8080", 1).strict();
    let server = mesh.instance_called_plainly(0).await;
    let (send, connection) = h2::client::handshake(plain(&server).await).await.unwrap();
    let connection = sealane_base::task::spawn("client", async move { drop(connection.await) });
    let mut send = send.ready().await.unwrap();
    let (answer, _) = send.send_request(Request::get("http://api/").body(()).unwrap(), true).unwrap();
    let answer = within(answer).await.unwrap();
    assert_eq!(answer.status(), 403);
    let body = within(answer.into_body().data()).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&body).contains("by mutual TLS alone"), "{body:?}");
    drop(connection);

    let (send, connection) = h2::client::handshake(plain(&server).await).await.unwrap();
    let connection = sealane_base::task::spawn("client", async move { drop(connection.await) });
    let mut send = send.ready().await.unwrap();
    let call = Request::post("http://api/shop.Cart/Add").header("content-type", "application/grpc");
    let (answer, _) = send.send_request(call.body(()).unwrap(), true).unwrap();
    let answer = within(answer).await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["grpc-status"]), (200, &"7".parse().unwrap()));
    assert!(answer.headers()["grpc-message"].to_str().unwrap().contains("by mutual TLS alone"));
    drop(connection);
}

#[tokio::test]
async fn only_offered_ports_are_reachable_by_tunnel_and_plain_and_http_callers_are_told() {
    let mesh = Mesh::new("8080", 1).strict();
    let address = mesh.place(0, 9999);
    let server = mesh.instance_called_at(0, address).await;
    let hidden = tokio::net::TcpListener::bind(address).await.unwrap();
    let client = mesh.client_to(address).await;
    let response = client.ask(GET).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 403 "), "{response}");
    assert!(response.contains("api does not let calls to port 9999 pass"), "{response}");
    let mut stream = plain(&server).await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    let response = read_until(&mut stream, "\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 403 "), "{response}");
    let mut stream = client.call().await;
    stream.write_all(b"PING\r\n").await.unwrap();
    assert_eq!(within(stream.read_u8()).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(refused(&server, "not_offered"), 3.0, "each was asked once, and none again");
    let reached = futures_util::FutureExt::now_or_never(hidden.accept());
    assert!(reached.is_none(), "the application sees none of it");
    assert_eq!(client.metric("sealane_ejections_total", &[]), 0.0, "the instance did what it should");
}

#[tokio::test]
async fn requests_of_http2_to_a_port_that_is_not_offered_are_refused_in_words() {
    let mesh = Mesh::new("8080", 1).strict();
    let (_server, client) = (mesh.instance(0).await, mesh.client_to(mesh.place(0, 9999)).await);
    let (send, connection) = h2::client::handshake(client.call().await).await.unwrap();
    let connection = sealane_base::task::spawn("client", async move { drop(connection.await) });
    let mut send = send.ready().await.unwrap();
    let (answer, _) = send.send_request(Request::get("http://api/").body(()).unwrap(), true).unwrap();
    let answer = within(answer).await.unwrap();
    assert_eq!(answer.status(), 403);
    drop(connection);
}

#[tokio::test]
async fn plain_connections_that_are_open_end_when_their_network_becomes_strict() {
    let mesh = Mesh::new("8080", 1);
    let mut server = mesh.instance_called_plainly(0).await;
    let _application = mesh.application(0, |stream| answer_with(stream, "served")).await;
    let mut stream = plain(&server).await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    assert!(read_until(&mut stream, "served").await.ends_with("served"));
    let mesh = mesh.strict();
    mesh.tell_instance(&mut server, 0).await;
    let ended = within(stream.read(&mut [0])).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    assert_eq!(refused(&server, "plain"), 1.0);
}

#[tokio::test]
async fn a_permissive_network_serves_plain_callers_and_tells_them_apart() {
    let mesh = Mesh::new("8080", 1);
    let server = mesh.instance_called_plainly(0).await;
    let _application = mesh.application(0, |stream| answer_with(stream, "served")).await;
    let mut stream = plain(&server).await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    assert!(read_until(&mut stream, "served").await.ends_with("served"));
    let plainly = [("direction", "inbound"), ("tls", "false")];
    assert_eq!(server.metric("sealane_requests_total", &plainly), 1.0);
    assert_eq!(server.metric("sealane_requests_total", &[("tls", "true")]), 0.0);
}
