//! Endpoints that refuse, break or go: what is retried, and what the client is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::mesh::{Mesh, answer_with, read_until, within};

const GET: &str = "GET / HTTP/1.1\r\nConnection: close\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab";

#[tokio::test]
async fn a_request_that_reached_nobody_is_sent_elsewhere_whatever_its_method() {
    let mesh = Mesh::new("8080/http", 3);
    // Instance 0 has no application, instance 1 not even a sidecar.
    let (client, _refusing, _server) = (mesh.client().await, mesh.instance(0).await, mesh.instance(2).await);
    let _application = mesh
        .application(2, |mut stream| async move {
            while read_until(&mut stream, "ab").await.ends_with("ab") {
                stream.write_all(b"HTTP/1.1 204 Done\r\n\r\n").await.unwrap();
            }
        })
        .await;
    for _ in 0..8 {
        let response = client.ask(POST).await.unwrap();
        assert_eq!(response, "HTTP/1.1 204 Done\r\n\r\n");
    }
    assert!(client.metric("sealane_ejections_total", &[]) >= 1.0);
}

/// An application that closes its first connection after the request, and answers on the others.
async fn break_once(mesh: &Mesh, broken: Arc<AtomicUsize>) -> sealane_base::task::Task {
    mesh.application(0, move |mut stream| {
        let first = broken.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                let _ = stream.read(&mut [0; 1024]).await;
            } else {
                answer_with(stream, "again").await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_get_that_broke_before_its_answer_is_repeated() {
    let mesh = Mesh::new("8080/http", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let _application = break_once(&mesh, Arc::default()).await;
    let response = client.ask(GET).await.unwrap();
    assert!(response.ends_with("again"), "{response}");
    assert_eq!(client.metric("sealane_retries_total", &[("reason", "reset")]), 1.0);
}

#[tokio::test]
async fn a_post_that_broke_before_its_answer_is_not_repeated() {
    let mesh = Mesh::new("8080/http", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let calls = Arc::<AtomicUsize>::default();
    let _application = break_once(&mesh, calls.clone()).await;
    let response = client.ask(POST).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 502 Bad Gateway\r\nserver: sealane\r\n"), "{response}");
    assert!(response.contains("api gave no answer"), "{response}");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn when_nobody_can_be_reached_the_answer_names_the_service() {
    let mesh = Mesh::new("8080/http", 2);
    let mut client = mesh.client().await;
    let response = client.ask(POST).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 503 Service Unavailable\r\nserver: sealane\r\n"), "{response}");
    assert!(response.contains("api gave no answer: no connection to"), "{response}");
    mesh.set_ready(&mut client, &[]).await;
    let response = client.ask(GET).await.unwrap();
    assert!(response.ends_with("no instance of api is ready\n"), "{response}");
}

#[tokio::test]
async fn a_response_that_breaks_in_its_middle_is_seen_to_be_broken() {
    let mesh = Mesh::new("8080/http", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let _application = mesh
        .application(0, |mut stream| async move {
            read_until(&mut stream, "\r\n\r\n").await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await.unwrap();
        })
        .await;
    let mut stream = client.call().await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    let error = within(stream.read_to_end(&mut seen)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_changed_configuration_moves_the_next_request_of_an_open_connection() {
    let mesh = Mesh::new("8080/http", 2);
    let mut client = mesh.client().await;
    let (_first, _second) = (mesh.instance(0).await, mesh.instance(1).await);
    let _applications = (
        mesh.application(0, |stream| answer_with(stream, "zero")).await,
        mesh.application(1, |stream| answer_with(stream, "one!")).await,
    );
    let mut stream = client.call().await;
    for (ready, expected) in [(0, "zero"), (1, "one!"), (0, "zero")] {
        mesh.set_ready(&mut client, &[ready]).await;
        for _ in 0..5 {
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            read_until(&mut stream, "\r\n\r\n").await;
            let mut name = [0; 4];
            within(stream.read_exact(&mut name)).await.unwrap();
            assert_eq!(name, expected.as_bytes());
        }
    }
}

#[tokio::test]
async fn a_draining_sidecar_finishes_what_runs_and_sends_the_rest_elsewhere() {
    let mesh = Mesh::new("8080/http", 2);
    let mut client = mesh.client().await;
    let (draining, _other) = (mesh.instance(0).await, mesh.instance(1).await);
    let (asked, go) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let (at_application, release) = (asked.clone(), go.clone());
    let _slow = mesh
        .application(0, move |mut stream| {
            let (asked, go) = (at_application.clone(), release.clone());
            async move {
                read_until(&mut stream, "\r\n\r\n").await;
                asked.notify_one();
                go.notified().await;
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow").await.unwrap();
            }
        })
        .await;
    let _fast = mesh.application(1, |stream| answer_with(stream, "fast")).await;
    mesh.set_ready(&mut client, &[0]).await;
    let mut running = client.call().await;
    running.write_all(GET.as_bytes()).await.unwrap();
    within(asked.notified()).await;
    mesh.set_ready(&mut client, &[0, 1]).await;
    let drained = sealane_base::task::spawn("drain", draining.core.drain(Duration::from_secs(60)));
    for _ in 0..10 {
        assert!(client.ask(GET).await.unwrap().ends_with("fast"));
    }
    assert!(!drained.is_finished());
    go.notify_one();
    assert!(read_until(&mut running, "slow").await.ends_with("slow"));
    assert!(within(drained).await.unwrap());
}

#[tokio::test]
async fn a_call_that_comes_before_the_first_configuration_waits_for_it() {
    let mesh = Mesh::new("8080", 1);
    let (mut client, _server) = (mesh.unconfigured_client().await, mesh.instance(0).await);
    let _application = mesh.application(0, |stream| answer_with(stream, "ok")).await;
    let mut stream = client.call().await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    // The worker takes its commands in order: behind this one it would have refused the call.
    let early = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut [0])).await;
    assert!(early.is_err(), "{early:?}");
    mesh.set_ready(&mut client, &[0]).await;
    assert!(read_until(&mut stream, "ok").await.ends_with("ok"));
    assert_eq!(client.metric("sealane_connections_refused_total", &[]), 0.0);
}

#[tokio::test]
async fn a_silent_http_client_of_a_service_that_nobody_serves_is_told_so_when_it_asks() {
    let mesh = Mesh::new("8080", 1);
    let mut client = mesh.client().await;
    mesh.set_ready(&mut client, &[]).await;
    let mut stream = client.call().await;
    // Longer than the sidecar waits for the client to speak first; shorter than it waits for last words.
    tokio::time::sleep(Duration::from_millis(50)).await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    assert!(read_until(&mut stream, "no instance of api is ready\n").await.starts_with("HTTP/1.1 503 "));
}

/// An application that says 100 and closes its first connection, and answers on the others.
async fn break_after_interim(mesh: &Mesh, calls: Arc<AtomicUsize>) -> sealane_base::task::Task {
    mesh.application(0, move |mut stream| {
        let first = calls.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                read_until(&mut stream, "\r\n\r\n").await;
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            } else {
                answer_with(stream, "again").await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn behind_an_interim_answer_a_broken_request_is_repeated_or_answered_all_the_same() {
    for (request, expected) in [(GET, "HTTP/1.1 200 OK"), (POST, "HTTP/1.1 502 Bad Gateway")] {
        let mesh = Mesh::new("8080/http", 1);
        let (client, _server) = (mesh.client().await, mesh.instance(0).await);
        let _application = break_after_interim(&mesh, Arc::default()).await;
        let response = client.ask(request).await.unwrap();
        let rest = response.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        assert!(rest.starts_with(expected), "{response}");
    }
}

#[tokio::test]
async fn the_application_learns_that_its_client_is_gone_while_it_still_computes() {
    let mesh = Mesh::new("8080/http", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let (asked, gone) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let (computing, closed) = (asked.clone(), gone.clone());
    let _application = mesh
        .application(0, move |mut stream| {
            let (asked, gone) = (computing.clone(), closed.clone());
            async move {
                read_until(&mut stream, "\r\n\r\n").await;
                asked.notify_one();
                if matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)) {
                    gone.notify_one();
                }
            }
        })
        .await;
    let mut stream = client.call().await;
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    within(asked.notified()).await;
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    within(gone.notified()).await;
}

#[tokio::test]
async fn a_sidecar_that_holds_too_much_refuses_what_is_new_and_counts_it() {
    let mesh = Mesh::new("8080/http", 1);
    // Less than it needs for itself.
    let client = mesh.client_within(1000).await;
    assert!(client.ask(GET).await.is_err());
    assert_eq!(client.metric("sealane_memory_refusals_total", &[]), 1.0);
    assert_eq!(client.metric("sealane_memory_limit_bytes", &[]), 1000.0);
    assert!(client.metric("sealane_memory_bytes", &[]) > 1000.0);
}
