//! Opaque connections: balanced once, then bytes both ways.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::attempts::{Attempt, make_attempts};
use super::{ClientConnection, Outbound};
use crate::backend::{self, Backend, Connection, Pools, Purpose, Work};
use crate::balance::Outcome;
use crate::dispatch::{Failure, Repeatability};
use crate::leg::{Leg, ReplayBuffer};
use crate::protocol::Protocol;
use crate::tcp::{self, Broken};
use crate::telemetry::Traffic;
use crate::tunnel::ResetCode;

/// Purpose of a connection that carries opaque bytes.
const OPAQUE: Purpose = Purpose { protocol: Protocol::Opaque, is_repeatable: true, client: None };
/// As long as no byte came back, what the client has said is kept. If the endpoint has seen it, nobody knows what it means.
pub(super) const OF_OPAQUE: Repeatability =
    Repeatability { is_idempotent: false, is_kept: true, limit: None };

/// A connection to an endpoint on which nothing was said yet.
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) work: Work,
}

/// Opens a connection to the endpoint of `work`.
///
/// # Errors
/// When it cannot be reached.
pub(super) async fn open(pools: &Pools, work: &Work) -> Result<Connection, Failure> {
    let began = Instant::now();
    let connection = backend::open(pools, work, OPAQUE, &mut Bytes::new()).await;
    let connection = connection.map_err(Failure::NotOpened)?;
    // The time until a tunnel stands says nothing of the connections that follow in it.
    let latency = if connection.plain.is_some() { began.elapsed() } else { Duration::ZERO };
    work.report(Outcome::Answered(latency));
    Ok(connection)
}

/// Serves an opaque connection to its end.
///
/// As long as nothing came back, what the client has said is kept: an endpoint that turns out not to take the
/// connection is replaced by another.
pub(super) async fn serve(client: ClientConnection, backend: &Rc<Backend>) {
    let _open = backend.traffic.connected(Protocol::Opaque);
    backend.deposit();
    let ClientConnection { outbound, mut near, opened, .. } = client;
    let (connection, picked) = opened.map(|opened| (opened.connection, opened.work)).unzip();
    let mut relay = Relay { outbound: &outbound, traffic: &backend.traffic, near: &mut near, connection };
    let Err(unanswered) = make_attempts(backend, picked, &mut relay).await else { return };
    if matches!(unanswered.failure, None | Some(Failure::NotOpened(_))) {
        outbound.telemetry.refused.with_label_values(&["no_endpoint"]).inc();
        let text = unanswered.text(backend);
        tracing::debug!(target = %backend.label, text, "no endpoint takes the connection");
    }
    near.1.reset(ResetCode::Cancelled);
}

/// Relaying of a client's connection to an endpoint.
struct Relay<'a> {
    outbound: &'a Outbound,
    traffic: &'a Traffic,
    near: &'a mut Leg,
    /// The connection to the endpoint that is asked first, where it is open already.
    connection: Option<Connection>,
}

impl Attempt for Relay<'_> {
    type Done = ();

    async fn make(&mut self, work: Work) -> Result<(), Failure> {
        let near = &mut *self.near;
        let mut far = match self.connection.take() {
            Some(connection) => connection,
            None => tokio::select! {
                biased;
                opened = open(&self.outbound.pools, &work) => opened?,
                _ = poll_fn(|cx| near.0.poll_broken(cx)) => {
                    near.1.reset(ResetCode::Cancelled);
                    return Ok(());
                }
            },
        };
        let kept = Rc::new(ReplayBuffer::new());
        near.0.record(kept.clone());
        far.leg.0.end_recording(kept.clone());
        let result = tcp::relay(near, &mut far.leg, self.traffic.bytes()).await;
        let Err(broken) = result else { return Ok(()) };
        tracing::debug!(endpoint = %work.endpoint.address, error = %broken, "connection");
        far.leg.1.reset(ResetCode::Cancelled);
        if let Broken::Far(error) = &broken
            && let Some(pieces) = kept.pieces()
        {
            near.0.unread(joined(&pieces));
            let failure = Failure::of_leg(error, error.to_string());
            work.blame(&failure);
            return Err(failure);
        }
        near.1.reset(ResetCode::Cancelled);
        Ok(())
    }

    fn repeatability(&self) -> Repeatability {
        OF_OPAQUE
    }
}

fn joined(pieces: &[Bytes]) -> Bytes {
    let mut joined = BytesMut::new();
    pieces.iter().for_each(|piece| joined.extend_from_slice(piece));
    joined.freeze()
}
