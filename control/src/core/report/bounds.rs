//! Bounds on what a host says of its workloads: every other host of the network, and each sidecar there, keeps all of it.

use sealane_proto::document::PORTS;
use sealane_proto::resource::Workload;
use sealane_proto::types::ServiceName;

use super::WorkloadRefusal;

/// A quantity that is bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The ports of one workload.
    Ports,
    /// The ports of a service without a document, which its instances have together.
    ServicePorts(ServiceName),
    /// The workloads of one host in a network.
    Workloads,
    /// The bytes that everybody keeps for these.
    Bytes,
}

impl Bound {
    /// The most that it may be.
    #[must_use]
    pub const fn most(&self) -> usize {
        match self {
            Self::Ports => Workload::MOST_PORTS,
            Self::ServicePorts(_) => PORTS,
            Self::Workloads => 4_096,
            Self::Bytes => 1 << 20,
        }
    }

    /// The word for it in metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Ports => "too_many_ports",
            Self::ServicePorts(_) => "too_many_service_ports",
            Self::Workloads => "too_many_workloads",
            Self::Bytes => "too_many_bytes",
        }
    }

    pub(super) fn sentence(&self, given: usize) -> String {
        let most = self.most();
        match self {
            Self::Ports => {
                format!("ports: {given} are too many, a workload offers {most} at most; offer fewer")
            }
            Self::ServicePorts(service) => format!(
                "ports: service {service} would have {given} with it, and the instances of a service without a document \
                 have {most} at most; offer fewer, or declare the service"
            ),
            Self::Workloads => {
                format!(
                    "its host has {most} workloads in the network already, the most there may be; run it on another"
                )
            }
            Self::Bytes => format!(
                "ports, aliases and names: the workloads of its host in the network would take {given} bytes at every other host, \
                 and {most} is the most there may be; offer fewer ports, or run it on another host"
            ),
        }
    }

    fn check(self, workload: &Workload, given: usize) -> Result<(), WorkloadRefusal> {
        if given <= self.most() {
            return Ok(());
        }
        let (name, network) = (workload.name.clone(), workload.network.clone());
        Err(WorkloadRefusal::TooMuch { workload: name, network, bound: self, given })
    }
}

/// Checks that a workload by itself is within bounds.
pub(super) fn check(workload: &Workload) -> Result<(), WorkloadRefusal> {
    Bound::Ports.check(workload, workload.ports.len())
}

/// Checks that a service is, which has so many ports with a workload.
pub(super) fn check_service(
    workload: &Workload,
    service: &ServiceName,
    ports: usize,
) -> Result<(), WorkloadRefusal> {
    Bound::ServicePorts(service.clone()).check(workload, ports)
}

/// Checks that all of a host's workloads in a network are, this one the last of them.
pub(super) fn check_all(workload: &Workload, count: usize, load: usize) -> Result<(), WorkloadRefusal> {
    Bound::Workloads.check(workload, count)?;
    Bound::Bytes.check(workload, load)
}

/// About how many bytes everybody keeps for a workload: its names, and a port is one in a list and in a rule.
pub(super) fn load(workload: &Workload) -> usize {
    const WORKLOAD: usize = 64;
    const PORT: usize = 64;
    let names =
        workload.name.as_str().len() + workload.service.as_ref().map_or(0, |name| name.as_str().len());
    let port_names =
        workload.ports.iter().filter_map(|port| port.name.as_ref()).map(|name| name.as_str().len());
    let aliases = workload.aliases.iter().map(|alias| alias.as_str().len() + PORT);
    WORKLOAD + names + PORT * workload.ports.len() + port_names.chain(aliases).sum::<usize>()
}
