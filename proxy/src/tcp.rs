//! The copy loop of opaque connections: both ways at once, half-close passed on.

use std::collections::VecDeque;
use std::pin::pin;

use bytes::Bytes;
use prometheus::IntCounter;

use crate::duplex::{Half, both};
use crate::leg::{Input, Leg, LegError, Output};

/// A flow that moved so many bytes without waiting lets others go first.
const FAIR_SHARE: usize = 1 << 20;

/// Number of bytes that are written at once.
const AT_ONCE: usize = 256 * 1024;

/// Sees what passes.
pub(crate) trait Tap {
    /// `near` has sent this.
    ///
    /// # Errors
    /// When it may not pass.
    fn sent(&self, bytes: &[u8]) -> Result<(), Denied>;
    /// `near` receives this.
    fn received(&self, bytes: &[u8]);
}

/// Bytes that may not pass.
#[derive(Debug)]
pub(crate) struct Denied {
    /// Answer to `near`, where one can be given.
    pub(crate) answer: Option<Bytes>,
}

/// Counts the bytes that `near` sends and those that it receives.
impl Tap for (IntCounter, IntCounter) {
    fn sent(&self, bytes: &[u8]) -> Result<(), Denied> {
        self.0.inc_by(bytes.len() as u64);
        Ok(())
    }

    fn received(&self, bytes: &[u8]) {
        self.1.inc_by(bytes.len() as u64);
    }
}

/// Leg that broke, and its error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The one that called.
    #[error("the caller broke off: {0}")]
    Near(LegError),
    /// The one that was called.
    #[error("the called side broke off: {0}")]
    Far(LegError),
    /// Neither: what the caller sent may not pass.
    #[error("what the caller sent may not pass")]
    Denied(Denied),
}

/// Copies until both directions have ended, or one breaks; resetting the legs is then the caller's.
///
/// # Errors
/// Which leg broke.
pub(crate) async fn relay(near: &mut Leg, far: &mut Leg, tap: &impl Tap) -> Result<(), Broken> {
    let sent = |bytes: &[u8]| tap.sent(bytes).map_err(Broken::Denied);
    let received = |bytes: &[u8]| {
        tap.received(bytes);
        Ok(())
    };
    let forth = pin!(one_way(&mut near.0, &mut far.1, sent, Broken::Near, Broken::Far));
    let back = pin!(one_way(&mut far.0, &mut near.1, received, Broken::Far, Broken::Near));
    let mut ended = 0;
    let judge = |half: Half<Result<(), Broken>, Result<(), Broken>>| {
        let (Half::First(result) | Half::Second(result)) = half;
        ended += usize::from(result.is_ok());
        match result {
            Ok(()) if ended < 2 => None,
            result => Some(result),
        }
    };
    both(forth, back, judge).await
}

async fn one_way(
    from: &mut Input,
    to: &mut Output,
    tap: impl Fn(&[u8]) -> Result<(), Broken>,
    source: fn(LegError) -> Broken,
    sink: fn(LegError) -> Broken,
) -> Result<(), Broken> {
    let (mut moved, mut pieces) = (0, VecDeque::new());
    while let Some(bytes) = from.read().await.map_err(source)? {
        pieces.push_back(bytes);
        from.read_along(&mut pieces, AT_ONCE);
        for piece in &pieces {
            moved += piece.len();
            tap(piece)?;
        }
        to.write_pieces(&mut pieces).await.map_err(sink)?;
        if moved >= FAIR_SHARE {
            moved = 0;
            tokio::task::yield_now().await;
        }
    }
    to.finish().map_err(sink)
}
