//! Workloads.

use std::time::SystemTime;

use sealane_proto::wire::v1;
use serde::Serialize;

use super::{PortView, dash, ports, text, yes};
use crate::printer::{Row, Sheet};

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
    /// The same at its IPv6 address; where the network has none, as `ready`.
    ready6: bool,
    /// Share of new calls: 0 while it is drained.
    weight: u32,
    /// Null: it is not drained. Otherwise the weight that it has again afterwards.
    kept_weight: Option<u32>,
    aliases: Vec<String>,
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
            ready6: workload.ready6.unwrap_or(workload.ready),
            weight: workload.weight.unwrap_or(1),
            kept_weight: workload.kept_weight,
            aliases: workload.aliases,
            problem: text(view.problem),
        }
    }
}

impl WorkloadView {
    fn weight_line(&self) -> String {
        match self.kept_weight {
            Some(kept) => format!("{} (drained; {kept} afterwards)", self.weight),
            None => self.weight.to_string(),
        }
    }

    fn ready_line(&self) -> String {
        match (self.ready, self.ready6) {
            (true, false) => "yes, at its IPv4 address alone".to_owned(),
            (false, true) => "no, but at its IPv6 address".to_owned(),
            (ready, _) => yes(ready),
        }
    }

    /// In one line: where it is and how it does.
    pub(super) fn line(&self) -> String {
        let service =
            self.service.as_ref().map(|service| format!(", instance of {service}")).unwrap_or_default();
        let weight = if self.weight == 1 { String::new() } else { format!(", weight {}", self.weight) };
        let state =
            self.problem.clone().unwrap_or_else(|| if self.ready { "ready" } else { "not ready" }.to_owned());
        format!(
            "{} on {} at {} in {}{service}{weight}: {state}",
            self.name, self.node, self.address, self.network
        )
    }
}

impl Sheet for WorkloadView {
    fn lines(&self, _: SystemTime) -> Vec<(&'static str, String)> {
        vec![
            ("name", self.name.clone()),
            ("network", self.network.clone()),
            ("node", self.node.clone()),
            ("address", self.address.clone()),
            ("mac", self.mac.clone()),
            ("service", dash(self.service.as_ref())),
            ("ports", if self.ports.is_empty() { "-".to_owned() } else { ports(&self.ports) }),
            ("sidecar", yes(self.sidecar)),
            ("weight", self.weight_line()),
            ("aliases", if self.aliases.is_empty() { "-".to_owned() } else { self.aliases.join(", ") }),
            ("ready", self.ready_line()),
            ("problem", self.problem.clone().unwrap_or_else(|| "none".to_owned())),
        ]
    }
}

impl Row for WorkloadView {
    const HEADERS: &'static [&'static str] =
        &["NETWORK", "NAME", "NODE", "ADDRESS", "SERVICE", "PORTS", "SIDECAR", "WEIGHT", "READY", "PROBLEM"];
    const NONE: &'static str = "no workloads here: `sealane run --network N -- CMD` starts one";

    fn cells(&self, _: SystemTime) -> Vec<String> {
        vec![
            self.network.clone(),
            self.name.clone(),
            self.node.clone(),
            self.address.clone(),
            dash(self.service.as_ref()),
            if self.ports.is_empty() { "-".to_owned() } else { ports(&self.ports) },
            yes(self.sidecar),
            if self.service.is_some() { self.weight.to_string() } else { "-".to_owned() },
            yes(self.ready),
            dash(self.problem.as_ref()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_listens_for_one_family_is_ready_at_the_addresses_of_that() {
        for (ready, ready6, expected) in [
            (true, None, "yes"),
            (false, None, "no"),
            (true, Some(true), "yes"),
            (true, Some(false), "yes, at its IPv4 address alone"),
            (false, Some(true), "no, but at its IPv6 address"),
        ] {
            let workload = v1::Workload { ready, ready6, ..Default::default() };
            let view = v1::WorkloadView { workload: Some(workload), ..Default::default() };
            let lines = WorkloadView::from(view).lines(SystemTime::now());
            assert!(lines.contains(&("ready", expected.to_owned())), "{lines:?}");
        }
    }
}
