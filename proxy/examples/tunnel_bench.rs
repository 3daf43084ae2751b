//! Cost of a tunnel: both sides in one process on one thread, over loopback.
//!
//!     taskset -c 0 cargo run --release -p sealane-proxy --example tunnel_bench
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement prints, and may stop where it fails"
)]

#[path = "../tests/tunnel/mesh.rs"]
mod mesh;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use sealane_base::drain::Drain;
use sealane_base::task;
use sealane_proxy::Protocol;
use sealane_proxy::tunnel::{
    Acceptor, Incoming, OpenHeader, PeerKey, Settings, Stream, TunnelPool, TunnelStats,
};
use tokio::net::TcpListener;

const STREAMS: usize = 64;
const REQUEST: usize = 120;
const RESPONSE: usize = 640;
const CHUNK: usize = 64 * 1024;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, run());
}

async fn run() {
    let mesh = mesh::Mesh::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let key = PeerKey { address: listener.local_addr().unwrap(), expected: mesh::service("api") };
    let acceptor = Acceptor::new(mesh.tls("api"), Settings::default(), Arc::default());
    let _server = task::spawn_local(serve(listener, acceptor));
    let stats = Arc::new(TunnelStats::default());
    let pool = TunnelPool::new(mesh.tls("web"), Settings::default(), stats);

    for streams in [1, STREAMS] {
        let (pool, key) = (&pool, &key);
        measure(&format!("{streams} streams, one per exchange"), streams, |count| async move {
            for _ in 0..count {
                let mut first = Bytes::from_static(&[b'q'; REQUEST]);
                let stream = pool.open(key, &header(Protocol::Http1), &mut first).await.unwrap();
                let (mut send, mut recv) = stream.split();
                send.finish();
                while recv.recv().await.unwrap().is_some() {}
            }
        })
        .await;
        measure(&format!("{streams} streams, kept"), streams, |count| async move {
            let stream = pool.open(key, &header(Protocol::Opaque), &mut Bytes::new()).await.unwrap();
            let (mut send, mut recv) = stream.split();
            for _ in 0..count {
                send.write_all(&[b'q'; REQUEST]).await.unwrap();
                let mut left = RESPONSE;
                while left > 0 {
                    left -= recv.recv().await.unwrap().unwrap().len();
                }
            }
        })
        .await;
    }
    bulk(&pool, &key).await;
    handshakes(&mesh, &key).await;
}

fn header(protocol: Protocol) -> OpenHeader {
    let port = 8080_u16.try_into().unwrap();
    OpenHeader { service: Some("api".parse().unwrap()), ..OpenHeader::new(protocol, port) }
}

async fn serve(listener: TcpListener, acceptor: Acceptor) {
    let drain = Drain::new();
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let (acceptor, draining) = (acceptor.clone(), drain.handle());
        task::spawn_local(async move {
            acceptor
                .serve(tcp, draining, |incoming| task::spawn_local(answer(incoming)).detach())
                .await
                .unwrap();
        })
        .detach();
    }
}

/// Answers every read; a port of 1 asks for bulk.
async fn answer(incoming: Incoming) {
    let (mut send, mut recv) = Stream::split(incoming.stream);
    if incoming.header.port.get() == 1 {
        while recv.recv().await.unwrap().is_some() {}
    } else {
        while let Ok(Some(request)) = recv.recv().await {
            assert_eq!(request.len(), REQUEST);
            send.write_all(&[b'r'; RESPONSE]).await.unwrap();
            if incoming.header.protocol == Protocol::Http1 {
                break;
            }
        }
        while let Ok(Some(_)) = recv.recv().await {}
    }
    send.finish();
}

async fn measure<F: Future<Output = ()>>(name: &str, streams: usize, exchanges: impl Fn(usize) -> F) {
    let each = 200_000 / streams;
    let run =
        |each| futures_util::future::join_all((0..streams).map(|_| exchanges(each)).collect::<Vec<_>>());
    run(each / 10).await;
    let (start, cpu) = (Instant::now(), cpu());
    run(each).await;
    report(name, each * streams, start, cpu);
}

fn report(name: &str, count: usize, start: Instant, before: Duration) {
    let (wall, cpu) = (start.elapsed(), cpu() - before);
    #[allow(clippy::cast_precision_loss, reason = "a count of exchanges")]
    let count = count as f64;
    println!(
        "{name:<32} {:>8.2} us CPU each, {:>9.0} /s",
        cpu.as_secs_f64() * 1e6 / count,
        count / wall.as_secs_f64()
    );
}

async fn bulk(pool: &TunnelPool, key: &PeerKey) {
    const TOTAL: usize = 4 << 30;
    let header = OpenHeader::new(Protocol::Opaque, 1_u16.try_into().unwrap());
    let (mut send, mut recv) = pool.open(key, &header, &mut Bytes::new()).await.unwrap().split();
    let (start, before) = (Instant::now(), cpu());
    let chunk = vec![7; CHUNK];
    for _ in 0..TOTAL / CHUNK {
        send.write_all(&chunk).await.unwrap();
    }
    send.finish();
    assert!(recv.recv().await.unwrap().is_none());
    let gigabytes = TOTAL as f64 / 1e9;
    println!(
        "bulk on one stream               {:>8.2} Gbit/s, {:.3} cpu-s/GB",
        gigabytes * 8.0 / start.elapsed().as_secs_f64(),
        (cpu() - before).as_secs_f64() / gigabytes
    );
}

async fn handshakes(mesh: &mesh::Mesh, key: &PeerKey) {
    const COUNT: usize = 500;
    for resumed in [false, true] {
        let kept = mesh.tls("web");
        let (start, before) = (Instant::now(), cpu());
        for _ in 0..COUNT {
            let tls = if resumed { kept.clone() } else { mesh.tls("web") };
            let pool = TunnelPool::new(tls, Settings::default(), Arc::default());
            let stream =
                pool.open(key, &header(Protocol::Http1), &mut Bytes::from_static(&[b'q'; REQUEST])).await;
            let (mut send, mut recv) = stream.unwrap().split();
            send.finish();
            while recv.recv().await.unwrap().is_some() {}
        }
        report(
            if resumed { "tunnels, resumed" } else { "tunnels, full (and a certificate)" },
            COUNT,
            start,
            before,
        );
    }
}

fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let total = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(total.try_into().unwrap())
}
