//! Count of the agent's runs on this host.

use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;
use sealane_proto::resource::Edition;

use super::{DiskError, Folder};

/// Name of the record in the folder of the host's identity, with which it goes, and of the copy in the run directory.
const RECORD: &str = "incarnation";

#[derive(Clone, PartialEq, Message)]
struct IncarnationMessage {
    #[prost(uint64, tag = "1")]
    incarnation: u64,
}

/// The record of how often the agent has started: no run says anything under a number that is not written down.
#[derive(Debug)]
pub(crate) struct Incarnations {
    disk: Folder,
    /// Folder of the copy, for as long as the disk cannot be written.
    run: Folder,
    /// The incarnation that is in the copy alone, and why.
    unsaved: Option<(u64, String)>,
}

impl Incarnations {
    /// The record in the folder `disk`; its copy, where that is needed, is in `run`, which does not outlive the boot.
    pub(crate) fn new(disk: Folder, run: Folder) -> Self {
        Self { disk, run, unsaved: None }
    }

    /// Begins the next incarnation, written down, and returns it: no less than the seconds since 1970, so that a host which has lost
    /// its disk, or taken over a name, speaks after whoever had that. Of a record that is lost, control tells as well.
    ///
    /// # Errors
    /// When the record cannot be read, or nothing can be written down.
    pub(crate) fn next(&mut self, now: SystemTime) -> Result<u64, DiskError> {
        let known = known(&self.disk)?.max(known(&self.run)?);
        let clock = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let next = known.unwrap_or_default().saturating_add(1).max(clock);
        self.begin(next)?;
        Ok(next)
    }

    /// Begins this incarnation, written down: on disk. One that is full has room for it in the record's place, on most file systems. On
    /// another one, and on one that is read-only, it is in the run directory: after a reboot, the clock is beyond it.
    ///
    /// # Errors
    /// When neither can be written.
    pub(crate) fn begin(&mut self, incarnation: u64) -> Result<(), DiskError> {
        let record = IncarnationMessage { incarnation }.encode_to_vec();
        self.unsaved = None;
        let Err(error) = self.disk.write(RECORD, &record) else { return Ok(()) };
        if self.disk.overwrite(RECORD, &record).is_ok() {
            return Ok(());
        }
        if let Err(copy) = self.run.write(RECORD, &record) {
            tracing::error!(error = %copy, "the number of this agent's start cannot be written down anywhere");
            return Err(error);
        }
        tracing::warn!(%error, incarnation, "the number of this agent's start is in the run directory alone");
        self.unsaved = Some((incarnation, error.to_string()));
        Ok(())
    }

    /// Brings to the disk what is not there, once it can be written again.
    pub(crate) fn keep(&mut self) {
        if let Some((incarnation, _)) = self.unsaved
            && self.disk.may_be_written()
            && let Err(error) = self.begin(incarnation)
        {
            tracing::error!(%error, "the number of this agent's start is not on disk");
        }
    }

    /// Says that a reboot may make this host begin with a number that it has had; `None` while the number is on disk.
    #[must_use]
    pub(crate) fn problem(&self) -> Option<String> {
        let (_, why) = self.unsaved.as_ref()?;
        Some(format!(
            "the number of this agent's start is not on disk: {why}; after a reboot with a clock that is behind, other hosts would take \
             its words for old ones, until control is there"
        ))
    }
}

/// Reads the number in this folder; `None` where there is none that anybody would believe, as an older version has counted to.
fn known(folder: &Folder) -> Result<Option<u64>, DiskError> {
    let record = match folder.read(RECORD) {
        Ok(record) => record.and_then(|bytes| IncarnationMessage::decode(&*bytes).ok()),
        Err(error @ DiskError::Damaged { .. }) => {
            tracing::error!(%error, "the count of this agent's starts is lost");
            None
        }
        Err(error @ (DiskError::Read { .. } | DiskError::Write { .. })) => return Err(error),
    };
    let possible = |known: &u64| Edition { incarnation: *known, revision: 0 }.is_possible();
    Ok(record.map(|known| known.incarnation).filter(possible))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    /// The record below `dir`.
    fn record(dir: &Path) -> Incarnations {
        Incarnations::new(Folder::at(dir.join("node")), Folder::at(dir.join("run")))
    }

    fn start(dir: &Path, second: u64) -> u64 {
        record(dir).next(UNIX_EPOCH + Duration::from_secs(second)).unwrap()
    }

    #[test]
    fn every_start_has_a_number_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert_eq!(
            [start(dir, 100), start(dir, 100), start(dir, 7), start(dir, 500)],
            [100, 101, 102, 500],
            "whatever the clock does"
        );
        record(dir).begin(4_000).unwrap();
        assert_eq!(start(dir, 600), 4_001);
        std::fs::write(dir.join("node/incarnation"), "damaged").unwrap();
        assert_eq!(start(dir, 601), 601);
        record(dir).begin(u64::MAX).unwrap();
        assert_eq!(start(dir, 602), 602, "nobody would believe what follows that");
        assert!(!dir.join("run").exists(), "the disk has it");
    }

    #[test]
    fn a_number_that_cannot_be_on_disk_is_in_the_run_directory_until_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let at = |second| UNIX_EPOCH + Duration::from_secs(second);
        // Nobody can make folders there.
        std::os::unix::fs::symlink("/proc/sys/kernel/sealane", dir.join("node")).unwrap();
        let mut refused = record(dir);
        assert_eq!(refused.next(at(100)).unwrap(), 100);
        assert!(refused.problem().unwrap().contains("not on disk: cannot write"));
        assert_eq!(start(dir, 20), 101, "after the copy's");
        std::fs::remove_file(dir.join("node")).unwrap();
        refused.keep();
        assert!(refused.problem().is_none());
        let mut next = Incarnations::new(Folder::at(dir.join("node")), Folder::at(dir.join("none")));
        assert_eq!(next.next(at(7)).unwrap(), 101, "after the disk's");
        std::fs::remove_dir_all(dir.join("node")).unwrap();
        std::fs::remove_dir_all(dir.join("run")).unwrap();
        std::fs::write(dir.join("run"), "no folder").unwrap();
        std::os::unix::fs::symlink("/proc/sys/kernel/sealane", dir.join("node")).unwrap();
        assert!(refused.begin(200).is_err(), "no number without a record");
    }
}
