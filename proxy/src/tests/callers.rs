//! Callers are kept apart: what one does to its connection with the application is never another's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sealane_base::task::Task;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::mesh::{Mesh, PORTS, Sidecar, answer_with, read_until, within};

const GET: &str = "GET /own-page HTTP/1.1\r\n\r\n";

/// An application that reads no body, and tells which of its connections a request came by and what it asked for.
async fn bodies_unread(mesh: &Mesh, status: &'static str) -> Task {
    let connections = Arc::<AtomicUsize>::default();
    mesh.application(0, move |mut stream| {
        let number = connections.fetch_add(1, Ordering::SeqCst);
        async move {
            loop {
                let request = read_until(&mut stream, "\r\n\r\n").await;
                let Some(path) = request.split(' ').nth(1) else { return };
                let told = format!("{number} {path}\n");
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", told.len());
                let _ = stream.write_all((head + &told).as_bytes()).await;
            }
        }
    })
    .await
}

/// The number of the connection that the application got the request by, and the path that it saw.
async fn told(sidecar: &Sidecar, request: &str) -> (usize, String) {
    told_on(&mut sidecar.call().await, request).await
}

/// As [`told`], on this connection of the client's.
async fn told_on(stream: &mut TcpStream, request: &str) -> (usize, String) {
    stream.write_all(request.as_bytes()).await.unwrap();
    read_until(stream, "\r\n\r\n").await;
    let line = read_until(stream, "\n").await;
    let (number, path) = line.trim().split_once(' ').unwrap();
    (number.parse().unwrap(), path.to_owned())
}

#[tokio::test]
async fn a_connection_to_the_application_serves_one_caller() {
    let mesh = Mesh::new("8080/http", 1);
    let (client, other) = (mesh.client().await, mesh.other_client().await);
    let _server = mesh.instance(0).await;
    let _application = bodies_unread(&mesh, "200 OK").await;
    assert_eq!(told(&client, GET).await.0, 0);
    assert_eq!(told(&client, GET).await.0, 0, "the caller's own is used again");
    assert_eq!(told(&other, GET).await.0, 1);
    assert_eq!(told(&client, GET).await.0, 0);
}

#[tokio::test]
async fn a_body_that_the_application_need_not_read_ends_its_connection() {
    let hidden = "GET /hidden HTTP/1.1\r\nX: ";
    let length = hidden.len();
    let bodies = [
        format!("Content-Length: {length}\r\n\r\n{hidden}"),
        format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{hidden}\r\n0\r\n\r\n"),
    ];
    for bare in [false, true] {
        let mesh = if bare { Mesh::new("8080/http", 1).bare(0) } else { Mesh::new("8080/http", 1) };
        let client = mesh.client().await;
        let _server = if bare { None } else { Some(mesh.instance(0).await) };
        let _application = bodies_unread(&mesh, "200 OK").await;
        for method in ["GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "X"] {
            for body in &bodies {
                let mut stream = client.call().await;
                stream.write_all(format!("{method} / HTTP/1.1\r\n{body}").as_bytes()).await.unwrap();
                read_until(&mut stream, "\r\n\r\n").await;
                assert_eq!(told(&client, GET).await.1, "/own-page", "behind {method}, bare: {bare}");
            }
        }
    }
}

#[tokio::test]
async fn an_error_in_answer_to_a_body_ends_its_connection() {
    let mesh = Mesh::new("8080/http", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let _application = bodies_unread(&mesh, "501 Not Implemented").await;
    let post = "POST / HTTP/1.1\r\nContent-Length: 25\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n\r\n";
    assert_eq!(told(&client, post).await, (0, "/".to_owned()));
    assert_eq!(told(&client, GET).await, (1, "/own-page".to_owned()));
}

/// A request with this body, or the beginning of another request.
fn with_body(method: &str, body: &str) -> String {
    format!("{method} / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn another_workload_of_the_same_service_is_another_caller() {
    let mesh = Mesh::new("8080/http", 1);
    let (client, twin) = (mesh.client().await, mesh.other_client_of_the_same_identity().await);
    let _server = mesh.instance(0).await;
    let _application = bodies_unread(&mesh, "200 OK").await;
    assert_eq!([told(&client, GET).await.0, told(&twin, GET).await.0, told(&client, GET).await.0], [0, 1, 0]);
}

#[tokio::test]
async fn what_one_client_may_have_left_on_a_connection_meets_no_other_client_of_the_workload() {
    let hidden = "GET /hidden HTTP/1.1\r\nX: ";
    let chunked = format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    let requests = [
        with_body("POST", hidden),
        with_body("PUT", hidden),
        with_body("PATCH", hidden),
        format!("POST / HTTP/1.1\r\n{chunked}"),
        format!("POST / HTTP/1.1\r\nExpect: 100-continue\r\n{chunked}"),
        format!("POST / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n{chunked}"),
    ];
    for (bare, status) in [(false, "200 OK"), (true, "200 OK"), (false, "302 Found"), (true, "201 Created")] {
        let mesh = if bare { Mesh::new("8080/http", 1).bare(0) } else { Mesh::new("8080/http", 1) };
        let client = mesh.client().await;
        let _server = if bare { None } else { Some(mesh.instance(0).await) };
        let _application = bodies_unread(&mesh, status).await;
        // So that the application is known to keep connections.
        told(&client, GET).await;
        for request in &requests {
            let mut stays = client.call().await;
            let (left, _) = told_on(&mut stays, request).await;
            let (other, path) = told(&client, GET).await;
            assert_eq!(path, "/own-page", "behind {request}, {status}, bare: {bare}");
            assert_ne!(left, other, "behind {request}, {status}, bare: {bare}");
        }
    }
}

#[tokio::test]
async fn behind_an_answer_that_has_no_body_a_late_one_meets_no_other_client() {
    for (method, status) in [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Not Modified")] {
        let mesh = Mesh::new("8080/http", 1);
        let (client, _server) = (mesh.client().await, mesh.instance(0).await);
        let connections = Arc::<AtomicUsize>::default();
        let count = connections.clone();
        let _application = mesh
            .application(0, move |mut stream| {
                count.fetch_add(1, Ordering::SeqCst);
                async move {
                    let head = format!("HTTP/1.1 {status}\r\nETag: x\r\n\r\n");
                    while read_until(&mut stream, "\r\n\r\n").await.ends_with("\r\n\r\n") {
                        stream.write_all(head.as_bytes()).await.unwrap();
                    }
                }
            })
            .await;
        let request = format!("{method} / HTTP/1.1\r\n\r\n");
        let mut stays = client.call().await;
        for _ in 0..3 {
            stays.write_all(request.as_bytes()).await.unwrap();
            read_until(&mut stays, "\r\n\r\n").await;
        }
        assert_eq!(connections.load(Ordering::SeqCst), 1, "{method}, {status}: who stays keeps it");
        let mut other = client.call().await;
        other.write_all(request.as_bytes()).await.unwrap();
        read_until(&mut other, "\r\n\r\n").await;
        assert_eq!(connections.load(Ordering::SeqCst), 2, "{method}, {status}");
    }
}

/// An application that reads bodies of two bytes, and tells which of its connections a request came by.
async fn bodies_read(mesh: &Mesh) -> Task {
    let connections = Arc::<AtomicUsize>::default();
    mesh.application(0, move |mut stream| {
        let number = connections.fetch_add(1, Ordering::SeqCst);
        async move {
            loop {
                let head = read_until(&mut stream, "\r\n\r\n").await;
                if !head.ends_with("\r\n\r\n") {
                    return;
                }
                if head.contains("Content-Length: 2") {
                    within(stream.read_exact(&mut [0; 2])).await.unwrap();
                }
                let told = format!("{number} /\n");
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", told.len());
                stream.write_all((head + &told).as_bytes()).await.unwrap();
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_client_that_keeps_its_connection_has_one_to_the_application_whatever_it_asks() {
    for bare in [false, true] {
        let mesh = if bare { Mesh::new("8080/http", 1).bare(0) } else { Mesh::new("8080/http", 1) };
        let client = mesh.client().await;
        let _server = if bare { None } else { Some(mesh.instance(0).await) };
        let _application = bodies_read(&mesh).await;
        let requests = [GET.to_owned(), with_body("PUT", "ab"), with_body("POST", "ab")];
        let (mut first, mut second) = (client.call().await, client.call().await);
        let (mut before, mut steady) = (None, 0);
        // Posts have connections of their own until the application has shown that it keeps them, and after a pause.
        for _ in 0..10_000 {
            let mut used = Vec::new();
            for request in &requests {
                used.push((told_on(&mut first, request).await.0, told_on(&mut second, request).await.0));
            }
            let same = used.iter().all(|pair| before.replace(*pair).is_none_or(|known| known == *pair));
            steady = if same { steady + 1 } else { 0 };
            if steady == 20 {
                break;
            }
        }
        assert_eq!(steady, 20, "bare: {bare}");
        assert!(before.is_some_and(|(one, other)| one != other), "each has its own, bare: {bare}");
    }
}

#[tokio::test]
async fn a_peer_reaches_the_workload_and_nothing_else_through_its_sidecar() {
    let mesh = Mesh::new("8080", 1);
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = mesh.instance_called_at(0, elsewhere.local_addr().unwrap()).await;
    // It may be refused before it is seen to be there.
    if let Ok(mut stream) = TcpStream::connect((server.address, PORTS.inbound)).await {
        assert!(matches!(within(stream.read(&mut [0])).await, Ok(0) | Err(_)));
    }
    assert_eq!(server.metric("sealane_connections_refused_total", &[("reason", "not_own_address")]), 1.0);
    drop(server);
    let own = SocketAddr::new(mesh.address(0), 8080);
    let server = mesh.instance_called_at(0, own).await;
    let _application = mesh.application(0, |stream| answer_with(stream, "own")).await;
    let mut stream = TcpStream::connect((server.address, PORTS.inbound)).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(read_until(&mut stream, "own").await.ends_with("own"));
}

#[tokio::test]
async fn an_application_that_closes_behind_each_answer_without_a_word_gets_every_post_once() {
    let mesh = Mesh::new("8080/http", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let posts = Arc::<AtomicUsize>::default();
    let count = posts.clone();
    let _application = mesh
        .application(0, move |mut stream| {
            let posts = count.clone();
            async move {
                if read_until(&mut stream, "ab").await.ends_with("ab") {
                    posts.fetch_add(1, Ordering::SeqCst);
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
                    // The end comes a little later, as with many.
                    tokio::task::yield_now().await;
                }
            }
        })
        .await;
    let mut stream = client.call().await;
    for _ in 0..200 {
        stream.write_all(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab").await.unwrap();
        let head = read_until(&mut stream, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(read_until(&mut stream, "ok").await, "ok");
    }
    assert_eq!(posts.load(Ordering::SeqCst), 200);
}

#[tokio::test]
async fn posts_share_a_connection_with_an_application_that_keeps_it() {
    let mesh = Mesh::new("8080/http", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let _application = bodies_unread(&mesh, "200 OK").await;
    let post = "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
    let mut numbers = Vec::new();
    // Until a connection has stayed open for long enough to show it.
    while numbers.len() < 2 || numbers[numbers.len() - 1] != numbers[numbers.len() - 2] {
        numbers.push(told(&client, post).await.0);
        assert!(numbers.len() < 10_000, "every post has a connection of its own");
    }
}
