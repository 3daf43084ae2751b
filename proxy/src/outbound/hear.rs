//! Hearing a client out: its protocol is what its port declares, or what its first bytes show.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use sealane_proto::types;
use tokio::time::Instant;

use super::attempts::{Attempt, make_attempts};
use super::opaque::{self, OF_OPAQUE, Opened};
use super::{ClientConnection, Outbound};
use crate::backend::{Backend, Work};
use crate::detect;
use crate::dispatch::{Failure, Repeatability};
use crate::leg::{Input, LegError};
use crate::protocol::Protocol;
use crate::tunnel::ResetCode;

/// Time for which a client may be silent before the server is given a chance to speak first.
const SILENCE: Duration = Duration::from_millis(10);

/// Time that a client whom nobody can serve has to say something, which may be a request that can be answered.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl ClientConnection {
    /// Finds out what is spoken; `None` when nothing comes of the connection.
    pub(super) async fn hear(&mut self, backend: &Rc<Backend>) -> Option<Protocol> {
        match backend.protocol() {
            types::Protocol::Http | types::Protocol::Http2 | types::Protocol::Grpc => {
                self.hear_request().await
            }
            types::Protocol::Tcp | types::Protocol::Udp => Some(Protocol::Opaque),
            types::Protocol::Tls => self.hear_hello(backend).await,
            types::Protocol::Auto => self.detect(backend).await,
        }
    }

    /// Watches the client's first bytes, and when it keeps silent both ends: whoever speaks first decides.
    async fn detect(&mut self, backend: &Rc<Backend>) -> Option<Protocol> {
        let first = tokio::time::timeout(SILENCE, self.near.0.fill()).await;
        let protocol = match first {
            Ok(Ok(())) => self.read_on(backend).await,
            Ok(Err(_)) => None,
            Err(_) => Box::pin(self.detect_silent(backend)).await,
        };
        let outcome = match (protocol, &self.opened) {
            (Some(Protocol::Http1), _) => "http",
            (Some(Protocol::Http2), _) => "http2",
            (Some(_), Some(opened)) if !opened.connection.leg.0.ahead().is_empty() => "server_first",
            (Some(Protocol::Tls | Protocol::Opaque), _) => "opaque",
            (None, _) => "none",
        };
        self.outbound.telemetry.detected.with_label_values(&[outcome]).inc();
        protocol
    }

    /// Reads the client until its first bytes, some of which are there, say what they are. A client that stops in between
    /// or goes on too slowly is taken as it is.
    async fn read_on(&mut self, backend: &Backend) -> Option<Protocol> {
        let decided_by = Instant::now() + detect::PATIENCE;
        loop {
            let input = &mut self.near.0;
            match detect::client(input.ahead()) {
                Some(Protocol::Tls) => {
                    self.read_server_name(backend, decided_by).await;
                    return Some(Protocol::Tls);
                }
                Some(protocol) => return Some(protocol),
                None => {}
            }
            match hear_more(input, decided_by).await {
                Ok(true) => {}
                Ok(false) => return Some(Protocol::Opaque),
                Err(_) => return None,
            }
        }
    }

    /// A declared port of HTTP: which version it is the client says, by a request or by HTTP/2's preface; nothing else is
    /// let through.
    async fn hear_request(&mut self) -> Option<Protocol> {
        let Self { near: (input, _), draining, .. } = self;
        let mut decided_by = None;
        loop {
            let detected = detect::client(input.ahead());
            if detected == Some(Protocol::Http2) {
                return detected;
            }
            let read = input.ahead().len();
            if detected.is_some() || input.is_over() || (read > 0 && draining.is_ending()) {
                // Also what is no request at all, which is answered as such.
                return Some(Protocol::Http1);
            }
            if read == 0 {
                tokio::select! {
                    biased;
                    filled = input.fill() => if filled.is_err() { return None },
                    () = draining.ending() => return Some(Protocol::Http1),
                }
            } else {
                let decided_by = *decided_by.get_or_insert_with(|| Instant::now() + detect::PATIENCE);
                match hear_more(input, decided_by).await {
                    Ok(true) => {}
                    Ok(false) => return Some(Protocol::Http1),
                    Err(_) => return None,
                }
            }
        }
    }

    /// A declared port of TLS: opaque, whatever comes; the name of the server is read if the client speaks first.
    async fn hear_hello(&mut self, backend: &Rc<Backend>) -> Option<Protocol> {
        match tokio::time::timeout(SILENCE, self.near.0.fill()).await {
            Ok(Err(_)) => return None,
            Ok(Ok(())) if self.near.0.ahead().first() == Some(&0x16) => {
                self.read_server_name(backend, Instant::now() + detect::PATIENCE).await;
            }
            Ok(Ok(())) => {}
            Err(_) => {
                Box::pin(self.detect_silent(backend)).await?;
            }
        }
        Some(Protocol::Tls)
    }

    /// Reads the application's TLS as far as the name of its server, to count it; a client cannot go on before its hello
    /// is answered, so this costs no time.
    async fn read_server_name(&mut self, backend: &Backend, decided_by: Instant) {
        let input = &mut self.near.0;
        let name = loop {
            match detect::server_name(input.ahead()) {
                Ok(name) => break name,
                Err(detect::Incomplete) if input.ahead().len() > detect::MAX_HELLO => break None,
                Err(detect::Incomplete) => {}
            }
            match hear_more(input, decided_by).await {
                Ok(true) => {}
                Ok(false) | Err(_) => break None,
            }
        };
        tracing::debug!(target = %backend.label, server_name = name.as_deref(), "TLS of the application");
        self.outbound.telemetry.tls_connection(&backend.party, name.as_deref());
    }

    /// Opens a connection to an endpoint, so that the server can speak first.
    async fn detect_silent(&mut self, backend: &Rc<Backend>) -> Option<Protocol> {
        let mut silence = Silence { outbound: &self.outbound, near: &mut self.near.0 };
        let spoke = match make_attempts(backend, None, &mut silence).await {
            Ok(spoke) => spoke,
            Err(unanswered) => {
                let text = unanswered.text(backend);
                tracing::debug!(target = %backend.label, text, "no endpoint takes the connection");
                return self.hear_out(backend).await;
            }
        };
        let (protocol, opened) = match spoke {
            Spoke::Nobody => return None,
            Spoke::Client(opened) if self.near.0.is_over() => (Some(Protocol::Opaque), opened),
            Spoke::Client(opened) => (self.read_on(backend).await, opened),
            // A server of HTTP/2 need not wait for its client; its requests are balanced all the same.
            Spoke::Server(opened) if detect::is_http2_server(opened.connection.leg.0.ahead()) => {
                (Some(Protocol::Http2), None)
            }
            Spoke::Server(opened) => (Some(Protocol::Opaque), Some(opened)),
        };
        // Requests are balanced by themselves.
        self.opened = opened.filter(|_| protocol.is_some_and(|protocol| !protocol.has_requests()));
        protocol
    }

    /// Ends a connection that no endpoint serves: a client of HTTP is told so when it asks, any other sees it broken off.
    async fn hear_out(&mut self, backend: &Backend) -> Option<Protocol> {
        let spoken = tokio::time::timeout(LAST_WORDS, self.near.0.fill()).await;
        if matches!(spoken, Ok(Ok(()))) {
            let protocol = self.read_on(backend).await;
            if protocol.is_some_and(Protocol::has_requests) {
                return protocol;
            }
        }
        self.outbound.telemetry.refused.with_label_values(&["no_endpoint"]).inc();
        self.near.1.reset(ResetCode::Cancelled);
        None
    }
}

/// Waiting for the first word at both ends of a silent connection.
struct Silence<'a> {
    outbound: &'a Outbound,
    near: &'a mut Input,
}

/// End of the silence.
enum Spoke {
    /// The client has said something or ended, with the connection to the server if that was open.
    Client(Option<Box<Opened>>),
    /// The server has.
    Server(Box<Opened>),
    /// The client broke off.
    Nobody,
}

impl Attempt for Silence<'_> {
    type Done = Spoke;

    async fn make(&mut self, work: Work) -> Result<Spoke, Failure> {
        let near = &mut *self.near;
        let connection = tokio::select! {
            filled = near.fill() => return Ok(match filled {
                Ok(()) => Spoke::Client(None),
                Err(_) => Spoke::Nobody,
            }),
            opened = opaque::open(&self.outbound.pools, &work) => opened?,
        };
        let mut opened = Box::new(Opened { connection, work });
        match first_of(near, &mut opened.connection.leg.0).await {
            First::Near(Ok(())) => Ok(Spoke::Client(Some(opened))),
            First::Near(Err(_)) => Ok(Spoke::Nobody),
            First::Far(Ok(())) => Ok(Spoke::Server(opened)),
            First::Far(Err(error)) => {
                let failure = Failure::of_leg(&error, error.to_string());
                opened.work.blame(&failure);
                Err(failure)
            }
        }
    }

    fn repeatability(&self) -> Repeatability {
        OF_OPAQUE
    }
}

/// Waits for more of what has begun, `decided_by` then at the latest; whether more has come.
async fn hear_more(input: &mut Input, decided_by: Instant) -> Result<bool, LegError> {
    let before = input.ahead().len();
    match tokio::time::timeout_at(decided_by, input.fill_more()).await {
        Ok(filled) => filled.map(|()| input.ahead().len() > before),
        Err(_) => Ok(false),
    }
}

enum First {
    Near(Result<(), LegError>),
    Far(Result<(), LegError>),
}

/// Whoever speaks, ends or breaks first; the client if both do.
async fn first_of(near: &mut Input, far: &mut Input) -> First {
    poll_fn(|cx| {
        if let Poll::Ready(result) = near.poll_fill(cx) {
            return Poll::Ready(First::Near(result));
        }
        far.poll_fill(cx).map(First::Far)
    })
    .await
}
