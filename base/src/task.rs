//! Owned tasks: named, aborted when their owner goes, their errors logged.
#![allow(clippy::disallowed_methods, reason = "the one place where tasks are made")]

use std::fmt::Display;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::task::{JoinError, JoinHandle};
use tracing::Instrument;

/// Name of all threads of a process that stays: the kernel tells others by it who has changed something (comm, 15 bytes at most).
pub const THREADS: &str = "sealane-worker";

/// A running task. Dropping it aborts the task at its next await.
#[derive(Debug)]
#[must_use = "a dropped task is aborted"]
pub struct Task<T = ()> {
    handle: JoinHandle<T>,
    owned: bool,
}

/// Starts `future` as the task `name`, which appears as a span in the log.
pub fn spawn<T: Send + 'static>(
    name: &'static str,
    future: impl Future<Output = T> + Send + 'static,
) -> Task<T> {
    let span = tracing::error_span!("task", name);
    tokio::spawn(future.instrument(span)).into()
}

/// Starts a `future` that may fail; a failure is logged as an error when it happens.
pub fn spawn_fallible<E: Display + Send + 'static>(
    name: &'static str,
    future: impl Future<Output = Result<(), E>> + Send + 'static,
) -> Task {
    spawn(name, async move {
        if let Err(error) = future.await {
            tracing::error!(%error, "task {name} failed");
        }
    })
}

/// Starts `future` on the current thread, without a span: for per-connection work.
///
/// # Panics
/// Outside a `LocalRuntime` or `LocalSet`.
pub fn spawn_local<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    tokio::task::spawn_local(future).into()
}

/// Runs `work`, which waits for the kernel or a disk, away from the event loop.
///
/// # Errors
/// When `work` panicked.
///
/// # Cancel safety
/// Work that has begun runs to its end.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done),
        // Only the end of the process cancels such work, and whoever waits for it ends as well.
        Err(error) if error.is_cancelled() => std::future::pending().await,
        Err(error) => Err(io::Error::other(error)),
    }
}

impl<T> Task<T> {
    /// Lets the task run on without an owner: for work that ends by itself, such as one accepted connection.
    pub fn detach(mut self) {
        self.owned = false;
    }

    /// Returns true if the task has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

impl<T> From<JoinHandle<T>> for Task<T> {
    fn from(handle: JoinHandle<T>) -> Self {
        Self { handle, owned: true }
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, JoinError>;

    /// Waits for the task's end; an error means that it panicked.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.handle).poll(cx)
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if self.owned {
            self.handle.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_dropped_task_is_aborted_and_a_detached_one_is_not() {
        let (kept, gone) = oneshot::channel::<()>();
        let task = spawn("test", async move {
            std::future::pending::<()>().await;
            drop(kept);
        });
        drop(task);
        assert!(gone.await.is_err());

        let (go, wait) = oneshot::channel::<()>();
        let (done, seen) = oneshot::channel();
        spawn("test", async move {
            wait.await.unwrap();
            done.send(7).unwrap();
        })
        .detach();
        go.send(()).unwrap();
        assert_eq!(seen.await.unwrap(), 7);
    }
}
