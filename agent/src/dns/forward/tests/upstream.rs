//! A resolver by datagram and stream, or over TLS, that behaves as it is told.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use sealane_base::task::{self, Task};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::dns::DnsSockets;

/// Manner of answering.
#[derive(Clone, Debug)]
pub(super) struct Manner {
    pub(super) rcode: u8,
    pub(super) ttl: u32,
    /// Last bytes of the addresses.
    pub(super) last: Vec<u8>,
    /// Datagrams say that there is more.
    pub(super) cuts: bool,
    /// Names come back in lower case.
    pub(super) lower: bool,
    /// Datagrams about names that begin with this are not answered.
    pub(super) silent: Option<&'static str>,
}

impl Manner {
    pub(super) fn answers(last: &[u8]) -> Self {
        Self { rcode: 0, ttl: 60, last: last.to_vec(), cuts: false, lower: false, silent: None }
    }

    fn is_silent(&self, query: &[u8]) -> bool {
        let begins = |label: &str| {
            query.get(13..13 + label.len()).is_some_and(|name| name.eq_ignore_ascii_case(label.as_bytes()))
        };
        self.silent.is_some_and(begins)
    }

    fn answer(&self, query: &[u8], by_stream: bool) -> Vec<u8> {
        let name = query[12..].iter().position(|&byte| byte == 0).unwrap() + 1;
        let mut answer = query[..12 + name + 4].to_vec();
        let cut = self.cuts && !by_stream;
        let last = if cut { &[] } else { &self.last[..] };
        let flags = [0x81 | if cut { 2 } else { 0 }, 0x80 | self.rcode];
        answer[2..12].copy_from_slice(&[
            flags[0],
            flags[1],
            0,
            1,
            0,
            u8::try_from(last.len()).unwrap(),
            0,
            0,
            0,
            0,
        ]);
        if self.lower {
            answer[12..12 + name].make_ascii_lowercase();
        }
        for last in last {
            answer.extend(
                [&[0xc0, 12, 0, 1, 0, 1][..], &self.ttl.to_be_bytes(), &[0, 4, 192, 0, 2, *last]].concat(),
            );
        }
        answer
    }
}

/// A resolver, until dropped.
pub(super) struct Fake {
    address: SocketAddr,
    state: Arc<State>,
    tasks: Vec<Task>,
}

struct State {
    manner: Mutex<Manner>,
    asked: Mutex<Vec<Vec<u8>>>,
    connections: AtomicUsize,
}

impl State {
    fn answer(&self, query: &[u8], by_stream: bool) -> Vec<u8> {
        lock(&self.asked).push(query.to_vec());
        lock(&self.manner).answer(query, by_stream)
    }

    async fn converse(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        while let Ok(len) = stream.read_u16().await {
            let mut query = vec![0; len.into()];
            stream.read_exact(&mut query).await.unwrap();
            let answer = self.answer(&query, true);
            let len = u16::try_from(answer.len()).unwrap().to_be_bytes();
            stream.write_all(&[&len[..], &answer].concat()).await.unwrap();
        }
    }
}

impl Fake {
    fn with(manner: Manner, address: SocketAddr) -> Self {
        let state =
            State { manner: manner.into(), asked: Mutex::default(), connections: AtomicUsize::new(0) };
        Self { address, state: Arc::new(state), tasks: Vec::new() }
    }

    /// Starts a resolver that answers by datagram and by stream.
    pub(super) fn start(manner: Manner) -> Self {
        let sockets = DnsSockets::on_loopback();
        let mut fake = Self::with(manner, sockets.udp.local_addr().unwrap());
        let udp = UdpSocket::from_std(sockets.udp).unwrap();
        let state = fake.state.clone();
        fake.tasks.push(task::spawn("datagrams", async move {
            let mut buffer = [0; 512];
            loop {
                let (len, asker) = udp.recv_from(&mut buffer).await.unwrap();
                if !lock(&state.manner).is_silent(&buffer[..len]) {
                    udp.send_to(&state.answer(&buffer[..len], false), asker).await.unwrap();
                }
            }
        }));
        fake.listen(TcpListener::from_std(sockets.tcp).unwrap(), None);
        fake
    }

    /// Starts a resolver that answers over TLS, as `name`; returns also the certificate that vouches for it.
    pub(super) fn secured(manner: Manner, name: &str) -> (Self, String) {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
        let listener = DnsSockets::on_loopback().tcp;
        let mut fake = Self::with(manner, listener.local_addr().unwrap());
        fake.listen(TcpListener::from_std(listener).unwrap(), Some(TlsAcceptor::from(Arc::new(config))));
        (fake, cert.pem())
    }

    fn listen(&mut self, listener: TcpListener, tls: Option<TlsAcceptor>) {
        let state = self.state.clone();
        self.tasks.push(task::spawn("streams", async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (state, tls) = (state.clone(), tls.clone());
                let conversation = async move {
                    match tls {
                        None => state.converse(stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                state.connections.fetch_add(1, Ordering::Relaxed);
                                state.converse(stream).await;
                            }
                        }
                    }
                };
                task::spawn("stream", conversation).detach();
            }
        }));
    }

    pub(super) fn place(&self) -> String {
        self.address.to_string()
    }

    pub(super) fn behave(&self, manner: Manner) {
        *lock(&self.state.manner) = manner;
    }

    /// Queries in the order in which they came.
    pub(super) fn asked(&self) -> Vec<Vec<u8>> {
        lock(&self.state.asked).clone()
    }

    /// Number of TLS connections.
    pub(super) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }
}
