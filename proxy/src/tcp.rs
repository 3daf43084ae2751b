//! The copy loop of opaque connections: both ways at once, half-close passed on.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use prometheus::IntCounter;

use crate::leg::{Input, LegError, Output};

/// A flow that moved so many bytes without waiting lets others go first.
const FAIR_SHARE: usize = 1 << 20;

/// Which leg broke, and how.
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
/// `counts` are of what `near` sends and what it receives.
///
/// # Errors
/// Which leg broke.
pub(crate) async fn relay(
    near: &mut (Input, Output),
    far: &mut (Input, Output),
    counts: &(IntCounter, IntCounter),
) -> Result<(), Broken> {
    let forth = pin!(one_way(&mut near.0, &mut far.1, &counts.0, Broken::Near, Broken::Far));
    let back = pin!(one_way(&mut far.0, &mut near.1, &counts.1, Broken::Far, Broken::Near));
    both(forth, back).await
}

async fn one_way(
    from: &mut Input,
    to: &mut Output,
    count: &IntCounter,
    source: fn(LegError) -> Broken,
    sink: fn(LegError) -> Broken,
) -> Result<(), Broken> {
    let mut moved = 0;
    while let Some(bytes) = from.read().await.map_err(source)? {
        moved += bytes.len();
        count.inc_by(bytes.len() as u64);
        to.write(bytes).await.map_err(sink)?;
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
