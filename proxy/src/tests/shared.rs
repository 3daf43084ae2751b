//! Requests of HTTP/2 on shared connections do nothing to each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Request;
use sealane_base::task;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::http2::{ask, call, connect, get, say, serve, text};
use super::mesh::{Mesh, Sidecar, within};

const HEADERS: u8 = 1;
const DATA: u8 = 0;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// A whole answer with this block of fields, in frames of so many bytes.
fn answer(stream: u32, block: &[u8], most: usize) -> Vec<u8> {
    let pieces: Vec<_> = block.chunks(most).collect();
    let mut out = Vec::new();
    for (n, piece) in pieces.iter().enumerate() {
        let last = if n + 1 == pieces.len() { 4 } else { 0 };
        out.extend(frame(
            if n == 0 { HEADERS } else { 9 },
            if n == 0 { 1 | last } else { last },
            stream,
            piece,
        ));
    }
    out
}

/// The first so many requests get the beginning of a download; each further one gets `bad`, with which the downloads of
/// its connection end.
async fn application(
    mut stream: TcpStream,
    downloads: usize,
    asked: Arc<AtomicUsize>,
    bad: impl Fn(u32) -> Vec<u8>,
) -> std::io::Result<()> {
    stream.write_all(&frame(4, 0, 0, &[])).await?;
    stream.read_exact(&mut [0; 24]).await?;
    let mut open = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, id @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).await?;
        let id = u32::from_be_bytes(id);
        if kind == 4 && flags == 0 {
            stream.write_all(&frame(4, 1, 0, &[])).await?;
        }
        if kind != HEADERS {
            continue;
        }
        if asked.fetch_add(1, Ordering::SeqCst) < downloads {
            open.push(id);
            stream.write_all(&[frame(HEADERS, 4, id, b"\x88"), frame(DATA, 0, id, b"be")].concat()).await?;
        } else {
            let ends = open.drain(..).map(|id| frame(DATA, 1, id, b"gun"));
            stream.write_all(&std::iter::once(bad(id)).chain(ends).collect::<Vec<_>>().concat()).await?;
        }
    }
}

/// Three clients download while a fourth asks for `bad`; what that hears.
async fn beside_downloads(bare: bool, bad: impl Fn(u32) -> Vec<u8> + Clone + Send + 'static) -> String {
    let mut mesh = Mesh::new("8080/http2", 1);
    if bare {
        mesh = mesh.bare(0);
    }
    let client = mesh.client().await;
    let _server = if bare { None } else { Some(mesh.instance(0).await) };
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let _application = mesh
        .application(0, move |stream| {
            let (bad, count) = (bad.clone(), count.clone());
            async move { drop(application(stream, 3, count, bad).await) }
        })
        .await;
    let mut downloads = Vec::new();
    for _ in 0..3 {
        let (send, task) = connect(&client).await;
        let (response, _) = send.ready().await.unwrap().send_request(get(), true).unwrap();
        downloads.push((within(response).await.unwrap().into_body(), task));
    }
    let (send, _task) = connect(&client).await;
    let heard = match ask(&send, get()).await {
        Ok((head, text)) => format!("{} {text}", head.status().as_u16()),
        Err(error) => error.to_string(),
    };
    for (mut body, _task) in downloads {
        assert_eq!(text(&mut body).await, "begun", "{heard}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 4, "{heard}");
    heard
}

#[tokio::test]
async fn a_bad_answer_costs_only_its_own_request_and_is_not_asked_for_again() {
    const RULES: &str = "502 api gave no answer: its answer breaks the rules of HTTP/2\n";
    const LARGE: &str = "502 api gave no answer: the head of its answer is larger than 64 KiB\n";
    // A name of one letter and a value of 1000.
    let field = [&b"\x40\x01a\x7f\xe9\x06"[..], &[b'v'; 1000]].concat();
    let many = [b"\x88".to_vec(), field.repeat(130)].concat();
    let table: [(Vec<u8>, usize, &str); 6] = [
        (b"\x88\0\x03Foo\x01x".to_vec(), 16_384, RULES),
        (b"\x88\x40\x03a b\x01x".to_vec(), 16_384, RULES),
        (b"\x88\x40\x01a\x03x\ny".to_vec(), 16_384, RULES),
        (b"\x48\x03abc".to_vec(), 16_384, RULES),
        (many.clone(), 16_384, LARGE),
        (many.clone(), 100, LARGE),
    ];
    for bare in [false, true] {
        for (block, most, expected) in table.clone() {
            let heard = beside_downloads(bare, move |stream| answer(stream, &block, most)).await;
            assert_eq!(heard, expected, "{bare} {most}");
        }
    }
}

#[tokio::test]
async fn an_answer_in_ever_so_many_frames_is_an_answer() {
    let fields = [&b"\x88"[..], &b"\0\x01a\x01b".repeat(300)].concat();
    let heard = beside_downloads(false, move |stream| {
        let mut frames = answer(stream, &fields, 3);
        // Not its end.
        frames[4] = 0;
        frames.extend(frame(DATA, 0, stream, &[]).repeat(500));
        frames.extend(frame(DATA, 1, stream, b"ok"));
        frames
    });
    assert_eq!(heard.await, "200 ok");
}

#[tokio::test]
async fn any_number_of_bad_answers_leaves_a_connection_to_the_others() {
    let mesh = Mesh::new("8080/http2", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let bad = |stream| {
        // Says nine bytes, and one follows.
        [frame(HEADERS, 4, stream, b"\x88\x0f\x0d\x019"), frame(DATA, 1, stream, b"x")].concat()
    };
    let asked = Arc::new(AtomicUsize::new(0));
    let connections = Arc::new(AtomicUsize::new(0));
    let (count, made) = (asked.clone(), connections.clone());
    let _application = mesh
        .application(0, move |stream| {
            made.fetch_add(1, Ordering::SeqCst);
            let count = count.clone();
            async move { drop(application(stream, 0, count, bad).await) }
        })
        .await;
    let (send, _task) = connect(&client).await;
    let post = || Request::post("http://api/").body(()).unwrap();
    for n in 0..1100 {
        assert!(ask(&send, post()).await.is_err(), "{n}");
    }
    assert_eq!((asked.load(Ordering::SeqCst), connections.load(Ordering::SeqCst)), (1100, 1));
}

/// Opens so many requests on a connection of its own, and gives all of them up once the application has them.
async fn give_up(client: &Sidecar, requests: usize, arrived: &tokio::sync::Semaphore) {
    let (send, _task) = connect(client).await;
    let mut open = Vec::new();
    for _ in 0..requests {
        let request = Request::get("http://api/forever").body(()).unwrap();
        open.push(send.clone().ready().await.unwrap().send_request(request, true).unwrap());
    }
    within(arrived.acquire_many(u32::try_from(requests).unwrap())).await.unwrap().forget();
    for (_, stream) in &mut open {
        stream.send_reset(h2::Reason::CANCEL);
    }
    // The resets have gone out when an answer comes behind them.
    assert_eq!(ask(&send, get()).await.unwrap().1, "ok");
}

#[tokio::test]
async fn clients_that_give_up_hundreds_of_requests_break_off_nobody_elses() {
    for bare in [false, true] {
        let mut mesh = Mesh::new("8080/http2", 1);
        if bare {
            mesh = mesh.bare(0);
        }
        let client = mesh.client().await;
        let _server = if bare { None } else { Some(mesh.instance(0).await) };
        let (arrived, go) = (Arc::new(tokio::sync::Semaphore::new(0)), Arc::new(Notify::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let (here, release, made) = (arrived.clone(), go.clone(), connections.clone());
        let _application = mesh
            .application(0, move |stream| {
                made.fetch_add(1, Ordering::SeqCst);
                let (here, release) = (here.clone(), release.clone());
                serve(stream, move |(request, mut respond)| {
                    let (here, release) = (here.clone(), release.clone());
                    async move {
                        match request.uri().path() {
                            "/hold" => {
                                let head = http::Response::new(());
                                let mut body = respond.send_response(head, false).unwrap();
                                release.notified().await;
                                body.send_data("held".into(), true).unwrap();
                            }
                            "/forever" => {
                                here.add_permits(1);
                                let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
                            }
                            _ => say(respond, "ok").await,
                        }
                    }
                })
            })
            .await;
        let (send, _task) = connect(&client).await;
        let request = Request::get("http://api/hold").body(()).unwrap();
        let (response, _) = send.ready().await.unwrap().send_request(request, true).unwrap();
        let mut held = within(response).await.unwrap().into_body();
        give_up(&client, 40, &arrived).await;
        let shared = connections.load(Ordering::SeqCst);
        // By now it is known, and whoever comes is served apart.
        give_up(&client, 300, &arrived).await;
        assert!(connections.load(Ordering::SeqCst) > shared);
        go.notify_one();
        assert_eq!(text(&mut held).await, "held", "{bare}");
    }
}

#[tokio::test]
async fn too_large_a_head_is_answered_in_the_words_of_whoever_sent_it() {
    let mesh = Mesh::new("8080", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let (send, _task) = connect(&client).await;
    let big = |mut request: Request<()>| {
        request.headers_mut().insert("x-big", "y".repeat(100_000).parse().unwrap());
        request
    };
    let (head, text) = ask(&send, big(get())).await.unwrap();
    assert_eq!((head.status().as_u16(), text.as_str()), (431, "the request's head is larger than 64 KiB\n"));
    let (head, _) = ask(&send, big(call())).await.unwrap();
    assert_eq!(head.headers()["grpc-status"], "8");
    assert_eq!(head.headers()["grpc-message"], "the request's head is larger than 64 KiB");
}

#[tokio::test]
async fn small_messages_that_nobody_reads_break_off_nothing() {
    let mesh = Mesh::new("8080/http2", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let _application = mesh
        .application(0, |stream| {
            serve(stream, |(request, mut respond)| async move {
                if request.uri().path() != "/events" {
                    return say(respond, "ok").await;
                }
                let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                // One frame each.
                for _ in 0..100_000 {
                    if body.send_data("tick".into(), false).is_err() {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
                body.send_data("end".into(), true).unwrap();
            })
        })
        .await;
    // A client that takes any number of small frames itself.
    let mut builder = h2::client::Builder::new();
    builder.data_frame_budget(usize::MAX).initial_connection_window_size(1 << 24);
    let (send, connection) = builder.handshake::<_, bytes::Bytes>(client.call().await).await.unwrap();
    let _task = task::spawn("client", async move { drop(connection.await) });
    let mut unread = Vec::new();
    for _ in 0..3 {
        let request = Request::get("http://api/events").body(()).unwrap();
        let (response, _) = send.clone().ready().await.unwrap().send_request(request, true).unwrap();
        unread.push(within(response).await.unwrap().into_body());
    }
    for _ in 0..50 {
        assert_eq!(ask(&send, get()).await.unwrap().1, "ok");
    }
    for body in &mut unread {
        let all = text(body).await;
        assert!(all.ends_with("tickend") && all.len() == 400_003, "{}", all.len());
    }
}
