//! Detection of paused workloads: a runtime freezes its container's control group, and its sockets listen on.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use sealane_base::task::{self, Task};
use sealane_fabric::async_fd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::cgroup::{self, Group};

/// Interval of looks in version 1, which tells nobody.
const LOOK: Duration = Duration::from_millis(150);
/// Enough for all that these files say.
const LARGEST: usize = 512;

/// File that says that a process is frozen.
struct Freezer {
    /// In version 2, which tells of changes.
    events: Option<AsyncFd<File>>,
    /// In version 1.
    state: Option<File>,
}

/// Watches whether a control group of the process is frozen; `None` when it is in none of its own.
pub(super) fn watch(pid: u32) -> Option<(watch::Receiver<bool>, Task)> {
    let groups = cgroup::of(pid);
    let open = |group: &Group, name| File::open(group.folder.join(name)).ok();
    let events =
        groups.iter().find(|group| group.is_unified()).and_then(|group| open(group, "cgroup.events"));
    let state =
        groups.iter().find(|group| group.has("freezer")).and_then(|group| open(group, "freezer.state"));
    let freezer = Freezer { events: events.and_then(|events| async_fd::priority(events).ok()), state };
    if freezer.events.is_none() && freezer.state.is_none() {
        return None;
    }
    let (frozen, seen) = watch::channel(freezer.is_frozen());
    let follow = async move {
        loop {
            let now = freezer.is_frozen();
            frozen.send_if_modified(|known| std::mem::replace(known, now) != now);
            tokio::select! {
                () = freezer.changed() => {}
                () = frozen.closed() => return,
            }
        }
    };
    Some((seen, task::spawn("freezer", follow)))
}

impl Freezer {
    /// Returns true if the group is frozen; one that cannot be read is none any more, and its processes have ended.
    fn is_frozen(&self) -> bool {
        let says = |file: &File, word: &str| {
            let mut text = [0; LARGEST];
            let len = file.read_at(&mut text, 0).unwrap_or_default();
            text[..len].split(|byte| *byte == b'\n').any(|line| line == word.as_bytes())
        };
        self.events.as_ref().is_some_and(|events| says(events.get_ref(), "frozen 1"))
            || self.state.as_ref().is_some_and(|state| says(state, "FROZEN"))
    }

    /// Returns when it may have changed. Cancel safe.
    async fn changed(&self) {
        let told = async {
            match &self.events {
                Some(events) => match events.ready(Interest::PRIORITY).await {
                    Ok(mut ready) => ready.clear_ready(),
                    Err(_) => std::future::pending().await,
                },
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = told => {}
            () = tokio::time::sleep(LOOK), if self.state.is_some() => {}
        }
    }
}
