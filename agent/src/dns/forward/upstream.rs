//! The host's resolvers by hickory: over which connection each is asked, and by stream what does not fit into a datagram.
//!
//! Each server is a pool of its own, and the order is kept here, that of resolv.conf. A name tells nothing about the server
//! that is silent about it, or declines: whoever asks for it would choose whom all others ask. So a silent server is asked
//! for the root's servers, which every resolver knows, and is passed over while it is silent about those, too.

mod sockets;

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::stream::{Map, StreamExt};
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::xfer::{DnsExchange, DnsHandle};
use hickory_resolver::proto::op::{
    DnsRequest, DnsRequestOptions, DnsResponse, Query as Question, ResponseCode,
};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::proto::serialize::binary::BinDecodable;
use hickory_resolver::{ConnectionProvider, NameServerPool, PoolContext, TlsConfig};
use rustls::ClientConfig;
use sealane_base::task::{self, Task};
use tokio::time::Instant;

use super::super::message::{Query, Rcode, UDP_LIMIT};
use super::super::resolv::{Resolv, Server};
use super::super::shares::MAX_IN_FLIGHT;
use super::lock;
use sockets::Sockets;

/// Longest wait for an answer to a datagram until it is sent again. The pool would wait as long as the server's slowest answers
/// took, and add to that with each silence: whose datagram is lost then waits for seconds.
const RETRANSMIT: Duration = Duration::from_millis(500);
/// Interval at which a server that is passed over is asked whether it answers again.
const AGAIN: Duration = Duration::from_secs(5);

/// The servers that a resolv.conf names.
pub(super) struct Upstream {
    servers: Vec<Arc<NameServer>>,
    /// Number of times that each is asked.
    attempts: u32,
}

/// A server of the list.
struct NameServer {
    pool: NameServerPool<Connections>,
    /// True while it is asked after all others.
    away: AtomicBool,
    /// The last look whether it is.
    watcher: Mutex<Option<Task>>,
}

/// Outcome of a question to the servers.
#[derive(Debug)]
pub(super) enum Told {
    /// An answer; where no server wants to give one, the message in which the first one says so.
    Message(Vec<u8>),
    /// Nothing in time.
    Silence,
    /// No message: a server cannot be asked in this way.
    Unable(NetError),
}

impl Upstream {
    /// Servers of whom nobody has been asked yet.
    pub(super) fn new(resolv: &Resolv, tls: ClientConfig) -> Self {
        let mut options = ResolverOpts::default();
        options.timeout = resolv.timeout;
        options.max_active_requests = MAX_IN_FLIGHT;
        // A port of the range that the host sets aside for this, not one that a program may be about to serve.
        options.os_port_selection = true;
        let context = Arc::new(PoolContext::new(options, TlsConfig { config: tls }));
        let sockets = Sockets::new(resolv.servers.iter().map(|server| server.address));
        let pool = |server| {
            NameServerPool::from_config([config(server)], context.clone(), Connections(sockets.clone()))
        };
        let servers = resolv.servers.iter().map(|server| Arc::new(NameServer::new(pool(server)))).collect();
        Self { servers, attempts: resolv.attempts }
    }

    /// Asks until `deadline`. The id, the port and the letters' case of what is sent are random (RFC 5452).
    pub(super) async fn ask(&self, query: &Query<'_>, deadline: Instant) -> Told {
        let question = match Question::from_bytes(query.question) {
            Ok(question) => question,
            Err(error) => return Told::Unable(error.into()),
        };
        let mut told = Told::Silence;
        let asking = self.ask_each(&question, query.edns.is_some(), &mut told);
        // Whoever has declined until then is heard.
        let _ = tokio::time::timeout_at(deadline, asking).await;
        told
    }

    /// Asks one after another: askers are many, and each question is asked of one server if that answers.
    async fn ask_each(&self, question: &Question, edns: bool, told: &mut Told) {
        for _ in 0..self.attempts {
            let mut silent = false;
            for server in self.in_order() {
                match server.ask(question, edns).await {
                    Ok(message) if Rcode::of(&message).is_answer() => {
                        *told = Told::Message(message);
                        return;
                    }
                    Ok(message) if !matches!(told, Told::Message(_)) => *told = Told::Message(message),
                    Ok(_) => {}
                    Err(NetError::Timeout) => silent = true,
                    Err(error) if matches!(told, Told::Silence) => *told = Told::Unable(error),
                    Err(_) => {}
                }
            }
            if !silent {
                return;
            }
        }
    }

    /// As resolv.conf names them, but for those that are away, which come last.
    fn in_order(&self) -> Vec<&Arc<NameServer>> {
        let (away, there): (Vec<_>, Vec<_>) =
            self.servers.iter().partition(|server| server.away.load(Ordering::Relaxed));
        [there, away].concat()
    }
}

impl NameServer {
    fn new(pool: NameServerPool<Connections>) -> Self {
        Self { pool, away: AtomicBool::new(false), watcher: Mutex::default() }
    }

    /// The server's answer, whatever it is. A failure makes one wonder whether the server is there.
    async fn ask(self: &Arc<Self>, question: &Question, edns: bool) -> Result<Vec<u8>, NetError> {
        let answer = self.send(question, edns).await;
        if answer.is_ok() {
            self.away.store(false, Ordering::Relaxed);
        } else {
            let mut watcher = lock(&self.watcher);
            if watcher.as_ref().is_none_or(Task::is_finished) {
                *watcher = Some(task::spawn("dns-upstream", watch(Arc::downgrade(self))));
            }
        }
        answer
    }

    async fn send(&self, question: &Question, edns: bool) -> Result<Vec<u8>, NetError> {
        let mut options = DnsRequestOptions::default();
        options.use_edns = edns;
        options.edns_payload_len = UDP_LIMIT;
        options.case_randomization = true;
        let mut request = DnsRequest::from_query(question.clone(), options);
        // One answer serves those who want to know whether it is authentic, and those who do not.
        request.metadata.authentic_data = true;
        let answer = self.pool.send(request).next().await.unwrap_or(Err(NetError::Timeout));
        answer.map(DnsResponse::into_buffer)
    }
}

/// Looks whether the server answers at all, until it does or is not asked any more.
async fn watch(server: Weak<NameServer>) {
    let root = Question::query(Name::root(), RecordType::NS);
    while let Some(server) = server.upgrade() {
        let answers = server.send(&root, false).await.is_ok();
        server.away.store(!answers, Ordering::Relaxed);
        if answers {
            return;
        }
        drop(server);
        tokio::time::sleep(AGAIN).await;
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Upstream").field("attempts", &self.attempts).finish_non_exhaustive()
    }
}

fn config(server: &Server) -> NameServerConfig {
    let mut connections = match &server.tls {
        Some(name) => vec![ConnectionConfig::tls(name.clone())],
        None => vec![ConnectionConfig::udp(), ConnectionConfig::tcp()],
    };
    for connection in &mut connections {
        connection.port = server.address.port();
    }
    NameServerConfig::new(server.address.ip(), true, connections)
}

/// Connections of a server, whose answers are judged: see [`judge`].
#[derive(Clone)]
struct Connections(Sockets);

impl ConnectionProvider for Connections {
    type Conn = Connection;
    type FutureConn = Pin<Box<dyn Future<Output = Result<Connection, NetError>> + Send>>;
    type RuntimeProvider = Sockets;

    fn new_connection(
        &self,
        ip: IpAddr,
        config: &ConnectionConfig,
        context: &PoolContext,
    ) -> Result<Self::FutureConn, NetError> {
        let connecting = self.0.new_connection(ip, config, context)?;
        Ok(Box::pin(async { connecting.await.map(Connection) }))
    }

    fn runtime_provider(&self) -> &Sockets {
        &self.0
    }
}

/// A connection whose answers are judged.
#[derive(Clone)]
struct Connection(DnsExchange<Sockets>);

type Judge = fn(Result<DnsResponse, NetError>) -> Result<DnsResponse, NetError>;

impl DnsHandle for Connection {
    type Response = Map<<DnsExchange<Sockets> as DnsHandle>::Response, Judge>;
    type Runtime = Sockets;

    fn send(&self, request: DnsRequest) -> Self::Response {
        self.0.send(paced(request)).map(judge)
    }
}

/// Bounds the interval at which the request is sent again.
fn paced(mut request: DnsRequest) -> DnsRequest {
    let options = request.options_mut();
    options.retry_interval = options.retry_interval.min(RETRANSMIT);
    request
}

/// Makes of an answer what the pool should make of it. It would turn "no such name" and "no such records" into errors that
/// have lost the message, and take a server that declines a name for one that fails.
fn judge(told: Result<DnsResponse, NetError>) -> Result<DnsResponse, NetError> {
    let mut response = told?;
    // In the pool's eyes alone: the bytes stay as they are.
    response.metadata.response_code = ResponseCode::Unknown(u16::MAX);
    Ok(response)
}

/// The side of TLS that asks: servers are known by certificates of those whom the host trusts, or of `authorities`.
pub(super) fn tls(resolv: &Resolv, authorities: Option<&Path>) -> ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    if resolv.servers.iter().any(|server| server.tls.is_some()) {
        let found = match authorities {
            Some(path) => rustls_native_certs::load_certs_from_paths(Some(path), None),
            None => rustls_native_certs::load_native_certs(),
        };
        for error in &found.errors {
            tracing::warn!(%error, "cannot read a certificate authority of the host");
        }
        roots.add_parsable_certificates(found.certs);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    versions.expect("aws-lc-rs has the default versions").with_root_certificates(roots).with_no_client_auth()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_sent_again_soon_however_slow_the_server_has_been() {
        let root = Question::query(Name::root(), RecordType::NS);
        for (asked, paces) in [(200, 200), (500, 500), (6_000, 500)] {
            let mut options = DnsRequestOptions::default();
            options.retry_interval = Duration::from_millis(asked);
            let request = paced(DnsRequest::from_query(root.clone(), options));
            assert_eq!(request.options().retry_interval, Duration::from_millis(paces));
        }
    }
}
