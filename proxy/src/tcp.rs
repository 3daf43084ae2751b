//! The copy loop of opaque connections: both ways at once, half-close passed on.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use prometheus::IntCounter;

use crate::leg::{Input, LegError, Output};

/// A flow that moved so many bytes without waiting lets others go first.
const FAIR_SHARE: usize = 1 << 20;

/// Number of bytes that are written at once.
const AT_ONCE: usize = 256 * 1024;

/// Sees what passes.
pub(crate) trait Tap {
    /// `near` has sent this.
    fn sent(&self, bytes: &[u8]);
    /// `near` receives this.
    fn received(&self, bytes: &[u8]);
}

/// Counts the bytes that `near` sends and those that it receives.
impl Tap for (IntCounter, IntCounter) {
    fn sent(&self, bytes: &[u8]) {
        self.0.inc_by(bytes.len() as u64);
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
}

/// Copies until both directions have ended, or one breaks; resetting the legs is then the caller's.
///
/// # Errors
/// Which leg broke.
pub(crate) async fn relay(
    near: &mut (Input, Output),
    far: &mut (Input, Output),
    tap: &impl Tap,
) -> Result<(), Broken> {
    let forth = pin!(one_way(&mut near.0, &mut far.1, |bytes| tap.sent(bytes), Broken::Near, Broken::Far));
    let back = pin!(one_way(&mut far.0, &mut near.1, |bytes| tap.received(bytes), Broken::Far, Broken::Near));
    both(forth, back).await
}

async fn one_way(
    from: &mut Input,
    to: &mut Output,
    tap: impl Fn(&[u8]),
    source: fn(LegError) -> Broken,
    sink: fn(LegError) -> Broken,
) -> Result<(), Broken> {
    let (mut moved, mut pieces) = (0, VecDeque::new());
    while let Some(bytes) = from.read().await.map_err(source)? {
        pieces.push_back(bytes);
        from.read_along(&mut pieces, AT_ONCE);
        for piece in &pieces {
            moved += piece.len();
            tap(piece);
        }
        to.write_pieces(&mut pieces).await.map_err(sink)?;
        if moved >= FAIR_SHARE {
            moved = 0;
            tokio::task::yield_now().await;
        }
    }
    to.finish().map_err(sink)
}

/// Both, or the first error.
async fn both<E, A, B>(mut one: Pin<&mut A>, mut other: Pin<&mut B>) -> Result<(), E>
where
    A: Future<Output = Result<(), E>>,
    B: Future<Output = Result<(), E>>,
{
    let (mut one_done, mut other_done) = (false, false);
    poll_fn(|cx| {
        if !one_done && let Poll::Ready(result) = one.as_mut().poll(cx) {
            result?;
            one_done = true;
        }
        if !other_done && let Poll::Ready(result) = other.as_mut().poll(cx) {
            result?;
            other_done = true;
        }
        if one_done && other_done { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}
