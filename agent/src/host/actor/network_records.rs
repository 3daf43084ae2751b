//! Records of networks on disk: a file with the state of each, and a log of the deltas since.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sealane_proto::resource::NetworkDelta;
use sealane_proto::types::NetworkName;

use crate::disk::{DiskError, Folder, delta_to_bytes, network_to_bytes};
use crate::host::core::{HostCore, Unsaved};

/// Interval at which a log is synced; what a power cut takes of it, control tells again.
const SYNC: Duration = Duration::from_secs(1);

/// The folder of records.
#[derive(Debug)]
pub(super) struct NetworkRecords {
    folder: Folder,
    /// Records that this process has written whole: until then a log may end in half a record.
    known: BTreeMap<NetworkName, Known>,
}

#[derive(Debug)]
struct Known {
    /// Octets of the file, and of the log.
    state: usize,
    log: usize,
    synced: Instant,
}

impl NetworkRecords {
    /// The records in a folder.
    pub(super) fn new(folder: Folder) -> Self {
        Self { folder, known: BTreeMap::new() }
    }

    /// Keeps what is not on disk of a network. A network that is not there any more has nothing to keep.
    pub(super) fn keep(
        &mut self,
        core: &HostCore,
        network: &NetworkName,
        unsaved: &Unsaved,
    ) -> Result<(), DiskError> {
        match unsaved {
            Unsaved::Deltas(deltas) if self.append(network, deltas)? => Ok(()),
            Unsaved::Deltas(_) | Unsaved::Whole => {
                let Some(snapshot) = core.mesh.snapshot(network) else { return Ok(()) };
                self.write(network, &network_to_bytes(snapshot, &core.mesh.offered(network)))
            }
        }
    }

    /// Writes the record of a network whole.
    pub(super) fn write(&mut self, network: &NetworkName, bytes: &[u8]) -> Result<(), DiskError> {
        self.known.remove(network);
        self.folder.write(network.as_str(), bytes)?;
        // Deltas that are in the state lead on from it to nothing, so that one that stays does no harm.
        self.folder.forget_log(network.as_str())?;
        self.known.insert(network.clone(), Known { state: bytes.len(), log: 0, synced: Instant::now() });
        Ok(())
    }

    /// Adds deltas to the log; false if the state is to be written in their place.
    fn append(&mut self, network: &NetworkName, deltas: &[NetworkDelta]) -> Result<bool, DiskError> {
        let Some(known) = self.known.get_mut(network) else { return Ok(false) };
        for delta in deltas {
            let bytes = delta_to_bytes(delta);
            if known.log + bytes.len() > known.state / 2 {
                return Ok(false);
            }
            let now = Instant::now();
            let due = now.duration_since(known.synced) >= SYNC;
            self.folder.append(network.as_str(), &bytes, due)?;
            known.log += bytes.len();
            if due {
                known.synced = now;
            }
        }
        Ok(true)
    }

    /// Forgets a network.
    pub(super) fn remove(&mut self, network: &NetworkName) -> Result<(), DiskError> {
        self.known.remove(network);
        self.folder.remove(network.as_str())?;
        self.folder.forget_log(network.as_str())
    }
}
