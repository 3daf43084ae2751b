//! The host's resolvers as hickory's pool: who is asked, by their health; over which connection; and by stream what does not
//! fit into a datagram.
//!
//! The pool judges servers, and answers stay the servers' own: [`judge`] hides from it whether a name is there, and tells
//! it that a server which declines has failed, so that another one is asked.

mod sockets;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{Map, StreamExt};
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::xfer::{DnsExchange, DnsHandle};
use hickory_resolver::proto::op::{
    DnsRequest, DnsRequestOptions, DnsResponse, Query as Question, ResponseCode,
};
use hickory_resolver::proto::serialize::binary::BinDecodable;
use hickory_resolver::{ConnectionProvider, NameServerPool, PoolContext, TlsConfig};
use rustls::ClientConfig;
use tokio::time::Instant;

use super::super::message::{Query, UDP_LIMIT};
use super::super::resolv::{Resolv, Server};
use super::super::shares::MAX_IN_FLIGHT;
use sockets::Sockets;

/// A pool of the servers that a resolv.conf names.
pub(super) struct Upstream {
    pool: NameServerPool<Connections>,
    /// Number of times that somebody is asked before all are given up.
    tries: usize,
}

/// Answer of the servers to a question.
#[derive(Debug)]
pub(super) enum Told {
    /// An answer.
    Answer(Vec<u8>),
    /// None of them wants to answer; the first one says so.
    Declined(Vec<u8>),
    /// Nothing in time.
    Silence,
    /// They cannot be asked in this way.
    Unable(NetError),
}

impl Upstream {
    /// A pool that has asked nobody yet.
    pub(super) fn new(resolv: &Resolv, tls: ClientConfig) -> Self {
        let mut options = ResolverOpts::default();
        options.timeout = resolv.timeout;
        // One after another, the best one first: askers are many, and each question is asked of one server if that answers.
        options.num_concurrent_reqs = 1;
        options.max_active_requests = MAX_IN_FLIGHT;
        // A port of the range that the host sets aside for this, not one that a program may be about to serve.
        options.os_port_selection = true;
        let context = Arc::new(PoolContext::new(options, TlsConfig { config: tls }));
        let sockets = Sockets::new(resolv.servers.iter().map(|server| server.address));
        let servers = resolv.servers.iter().map(config);
        let pool = NameServerPool::from_config(servers, context, Connections(sockets));
        Self { pool, tries: resolv.attempts as usize * resolv.servers.len() }
    }

    /// Asks until `deadline`. The id, the port and the letters' case of what is sent are random (RFC 5452).
    pub(super) async fn ask(&self, query: &Query<'_>, deadline: Instant) -> Told {
        let question = match Question::from_bytes(query.question) {
            Ok(question) => question,
            Err(error) => return Told::Unable(error.into()),
        };
        let mut options = DnsRequestOptions::default();
        options.use_edns = query.edns.is_some();
        options.edns_payload_len = UDP_LIMIT;
        options.case_randomization = true;
        for _ in 0..self.tries {
            let mut request = DnsRequest::from_query(question.clone(), options);
            // One answer serves those who want to know whether it is authentic, and those who do not.
            request.metadata.authentic_data = true;
            match tokio::time::timeout_at(deadline, self.pool.send(request).next()).await {
                Ok(Some(Ok(response))) => return Told::Answer(response.into_buffer()),
                Ok(Some(Err(NetError::Timeout))) => {}
                Ok(Some(Err(error))) => {
                    return declined(&error).map_or(Told::Unable(error), Told::Declined);
                }
                Ok(None) | Err(_) => break,
            }
        }
        Told::Silence
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Upstream").field("tries", &self.tries).finish_non_exhaustive()
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

/// Connections of the pool, which are told from others by whom they trust: see [`judge`].
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
        self.0.send(request).map(judge)
    }
}

/// Message by which a server declines.
#[derive(Debug, thiserror::Error)]
#[error("the server declines")]
struct Declined(Vec<u8>);

/// Makes of an answer what the pool should make of it. It would turn "no such name" and "no such records" into errors that
/// have lost the message, and return "server failure" without asking another server.
fn judge(told: Result<DnsResponse, NetError>) -> Result<DnsResponse, NetError> {
    let mut response = told?;
    if !matches!(response.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain) {
        return Err(io::Error::other(Declined(response.into_buffer())).into());
    }
    // In the pool's eyes alone: the bytes stay as they are.
    response.metadata.response_code = ResponseCode::Unknown(u16::MAX);
    Ok(response)
}

fn declined(error: &NetError) -> Option<Vec<u8>> {
    let NetError::Io(error) = error else { return None };
    error.get_ref()?.downcast_ref::<Declined>().map(|Declined(message)| message.clone())
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
