//! A connection to an endpoint: a stream of a tunnel to its sidecar, or plain TCP where it has none.

use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use tokio::net::TcpStream;

use super::{Upstream, Work};
use crate::balance::Outcome;
use crate::dial::{self, Client, FirstWord, IdleKey, Used};
use crate::leg::{self, Input, Output};
use crate::route::Reach;
use crate::telemetry::Carried;
use crate::tunnel::{Kind, OpenError, OpenHeader, PeerKey};
use crate::worker::Worker;

/// The far side of a call.
#[derive(Debug)]
pub(crate) struct Far {
    /// Halves of the stream.
    pub(crate) legs: (Input, Output),
    /// The connection beneath, where it may be kept for another request.
    pub(crate) plain: Option<(SocketAddr, Used)>,
}

/// An errand to an endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Errand {
    /// The protocol that is spoken.
    pub(crate) carried: Carried,
    /// True if it may be done twice.
    pub(crate) repeatable: bool,
    /// The client, for a request of HTTP/1.
    pub(crate) client: Client,
}

/// Nothing was sent: another endpoint may be asked, whatever the call is.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct OpenFailure {
    /// Description of the failure.
    pub(crate) text: String,
    /// For metrics.
    pub(crate) reason: &'static str,
    /// True if it took too long, rather than being refused.
    pub(crate) timed_out: bool,
}

/// Opens a way to the endpoint of `work` and sends the start of `first` where that can be done in the same breath.
///
/// # Errors
/// When there is none; the endpoint has been blamed for it.
pub(crate) async fn open(
    worker: &Worker,
    upstream: &Upstream,
    work: &Work,
    errand: Errand,
    first: &mut Bytes,
) -> Result<Far, OpenFailure> {
    let Errand { carried, repeatable, client } = errand;
    let address = work.endpoint.address;
    match &work.endpoint.reach {
        Reach::Tunnel(expected) => {
            let address = SocketAddr::new(address.ip(), worker.ports.tunnel);
            let key = PeerKey { address, expected: expected.clone() };
            let header = OpenHeader {
                kind: match carried {
                    Carried::Http => Kind::Http1,
                    // Whoever does not know better passes the bytes of HTTP/2 on as they are.
                    Carried::Http2 | Carried::Opaque => Kind::Opaque,
                },
                port: upstream.port,
                service: upstream.service.clone(),
                original_destination: Some(upstream.destination),
                client: None,
                connection: client,
                http2: carried == Carried::Http2,
            };
            let opened = worker.tunnels.open(&key, &header, first).await;
            let stream = opened.map_err(|error| failure(work, &error))?;
            Ok(Far { legs: leg::stream(stream), plain: None })
        }
        Reach::Plain => {
            let kept = match carried {
                Carried::Http => worker.idle.take(&IdleKey { caller: None, address }, client, repeatable),
                Carried::Http2 | Carried::Opaque => None,
            };
            let used = match kept {
                Some(used) => used,
                None => Used { stream: dial(worker, work, carried.first_word()).await?, in_doubt: false },
            };
            Ok(Far { legs: leg::tcp(used.stream.clone()), plain: Some((address, used)) })
        }
    }
}

/// A new connection to an endpoint without a sidecar.
async fn dial(worker: &Worker, work: &Work, first_word: FirstWord) -> Result<Rc<TcpStream>, OpenFailure> {
    let address = work.endpoint.address;
    dial::connect(address, first_word).await.map_err(|error| {
        if dial::lacks_port(&error) {
            worker.note_without_port(address);
            // It says nothing of the endpoint.
            work.report(Outcome::Abandoned);
        } else {
            work.report_failure(Outcome::Refused, "connect");
        }
        let timed_out = error.kind() == std::io::ErrorKind::TimedOut;
        OpenFailure { text: format!("no connection to {address}: {error}"), reason: "connect", timed_out }
    })
}

impl Carried {
    /// A client of HTTP has been heard already, or is passed on by a connection of our own that begins.
    fn first_word(self) -> FirstWord {
        match self {
            Self::Http | Self::Http2 => FirstWord::Ours,
            Self::Opaque => FirstWord::Anyones,
        }
    }
}

fn failure(work: &Work, error: &OpenError) -> OpenFailure {
    let (outcome, reason) = match error {
        OpenError::Connect { .. } => (Outcome::Refused, "connect"),
        OpenError::Timeout { .. } => (Outcome::Refused, "timeout"),
        OpenError::Identity { .. } => (Outcome::Refused, "identity"),
        OpenError::Handshake { .. } => (Outcome::Refused, "handshake"),
        OpenError::Closing { .. } => (Outcome::Refused, "gone"),
        OpenError::Saturated { .. } => (Outcome::Broken, "saturated"),
        OpenError::NoIdentity | OpenError::Draining => (Outcome::Abandoned, "not_ready"),
    };
    work.report_failure(outcome, reason);
    OpenFailure { text: error.to_string(), reason, timed_out: matches!(error, OpenError::Timeout { .. }) }
}
