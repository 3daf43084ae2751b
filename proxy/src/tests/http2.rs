//! HTTP/2 through a pair of sidecars, request by request.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use sealane_base::task::{self, Task};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::mesh::{Mesh, Sidecar, answer_with, within};

pub(super) type Asked = (Request<RecvStream>, SendResponse<Bytes>);

/// An application of HTTP/2: `handle` gets every request.
pub(super) async fn application<F>(
    mesh: &Mesh,
    n: usize,
    handle: impl Fn(Asked) -> F + Clone + Send + 'static,
) -> Task
where
    F: Future<Output = ()> + Send + 'static,
{
    mesh.application(n, move |stream| serve(stream, handle.clone())).await
}

pub(super) async fn serve<F>(stream: TcpStream, handle: impl Fn(Asked) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let mut requests = Vec::new();
    while let Some(Ok(asked)) = connection.accept().await {
        requests.push(task::spawn("request", handle(asked)));
    }
}

/// A client's connection through the sidecar.
pub(super) async fn connect(sidecar: &Sidecar) -> (SendRequest<Bytes>, Task) {
    let (send, connection) = h2::client::handshake(sidecar.call().await).await.unwrap();
    let task = task::spawn("client", async move {
        // How it ends shows in its requests.
        let _ = connection.await;
    });
    (send, task)
}

pub(super) fn get() -> Request<()> {
    Request::get("http://api/").body(()).unwrap()
}

pub(super) fn call() -> Request<()> {
    Request::post("http://api/shop.Cart/Add").header("content-type", "application/grpc").body(()).unwrap()
}

pub(super) async fn text(body: &mut RecvStream) -> String {
    let mut all = Vec::new();
    while let Some(data) = within(body.data()).await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    String::from_utf8(all).unwrap()
}

pub(super) async fn ask(
    send: &SendRequest<Bytes>,
    request: Request<()>,
) -> Result<(Response<()>, String), h2::Error> {
    let mut send = within(send.clone().ready()).await?;
    let (response, _) = send.send_request(request, true)?;
    let (head, mut body) = within(response).await?.into_parts();
    Ok((Response::from_parts(head, ()), text(&mut body).await))
}

pub(super) fn say(mut respond: SendResponse<Bytes>, words: &'static str) -> std::future::Ready<()> {
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    stream.send_data(Bytes::from_static(words.as_bytes()), true).unwrap();
    std::future::ready(())
}

/// A pair whose instance 0 runs this application.
async fn pair<F>(
    port: &'static str,
    handle: impl Fn(Asked) -> F + Clone + Send + 'static,
) -> (Mesh, Sidecar, Sidecar, Task)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mesh = Mesh::new(port, 1);
    let (client, server) = (mesh.client().await, mesh.instance(0).await);
    let task = application(&mesh, 0, handle).await;
    (mesh, client, server, task)
}

#[tokio::test]
async fn requests_of_one_connection_reach_every_instance() {
    let mesh = Mesh::new("8080", 2);
    let (client, first, second) = (mesh.client().await, mesh.instance(0).await, mesh.instance(1).await);
    let _applications = (
        application(&mesh, 0, |(_, respond)| say(respond, "zero")).await,
        application(&mesh, 1, |(_, respond)| say(respond, "one")).await,
    );
    let (send, _task) = connect(&client).await;
    let mut seen = BTreeSet::new();
    for _ in 0..40 {
        seen.insert(ask(&send, get()).await.unwrap().1);
    }
    assert_eq!(seen, BTreeSet::from(["zero".to_owned(), "one".to_owned()]));
    assert_eq!(client.metric("sealane_requests_total", &[("code_class", "2xx")]), 40.0);
    let inbound = [("direction", "inbound"), ("source_service", "_none"), ("code_class", "2xx")];
    let received = |sidecar: &Sidecar| sidecar.metric("sealane_requests_total", &inbound);
    assert_eq!(received(&first) + received(&second), 40.0);
    let connections = [("direction", "outbound"), ("protocol", "http2")];
    assert_eq!(client.metric("sealane_connections_total", &connections), 1.0);
    assert_eq!(client.metric("sealane_detect_total", &[("outcome", "http2")]), 1.0);
}

/// Echoes data as it comes, and the trailers with a status.
async fn echo((request, mut respond): Asked) {
    let mut body = request.into_body();
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut stream = respond.send_response(head, false).unwrap();
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).unwrap();
        stream.send_data(data, false).unwrap();
    }
    let mut trailers = body.trailers().await.unwrap().unwrap_or_default();
    trailers.insert("grpc-status", HeaderValue::from_static("5"));
    stream.send_trailers(trailers).unwrap();
}

#[tokio::test]
async fn a_call_streams_both_ways_at_once_and_ends_with_its_trailers() {
    let (_mesh, client, server, _application) = pair("8080/grpc", echo).await;
    let (send, _task) = connect(&client).await;
    let (response, mut upload) = send.clone().ready().await.unwrap().send_request(call(), false).unwrap();
    let (head, mut download) = within(response).await.unwrap().into_parts();
    assert_eq!(head.headers["content-type"], "application/grpc");
    for word in ["one", "two", "three"] {
        upload.send_data(Bytes::from(word), false).unwrap();
        // The answer to each comes before the next is sent.
        assert_eq!(within(download.data()).await.unwrap().unwrap(), word);
    }
    let trailers =
        HeaderMap::from_iter([(http::HeaderName::from_static("checksum"), HeaderValue::from_static("7"))]);
    upload.send_trailers(trailers).unwrap();
    assert!(within(download.data()).await.is_none());
    let trailers = within(download.trailers()).await.unwrap().unwrap();
    assert_eq!(
        (&trailers["checksum"], &trailers["grpc-status"]),
        (&"7".parse().unwrap(), &"5".parse().unwrap())
    );
    for sidecar in [&client, &server] {
        // NOT_FOUND counts as 404 does.
        assert_eq!(sidecar.metric("sealane_requests_total", &[("code_class", "4xx")]), 1.0);
        assert_eq!(sidecar.metric("sealane_request_duration_seconds", &[]), 1.0);
    }
}

#[tokio::test]
async fn what_nobody_reads_is_not_sent() {
    let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = sent.clone();
    let (_mesh, client, _server, _application) = pair("8080/http2", move |(_, mut respond)| {
        let count = count.clone();
        async move {
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            loop {
                stream.reserve_capacity(16_384);
                if stream.capacity() == 0
                    && !matches!(poll_fn(|cx| stream.poll_capacity(cx)).await, Some(Ok(_)))
                {
                    return;
                }
                let length = stream.capacity();
                count.fetch_add(length, Ordering::SeqCst);
                stream.send_data(vec![0; length].into(), false).unwrap();
            }
        }
    })
    .await;
    let (send, _task) = connect(&client).await;
    let (response, _) = send.clone().ready().await.unwrap().send_request(get(), true).unwrap();
    let mut body = within(response).await.unwrap().into_body();
    // Until the application could not send on for a while: it is stopped by whoever reads nothing.
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = sent.load(Ordering::SeqCst);
        if now == before && now > 0 {
            break;
        }
        before = now;
    }
    assert!(before < 4 << 20, "{before} bytes lie somewhere");
    // Others are not held up, and reading goes on.
    for _ in 0..64 {
        let data = within(body.data()).await.unwrap().unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    let moved = async {
        while sent.load(Ordering::SeqCst) == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(moved).await;
}

#[tokio::test]
async fn a_reset_passes_in_both_directions_with_its_code() {
    let gone = Arc::new(AtomicBool::new(false));
    let seen = gone.clone();
    let (_mesh, client, _server, _application) = pair("8080/http2", move |(request, mut respond)| {
        let seen = seen.clone();
        async move {
            match request.uri().path() {
                "/early" => respond.send_reset(Reason::ENHANCE_YOUR_CALM),
                "/late" => {
                    let mut stream = respond.send_response(Response::new(()), false).unwrap();
                    // A reset overtakes what was not sent before it.
                    request.into_body().data().await.unwrap().unwrap();
                    stream.send_reset(Reason::INADEQUATE_SECURITY);
                }
                _ => {
                    let reset = poll_fn(|cx| respond.poll_reset(cx)).await.unwrap();
                    seen.store(reset == Reason::SETTINGS_TIMEOUT, Ordering::SeqCst);
                }
            }
        }
    })
    .await;
    let (send, _task) = connect(&client).await;
    let to = |path: &str| Request::get(format!("http://api{path}")).body(()).unwrap();
    let error = ask(&send, to("/early")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM));
    let (response, mut upload) =
        send.clone().ready().await.unwrap().send_request(to("/late"), false).unwrap();
    let mut body = within(response).await.unwrap().into_body();
    upload.send_data(Bytes::from_static(b"now"), false).unwrap();
    let error = within(body.data()).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::INADEQUATE_SECURITY));
    let (_response, mut stream) =
        send.clone().ready().await.unwrap().send_request(to("/hang"), true).unwrap();
    // Behind another request, so that it has gone out before.
    let _ = ask(&send, to("/early")).await;
    stream.send_reset(Reason::SETTINGS_TIMEOUT);
    let learned = async {
        while !gone.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(learned).await;
}

#[tokio::test]
async fn a_request_that_reached_nobody_is_sent_elsewhere_with_its_body() {
    let mesh = Mesh::new("8080/grpc", 3);
    // Instance 0 has no application, instance 1 not even a sidecar.
    let (client, _refusing, _server) = (mesh.client().await, mesh.instance(0).await, mesh.instance(2).await);
    let _application = application(&mesh, 2, echo).await;
    let (send, _task) = connect(&client).await;
    for _ in 0..8 {
        let (response, mut upload) = send.clone().ready().await.unwrap().send_request(call(), false).unwrap();
        upload.send_data(Bytes::from_static(b"said once"), true).unwrap();
        let mut body = within(response).await.unwrap().into_body();
        assert_eq!(text(&mut body).await, "said once");
    }
    assert!(client.metric("sealane_ejections_total", &[]) >= 1.0);
}

#[tokio::test]
async fn when_nobody_can_be_reached_each_protocol_is_told_in_its_own_words() {
    let mesh = Mesh::new("8080", 1);
    let mut client = mesh.client().await;
    mesh.set_ready(&mut client, &[]).await;
    let (send, _task) = connect(&client).await;
    let (head, body) = ask(&send, get()).await.unwrap();
    assert_eq!((head.status().as_u16(), body.as_str()), (503, "no instance of api is ready\n"));
    let (head, body) = ask(&send, call()).await.unwrap();
    assert_eq!((head.status().as_u16(), body.as_str()), (200, ""));
    assert_eq!(head.headers()["grpc-status"], "14");
    assert_eq!(head.headers()["grpc-message"], "no instance of api is ready");
    assert_eq!(client.metric("sealane_requests_total", &[("code_class", "5xx")]), 2.0);
}

#[tokio::test]
async fn an_application_that_speaks_http1_only_is_named_as_such() {
    for port in ["8080", "8080/http2"] {
        let mesh = Mesh::new(port, 1);
        let (client, _server) = (mesh.client().await, mesh.instance(0).await);
        let _application = mesh
            .application(0, |mut stream| async move {
                let _ = stream.read(&mut [0; 64]).await;
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
                // Read to the end, or the kernel takes back what was said.
                stream.shutdown().await.unwrap();
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            })
            .await;
        let (send, _task) = connect(&client).await;
        let (head, body) = ask(&send, get()).await.unwrap();
        assert_eq!(head.status(), 502);
        assert!(body.contains("it speaks HTTP/1 only"), "{body}");
    }
}

#[tokio::test]
async fn a_declared_port_takes_both_versions() {
    let mesh = Mesh::new("8080/http2", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let _application = mesh.application(0, |stream| answer_with(stream, "one")).await;
    let response = client.ask("GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(response.ends_with("one"), "{response}");
    let response = client.ask("EHLO mail.example\r\n").await.unwrap();
    assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
}

#[tokio::test]
async fn a_server_that_sends_its_settings_first_is_still_balanced_per_request() {
    let (_mesh, client, _server, _application) = pair("8080", |(_, respond)| say(respond, "ok")).await;
    let stream = client.call().await;
    // Until the sidecar has given up waiting and heard the server.
    while client.metric("sealane_detect_total", &[("outcome", "http2")]) < 1.0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    let _task = task::spawn("client", async move { drop(connection.await) });
    assert_eq!(ask(&send, get()).await.unwrap().1, "ok");
    assert_eq!(client.metric("sealane_requests_total", &[("code_class", "2xx")]), 1.0);
}

#[tokio::test]
async fn an_instance_without_a_sidecar_is_called_plainly() {
    let mesh = Mesh::new("8080/http2", 1).bare(0);
    let client = mesh.client().await;
    let _application = application(&mesh, 0, |(_, respond)| say(respond, "plain")).await;
    let (send, _task) = connect(&client).await;
    assert_eq!(ask(&send, get()).await.unwrap().1, "plain");
}

#[tokio::test]
async fn an_application_that_closes_its_connections_loses_no_request() {
    let mesh = Mesh::new("8080/http2", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    // Every connection ends with GOAWAY after three requests, as servers do that bound them.
    let _application = mesh
        .application(0, |stream| async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let mut served = 0;
            while let Some(Ok((_, respond))) = connection.accept().await {
                say(respond, "served").await;
                served += 1;
                if served == 3 {
                    connection.graceful_shutdown();
                }
            }
        })
        .await;
    let (send, _task) = connect(&client).await;
    for _ in 0..30 {
        assert_eq!(ask(&send, call()).await.unwrap().1, "served");
    }
    assert_eq!(client.metric("sealane_ejections_total", &[]), 0.0);
}

#[tokio::test]
async fn a_draining_sidecar_says_goaway_and_finishes_what_runs() {
    let (asked, go) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let (at_application, release) = (asked.clone(), go.clone());
    let (_mesh, client, server, _application) = pair("8080/http2", move |(_, respond)| {
        let (asked, go) = (at_application.clone(), release.clone());
        async move {
            asked.notify_one();
            go.notified().await;
            say(respond, "slow").await;
        }
    })
    .await;
    let (send, _task) = connect(&client).await;
    let running = task::spawn("running", {
        let send = send.clone();
        async move { ask(&send, get()).await.unwrap().1 }
    });
    within(asked.notified()).await;
    let drained = (
        task::spawn("drain", client.core.drain(Duration::from_secs(60))),
        task::spawn("drain", server.core.drain(Duration::from_secs(60))),
    );
    assert!(!drained.0.is_finished());
    go.notify_one();
    assert_eq!(within(running).await.unwrap(), "slow");
    assert!(within(drained.0).await.unwrap() && within(drained.1).await.unwrap());
}

#[tokio::test]
async fn many_requests_at_once_share_several_connections() {
    let connections = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = connections.clone();
    let mesh = Mesh::new("8080/http2", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let (all, go) = (Arc::new(tokio::sync::Semaphore::new(0)), Arc::new(tokio::sync::Semaphore::new(0)));
    let (arrived, release) = (all.clone(), go.clone());
    let _application = mesh
        .application(0, move |stream| {
            count.fetch_add(1, Ordering::SeqCst);
            let (arrived, release) = (arrived.clone(), release.clone());
            serve(stream, move |(_, respond)| {
                let (arrived, release) = (arrived.clone(), release.clone());
                async move {
                    arrived.add_permits(1);
                    release.acquire().await.unwrap().forget();
                    say(respond, "ok").await;
                }
            })
        })
        .await;
    let (send, _task) = connect(&client).await;
    let running: Vec<_> = (0..200)
        .map(|_| {
            let send = send.clone();
            task::spawn("ask", async move { ask(&send, get()).await.unwrap().1 })
        })
        .collect();
    within(all.acquire_many(200)).await.unwrap().forget();
    go.add_permits(200);
    for one in running {
        assert_eq!(within(one).await.unwrap(), "ok");
    }
    // 64 each.
    assert_eq!(connections.load(Ordering::SeqCst), 4);
}
