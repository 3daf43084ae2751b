//! Tunnels over real TLS and loopback TCP. Needs root: connecting sockets are marked.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

#[path = "tunnel/floods.rs"]
mod floods;
#[path = "tunnel/identity.rs"]
mod identity;
#[path = "tunnel/lifetime.rs"]
mod lifetime;
#[path = "tunnel/mesh.rs"]
mod mesh;
#[path = "tunnel/narrow.rs"]
mod narrow;
#[path = "tunnel/site.rs"]
mod site;

use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sealane_base::metrics::Reading;
use sealane_base::task::{self, Task};
use sealane_proxy::Protocol;
use sealane_proxy::tunnel::{OpenError, ResetCode, Settings, StreamError};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use mesh::Mesh;
use site::{Client, Server, Wire, echo, local, round_trip};

#[test]
fn thousands_of_streams_arrive_intact_in_both_directions() {
    local(async {
        let mesh = Mesh::new();
        let server = Server::start(mesh.tls("api"), Settings::default(), echo);
        let server = server.await;
        let client = Client::new(mesh.tls("web"), &server);
        let workers = (0..100).map(|seed| {
            let client = &client;
            async move {
                let mut random = StdRng::seed_from_u64(seed);
                for _ in 0..20 {
                    let size = 1_usize << random.random_range(0..18);
                    let data: Bytes = (0..size).map(|_| random.random::<u8>()).collect();
                    assert_eq!(round_trip(client, data.clone(), random.random()).await, data);
                }
            }
        });
        join_all(workers).await;
        let stats = &client.stats;
        assert_eq!(stats.streams_opened.value(), 2000);
        assert_eq!(stats.tunnels_opened.value(), 1, "they share one tunnel");
        let families = stats.families("connecting");
        let open = families.iter().find(|family| family.name == "sealane_tunnel_open").unwrap();
        assert_eq!(open.series[0].reading, Reading::Value(1.0));
    });
}

#[test]
fn a_reader_that_does_not_read_holds_up_nobody_else() {
    local(async {
        let mesh = Mesh::new();
        let held = Rc::new(std::cell::RefCell::new(Vec::new()));
        let keep = held.clone();
        let server = Server::start(mesh.tls("api"), Settings::default(), move |incoming| {
            match incoming.header.protocol {
                Protocol::Opaque => keep.borrow_mut().push(incoming),
                Protocol::Http1 => echo(incoming),
                Protocol::Http2 | Protocol::Tls => panic!("{:?}", incoming.header),
            }
        });
        let server = server.await;
        let client = Client::new(mesh.tls("web"), &server);
        let stuck = join_all((0..20).map(|_| client.open(Protocol::Opaque, Bytes::new()))).await;
        let stuck: Vec<Task> = stuck
            .into_iter()
            .map(|stream| {
                let (mut send, recv) = stream.unwrap().split();
                task::spawn_local(async move {
                    let _recv = recv;
                    send.write_all(&vec![0; 4 << 20]).await.unwrap();
                })
            })
            .collect();
        for _ in 0..50 {
            let data = Bytes::from(vec![7; 100_000]);
            assert_eq!(round_trip(&client, data.clone(), false).await, data);
        }
        assert!(stuck.iter().all(|task| !task.is_finished()));
    });
}

#[test]
fn a_tunnel_that_is_cut_fails_its_streams_on_both_sides() {
    local(async {
        let mesh = Mesh::new();
        let (seen, mut accepted) = mpsc::unbounded_channel();
        let server = Server::start(mesh.tls("api"), Settings::default(), move |incoming| {
            seen.send(incoming).unwrap();
        });
        let server = server.await;
        let wire = Wire::to(server.address).await;
        let client = Client { address: wire.address, ..Client::new(mesh.tls("web"), &server) };
        let (mut send, mut recv) =
            client.open(Protocol::Opaque, Bytes::from_static(b"x")).await.unwrap().split();
        let (mut far_send, mut far_recv) = accepted.recv().await.unwrap().stream.split();
        assert_eq!(far_recv.recv().await.unwrap().unwrap(), "x");
        drop(wire);
        let error = recv.recv().await.unwrap_err();
        assert!(matches!(error, StreamError::TunnelLost { never_sent: false, .. }), "{error}");
        assert!(!error.never_processed());
        assert!(matches!(far_recv.recv().await, Err(StreamError::TunnelLost { .. })));
        assert!(send.write_all(b"x").await.is_err() && far_send.write_all(b"x").await.is_err());
    });
}

#[test]
fn a_refused_stream_and_a_refused_connection_were_never_processed() {
    local(async {
        let mesh = Mesh::new();
        let server = Server::start(mesh.tls("api"), Settings::default(), |incoming| {
            incoming.stream.reset(ResetCode::Unreachable);
        });
        let server = server.await;
        let client = Client::new(mesh.tls("web"), &server);
        let (_send, mut recv) =
            client.open(Protocol::Http1, Bytes::from_static(b"GET")).await.unwrap().split();
        let error = recv.recv().await.unwrap_err();
        assert_eq!(error, StreamError::Reset(ResetCode::Unreachable));
        assert!(error.never_processed());

        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let client = Client { address: nobody, ..client };
        assert!(matches!(client.fail().await, OpenError::Connect { .. }));
    });
}
