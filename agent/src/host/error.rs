//! Reasons for which the host refuses what its workloads ask of it.

use crate::attachment::AttachmentId;
use crate::disk::{DiskError, RecordError};

use super::AdmitError;

/// Reasons for which a request to the host fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// Name or address.
    #[error(transparent)]
    Admit(#[from] AdmitError),
    /// The disk is full or faulty.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The record of a workload cannot be read.
    #[error("record of workload {0}: {1}")]
    Record(AttachmentId, #[source] RecordError),
}
