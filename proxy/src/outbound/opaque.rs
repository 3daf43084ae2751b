//! Opaque connections: balanced once, then bytes both ways.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::Call;
use super::failure::{MAX_REFUSALS, MAX_RETRIES};
use crate::balance::{Outcome, Pick};
use crate::leg::{LegError, Tape};
use crate::tcp::{self, Broken};
use crate::telemetry::Carried;
use crate::tunnel::ResetCode;
use crate::upstream::{self, Errand, Far, OpenFailure, Upstream, Work};
use crate::worker::Worker;

/// An opaque connection, as it is carried to an endpoint.
const OPAQUE: Errand = Errand { carried: Carried::Opaque, repeatable: true, client: None };

/// A way to an endpoint on which nothing was said yet.
pub(super) struct Opened {
    pub(super) far: Far,
    work: Work,
}

/// Reasons for which no endpoint took a connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoEndpoint {
    /// There is none.
    #[error("no instance is ready")]
    Nobody,
    /// The last one that was asked.
    #[error("{0}")]
    Failed(OpenFailure),
}

/// Opens a way to one of the endpoints, asking several if need be.
///
/// # Errors
/// When none can be reached.
pub(super) async fn open(
    worker: &Worker,
    upstream: &Rc<Upstream>,
    tried: &mut Vec<Pick>,
) -> Result<Opened, NoEndpoint> {
    loop {
        let work = upstream.pick(tried).ok_or(NoEndpoint::Nobody)?;
        tried.push(work.pick);
        let began = Instant::now();
        match upstream::open(worker, upstream, &work, OPAQUE, &mut Bytes::new()).await {
            Ok(far) => {
                work.report(Outcome::Answered(began.elapsed()));
                return Ok(Opened { far, work });
            }
            Err(error) if tried.len() <= limit(&error) && upstream.retry(error.reason) => {
                tracing::debug!(target = %upstream.label, %error, "trying another endpoint");
            }
            Err(error) => return Err(NoEndpoint::Failed(error)),
        }
    }
}

/// Returns the number of times that a connection that was not opened may have been tried again.
fn limit(error: &OpenFailure) -> usize {
    if error.timed_out { MAX_RETRIES } else { MAX_REFUSALS }
}

impl Opened {
    /// Takes note of how it broke before a byte came back; whether another endpoint may be asked.
    pub(super) fn may_try_again(&self, error: &LegError, upstream: &Upstream, tried: &[Pick]) -> bool {
        if error.is_denied() {
            self.work.report(Outcome::Abandoned);
            return false;
        }
        let untouched = error.never_processed();
        let outcome = if untouched { Outcome::Refused } else { Outcome::Broken };
        self.work.report_failure(outcome, error.reason());
        untouched && tried.len() <= MAX_REFUSALS && upstream.retry(error.reason())
    }
}

/// Serves an opaque connection to its end.
///
/// As long as nothing came back, what the client has said is kept: an endpoint that turns out not to take the
/// connection is replaced by another.
pub(super) async fn serve(mut call: Call, upstream: Rc<Upstream>, mut opened: Option<Opened>) {
    let _open = upstream.traffic.connected(Carried::Opaque);
    upstream.deposit();
    let mut tried: Vec<Pick> = opened.iter().map(|opened| opened.work.pick).collect();
    loop {
        let opening = match opened.take() {
            Some(opened) => Ok(opened),
            None => tokio::select! {
                biased;
                opened = open(&call.worker, &upstream, &mut tried) => opened,
                _ = poll_fn(|cx| call.near.0.poll_broken(cx)) => {
                    return call.near.1.reset(ResetCode::Cancelled);
                }
            },
        };
        let mut way = match opening {
            Ok(way) => way,
            Err(error) => {
                let refused = &call.worker.telemetry.refused;
                refused.with_label_values(&["no_endpoint"]).inc();
                tracing::debug!(target = %upstream.label, %error, "no endpoint takes the connection");
                return call.near.1.reset(ResetCode::Cancelled);
            }
        };
        let tape = Rc::new(Tape::new());
        call.near.0.record(tape.clone());
        way.far.legs.0.end_recording(tape.clone());
        let result = tcp::relay(&mut call.near, &mut way.far.legs, upstream.traffic.bytes()).await;
        let Err(broken) = result else { return };
        tracing::debug!(target = %upstream.label, error = %broken, "connection");
        if let Broken::Far(error) = &broken
            && let Some(pieces) = tape.pieces()
            && way.may_try_again(error, &upstream, &tried)
        {
            call.near.0.unread(joined(&pieces));
            continue;
        }
        way.far.legs.1.reset(ResetCode::Cancelled);
        return call.near.1.reset(ResetCode::Cancelled);
    }
}

fn joined(pieces: &[Bytes]) -> Bytes {
    let mut joined = BytesMut::new();
    pieces.iter().for_each(|piece| joined.extend_from_slice(piece));
    joined.freeze()
}
