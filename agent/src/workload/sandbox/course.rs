//! Course of a sandbox: the order of its steps, whatever fails or ends meanwhile. It knows neither kernel nor disk: these are behind
//! [`Steps`].

use std::time::Duration;

use sealane_base::backoff::Backoff;
use sealane_sys::NetNs;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::super::AttachError;
use super::super::anchor::{Anchor, Gone, Lifeline};
use crate::attachment::{Attached, Event, Progress, RequestFailure};

/// Pause before a workload that could not be taken up is tried again, at first.
const SOON: Duration = Duration::from_millis(50);
/// And at last.
const SELDOM: Duration = Duration::from_secs(5);
/// Time for which calls go on to one that cannot be taken up: it works, as far as anybody knows.
const PATIENCE: Duration = Duration::from_secs(1);

/// Steps in the life of one workload. All but [`Steps::set_up`] and [`Steps::adopt`] log their own failures: the next step
/// follows all the same.
pub(super) trait Steps {
    /// Makes everything that a new workload needs: namespace, interface, names, registration, sidecar.
    ///
    /// # Errors
    /// With the first part that cannot be made. What was made stays until the end.
    async fn set_up(&mut self, given: Option<NetNs>, progress: &Progress) -> Result<(), AttachError>;

    /// Takes up what an earlier agent made. Safe to repeat.
    ///
    /// # Errors
    /// With the first part that cannot be taken up; the others are.
    async fn adopt(&mut self, anchor: &Anchor, progress: &Progress) -> Result<(), AttachError>;

    /// Sends no more calls to a workload that cannot be taken up.
    async fn set_aside(&self);

    /// Returns the way to show the reason for which it cannot be taken up, or to withdraw it.
    fn complaints(&self) -> impl Fn(Option<String>) + Send + 'static;

    /// Lets people in: the workload is found by its name from here on.
    fn open(&self) -> Option<Attached>;

    /// Remembers the container that it belongs to.
    fn remember(&self, anchor: &Anchor);

    /// Follows everything that changes until the end.
    async fn live(&mut self, lifeline: &Lifeline, adopted: bool);

    /// Records that it was lost with the boot, if its runtime does not bring it back.
    fn lose(&self);

    /// Lets nobody in any more.
    fn close(&mut self);

    /// Takes it out of names and balancing on all hosts, and then out of the kernel.
    async fn retire(&mut self);

    /// Removes its names and its namespace.
    fn clear(&mut self);

    /// Removes the device of a virtual machine.
    async fn remove_device(&mut self);

    /// Removes its record from the disk.
    fn erase(&self);

    /// Gives its addresses back.
    async fn forget(&self);

    /// Makes room for another one of its name.
    fn leave(&self);
}

/// Runs a new workload. `refused` is ready once control wants nothing of this host any more.
pub(super) async fn begin<S: Steps>(
    mut steps: S,
    given: Option<NetNs>,
    lifeline: Lifeline,
    refused: impl Future<Output = AttachError>,
    progress: Progress,
) {
    let set_up = tokio::select! {
        set_up = steps.set_up(given, &progress) => set_up,
        refusal = refused => Err(refusal),
        () = lifeline.ended() => Err(AttachError::Ending),
        () = progress.closed() => Err(AttachError::Ending),
    };
    match set_up {
        Ok(()) => {
            let attached = steps.open();
            steps.remember(&lifeline.anchor);
            if let Some(attached) = attached {
                progress.attached(attached).await;
            }
            drop(progress);
            steps.live(&lifeline, false).await;
        }
        Err(error) => progress.failed(error).await,
    }
    tear_down(steps).await;
}

/// Runs a workload that an earlier agent attached, from its anchor, if that was found again.
pub(super) async fn resume<S: Steps>(
    mut steps: S,
    anchor: Result<Anchor, Gone>,
    dismissed: watch::Receiver<bool>,
) {
    match anchor {
        Ok(anchor) => {
            let lifeline = Lifeline { anchor, dismissed };
            if take_up(&mut steps, &lifeline).await {
                steps.open();
                steps.live(&lifeline, true).await;
            }
        }
        Err(Gone::Rebooted) => steps.lose(),
        Err(Gone::Ended(_)) => {}
    }
    tear_down(steps).await;
}

/// Takes up what runs, however often that must be tried; false when the workload is to end before.
async fn take_up(steps: &mut impl Steps, lifeline: &Lifeline) -> bool {
    let (began, mut backoff) = (Instant::now(), Backoff::new(SOON, SELDOM));
    let complain = steps.complaints();
    loop {
        let (progress, mut words) = Progress::channel(1);
        let adopted = tokio::select! {
            adopted = steps.adopt(&lifeline.anchor, &progress) => adopted,
            () = lifeline.ended() => return false,
            () = hear(&mut words, &complain) => return false,
        };
        let Err(error) = adopted else {
            complain(None);
            return true;
        };
        complain(Some(error.to_string()));
        if began.elapsed() >= PATIENCE {
            steps.set_aside().await;
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next_wait(rand::random())) => {}
            () = lifeline.ended() => return false,
        }
    }
}

/// Hears what is waited for, for ever.
async fn hear(words: &mut mpsc::Receiver<Result<Event, RequestFailure>>, complain: impl Fn(Option<String>)) {
    while let Some(word) = words.recv().await {
        if let Ok(Event::Waiting(what)) = word {
            complain(Some(format!("it waits for {what}")));
        }
    }
    std::future::pending().await
}

/// Ends a workload: out of names and balancing, then out of the kernel, then out of memory.
async fn tear_down(mut steps: impl Steps) {
    steps.close();
    steps.retire().await;
    steps.clear();
    steps.remove_device().await;
    steps.erase();
    steps.forget().await;
    steps.leave();
}

#[cfg(test)]
mod tests;
