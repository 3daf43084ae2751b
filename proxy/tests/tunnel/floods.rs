//! Peers that do more of something than anybody has use for.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use sealane_proxy::Protocol;
use sealane_proxy::tls::TlsSource;
use sealane_proxy::tunnel::AcceptError;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::mesh::{Mesh, service};
use crate::site::{Client, Server, Wire, local, round_trip};

/// A frame of a tunnel.
fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    out.push(kind);
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// Writes frames by hand until the tunnel ends; returns false when 4 MiB of them were taken and it goes on.
async fn is_cut(tls: &TlsSource, server: SocketAddr, frames: impl Fn(u32) -> Vec<u8>) -> bool {
    let config = tls.client_config(&service("api")).unwrap();
    let tcp = tokio::net::TcpStream::connect(server).await.unwrap();
    let name = rustls::pki_types::ServerName::IpAddress(server.ip().into());
    let Ok(stream) = tokio_rustls::TlsConnector::from(config).connect(name, tcp).await else { return true };
    let (mut answers, mut stream) = tokio::io::split(stream);
    let read = async {
        let mut ignored = vec![0; 64 * 1024];
        while answers.read(&mut ignored).await.is_ok_and(|length| length > 0) {}
    };
    let write = async {
        let mut sent = 0;
        for round in 0.. {
            let bytes: Vec<u8> = (0..100).flat_map(|n| frames(round * 100 + n)).collect();
            if stream.write_all(&bytes).await.is_err() {
                break;
            }
            sent += bytes.len();
            if sent > 4 << 20 {
                return std::future::pending().await;
            }
        }
    };
    let ended = async {
        tokio::select! {
            () = read => {}
            () = write => {}
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.is_ok()
}

#[test]
fn a_peer_that_floods_its_tunnel_loses_it_and_gets_no_other_for_a_while_and_nobody_else_notices() {
    const OPEN: u8 = 1;
    let floods: [fn(u32) -> Vec<u8>; 6] = [
        |_| frame(5, 0, &[0; 8]),
        |_| frame(99, 0, b"x"),
        |_| frame(8, 0, &[0; 4]),
        // Opened and given up at once, or after the other side has heard of it.
        |n| [frame(OPEN, n + 1, &[0, 0x1f, 0x90]), frame(3, n + 1, &[3])].concat(),
        |n| {
            let open = frame(OPEN, n + 1, &[1, 0x1f, 0x90]);
            if n < 500 { open } else { [open, frame(3, n - 499, &[3])].concat() }
        },
        |n| {
            let open = frame(OPEN, 1, &[0, 0x1f, 0x90]);
            if n == 0 { open } else { frame(4, 1, &[0; 4]) }
        },
    ];
    for (n, flood) in floods.into_iter().enumerate() {
        local(async move {
            let mesh = Mesh::new();
            let mut server = Server::echo(mesh.tls("api")).await;
            let wire = Wire::between([127, 9, 9, 9], server.address).await;
            let client = Client { address: wire.address, ..Client::new(mesh.tls("web"), &server) };
            assert!(is_cut(&mesh.tls("evil"), server.address, flood).await, "flood {n}");
            assert!(matches!(server.ended.recv().await, Some(Ok(()))));
            assert_eq!(server.stats.floods.value(), 1, "flood {n}");
            assert!(
                is_cut(&mesh.tls("evil"), server.address, |_| frame(5, 0, &[0; 8])).await,
                "no other tunnel"
            );
            let barred = server.ended.recv().await.unwrap();
            assert!(matches!(barred, Err(AcceptError::Barred { .. })), "{barred:?}");
            assert_eq!(
                round_trip(&client, Bytes::from_static(b"another address"), false).await,
                b"another address"
            );
        });
    }
}

#[test]
fn callers_that_give_up_hundreds_of_requests_now_and_then_keep_their_tunnel() {
    local(async {
        let mesh = Mesh::new();
        let server = Server::echo(mesh.tls("api")).await;
        let client = Client::new(mesh.tls("web"), &server);
        for _ in 0..20 {
            let opened =
                join_all((0..200).map(|_| client.open(Protocol::Http1, Bytes::from_static(b"GET")))).await;
            drop(opened);
            assert_eq!(round_trip(&client, Bytes::from_static(b"goes on"), false).await, b"goes on");
        }
        assert_eq!(client.stats.tunnels_lost.value() + server.stats.floods.value(), 0);
    });
}
