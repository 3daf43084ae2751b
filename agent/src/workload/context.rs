//! Handles that the workloads of a host share.

use std::sync::Arc;

use sealane_base::disk::Disk;
use sealane_fabric::services::ServiceMetrics;
use sealane_proto::types::NodeName;

use super::containers::Containers;
use super::roster::Roster;
use crate::certs::Certs;
use crate::check::CheckLimits;
use crate::disk::Folder;
use crate::dns::NameService;
use crate::host::HostHandle;
use crate::kernel::KernelHandle;
use crate::sidecar::Sidecars;
use crate::tap::Machines;
use crate::trouble::Troubles;

/// The disks under the agent's folders.
#[derive(Debug)]
pub(crate) struct Disks {
    /// The data directory's.
    pub(crate) data: Arc<Disk>,
    /// The run directory's, a file system in memory mostly.
    pub(crate) run: Arc<Disk>,
}

/// Handles and shared state for the tasks of all workloads.
#[derive(Debug)]
pub(crate) struct WorkloadContext {
    /// Name of this host.
    pub(crate) node: NodeName,
    /// The boot that the machine is in.
    pub(crate) boot: String,
    /// Handle of the kernel.
    pub(crate) kernel: KernelHandle,
    /// Counters of service addresses.
    pub(crate) service_metrics: ServiceMetrics,
    /// Service that answers names.
    pub(crate) names: NameService,
    /// Identities of the workloads.
    pub(crate) identities: Arc<Certs>,
    /// Handle of the sidecars.
    pub(crate) sidecars: Sidecars,
    /// Bounds of the workloads' checks.
    pub(crate) checks: CheckLimits,
    /// Handle of this host's state.
    pub(crate) host: HostHandle,
    /// Devices of virtual machines.
    pub(crate) machines: Arc<Machines>,
    /// Folder of the workloads' records.
    pub(crate) records: Folder,
    /// The disks, which may be full.
    pub(crate) disks: Disks,
    /// The workloads by name.
    pub(crate) roster: Roster,
    /// Problems of the workloads.
    pub(crate) troubles: Arc<Troubles>,
    /// Containers that are attached again.
    pub(crate) containers: Containers,
}
