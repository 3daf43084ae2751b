//! Memory that answers hold which clients leave unread: no more than the sidecar's is for.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::http2::{Asked, application};
use super::mesh::{Mesh, Sidecar};
use super::shared::frame;

const MIB: usize = 1024 * 1024;
/// Longer than anything takes to arrive that is under way.
const SETTLED: Duration = Duration::from_secs(1);
static ANSWER: [u8; MIB] = [0; MIB];

async fn answer_much((_, mut respond): Asked) {
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    // Nothing is allocated for it.
    let _ = stream.send_data(Bytes::from_static(&ANSWER), true);
}

/// Asks for so many large answers, lets them come as fast as they like, and reads nothing.
async fn ask_and_read_nothing(sidecar: &Sidecar, requests: u32) -> TcpStream {
    let mut stream = sidecar.call().await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]));
    bytes.extend(frame(8, 0, 0, &[0x7f, 0xf0, 0, 0]));
    for n in 0..requests {
        bytes.extend(frame(1, 5, 2 * n + 1, b"\x82\x86\x84\x41\x03api"));
    }
    stream.write_all(&bytes).await.unwrap();
    stream
}

/// Returns the most that is held until it grows no more.
async fn most_held(sidecar: &Sidecar) -> usize {
    let (mut most, mut since) = (0, Instant::now());
    while since.elapsed() < SETTLED {
        let held = sidecar.metric("sealane_memory_bytes", &[]) as usize;
        if held > most {
            (most, since) = (held, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    most
}

#[tokio::test]
async fn answers_that_nobody_reads_hold_no_more_than_the_budget_and_a_little() {
    let budget = 64 * MIB;
    let mesh = Mesh::new("8080/http2", 1).bare(0);
    let client = mesh.client_within(budget).await;
    let _application = application(&mesh, 0, answer_much).await;
    let before = client.metric("sealane_memory_bytes", &[]) as usize;
    let mut unread = Vec::new();
    for _ in 0..20 {
        unread.push(ask_and_read_nothing(&client, 100).await);
    }
    let held = most_held(&client).await - before;
    assert!(held > budget / 4, "{} MiB: they were not asked for", held / MIB);
    assert!(held < budget + budget / 4, "{} MiB", held / MIB);
    drop(unread);
}
