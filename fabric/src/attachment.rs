//! Attachments of this host, and the names by which its parts know them.

use std::fmt;

use sealane_proto::resource::Workload;
use sealane_proto::types::{NetworkName, WorkloadName};

use crate::seat::Seat;

/// A workload of this host in one network, with its seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Workload as everybody knows it.
    pub workload: Workload,
    /// Seat in its namespace.
    pub seat: Seat,
    /// True once it is on its way out: its interface may go before this host takes it away.
    pub ending: bool,
}

impl Attachment {
    /// Name of the attachment on this host.
    #[must_use]
    pub fn id(&self) -> AttachmentId {
        AttachmentId::of(&self.workload)
    }
}

/// Name of an attachment on its host: the workload in its network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttachmentId {
    /// The network.
    pub network: NetworkName,
    /// The workload in it.
    pub workload: WorkloadName,
}

impl AttachmentId {
    /// Of this workload.
    #[must_use]
    pub fn of(workload: &Workload) -> Self {
        Self { network: workload.network.clone(), workload: workload.name.clone() }
    }

    /// The name of its files.
    #[must_use]
    pub fn record_name(&self) -> String {
        format!("{}.{}", self.network, self.workload)
    }
}

impl fmt::Display for AttachmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.workload)
    }
}
