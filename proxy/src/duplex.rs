//! Two directions at once.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// End of one of two directions.
#[derive(Debug)]
pub(crate) enum Half<A, B> {
    /// The direction that is polled first.
    First(A),
    /// The other one.
    Second(B),
}

/// Moves both directions on until `judge`, which hears of the end of each, has a result. A direction that has ended is not polled
/// again; when both have, `judge` must have come to its result.
pub(crate) async fn both<A, B, T>(
    mut first: Pin<&mut impl Future<Output = A>>,
    mut second: Pin<&mut impl Future<Output = B>>,
    mut judge: impl FnMut(Half<A, B>) -> Option<T>,
) -> T {
    let (mut first_over, mut second_over) = (false, false);
    poll_fn(|cx| {
        if !first_over && let Poll::Ready(end) = first.as_mut().poll(cx) {
            first_over = true;
            if let Some(result) = judge(Half::First(end)) {
                return Poll::Ready(result);
            }
        }
        if !second_over && let Poll::Ready(end) = second.as_mut().poll(cx) {
            second_over = true;
            if let Some(result) = judge(Half::Second(end)) {
                return Poll::Ready(result);
            }
        }
        Poll::Pending
    })
    .await
}
