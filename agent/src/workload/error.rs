//! Reasons for which a workload could not be attached, and the kind of each to whoever asked.

use sealane_sys::ProcessError;
use tonic::{Code, Status};

use crate::attachment::{AttachmentId, FailureKind, Hold, RequestFailure};
use crate::certs::{CertError, words};
use crate::disk::DiskError;
use crate::host::{AdmitError, RequestError};
use crate::tap;

/// Reasons for which a workload could not be attached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    /// Name or address.
    #[error(transparent)]
    Admit(#[from] AdmitError),
    /// Control says no; its words.
    #[error("{0}")]
    Refused(String),
    /// The network does not exist.
    #[error("{0}")]
    NoNetwork(String),
    /// The certificate.
    #[error(transparent)]
    Cert(#[from] CertError),
    /// The disk is full or faulty.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The kernel does not do what is asked.
    #[error("cannot set up workload {id}: {what}")]
    Setup {
        /// The workload.
        id: AttachmentId,
        /// Step that failed.
        what: String,
    },
    /// The namespace is not there, or not one to attach.
    #[error("{0}")]
    Namespace(String),
    /// Somebody holds another workload by that name.
    #[error("{0} holds workload {1} already; hint: {hint}", hint = end_of(.0, .1))]
    Held(Hold, AttachmentId),
    /// The process that the workload was for is gone.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The agent is ending.
    #[error("the agent is ending")]
    Ending,
}

impl AttachError {
    /// A refusal of control's.
    pub(super) fn of_control(status: &Status) -> Self {
        let words = words(status);
        if status.code() == Code::NotFound { Self::NoNetwork(words) } else { Self::Refused(words) }
    }

    /// A fault of the kernel's, or of this host.
    pub(crate) fn setup(id: &AttachmentId, what: impl std::fmt::Display) -> Self {
        Self::Setup { id: id.clone(), what: what.to_string() }
    }
}

/// The way to end the workload that `hold` holds.
fn end_of(hold: &Hold, id: &AttachmentId) -> String {
    match hold.runtime(&id.workload) {
        Some((_, fix)) => fix,
        None if tap::device_of(hold).is_some() => format!("`sealane detach {}`", id.workload),
        None => format!("`sealane detach --holder {hold}`"),
    }
}

impl From<RequestError> for AttachError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Admit(error) => Self::Admit(error),
            RequestError::Disk(error) => Self::Disk(error),
            RequestError::Record(id, error) => Self::setup(&id, error),
        }
    }
}

impl From<AttachError> for RequestFailure {
    fn from(error: AttachError) -> Self {
        let kind = match &error {
            AttachError::Admit(AdmitError::UnknownNetwork(_)) | AttachError::NoNetwork(_) => {
                FailureKind::NotFound
            }
            AttachError::Admit(
                AdmitError::Address { .. }
                | AdmitError::ForeignBlock { .. }
                | AdmitError::Overlap { .. }
                | AdmitError::MacReserved { .. }
                | AdmitError::NotReserved(..),
            ) => FailureKind::Wrong,
            AttachError::Admit(AdmitError::NameInUse { .. }) => FailureKind::NameInUse,
            AttachError::Admit(
                AdmitError::Ending(_) | AdmitError::AddressInUse { .. } | AdmitError::MacInUse { .. },
            )
            | AttachError::Held(..) => FailureKind::InUse,
            AttachError::Refused(_) => FailureKind::Refused,
            AttachError::Cert(CertError::Refused { .. }) => FailureKind::Forbidden,
            AttachError::Cert(_) | AttachError::Setup { .. } => FailureKind::Broken,
            AttachError::Namespace(_) | AttachError::Process(_) => FailureKind::Namespace,
            AttachError::Disk(_) => FailureKind::Disk,
            AttachError::Ending => FailureKind::Ending,
        };
        Self::new(kind, error)
    }
}
