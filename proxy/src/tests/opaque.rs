//! Opaque connections, and finding out that they are.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::mesh::{Mesh, PORTS, VIP, answer_with, loopback, read_until, within};

async fn echo(mut stream: TcpStream) {
    let (mut read, mut write) = stream.split();
    let _ = tokio::io::copy(&mut read, &mut write).await;
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_at_once() {
    let mesh = Mesh::new("8080", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let _application = mesh
        .application(0, |mut stream| async move {
            stream.write_all(b"220 welcome\r\n").await.unwrap();
            echo(stream).await;
        })
        .await;
    let mut stream = client.call().await;
    assert_eq!(read_until(&mut stream, "\r\n").await, "220 welcome\r\n");
    // Even a word that looks like HTTP is the server's own protocol by now.
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    within(stream.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, "GET / HTTP/1.1\r\n\r\n");
    assert_eq!(client.metric("sealane_detect_total", &[("outcome", "server_first")]), 1.0);
}

#[tokio::test]
async fn a_slow_http_client_is_still_http() {
    let mesh = Mesh::new("8080", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let _application = mesh.application(0, |stream| answer_with(stream, "ok")).await;
    let mut stream = client.call().await;
    // Until the sidecar has given up waiting and opened a way for the server to speak.
    while client.metric("sealane_tunnels_open", &[]) < 1.0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for piece in ["G", "ET / HT", "TP/1.1\r\n\r", "\n"] {
        stream.write_all(piece.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(read_until(&mut stream, "ok").await.ends_with("ok"));
    assert_eq!(client.metric("sealane_requests_total", &[("code_class", "2xx")]), 1.0);
}

#[tokio::test]
async fn a_client_that_waits_after_what_could_begin_anything_known_is_answered() {
    let mesh = Mesh::new("8080", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let _application = mesh.application(0, echo).await;
    let beginnings = ["P", "\x16\x03", "\r", "GET foo", "PRI * HTTP/2.0\r\n\r\nSM"];
    let calls = beginnings.map(async |beginning| {
        let mut stream = client.call().await;
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let mut answer = vec![0; beginning.len()];
        within(stream.read_exact(&mut answer)).await.unwrap();
        assert_eq!(String::from_utf8(answer).unwrap(), beginning);
    });
    futures_util::future::join_all(calls).await;
}

#[tokio::test]
async fn a_client_that_drips_is_decided_as_soon_as_one_that_stops() {
    let mesh = Mesh::new("8080", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let _application = mesh.application(0, echo).await;
    // A long word, and a ClientHello of 8 KiB.
    let calls = ["P", "\x16\x03\x01\x20\x04\x01\0\x20\0"].map(async |beginning| {
        let mut stream = client.call().await;
        let began = Instant::now();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let (mut read, mut write) = stream.split();
        let drip = async {
            let mut drops = tokio::time::interval(Duration::from_millis(400));
            loop {
                drops.tick().await;
                write.write_all(b"P").await.unwrap();
            }
        };
        let mut answer = vec![0; beginning.len()];
        tokio::select! {
            heard = within(read.read_exact(&mut answer)) => assert_eq!(heard.unwrap(), answer.len()),
            () = drip => {}
        }
        assert_eq!(answer, beginning.as_bytes());
        // The word would be too long for a method after 10 s.
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    });
    futures_util::future::join_all(calls).await;
}

#[tokio::test]
async fn a_protocol_that_is_not_http_passes_with_its_half_close() {
    let mesh = Mesh::new("8080", 1);
    let (client, server) = (mesh.client().await, mesh.instance(0).await);
    let _application = mesh.application(0, echo).await;
    let response = client.ask("*1\r\n$4\r\nPING\r\n").await.unwrap();
    assert_eq!(response, "*1\r\n$4\r\nPING\r\n");
    let labels = [("direction", "inbound"), ("flow", "sent"), ("source_service", "_none")];
    assert_eq!(server.metric("sealane_bytes_total", &labels), 14.0);
}

#[tokio::test]
async fn what_merely_looks_like_http_passes_however_it_comes() {
    let mesh = Mesh::new("8080", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let _application = mesh.application(0, echo).await;
    for pieces in
        [&["POST / bar\r\n"][..], &["POST /", " ", "bar\r\n"], &["GET /\r\n"], &["PUT /a HT", "TX/1\r\n"]]
    {
        let mut stream = client.call().await;
        for piece in pieces {
            stream.write_all(piece.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        let said = pieces.concat();
        assert_eq!(read_until(&mut stream, "\r\n").await, said);
    }
    assert_eq!(client.metric("sealane_detect_total", &[("outcome", "opaque")]), 4.0);
}

#[tokio::test]
async fn a_server_that_has_said_everything_still_hears_its_client() {
    let mesh = Mesh::new("8080/tcp", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let (heard, all) = tokio::sync::oneshot::channel();
    let heard = std::sync::Mutex::new(Some(heard));
    let _application = mesh
        .application(0, move |mut stream| {
            let heard = heard.lock().unwrap().take().unwrap();
            async move {
                stream.write_all(b"bye").await.unwrap();
                stream.shutdown().await.unwrap();
                let mut rest = String::new();
                stream.read_to_string(&mut rest).await.unwrap();
                heard.send(rest).unwrap();
            }
        })
        .await;
    let mut stream = client.call().await;
    let mut said = String::new();
    within(stream.read_to_string(&mut said)).await.unwrap();
    assert_eq!(said, "bye");
    stream.write_all(b"after the end").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(within(all).await.unwrap(), "after the end");
}

#[tokio::test]
async fn tls_of_the_application_passes_untouched_and_is_counted_by_its_server_name() {
    for (port, slow) in [("8080", false), ("8080/tls", false), ("8080/tls", true)] {
        let mesh = Mesh::new(port, 1);
        let (client, _server) = (mesh.client().await, mesh.instance(0).await);
        let _application = mesh.application(0, echo).await;
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = "Shop.Example".try_into().unwrap();
        let mut tls = rustls::ClientConnection::new(config.into(), name).unwrap();
        let mut hello = Vec::new();
        tls.write_tls(&mut hello).unwrap();
        let mut stream = client.call().await;
        // Until the sidecar has given up waiting and opened a way for the server to speak.
        while slow && client.metric("sealane_tunnels_open", &[]) < 1.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (first, rest) = hello.split_at(hello.len() / 2);
        stream.write_all(first).await.unwrap();
        tokio::task::yield_now().await;
        stream.write_all(rest).await.unwrap();
        let mut back = vec![0; hello.len()];
        within(stream.read_exact(&mut back)).await.unwrap();
        assert!(back == hello);
        let labels = [("destination_service", "api"), ("server_name", "shop.example")];
        assert_eq!(client.metric("sealane_tls_connections_total", &labels), 1.0);
        assert_eq!(client.metric("sealane_connections_total", &[("protocol", "tcp")]), 1.0);
    }
}

#[tokio::test]
async fn a_connection_that_nobody_took_is_tried_elsewhere_with_what_was_said() {
    let mesh = Mesh::new("8080/tcp", 3);
    let (client, _refusing, _server) = (mesh.client().await, mesh.instance(0).await, mesh.instance(2).await);
    let _application = mesh.application(2, echo).await;
    for _ in 0..8 {
        assert_eq!(client.ask("said once").await.unwrap(), "said once");
    }
}

#[tokio::test]
async fn a_connection_is_reset_when_nobody_takes_it() {
    let mesh = Mesh::new("8080/tcp", 1);
    let client = mesh.client().await;
    assert_eq!(client.ask("hello").await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reset_is_passed_on() {
    let mesh = Mesh::new("8080/tcp", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let _application = mesh
        .application(0, |mut stream| async move {
            let _ = stream.read(&mut [0; 4]).await;
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        })
        .await;
    let mut stream = client.call().await;
    stream.write_all(b"boom").await.unwrap();
    let error = within(stream.read(&mut [0; 4])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn calls_that_would_lead_back_or_nowhere_are_refused() {
    let mesh = Mesh::new("8080", 1);
    for destination in [
        SocketAddr::new(VIP.parse().unwrap(), 9),
        SocketAddr::new(VIP.parse().unwrap(), PORTS.outbound),
        SocketAddr::new(loopback(1).into(), PORTS.outbound),
        SocketAddr::new(loopback(10).into(), PORTS.tunnel),
    ] {
        let client = mesh.client_to(destination).await;
        let error = client.ask("GET / HTTP/1.1\r\n\r\n").await.unwrap_err();
        assert!(matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::NotConnected
        ));
        assert!(client.core.drain(Duration::from_secs(60)).await, "{destination}");
    }
}
