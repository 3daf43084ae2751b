//! Many requests of HTTP/2 that begin together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sealane_base::task;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::http2::{ask, connect, get, say};
use super::mesh::{Mesh, Sidecar, within};
use super::shared::frame;

/// Serves a connection of which at most so many requests may be in progress, and counts what is refused for that.
async fn serve_few(stream: TcpStream, at_once: u32) {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(at_once);
    let Ok(mut connection) = builder.handshake::<_, bytes::Bytes>(stream).await else { return };
    let mut requests = Vec::new();
    while let Some(Ok((_, respond))) = connection.accept().await {
        requests.push(task::spawn("request", async move {
            tokio::task::yield_now().await;
            say(respond, "ok").await;
        }));
    }
}

async fn burst(client: &Sidecar, connections: usize, each: usize) -> Vec<String> {
    let (mut running, mut connecting) = (Vec::new(), Vec::new());
    for _ in 0..connections {
        let (send, task) = connect(client).await;
        running.extend((0..each).map(|_| {
            let send = send.clone();
            task::spawn("ask", async move {
                match ask(&send, get()).await {
                    Ok((head, text)) => format!("{} {text}", head.status().as_u16()),
                    Err(error) => error.to_string(),
                }
            })
        }));
        connecting.push(task);
    }
    let mut answers = Vec::new();
    for one in running {
        answers.push(within(one).await.unwrap());
    }
    answers
}

#[tokio::test]
async fn a_burst_on_cold_connections_is_answered_whole_however_little_a_server_takes_at_once() {
    for (bare, at_once) in [(false, 100), (false, 1), (true, 100), (true, 3)] {
        let mut mesh = Mesh::new("8080/http2", 1);
        if bare {
            mesh = mesh.bare(0);
        }
        let client = mesh.client().await;
        let _server = if bare { None } else { Some(mesh.instance(0).await) };
        let _application = mesh.application(0, move |stream| serve_few(stream, at_once)).await;
        let answers = burst(&client, 5, 100).await;
        let wrong: Vec<_> = answers.iter().filter(|answer| *answer != "200 ok").collect();
        assert!(wrong.is_empty(), "{bare} {at_once}: {} {:?}", wrong.len(), wrong.first());
        for name in ["sealane_retries_total", "sealane_ejections_total", "sealane_endpoint_failures_total"] {
            assert_eq!(client.metric(name, &[]), 0.0, "{bare} {at_once}: {name}");
        }
    }
}

#[tokio::test]
async fn requests_wait_in_order_for_a_server_that_takes_one_at_a_time() {
    let mesh = Mesh::new("8080/http2", 1).bare(0);
    let client = mesh.client().await;
    let most = Arc::new(AtomicUsize::new(0));
    let count = most.clone();
    let _application = mesh
        .application(0, move |stream| {
            count.fetch_add(1, Ordering::SeqCst);
            serve_few(stream, 1)
        })
        .await;
    let (send, _task) = connect(&client).await;
    for _ in 0..50 {
        assert_eq!(ask(&send, get()).await.unwrap().1, "ok");
    }
    // One connection is enough for one request after another.
    assert_eq!(most.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_server_that_closes_every_connection_as_it_comes_up_is_named_as_such() {
    let mesh = Mesh::new("8080/http2", 1).bare(0);
    let client = mesh.client().await;
    let _application = mesh.application(0, |stream| async move { drop(stream) }).await;
    let answers = burst(&client, 1, 50).await;
    let named = |words: &str| answers.iter().filter(|answer| answer.contains(words)).count();
    let lost = named("the connection was lost before the answer") + named("takes no more requests");
    let waited = named("closes every connection as it comes up");
    assert!(waited > 0 && waited + lost == 50, "{answers:?}");
}

/// Says nothing before so many requests have come, and answers them then.
async fn serve_late(mut stream: TcpStream, requests: usize) -> std::io::Result<()> {
    stream.read_exact(&mut [0; 24]).await?;
    let mut asked = Vec::new();
    while asked.len() < requests {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [a, b, c, kind, _, id @ ..] = head;
        stream.read_exact(&mut vec![0; u32::from_be_bytes([0, a, b, c]) as usize]).await?;
        if kind == 1 {
            asked.push(u32::from_be_bytes(id));
        }
    }
    let answers = asked.iter().map(|&id| [frame(1, 4, id, b"\x88"), frame(0, 1, id, b"ok")].concat());
    stream.write_all(&[frame(4, 0, 0, &[]), answers.collect::<Vec<_>>().concat()].concat()).await?;
    // Whatever else comes.
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop)
}

#[tokio::test]
async fn a_server_that_is_silent_until_it_answers_gets_its_requests_all_the_same() {
    let mesh = Mesh::new("8080/http2", 1).bare(0);
    let client = mesh.client().await;
    let _application = mesh.application(0, |stream| async move { drop(serve_late(stream, 5).await) }).await;
    assert_eq!(burst(&client, 1, 5).await, ["200 ok"; 5]);
}
