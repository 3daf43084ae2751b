//! Ways on which long packets are lost: what is under way stalls, calls go on, and nobody takes the peer for frozen.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sealane_base::task::{self, Task};
use sealane_proxy::Protocol;
use sealane_proxy::tunnel::{OpenError, RecvHalf, SendHalf, Settings};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::mesh::Mesh;
use crate::site::{Client, Server, local, pool, round_trip};

/// A time that no frozen peer is waited for.
const STALL: Duration = Duration::from_secs(4);
/// The greatest segments that are short.
const SHORT: u32 = 600;

/// Words of the server that a way lets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passes {
    All,
    /// Those on connections of short packets.
    Short,
    Nothing,
}

/// A way to a server. Its kernel takes all that is said to the server.
struct Way {
    address: SocketAddr,
    passes: watch::Sender<Passes>,
    _relay: Task,
}

impl Way {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (passes, watched) = watch::channel(Passes::All);
        let relay = task::spawn_local(async move {
            loop {
                let near = listener.accept().await.unwrap().0;
                let far = TcpStream::connect(server).await.unwrap();
                task::spawn_local(carry(near, far, watched.clone())).detach();
            }
        });
        Self { address, passes, _relay: relay }
    }

    fn client(&self, mesh: &Mesh, server: &Server, settings: Settings) -> Client {
        let client = Client::new(mesh.tls("web"), server);
        Client { pool: pool(mesh.tls("web"), settings), address: self.address, ..client }
    }
}

async fn carry(near: TcpStream, far: TcpStream, mut passes: watch::Receiver<Passes>) {
    let is_short = SockRef::from(&near).tcp_mss().unwrap() <= SHORT;
    let ((mut near_read, mut near_write), (mut far_read, mut far_write)) =
        (near.into_split(), far.into_split());
    let there = async {
        tokio::io::copy(&mut near_read, &mut far_write).await?;
        far_write.shutdown().await
    };
    let back = async {
        let mut buffer = vec![0; 16_384];
        loop {
            let length = far_read.read(&mut buffer).await?;
            // An error means that the test is over.
            let lets_pass = |passes: &Passes| match passes {
                Passes::All => true,
                Passes::Short => is_short,
                Passes::Nothing => false,
            };
            let _ = passes.wait_for(lets_pass).await;
            if length == 0 {
                return near_write.shutdown().await;
            }
            near_write.write_all(&buffer[..length]).await?;
        }
    };
    // Either end may be closed at any time.
    let _ = tokio::join!(there, back);
}

async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A conversation that has begun.
async fn begun(client: &Client) -> (SendHalf, RecvHalf) {
    let stream = client.open(Protocol::Opaque, Bytes::from_static(b"begun")).await.unwrap();
    let (send, mut recv) = stream.split();
    assert_eq!(recv.recv().await.unwrap().unwrap(), "begun");
    (send, recv)
}

#[test]
fn calls_pass_by_short_packets_while_longer_ones_are_lost_and_what_had_stalled_goes_on() {
    local(async {
        let mesh = Mesh::new();
        let server = Server::echo(mesh.tls("api")).await;
        let way = Way::to(server.address).await;
        let client = way.client(&mesh, &server, Settings::default());
        let (mut send, mut recv) = begun(&client).await;
        way.passes.send_replace(Passes::Short);
        send.send(Bytes::from_static(b"stalled")).await.unwrap();
        let began = Instant::now();
        until(|| client.pool.tunnel_count() == 2).await;
        while began.elapsed() < STALL {
            assert_eq!(round_trip(&client, Bytes::from_static(b"short"), false).await, b"short");
        }
        assert_eq!(client.pool.tunnel_count(), 2, "one of short packets for all calls");
        way.passes.send_replace(Passes::All);
        assert_eq!(recv.recv().await.unwrap().unwrap(), "stalled");
    });
}

#[test]
fn a_tunnel_whose_handshake_is_lost_for_its_long_packets_comes_up_by_short_ones_and_is_not_used_for_long() {
    local(async {
        let mesh = Mesh::new();
        let server = Server::echo(mesh.tls("api")).await;
        let way = Way::to(server.address).await;
        let (narrow_age, connect_timeout) = (Duration::from_millis(500), Duration::from_secs(6));
        let settings = Settings { narrow_age, connect_timeout, ..Settings::default() };
        let client = way.client(&mesh, &server, settings);
        way.passes.send_replace(Passes::Short);
        let (mut send, mut recv) = begun(&client).await;
        assert_eq!(client.pool.tunnel_count(), 1);
        way.passes.send_replace(Passes::All);
        send.finish();
        assert_eq!(recv.recv().await.unwrap(), None);
        drop((send, recv));
        until(|| client.pool.tunnel_count() == 0).await;
    });
}

#[test]
fn a_frozen_peer_whose_kernel_takes_connections_is_left_as_one_without_a_tunnel_of_short_packets() {
    local(async {
        let mesh = Mesh::new();
        let server = Server::echo(mesh.tls("api")).await;
        let way = Way::to(server.address).await;
        let client = way.client(&mesh, &server, Settings::default());
        let (mut send, mut recv) = begun(&client).await;
        // One was made a moment ago, and is as silent as the other.
        way.passes.send_replace(Passes::Short);
        send.send(Bytes::from_static(b"a")).await.unwrap();
        until(|| client.pool.tunnel_count() == 2).await;
        way.passes.send_replace(Passes::All);
        assert_eq!(recv.recv().await.unwrap().unwrap(), "a");

        way.passes.send_replace(Passes::Nothing);
        let frozen = Instant::now();
        send.send(Bytes::from_static(b"b")).await.unwrap();
        recv.recv().await.unwrap_err();
        assert!(frozen.elapsed() < Duration::from_secs(10), "{:?}", frozen.elapsed());
        let error = client.fail().await;
        assert!(matches!(error, OpenError::Silent { .. }), "{error}");
        way.passes.send_replace(Passes::All);
        while let Err(error) = client.open(Protocol::Opaque, Bytes::new()).await {
            assert!(matches!(error, OpenError::Silent { .. }), "{error}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}
