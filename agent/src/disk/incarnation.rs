//! Count of the agent's runs on this host.

use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;
use sealane_proto::resource::Edition;

use super::{DiskError, Folder};

/// Name of the record in the folder of the host's identity, with which it goes.
const RECORD: &str = "incarnation";

#[derive(Clone, PartialEq, Message)]
struct IncarnationMessage {
    #[prost(uint64, tag = "1")]
    incarnation: u64,
}

/// The record of how often the agent has started: no run says anything under a number that is not on disk.
#[derive(Clone, Debug)]
pub(crate) struct Incarnations(Folder);

impl Incarnations {
    /// The record in this folder.
    pub(crate) fn new(folder: Folder) -> Self {
        Self(folder)
    }

    /// Begins the next incarnation, durably, and returns it: no less than the seconds since 1970, so that a host which has lost
    /// its disk, or taken over a name, speaks after whoever had that. Of a record that is lost, control tells as well.
    ///
    /// # Errors
    /// When the disk is full or the folder cannot be used.
    pub(crate) fn next(&self, now: SystemTime) -> Result<u64, DiskError> {
        let known = match self.0.read(RECORD) {
            Ok(record) => record.and_then(|bytes| IncarnationMessage::decode(&*bytes).ok()),
            Err(error @ DiskError::Damaged { .. }) => {
                tracing::error!(%error, "the count of this agent's starts is lost");
                None
            }
            Err(error @ (DiskError::Read { .. } | DiskError::Write { .. })) => return Err(error),
        };
        let clock = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        // What nobody else would believe, an older version has counted to.
        let possible = |known: &u64| Edition { incarnation: *known, revision: 0 }.is_possible();
        let known = known.map(|known| known.incarnation).filter(possible);
        let next = known.unwrap_or_default().saturating_add(1).max(clock);
        self.begin(next)?;
        Ok(next)
    }

    /// Begins this incarnation, durably.
    ///
    /// # Errors
    /// When the disk is full or the folder cannot be written.
    pub(crate) fn begin(&self, incarnation: u64) -> Result<(), DiskError> {
        self.0.write(RECORD, &IncarnationMessage { incarnation }.encode_to_vec())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_start_has_a_number_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let start = |second| {
            let record = Incarnations::new(Folder::open(dir.path().join("node")).unwrap());
            record.next(UNIX_EPOCH + Duration::from_secs(second)).unwrap()
        };
        assert_eq!(
            [start(100), start(100), start(7), start(500)],
            [100, 101, 102, 500],
            "whatever the clock does"
        );
        Incarnations::new(Folder::open(dir.path().join("node")).unwrap()).begin(4_000).unwrap();
        assert_eq!(start(600), 4_001);
        std::fs::write(dir.path().join("node/incarnation"), "damaged").unwrap();
        assert_eq!(start(601), 601);
        Incarnations::new(Folder::open(dir.path().join("node")).unwrap()).begin(u64::MAX).unwrap();
        assert_eq!(start(602), 602, "nobody would believe what follows that");
    }
}
