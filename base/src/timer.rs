//! Waiting for a time that may not be set.

/// Returns at this time; never, when there is none. Cancel safe.
pub async fn sleep_until(due: Option<impl Into<tokio::time::Instant>>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
