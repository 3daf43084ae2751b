//! Record of where hosts are, as far as they have said more than control: the next agent goes by it, whether control is there or not.

use std::time::{Duration, Instant};

use sealane_proto::resource::HostPlaces;

use crate::disk::{Folder, PLACES, places_to_bytes};
use crate::host::Mesh;

/// Pause before it is written again.
const RETRY: Duration = Duration::from_secs(1);

/// The record.
#[derive(Debug)]
pub(super) struct PlaceRecord {
    folder: Folder,
    /// Content of the record, as far as this process has written it.
    kept: Option<HostPlaces>,
    /// The version of what is known that was looked at last.
    version: Option<u64>,
    /// Time of the last attempt to write it that has failed.
    failed: Option<Instant>,
}

impl PlaceRecord {
    pub(super) fn new(folder: Folder) -> Self {
        Self { folder, kept: None, version: None, failed: None }
    }

    /// Brings the record to what is known: before others hear of it, as far as the disk lets it.
    pub(super) fn keep(&mut self, mesh: &Mesh) {
        let waits = self.failed.is_none_or(|failed| failed.elapsed() < RETRY);
        if self.version.replace(mesh.places_version()) == Some(mesh.places_version()) && waits {
            return;
        }
        let places = mesh.newer_places();
        if self.kept.as_ref() == Some(&places) {
            return;
        }
        let written = self.folder.write(PLACES, &places_to_bytes(&places));
        if let Err(error) = &written
            && self.failed.is_none()
        {
            tracing::error!(%error, "cannot keep on disk where hosts are");
        }
        self.failed = written.is_err().then(Instant::now);
        self.kept = Some(places).filter(|_| written.is_ok());
    }
}
