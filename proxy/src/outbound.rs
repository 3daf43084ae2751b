//! The workload's own calls: from a redirected connection to an endpoint, by what is spoken on it.

mod attempt;
mod exchange;
mod failure;
mod http;
mod http2;
mod opaque;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use sealane_base::drain::Draining;
use sealane_proto::types::Protocol;
use tokio::time::Instant;

use crate::detect::{self, Verdict};
use crate::leg::{self, Input, LegError, Output};
use crate::listen::{self, Accepted};
use crate::refusal::refuse;
use crate::tunnel::ResetCode;
use crate::upstream::Upstream;
use crate::worker::{Resolved, Worker};
pub(crate) use http::close;
use opaque::Opened;

/// Time for which a client may be silent before the server is given a chance to speak first.
const SILENCE: Duration = Duration::from_millis(10);

/// Time that a client whom nobody can serve has to say something, which may be a request that can be answered.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A call of the workload.
pub(crate) struct Call {
    worker: Rc<Worker>,
    /// The workload's end.
    near: (Input, Output),
    destination: SocketAddr,
    draining: Draining,
}

/// Protocol that a connection turned out to carry.
enum Spoken {
    Http,
    Http2,
    Opaque(Option<Box<Opened>>),
    /// Nothing came of it.
    Over,
}

/// Serves one redirected connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, accepted: Accepted, draining: Draining) {
    let Some(destination) = listen::destination(&worker, &accepted) else { return };
    let stream = accepted.stream;
    let upstream = match worker.resolve(destination) {
        Resolved::Upstream(upstream) => upstream,
        Resolved::Unmapped(service) => {
            worker.telemetry.refused.with_label_values(&["unmapped_port"]).inc();
            tracing::debug!(%service, %destination, "the service has no such port");
            return refuse(&stream);
        }
        Resolved::Nowhere => {
            worker.telemetry.refused.with_label_values(&["not_configured"]).inc();
            tracing::debug!(%destination, "nothing is known of the destination");
            return refuse(&stream);
        }
    };
    let near = leg::tcp(Rc::new(stream));
    let mut call = Call { worker, near, destination, draining };
    let spoken = match upstream.protocol() {
        Protocol::Http | Protocol::Http2 | Protocol::Grpc => call.hear_request().await,
        Protocol::Tcp | Protocol::Udp => Spoken::Opaque(None),
        Protocol::Tls => call.hear_hello(&upstream).await,
        Protocol::Auto => call.detect(&upstream).await,
    };
    match spoken {
        Spoken::Http => Box::pin(http::serve(call, &upstream)).await,
        Spoken::Http2 => Box::pin(http2::serve(call, &upstream)).await,
        Spoken::Opaque(opened) => Box::pin(opaque::serve(call, upstream, opened.map(|opened| *opened))).await,
        Spoken::Over => {}
    }
}

impl Call {
    /// Watches the client's first bytes, and when it keeps silent both ends: whoever speaks first decides.
    async fn detect(&mut self, upstream: &Rc<Upstream>) -> Spoken {
        let first = tokio::time::timeout(SILENCE, self.near.0.fill()).await;
        let spoken = match first {
            Ok(Ok(())) => self.read_on(upstream, None).await,
            Ok(Err(_)) => Spoken::Over,
            Err(_) => Box::pin(self.detect_silent(upstream)).await,
        };
        let outcome = match &spoken {
            Spoken::Http => "http",
            Spoken::Http2 => "http2",
            Spoken::Opaque(Some(opened)) if !opened.far.legs.0.ahead().is_empty() => "server_first",
            Spoken::Opaque(_) => "opaque",
            Spoken::Over => "none",
        };
        self.worker.telemetry.detected.with_label_values(&[outcome]).inc();
        spoken
    }

    /// Reads the client until its first bytes, some of which are there, say what they are. A client that stops in between
    /// or goes on too slowly is taken as it is.
    async fn read_on(&mut self, upstream: &Upstream, opened: Option<Box<Opened>>) -> Spoken {
        let decided_by = Instant::now() + detect::PATIENCE;
        loop {
            let input = &mut self.near.0;
            match detect::client(input.ahead()) {
                Verdict::Http1 => return Spoken::Http,
                Verdict::Http2 => return Spoken::Http2,
                Verdict::Tls => {
                    self.read_server_name(upstream, decided_by).await;
                    return Spoken::Opaque(opened);
                }
                Verdict::Opaque => return Spoken::Opaque(opened),
                Verdict::Unclear => {}
            }
            match hear_more(input, decided_by).await {
                Ok(true) => {}
                Ok(false) => return Spoken::Opaque(opened),
                Err(_) => return Spoken::Over,
            }
        }
    }

    /// A declared port of HTTP: which version it is the client says, by a request or by HTTP/2's preface; nothing else is
    /// let through.
    async fn hear_request(&mut self) -> Spoken {
        let mut draining = self.draining.clone();
        let mut decided_by = None;
        loop {
            let verdict = detect::client(self.near.0.ahead());
            if verdict == Verdict::Http2 {
                return Spoken::Http2;
            }
            let read = self.near.0.ahead().len();
            if verdict != Verdict::Unclear || self.near.0.is_over() || (read > 0 && draining.is_ending()) {
                // Also what is no request at all, which is answered as such.
                return Spoken::Http;
            }
            if read == 0 {
                tokio::select! {
                    biased;
                    filled = self.near.0.fill() => if filled.is_err() { return Spoken::Over },
                    () = draining.ending() => return Spoken::Http,
                }
            } else {
                let decided_by = *decided_by.get_or_insert_with(|| Instant::now() + detect::PATIENCE);
                match hear_more(&mut self.near.0, decided_by).await {
                    Ok(true) => {}
                    Ok(false) => return Spoken::Http,
                    Err(_) => return Spoken::Over,
                }
            }
        }
    }

    /// A declared port of TLS: opaque, whatever comes; the name of the server is read if the client speaks first.
    async fn hear_hello(&mut self, upstream: &Rc<Upstream>) -> Spoken {
        match tokio::time::timeout(SILENCE, self.near.0.fill()).await {
            Ok(Err(_)) => return Spoken::Over,
            Ok(Ok(())) if self.near.0.ahead().first() == Some(&0x16) => {
                self.read_server_name(upstream, Instant::now() + detect::PATIENCE).await;
            }
            Ok(Ok(())) => {}
            Err(_) => match Box::pin(self.detect_silent(upstream)).await {
                Spoken::Http | Spoken::Http2 => {}
                spoken @ (Spoken::Opaque(_) | Spoken::Over) => return spoken,
            },
        }
        Spoken::Opaque(None)
    }

    /// Reads the application's TLS as far as the name of its server, to count it; a client cannot go on before its hello
    /// is answered, so this costs no time.
    async fn read_server_name(&mut self, upstream: &Upstream, decided_by: Instant) {
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
        tracing::debug!(target = %upstream.label, server_name = name.as_deref(), "TLS of the application");
        self.worker.telemetry.tls_connection(&upstream.party, name.as_deref());
    }

    async fn detect_silent(&mut self, upstream: &Rc<Upstream>) -> Spoken {
        let mut tried = Vec::new();
        loop {
            let opened = {
                let opening = opaque::open(&self.worker, upstream, &mut tried);
                let mut opening = std::pin::pin!(opening);
                tokio::select! {
                    filled = self.near.0.fill() => match filled {
                        Ok(()) => None,
                        Err(_) => return Spoken::Over,
                    },
                    opened = &mut opening => Some(opened),
                }
            };
            let mut opened = match opened {
                None => return self.read_on(upstream, None).await,
                Some(Ok(opened)) => Box::new(opened),
                Some(Err(error)) => {
                    tracing::debug!(target = %upstream.label, %error, "no endpoint takes the connection");
                    return self.hear_out(upstream).await;
                }
            };
            match first_of(&mut self.near.0, &mut opened.far.legs.0).await {
                First::Near(Ok(())) if self.near.0.is_over() => return Spoken::Opaque(Some(opened)),
                First::Near(Ok(())) => return self.read_on(upstream, Some(opened)).await,
                First::Near(Err(_)) => return Spoken::Over,
                // A server of HTTP/2 need not wait for its client; its requests are balanced all the same.
                First::Far(Ok(())) if detect::is_http2_server(opened.far.legs.0.ahead()) => {
                    return Spoken::Http2;
                }
                First::Far(Ok(())) => return Spoken::Opaque(Some(opened)),
                First::Far(Err(error)) => {
                    if !opened.may_try_again(&error, upstream, &tried) {
                        return self.hear_out(upstream).await;
                    }
                }
            }
        }
    }

    /// Nobody serves the connection: a client of HTTP is told so when it asks, any other sees it broken off.
    async fn hear_out(&mut self, upstream: &Upstream) -> Spoken {
        let spoken = tokio::time::timeout(LAST_WORDS, self.near.0.fill()).await;
        if matches!(spoken, Ok(Ok(()))) {
            match self.read_on(upstream, None).await {
                Spoken::Http => return Spoken::Http,
                Spoken::Http2 => return Spoken::Http2,
                Spoken::Opaque(_) | Spoken::Over => {}
            }
        }
        self.worker.telemetry.refused.with_label_values(&["no_endpoint"]).inc();
        self.near.1.reset(ResetCode::Cancelled);
        Spoken::Over
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
