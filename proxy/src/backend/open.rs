//! Connection to an endpoint: a stream of a tunnel to its sidecar, or plain TCP where it has none.

use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use tokio::net::TcpStream;

use super::{Pools, Work};
use crate::balance::Outcome;
use crate::dial::{self, Awaits, Client, FirstWord, IdleKey, Used};
use crate::dispatch::OpenFailure;
use crate::leg::{self, Leg};
use crate::protocol::Protocol;
use crate::route::Reach;
use crate::tunnel::{OpenError, OpenHeader, PeerKey};

/// A connection to an endpoint.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The stream, or the connection itself.
    pub(crate) leg: Leg,
    /// The connection beneath, where it may be kept for another request.
    pub(crate) plain: Option<(SocketAddr, Used)>,
}

/// Purpose that a connection is opened for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Purpose {
    /// The protocol that is spoken.
    pub(crate) protocol: Protocol,
    /// True if what is asked may be asked twice.
    pub(crate) is_repeatable: bool,
    /// The client, for a request of HTTP/1.
    pub(crate) client: Client,
}

/// Opens a connection to the endpoint of `work` and sends the start of `first` where that can be done in the same breath.
///
/// # Errors
/// When there is none; the endpoint has been blamed for it.
pub(crate) async fn open(
    pools: &Pools,
    work: &Work,
    purpose: Purpose,
    first: &mut Bytes,
) -> Result<Connection, OpenFailure> {
    let Purpose { protocol, is_repeatable, client } = purpose;
    let address = work.endpoint.address;
    match &work.endpoint.reach {
        Reach::Tunnel(expected) => {
            let address = SocketAddr::new(address.ip(), pools.tunnel_port);
            let key = PeerKey { address, expected: (**expected).clone() };
            let header = OpenHeader {
                protocol,
                port: work.backend.port,
                service: work.backend.service.clone(),
                original_destination: Some(work.backend.destination),
                client: None,
                connection: client,
            };
            let opened = pools.tunnels.open(&key, &header, first).await;
            let stream = opened.map_err(|error| failure(work, &error))?;
            if !is_repeatable || work.backend.is_alone() {
                stream.set_work();
            }
            Ok(Connection { leg: leg::stream(stream), plain: None })
        }
        Reach::Plain => {
            let kept = match protocol {
                Protocol::Http1 => pools.idle.take(&IdleKey { peer: None, address }, client, is_repeatable),
                Protocol::Http2 | Protocol::Tls | Protocol::Opaque => None,
            };
            let used = match kept {
                Some(used) => used,
                None => Used { stream: dial(pools, work, protocol).await?, in_doubt: false },
            };
            Ok(Connection { leg: leg::tcp(used.stream.clone()), plain: Some((address, used)) })
        }
    }
}

/// A new connection to an endpoint without a sidecar.
async fn dial(pools: &Pools, work: &Work, protocol: Protocol) -> Result<Rc<TcpStream>, OpenFailure> {
    let address = work.endpoint.address;
    pools.dialer.connect(address, (first_word(protocol), awaits(protocol))).await.map_err(|error| {
        if dial::lacks_port(&error) {
            work.backend.telemetry.note_without_port(address);
            // It says nothing of the endpoint.
            work.report(Outcome::Abandoned);
        } else {
            work.report_failure(Outcome::Refused, "connect");
        }
        OpenFailure::plain(address, &error)
    })
}

/// A client of HTTP has been heard already, or is passed on by a connection of our own that begins.
fn first_word(protocol: Protocol) -> FirstWord {
    if protocol.has_requests() { FirstWord::Ours } else { FirstWord::Anyones }
}

/// A connection of HTTP/1 that is in use carries a request; of what other protocols have said, the kernel's counts tell.
fn awaits(protocol: Protocol) -> Awaits {
    match protocol {
        Protocol::Http1 => Awaits::Always,
        Protocol::Http2 | Protocol::Tls | Protocol::Opaque => Awaits::AfterWords,
    }
}

fn failure(work: &Work, error: &OpenError) -> OpenFailure {
    let (outcome, reason) = match error {
        OpenError::Connect { .. } => (Outcome::Refused, "connect"),
        OpenError::Timeout { .. } => (Outcome::Refused, "timeout"),
        OpenError::Away { .. } => (Outcome::Refused, "away"),
        OpenError::Silent { .. } => (Outcome::Refused, "silent"),
        OpenError::Identity { .. } => (Outcome::Refused, "identity"),
        OpenError::Handshake { .. } => (Outcome::Refused, "handshake"),
        OpenError::Closing { .. } => (Outcome::Refused, "gone"),
        OpenError::Saturated { .. } => (Outcome::Broken, "saturated"),
        OpenError::NoIdentity | OpenError::Draining => (Outcome::Abandoned, "not_ready"),
    };
    work.report_failure(outcome, reason);
    let timed_out = matches!(error, OpenError::Timeout { .. } | OpenError::Away { .. });
    OpenFailure { text: error.to_string(), reason, timed_out }
}
