//! Closing of a connection whose other end may still be sending.

use std::time::Duration;

use super::{Input, Leg};

/// Time for which a closing connection listens, so that its last words are not lost to a reset.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// Says the end, and waits for the client's.
pub(crate) async fn close((input, output): &mut Leg) {
    if output.finish().is_ok() {
        linger(input, LINGER, LINGER).await;
    }
}

/// Reads what the client still sends until it ends, or pauses for so long; `most` in all. One that does neither has had its time.
pub(crate) async fn linger(input: &mut Input, most: Duration, pause: Duration) {
    let drain = async { while let Ok(Ok(Some(_))) = tokio::time::timeout(pause, input.read()).await {} };
    let _ = tokio::time::timeout(most, drain).await;
}
