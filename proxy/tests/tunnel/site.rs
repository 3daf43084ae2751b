//! Both ends of tunnels, and the wire between them.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sealane_base::drain::Drain;
use sealane_base::task::{self, Task};
use sealane_proxy::Protocol;
use sealane_proxy::tls::TlsSource;
use sealane_proxy::tunnel::{
    AcceptError, Acceptor, Incoming, OpenError, OpenHeader, PeerKey, Settings, Stream, TunnelPool,
    TunnelStats,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::mesh::service;

/// Long enough for a machine under load; nothing waits for it to pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test on one thread, as a worker does.
pub(crate) fn local(test: impl Future<Output = ()>) {
    assert!(nix::unistd::geteuid().is_root(), "tunnels mark their sockets: run this test as root");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let set = tokio::task::LocalSet::new();
    set.block_on(&runtime, async { tokio::time::timeout(PATIENCE, test).await.expect("the test hangs") });
}

pub(crate) fn pool(tls: TlsSource, settings: Settings) -> TunnelPool {
    TunnelPool::new(tls, settings, Arc::default())
}

/// Sends everything back.
pub(crate) fn echo(incoming: Incoming) {
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
pub(crate) async fn round_trip(client: &Client, data: Bytes, pieces: bool) -> Vec<u8> {
    let (mut send, mut recv) = client.open(Protocol::Http1, Bytes::new()).await.unwrap().split();
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

pub(crate) struct Client {
    pub(crate) pool: TunnelPool,
    pub(crate) stats: Arc<TunnelStats>,
    pub(crate) address: SocketAddr,
}

impl Client {
    pub(crate) fn new(tls: TlsSource, server: &Server) -> Self {
        let stats = Arc::new(TunnelStats::default());
        let pool = TunnelPool::new(tls, Settings::default(), stats.clone());
        Self { pool, stats, address: server.address }
    }

    /// Calls the service `api`, port 8080.
    pub(crate) async fn open(&self, protocol: Protocol, mut first: Bytes) -> Result<Stream, OpenError> {
        let key = PeerKey { address: self.address, expected: service("api") };
        let header = OpenHeader::new(protocol, 8080_u16.try_into().unwrap());
        let stream = self.pool.open(&key, &header, &mut first).await?;
        assert!(first.is_empty());
        Ok(stream)
    }

    pub(crate) async fn fail(&self) -> OpenError {
        self.open(Protocol::Opaque, Bytes::new()).await.unwrap_err()
    }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) drain: Option<Drain>,
    pub(crate) stats: Arc<TunnelStats>,
    /// Ending of each connection.
    pub(crate) ended: mpsc::UnboundedReceiver<Result<(), AcceptError>>,
    pub(crate) accepting: Task,
}

impl Server {
    pub(crate) async fn echo(tls: TlsSource) -> Self {
        Self::start(tls, Settings::default(), echo).await
    }

    pub(crate) async fn start(
        tls: TlsSource,
        settings: Settings,
        on_stream: impl Fn(Incoming) + 'static,
    ) -> Self {
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

    pub(crate) async fn ended_accepting(&mut self) {
        (&mut self.accepting).await.unwrap();
    }
}

/// A TCP relay that can be cut.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    _relay: Task,
}

impl Wire {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        Self::between([127, 0, 0, 1], server).await
    }

    /// Makes a connection that comes from this address.
    pub(crate) async fn between(source: [u8; 4], server: SocketAddr) -> Self {
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
