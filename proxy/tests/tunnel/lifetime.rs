//! Tunnels come up, fill, age and end.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use sealane_base::drain::Drain;
use sealane_base::task;
use sealane_proxy::Protocol;
use sealane_proxy::tunnel::{Acceptor, OpenError, Settings};
use tokio::net::TcpListener;

use crate::mesh::Mesh;
use crate::site::{Client, PATIENCE, Server, echo, local, pool, round_trip};

#[test]
fn full_tunnels_are_joined_by_others_up_to_a_clear_limit() {
    local(async {
        let mesh = Mesh::new();
        let settings = Settings { max_streams: 3, ..Settings::default() };
        let server = Server::start(mesh.tls("api"), settings, echo).await;
        let client = Client {
            pool: pool(mesh.tls("web"), Settings { tunnels_per_peer: 2, ..Settings::default() }),
            ..Client::new(mesh.tls("web"), &server)
        };
        let mut streams = Vec::new();
        for _ in 0..6 {
            streams.push(client.open(Protocol::Opaque, Bytes::new()).await.unwrap());
        }
        assert_eq!(client.pool.tunnel_count(), 2);
        let error = client.open(Protocol::Opaque, Bytes::new()).await.unwrap_err();
        assert!(matches!(error, OpenError::Saturated { tunnels: 2, .. }), "{error}");
        let (mut send, mut recv) = streams.pop().unwrap().split();
        send.finish();
        assert!(recv.recv().await.unwrap().is_none());
        drop((send, recv));
        round_trip(&client, Bytes::from_static(b"fine again"), false).await;
    });
}

#[test]
fn many_calls_at_once_wait_for_one_handshake() {
    local(async {
        let mesh = Mesh::new();
        let server = Server::echo(mesh.tls("api")).await;
        let client = Client::new(mesh.tls("web"), &server);
        let calls = (0..100).map(|_| round_trip(&client, Bytes::from_static(b"x"), false));
        join_all(calls).await;
        assert_eq!(client.stats.tunnels_opened.value(), 1);
    });
}

#[test]
fn a_draining_receiver_finishes_what_runs_and_takes_nothing_new() {
    local(async {
        let mesh = Mesh::new();
        let mut server = Server::echo(mesh.tls("api")).await;
        let client = Client::new(mesh.tls("web"), &server);
        let (mut send, mut recv) =
            client.open(Protocol::Opaque, Bytes::from_static(b"a")).await.unwrap().split();
        assert_eq!(recv.recv().await.unwrap().unwrap(), "a");
        let drain = server.drain.take().unwrap();
        let drained = task::spawn_local(drain.drain(PATIENCE));
        server.ended_accepting().await;
        send.write_all(b"b").await.unwrap();
        assert_eq!(recv.recv().await.unwrap().unwrap(), "b");
        let error = client.fail().await;
        assert!(matches!(error, OpenError::Connect { .. }), "{error}");
        send.finish();
        assert!(recv.recv().await.unwrap().is_none());
        drop((send, recv));
        assert!(drained.await.unwrap(), "the tunnel ends with its last stream");
    });
}

#[test]
fn a_peer_that_ends_every_tunnel_as_it_comes_up_or_takes_no_streams_is_given_up() {
    local(async {
        let mesh = Mesh::new();
        let settings = Settings { max_streams: 0, ..Settings::default() };
        let server = Server::start(mesh.tls("api"), settings, echo).await;
        let client = Client::new(mesh.tls("web"), &server);
        let error = client.fail().await;
        assert!(matches!(error, OpenError::Saturated { .. }), "{error}");

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (acceptor, drain) =
            (Acceptor::new(mesh.tls("api"), Settings::default(), Arc::default()), Drain::new());
        let mut draining = drain.handle();
        let _draining = task::spawn_local(drain.drain(PATIENCE));
        draining.begun().await;
        let _accepting = task::spawn_local(async move {
            loop {
                let tcp = listener.accept().await.unwrap().0;
                let (acceptor, draining) = (acceptor.clone(), draining.clone());
                task::spawn_local(async move { acceptor.serve(tcp, draining, drop).await }).detach();
            }
        });
        let client = Client { address, ..client };
        let (first, second) = tokio::join!(client.fail(), client.fail());
        for error in [first, second] {
            // A tunnel without streams may be over before its greeting is read.
            assert!(matches!(error, OpenError::Closing { .. } | OpenError::Handshake { .. }), "{error}");
        }
        let made = client.stats.tunnels_opened.value() - 8;
        assert!(made <= 6, "{made}");
    });
}

#[test]
fn tunnels_to_peers_that_are_gone_and_those_of_a_draining_caller_close() {
    local(async {
        let mesh = Mesh::new();
        let mut server = Server::echo(mesh.tls("api")).await;
        let client = Client::new(mesh.tls("web"), &server);
        round_trip(&client, Bytes::from_static(b"x"), false).await;
        client.pool.retain(|_| true);
        assert_eq!(client.pool.tunnel_count(), 1);
        client.pool.retain(|_| false);
        server.ended.recv().await.unwrap().unwrap();
        round_trip(&client, Bytes::from_static(b"x"), false).await;
        client.pool.drain();
        assert!(matches!(client.fail().await, OpenError::Draining));
        server.ended.recv().await.unwrap().unwrap();
    });
}

#[test]
fn unused_and_aged_tunnels_close_and_a_stuck_peer_is_given_up() {
    local(async {
        let mesh = Mesh::new();
        let server = Server::echo(mesh.tls("api")).await;
        let soon = Duration::from_millis(100);
        for settings in [
            Settings { idle_timeout: soon, ..Settings::default() },
            Settings { max_age: soon, ..Settings::default() },
        ] {
            let pool = pool(mesh.tls("web"), settings);
            let client = Client { pool, ..Client::new(mesh.tls("web"), &server) };
            // On a busy machine a tunnel may be too old before anybody has used it; then nothing was sent.
            let stream = loop {
                match client.open(Protocol::Http1, Bytes::from_static(b"x")).await {
                    Ok(stream) => break stream,
                    Err(error) => assert!(matches!(error, OpenError::Handshake { .. }), "{error}"),
                }
            };
            let (mut send, mut recv) = stream.split();
            send.finish();
            assert_eq!(recv.recv().await.unwrap().unwrap(), Bytes::from_static(b"x"));
            assert_eq!(recv.recv().await.unwrap(), None);
            drop((send, recv));
            while client.pool.tunnel_count() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }

        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = Settings { connect_timeout: Duration::from_millis(300), ..Settings::default() };
        let client = Client {
            pool: pool(mesh.tls("web"), settings),
            address: silent.local_addr().unwrap(),
            ..Client::new(mesh.tls("web"), &server)
        };
        assert!(matches!(client.fail().await, OpenError::Timeout { .. }));
    });
}
