//! Tunnels over real TLS and loopback TCP. Needs root: connecting sockets are marked.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

#[path = "tunnel/mesh.rs"]
mod mesh;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::join_all;
use mesh::{Mesh, service};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sealane_base::drain::Drain;
use sealane_base::metrics::Reading;
use sealane_base::task::{self, Task};
use sealane_proxy::tls::TlsSource;
use sealane_proxy::tunnel::{
    AcceptError, Acceptor, Incoming, Kind, OpenError, OpenHeader, PeerKey, ResetCode, Settings, Stream,
    StreamError, TunnelPool, TunnelStats,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Long enough for a machine under load; nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(60);

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
        let server =
            Server::start(mesh.tls("api"), Settings::default(), move |incoming| match incoming.header.kind {
                Kind::Opaque => keep.borrow_mut().push(incoming),
                Kind::Http1 => echo(incoming),
            });
        let server = server.await;
        let client = Client::new(mesh.tls("web"), &server);
        let stuck = join_all((0..20).map(|_| client.open(Kind::Opaque, Bytes::new()))).await;
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
        let (mut send, mut recv) = client.open(Kind::Opaque, Bytes::from_static(b"x")).await.unwrap().split();
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
fn another_identity_than_the_one_called_is_refused_by_name() {
    local(async {
        let mesh = Mesh::new();
        let server = Server::echo(mesh.tls("thief")).await;
        let error = Client::new(mesh.tls("web"), &server).fail().await;
        assert!(matches!(error, OpenError::Identity { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("svc/thief") && text.contains("svc/api"), "{text}");
    });
}

#[test]
fn foreign_and_expired_certificates_are_refused_in_both_directions() {
    local(async {
        let mesh = Mesh::new();
        let expired = |name: &str| {
            let tls = TlsSource::new();
            let ended = SystemTime::now() - Duration::from_secs(60);
            tls.set(mesh.identity(service(name), ended)).unwrap();
            tls
        };
        for (bad, word) in [(Mesh::new().tls("api"), "not of this mesh"), (expired("api"), "expired")] {
            let server = Server::echo(bad).await;
            let error = Client::new(mesh.tls("web"), &server).fail().await;
            assert!(matches!(error, OpenError::Identity { .. }), "{error}");
            assert!(error.to_string().contains(word), "{error}");
        }
        let foreigner = TlsSource::new();
        let mut identity = Mesh::new().identity(service("web"), SystemTime::now() + Duration::from_secs(60));
        identity.roots = mesh.identity(service("web"), SystemTime::now()).roots;
        foreigner.set(identity).unwrap();
        for bad in [foreigner, expired("web")] {
            let mut server = Server::echo(mesh.tls("api")).await;
            let error = Client::new(bad, &server).fail().await;
            assert!(matches!(error, OpenError::Handshake { .. }), "{error}");
            let refused = server.ended.recv().await.unwrap().unwrap_err();
            assert!(matches!(refused, AcceptError::Handshake { .. }), "{refused}");
        }
    });
}

#[test]
fn new_tunnels_use_a_renewed_identity_and_old_ones_go_on() {
    local(async {
        let mesh = Mesh::new();
        let (seen, mut peers) = mpsc::unbounded_channel();
        let server = Server::start(mesh.tls("api"), Settings::default(), move |incoming| {
            seen.send(incoming.peer.to_string()).unwrap();
            echo(incoming);
        });
        let server = server.await;
        let tls = mesh.tls("web");
        let client = Client::new(tls.clone(), &server);
        let (mut send, mut recv) = client.open(Kind::Opaque, Bytes::new()).await.unwrap().split();
        let later = SystemTime::now() + Duration::from_secs(3600);
        tls.set(mesh.identity(service("shop-web"), later)).unwrap();
        let renewed = Client::new(tls, &server);
        round_trip(&renewed, Bytes::from_static(b"new"), false).await;
        send.write_all(b"old").await.unwrap();
        assert_eq!(recv.recv().await.unwrap().unwrap(), "old");
        assert_eq!(peers.recv().await.unwrap(), "spiffe://sealane/net/shop/svc/web");
        assert_eq!(peers.recv().await.unwrap(), "spiffe://sealane/net/shop/svc/shop-web");
    });
}

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
            streams.push(client.open(Kind::Opaque, Bytes::new()).await.unwrap());
        }
        assert_eq!(client.pool.tunnel_count(), 2);
        let error = client.open(Kind::Opaque, Bytes::new()).await.unwrap_err();
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
        let (mut send, mut recv) = client.open(Kind::Opaque, Bytes::from_static(b"a")).await.unwrap().split();
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
                match client.open(Kind::Http1, Bytes::from_static(b"x")).await {
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

#[test]
fn a_refused_stream_and_a_refused_connection_were_never_processed() {
    local(async {
        let mesh = Mesh::new();
        let server = Server::start(mesh.tls("api"), Settings::default(), |incoming| {
            incoming.stream.reset(ResetCode::Unreachable);
        });
        let server = server.await;
        let client = Client::new(mesh.tls("web"), &server);
        let (_send, mut recv) = client.open(Kind::Http1, Bytes::from_static(b"GET")).await.unwrap().split();
        let error = recv.recv().await.unwrap_err();
        assert_eq!(error, StreamError::Reset(ResetCode::Unreachable));
        assert!(error.never_processed());

        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let client = Client { address: nobody, ..client };
        assert!(matches!(client.fail().await, OpenError::Connect { .. }));
    });
}

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
                join_all((0..200).map(|_| client.open(Kind::Http1, Bytes::from_static(b"GET")))).await;
            drop(opened);
            assert_eq!(round_trip(&client, Bytes::from_static(b"goes on"), false).await, b"goes on");
        }
        assert_eq!(client.stats.tunnels_lost.value() + server.stats.floods.value(), 0);
    });
}

/// Runs a test on one thread, as a worker does.
fn local(test: impl Future<Output = ()>) {
    assert!(nix::unistd::geteuid().is_root(), "tunnels mark their sockets: run this test as root");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let set = tokio::task::LocalSet::new();
    set.block_on(&runtime, async { tokio::time::timeout(PATIENCE, test).await.expect("the test hangs") });
}

fn pool(tls: TlsSource, settings: Settings) -> TunnelPool {
    TunnelPool::new(tls, settings, Arc::default())
}

/// Sends everything back.
fn echo(incoming: Incoming) {
    task::spawn_local(async move {
        let (mut send, mut recv) = Stream::split(incoming.stream);
        while let Ok(Some(data)) = recv.recv().await {
            if send.send(data).await.is_err() {
                return;
            }
        }
        send.finish();
    })
    .detach();
}

/// Sends `data`, at once or in small pieces, and returns what comes back.
async fn round_trip(client: &Client, data: Bytes, pieces: bool) -> Vec<u8> {
    let (mut send, mut recv) = client.open(Kind::Http1, Bytes::new()).await.unwrap().split();
    let writing = async {
        for piece in data.chunks(if pieces { 1000 } else { usize::MAX }) {
            send.write_all(piece).await.unwrap();
        }
        send.finish();
    };
    let reading = async {
        let mut all = Vec::new();
        while let Some(piece) = recv.recv().await.unwrap() {
            assert!(!piece.is_empty());
            all.extend_from_slice(&piece);
        }
        all
    };
    tokio::join!(writing, reading).1
}

struct Client {
    pool: TunnelPool,
    stats: Arc<TunnelStats>,
    address: SocketAddr,
}

impl Client {
    fn new(tls: TlsSource, server: &Server) -> Self {
        let stats = Arc::new(TunnelStats::default());
        let pool = TunnelPool::new(tls, Settings::default(), stats.clone());
        Self { pool, stats, address: server.address }
    }

    /// Calls the service `api`, port 8080.
    async fn open(&self, kind: Kind, mut first: Bytes) -> Result<Stream, OpenError> {
        let key = PeerKey { address: self.address, expected: service("api") };
        let header = OpenHeader::new(kind, 8080_u16.try_into().unwrap());
        let stream = self.pool.open(&key, &header, &mut first).await?;
        assert!(first.is_empty());
        Ok(stream)
    }

    async fn fail(&self) -> OpenError {
        self.open(Kind::Opaque, Bytes::new()).await.unwrap_err()
    }
}

struct Server {
    address: SocketAddr,
    drain: Option<Drain>,
    stats: Arc<TunnelStats>,
    /// Ending of each connection.
    ended: mpsc::UnboundedReceiver<Result<(), AcceptError>>,
    accepting: Task,
}

impl Server {
    async fn echo(tls: TlsSource) -> Self {
        Self::start(tls, Settings::default(), echo).await
    }

    async fn start(tls: TlsSource, settings: Settings, on_stream: impl Fn(Incoming) + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stats = Arc::<TunnelStats>::default();
        let acceptor = Acceptor::new(tls, settings, stats.clone());
        let drain = Drain::new();
        let mut draining = drain.handle();
        let (end, ended) = mpsc::unbounded_channel();
        let on_stream = Rc::new(on_stream);
        let accepting = task::spawn_local(async move {
            loop {
                let tcp = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    () = draining.begun() => return,
                };
                let (acceptor, draining, end) = (acceptor.clone(), draining.clone(), end.clone());
                let on_stream = on_stream.clone();
                task::spawn_local(async move {
                    let outcome = acceptor.serve(tcp, draining, |incoming| on_stream(incoming)).await;
                    // A test that is over does not listen.
                    let _ = end.send(outcome);
                })
                .detach();
            }
        });
        Self { address, drain: Some(drain), stats, ended, accepting }
    }

    async fn ended_accepting(&mut self) {
        (&mut self.accepting).await.unwrap();
    }
}

/// A TCP relay that can be cut.
struct Wire {
    address: SocketAddr,
    _relay: Task,
}

impl Wire {
    async fn to(server: SocketAddr) -> Self {
        Self::between([127, 0, 0, 1], server).await
    }

    /// Makes a connection that comes from this address.
    async fn between(source: [u8; 4], server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let relay = task::spawn_local(async move {
            let (mut near, _) = listener.accept().await.unwrap();
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind((source, 0).into()).unwrap();
            let mut far = socket.connect(server).await.unwrap();
            // How the relay ends is the test's affair.
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
        Self { address, _relay: relay }
    }
}
