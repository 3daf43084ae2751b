//! Records of other hosts' words, written some time after they were heard: while control is there, it knows the same soon, and
//! nothing is written.

use std::time::{Duration, Instant};

use crate::disk::{Folder, words_to_bytes};
use crate::host::core::HostCore;

/// Time that control has to say the same.
const WAIT: Duration = Duration::from_secs(2);

/// The folder of the records, and when it is looked after next.
#[derive(Debug)]
pub(super) struct WordRecords {
    folder: Folder,
    due: Option<Instant>,
}

impl WordRecords {
    pub(super) fn new(folder: Folder) -> Self {
        Self { folder, due: None }
    }

    /// Time at which the records are to be written; `None` while they are as they should be.
    pub(super) fn due(&mut self, core: &HostCore, now: Instant) -> Option<Instant> {
        if core.is_unkept() {
            self.due.get_or_insert(now + WAIT);
        }
        self.due
    }

    /// Writes what is due.
    pub(super) fn keep(&mut self, core: &mut HostCore) {
        self.due = None;
        for (network, words) in core.poll_words() {
            let kept = match words.is_empty() {
                true => self.folder.remove(network.as_str()),
                false => self.folder.write(network.as_str(), &words_to_bytes(&words)),
            };
            if let Err(error) = &kept {
                tracing::error!(%error, %network, "cannot keep what other hosts have said on disk");
            }
            core.handle_kept(network, &words, kept.is_ok());
        }
    }
}
