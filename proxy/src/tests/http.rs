//! HTTP/1 through a pair of sidecars: the bytes at either end are those of the other.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::mesh::{Mesh, PORTS, answer_with, read_until, within};

/// Sends `request` to an application that answers with `response` when it has all of it; both must arrive as they were.
async fn check_transparent(request: &'static str, response: &'static str, closes: bool) {
    let mesh = Mesh::new("8080/http", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let _application = mesh
        .application(0, move |mut stream| async move {
            let mut seen = vec![0; request.len()];
            stream.read_exact(&mut seen).await.unwrap();
            assert_eq!(String::from_utf8(seen).unwrap(), request);
            stream.write_all(response.as_bytes()).await.unwrap();
            if !closes {
                let _ = stream.read(&mut [0]).await;
            }
        })
        .await;
    let mut stream = client.call().await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut seen = vec![0; response.len()];
    within(stream.read_exact(&mut seen)).await.unwrap();
    assert_eq!(String::from_utf8(seen).unwrap(), response);
    if closes {
        assert_eq!(within(stream.read(&mut [0])).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn heads_and_bodies_arrive_as_they_were_sent() {
    check_transparent(
        "POST /a?b=%20 HTTP/1.1\r\nHOST: api\r\nx-CaSe:  odd \r\nX-Case: again\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 299 Quite  Fine\r\nsErVer: me\r\nContent-Length: 4\r\n\r\nback",
        false,
    )
    .await;
}

#[tokio::test]
async fn chunks_extensions_and_trailers_arrive_as_they_were_sent() {
    check_transparent(
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n5;x=1\r\nhello\r\n0\r\nT: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\nSum: 9\r\n\r\n",
        false,
    )
    .await;
}

#[tokio::test]
async fn a_server_that_writes_head_and_body_apart_does_not_wait_for_acknowledgements() {
    const REQUEST: &str = "GET / HTTP/1.1\r\n\r\n";
    let mesh = Mesh::new("8080/http", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let _application = mesh
        .application(0, |mut stream| async move {
            while stream.read_exact(&mut [0; REQUEST.len()]).await.is_ok() {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n").await.unwrap();
                stream.write_all(b"ok").await.unwrap();
            }
        })
        .await;
    let mut stream = client.call().await;
    let began = Instant::now();
    for _ in 0..100 {
        stream.write_all(REQUEST.as_bytes()).await.unwrap();
        assert!(read_until(&mut stream, "ok").await.ends_with("ok"));
    }
    // Linux puts an acknowledgement off by 40 ms: 4 s.
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_response_may_end_with_its_connection() {
    check_transparent("GET / HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nall until the end", true).await;
}

#[tokio::test]
async fn an_upgraded_connection_carries_anything() {
    let mesh = Mesh::new("8080/http", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let _application = mesh
        .application(0, |mut stream| async move {
            read_until(&mut stream, "\r\n\r\n").await;
            let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nhi";
            stream.write_all(head.as_bytes()).await.unwrap();
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        })
        .await;
    let mut stream = client.call().await;
    let request = "GET /chat HTTP/1.1\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n\0first";
    stream.write_all(request.as_bytes()).await.unwrap();
    assert!(read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 101"));
    stream.write_all(b"second").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    within(stream.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, "hi\0firstsecond");
}

#[tokio::test]
async fn a_client_that_says_close_gets_a_long_answer_whole_whatever_it_sends_behind() {
    const LONG: usize = 3_000_000;
    let mesh = Mesh::new("8080/http", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let _application = mesh
        .application(0, |mut stream| async move {
            read_until(&mut stream, "\r\n\r\n").await;
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n{}", "a".repeat(LONG));
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
    for behind in ["", "\r\n", "GET /not-heard HTTP/1.1\r\n\r\n"] {
        let request = format!("GET / HTTP/1.1\r\nConnection: close\r\n\r\n{behind}");
        let mut stream = client.call().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        within(stream.read_to_string(&mut response)).await.unwrap();
        assert_eq!(response.split_once("\r\n\r\n").unwrap().1.len(), LONG, "behind it {behind:?}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_on_one_connection() {
    let mesh = Mesh::new("8080/http", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let _application = mesh
        .application(0, |mut stream| async move {
            loop {
                let request = read_until(&mut stream, "\r\n\r\n").await;
                let Some(path) = request.split(' ').nth(1) else { return };
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", path.len());
                let body = if request.starts_with("HEAD") { "" } else { path };
                stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            }
        })
        .await;
    let response = client
        .ask("GET /1 HTTP/1.1\r\n\r\nHEAD /22 HTTP/1.1\r\n\r\n\r\nGET /333 HTTP/1.1\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let head = |length| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    assert_eq!(response, format!("{}/1{}{}/333", head(2), head(3), head(4)));
    let labels = [("direction", "outbound"), ("destination_service", "api"), ("code_class", "2xx")];
    assert_eq!(client.metric("sealane_requests_total", &labels), 3.0);
    let labels = [("direction", "inbound"), ("source_service", "_none")];
    assert_eq!(_server.metric("sealane_requests_total", &labels), 3.0);
}

#[tokio::test]
async fn a_client_that_waits_for_continue_gets_it() {
    let mesh = Mesh::new("8080", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let _application = mesh
        .application(0, |mut stream| async move {
            read_until(&mut stream, "\r\n\r\n").await;
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            let mut body = [0; 4];
            stream.read_exact(&mut body).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n").await.unwrap();
            stream.write_all(&body).await.unwrap();
        })
        .await;
    let mut stream = client.call().await;
    let head = "PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(read_until(&mut stream, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"body").await.unwrap();
    assert!(read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    assert_eq!(read_until(&mut stream, "body").await, "body");
}

#[tokio::test]
async fn an_early_answer_arrives_while_the_request_goes_on() {
    let mesh = Mesh::new("8080/http", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let _application = mesh
        .application(0, |mut stream| async move {
            read_until(&mut stream, "\r\n\r\n").await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly").await.unwrap();
            assert_eq!(read_until(&mut stream, "late").await, "late");
        })
        .await;
    let mut stream = client.call().await;
    for _ in 0..2 {
        stream.write_all(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n").await.unwrap();
        assert!(read_until(&mut stream, "early").await.ends_with("early"));
        stream.write_all(b"late").await.unwrap();
    }
}

#[tokio::test]
async fn what_could_smuggle_a_request_is_answered_with_400_and_reaches_nobody() {
    let mesh = Mesh::new("8080/http", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let seen = Arc::new(Mutex::new(0));
    let count = seen.clone();
    let _application = mesh
        .application(0, move |_| {
            *count.lock().unwrap() += 1;
            async {}
        })
        .await;
    for request in [
        "POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
    ] {
        let response = client.ask(request).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 400 Bad Request\r\nserver: sealane\r\n"), "{response}");
    }
    assert_eq!(*seen.lock().unwrap(), 0);
}

#[tokio::test]
async fn an_instance_without_a_sidecar_is_called_plainly() {
    let mesh = Mesh::new("8080/http", 1).bare(0);
    let client = mesh.client().await;
    let _application = mesh.application(0, |stream| answer_with(stream, "plain")).await;
    let response = client.ask("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(response.matches("plain").count(), 2, "{response}");
}

#[tokio::test]
async fn the_bytes_of_requests_and_responses_are_counted_on_both_sides() {
    let mesh = Mesh::new("8080/http", 1);
    let (client, server) = (mesh.client().await, mesh.instance(0).await);
    let request = "POST / HTTP/1.1\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    let _application = mesh
        .application(0, move |mut stream| async move {
            read_until(&mut stream, "hello").await;
            stream.write_all(response.as_bytes()).await.unwrap();
        })
        .await;
    assert_eq!(client.ask(request).await.unwrap(), response);
    for (sidecar, direction) in [(&client, "outbound"), (&server, "inbound")] {
        for (flow, message) in [("sent", request), ("received", response)] {
            let labels = [("direction", direction), ("flow", flow)];
            let counted = sidecar.metric("sealane_bytes_total", &labels);
            assert_eq!(counted, message.len() as f64, "{direction} {flow}");
        }
    }
}

#[tokio::test]
async fn requests_of_a_caller_without_sidecar_are_counted() {
    let mesh = Mesh::new("8080", 1);
    let server = mesh.instance_called_plainly(0).await;
    let _application = mesh.application(0, |stream| answer_with(stream, "plain")).await;
    let mut stream = tokio::net::TcpStream::connect((server.address, PORTS.inbound)).await.unwrap();
    for _ in 0..2 {
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(read_until(&mut stream, "plain").await.ends_with("plain"));
    }
    let labels = [("direction", "inbound"), ("source_service", "unknown"), ("code_class", "2xx")];
    assert_eq!(server.metric("sealane_requests_total", &labels), 2.0);
}

#[tokio::test]
async fn behind_connect_each_direction_ends_by_itself() {
    let mesh = Mesh::new("8080", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let _application = mesh
        .application(0, |mut stream| async move {
            let head = read_until(&mut stream, "\r\n\r\n").await;
            assert!(head.starts_with("CONNECT db:5432 HTTP/1.1\r\n"), "{head}");
            stream.write_all(b"HTTP/1.1 200 Fine\r\n\r\nhello").await.unwrap();
            let mut said = String::new();
            stream.read_to_string(&mut said).await.unwrap();
            stream.write_all(format!("you said {said}").as_bytes()).await.unwrap();
        })
        .await;
    let mut stream = client.call().await;
    stream.write_all(b"CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n").await.unwrap();
    let answer = read_until(&mut stream, "hello").await;
    assert!(answer.starts_with("HTTP/1.1 200 Fine\r\n"), "{answer}");
    stream.write_all(b"goodbye").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    within(stream.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, "you said goodbye");
}

#[tokio::test]
async fn answers_that_have_no_body_whatever_they_say_of_it_do_not_hold_up_the_next() {
    let mesh = Mesh::new("8080/http", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let _application = mesh
        .application(0, |mut stream| async move {
            for status in
                ["304 Not Modified\r\nContent-Length: 5", "204 No Content", "200 OK\r\nContent-Length: 2"]
            {
                read_until(&mut stream, "\r\n\r\n").await;
                stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await.unwrap();
            }
            stream.write_all(b"ok").await.unwrap();
        })
        .await;
    let request = "GET / HTTP/1.1\r\n\r\n".repeat(3);
    let response = client.ask(&request).await.unwrap();
    assert_eq!(
        response,
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    );
}

#[tokio::test]
async fn a_head_beyond_the_limits_is_answered_with_431() {
    let mesh = Mesh::new("8080/http", 1);
    let client = mesh.client().await;
    for fields in [format!("cookie: {}\r\n", "x".repeat(70_000)), "a: b\r\n".repeat(200)] {
        let response = client.ask(&format!("GET / HTTP/1.1\r\n{fields}\r\n")).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{response}");
    }
}
