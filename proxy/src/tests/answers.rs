//! Answers of applications that cannot be passed on as they are: mended, or refused with the reason and never asked for again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sealane_base::task::Task;
use tokio::io::AsyncWriteExt as _;

use super::mesh::{Mesh, Sidecar, read_until};

/// An application that answers every request with the same bytes and closes, and counts its requests.
async fn saying(mesh: &Mesh, answer: String, requests: Arc<AtomicUsize>) -> Task {
    mesh.application(0, move |mut stream| {
        let (answer, requests) = (answer.clone(), requests.clone());
        async move {
            if read_until(&mut stream, "\r\n\r\n").await.ends_with("\r\n\r\n") {
                requests.fetch_add(1, Ordering::SeqCst);
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    })
    .await
}

/// Calls an application that says `answer`, with a sidecar beside it and without; returns what a client hears, and how often
/// the application was asked.
async fn hear(method: &str, answer: &str) -> [(String, usize); 2] {
    let mut heard = Vec::new();
    for bare in [false, true] {
        let mesh = if bare { Mesh::new("8080/http", 1).bare(0) } else { Mesh::new("8080/http", 1) };
        let client = mesh.client().await;
        let server: Option<Sidecar> = if bare { None } else { Some(mesh.instance(0).await) };
        let requests = Arc::<AtomicUsize>::default();
        let _application = saying(&mesh, answer.to_owned(), requests.clone()).await;
        let request = format!("{method} / HTTP/1.1\r\nConnection: close\r\n\r\n");
        let response = client.ask(&request).await.unwrap();
        if response.starts_with("HTTP/1.1 502") {
            let counting = server.as_ref().unwrap_or(&client);
            assert_eq!(counting.metric("sealane_answers_refused_total", &[]), 1.0, "{answer:?}");
            let failures = client.metric("sealane_endpoint_failures_total", &[("reason", "protocol")]);
            assert_eq!(failures, 1.0, "{answer:?}");
        }
        heard.push((response, requests.load(Ordering::SeqCst)));
    }
    heard.try_into().unwrap()
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_asked_for_once_and_the_client_is_told_why() {
    let ok = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nok");
    let many: String = (0..160).map(|n| format!("X-{n}: y\r\n")).collect();
    let table = [
        (ok(many.trim_end()), "the head has 160 fields, 128 are allowed"),
        (ok(&format!("X: {}", "y".repeat(90_000))), "the head is longer than 64 KiB"),
        (ok("Content-Length: 2\r\nContent-Length: 2"), "the length of the body is ambiguous"),
        (ok("Content-Length: 2\r\nTransfer-Encoding: chunked"), "the length of the body is ambiguous"),
        (ok("Content-Length: 9223372036854775808"), "the length of the body is ambiguous"),
        (ok("X: a\0b"), "the head is malformed: a field's value"),
        (ok("a b: c"), "the head is malformed: a field's name"),
        ("HTTP/2 200 OK\r\n\r\n".to_owned(), "the head is malformed: the version"),
        (
            ok("Transfer-Encoding: chunked").replace("\r\n\r\nok", "\r\n\r\nx\r\n"),
            "the chunked body is malformed",
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n".to_owned(),
            "it switches protocols, which the request does not ask for",
        ),
    ];
    for (answer, reason) in table {
        for method in ["DELETE", "GET", "POST"] {
            for (response, asked) in hear(method, &answer).await {
                assert_eq!(asked, 1, "{method} {reason}");
                assert!(response.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{reason}: {response}");
                let expected = format!("its answer cannot be understood: {reason}\n");
                assert!(response.ends_with(&expected), "{response}");
            }
        }
    }
}

#[tokio::test]
async fn what_a_proxy_is_to_take_away_is_taken_away() {
    let answer = "HTTP/1.1 200 OK\r\nExpires : -1\r\nX: a\r\n b\nY: c\r\nContent-Length: 2\r\n\r\nok";
    let mended = "HTTP/1.1 200 OK\r\nExpires: -1\r\nX: a b\r\nY: c\r\nContent-Length: 2\r\n\r\nok";
    for (response, asked) in hear("GET", answer).await {
        assert_eq!((response.as_str(), asked), (mended, 1));
    }
}

#[tokio::test]
async fn a_sidecar_that_gives_no_reason_is_believed_as_well() {
    use crate::leg::LegError;
    use crate::message::{ResponseError, Unreadable};
    use crate::tunnel::{ResetCode, StreamError};
    let told = |error: StreamError| ResponseError::from(LegError::from(error));
    let bare = told(StreamError::Reset(ResetCode::ProtocolError));
    assert!(matches!(bare, ResponseError::Malformed(Unreadable::Told(_))), "{bare:?}");
    let other = told(StreamError::Reset(ResetCode::Internal));
    assert!(matches!(other, ResponseError::Source(_)), "{other:?}");
}
