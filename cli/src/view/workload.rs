//! Workloads.

use std::time::SystemTime;

use sealane_proto::wire::v1;
use serde::Serialize;

use super::{PortView, dash, ports, text, yes};
use crate::printer::Row;

/// A workload as `workload ls` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct WorkloadView {
    network: String,
    name: String,
    node: String,
    address: String,
    mac: String,
    service: Option<String>,
    ports: Vec<PortView>,
    sidecar: bool,
    ready: bool,
    weight: u32,
    /// Null: all is well.
    problem: Option<String>,
}

impl From<v1::WorkloadView> for WorkloadView {
    fn from(view: v1::WorkloadView) -> Self {
        let workload = view.workload.unwrap_or_default();
        Self {
            network: workload.network,
            name: workload.name,
            node: workload.node,
            address: workload.address,
            mac: workload.mac,
            service: text(workload.service),
            ports: workload.ports.into_iter().map(Into::into).collect(),
            sidecar: workload.sidecar,
            ready: workload.ready,
            weight: workload.weight.unwrap_or(1),
            problem: text(view.problem),
        }
    }
}

impl Row for WorkloadView {
    const HEADERS: &'static [&'static str] =
        &["NETWORK", "NAME", "NODE", "ADDRESS", "SERVICE", "PORTS", "SIDECAR", "READY", "PROBLEM"];
    const NONE: &'static str = "no workloads yet: `sealane run --network N -- CMD` starts one";

    fn cells(&self, _: SystemTime) -> Vec<String> {
        vec![
            self.network.clone(),
            self.name.clone(),
            self.node.clone(),
            self.address.clone(),
            dash(self.service.as_ref()),
            if self.ports.is_empty() { "-".to_owned() } else { ports(&self.ports) },
            yes(self.sidecar),
            yes(self.ready),
            dash(self.problem.as_ref()),
        ]
    }
}
