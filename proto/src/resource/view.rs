//! Network views that control and agents show alike.

use std::collections::{HashMap, HashSet};

use super::{NetworkSnapshot, Workload};
use crate::types::{Port, ServiceName, ServicePort, Transport};
use crate::wire::v1;

impl From<&NetworkSnapshot> for v1::NetworkView {
    fn from(snapshot: &NetworkSnapshot) -> Self {
        Self {
            network: Some((&snapshot.network).into()),
            generation: Some(snapshot.generation.into()),
            blocks: snapshot.blocks.iter().map(Into::into).collect(),
            services: count(snapshot.services.len()),
            workloads: count(snapshot.workloads.len()),
        }
    }
}

impl v1::WorkloadView {
    /// Words for a workload that is drained; `None` when it is not.
    #[must_use]
    pub fn drained(workload: &Workload) -> Option<String> {
        workload.weight.kept()?;
        let (name, node) = (workload.shown(), &workload.node);
        Some(format!("drained: it gets no new calls until `sealane workload undrain {name}` on host {node}"))
    }

    /// Words for an instance of another host that is not ready: what its host has found, or what it may be.
    #[must_use]
    pub fn idle(workload: &Workload) -> String {
        if !workload.finding.is_empty() {
            return format!("not ready, {} says: {}", workload.node, workload.finding);
        }
        let ports = workload.ports.iter().map(|port| format!("{}/{}", port.port, port.protocol.transport()));
        let ports: Vec<String> = ports.collect();
        let (name, Workload { network, node, .. }) = (workload.shown(), workload);
        let where_known = format!("`sealane workload inspect {name}.{network}` on {node} says why");
        let listens = match ports.as_slice() {
            [] => "its check fails".to_owned(),
            [port] => of_ports(port),
            ports => of_ports(&format!("each of {}", ports.join(", "))),
        };
        format!("not ready: {listens}, its host holds it back, or it is ending; {where_known}")
    }

    /// A workload by the name that people say, and what is wrong with it.
    #[must_use]
    pub fn of(workload: &Workload, ready: bool, problem: String) -> Self {
        let name = workload.shown().to_string();
        Self {
            workload: Some(v1::Workload { name, ready, ..workload.into() }),
            problem,
            begun_by: String::new(),
        }
    }
}

fn of_ports(all: &str) -> String {
    format!(
        "nothing listens on {all} at its own address (0.0.0.0 counts, 127.0.0.1 does not), its check fails"
    )
}

/// The instances of a service.
#[derive(Default)]
struct Counted {
    instances: usize,
    ready: usize,
    /// By those that take work.
    offered: HashSet<(Port, Transport)>,
}

impl Counted {
    fn add(&mut self, workload: &Workload, takes_work: bool) {
        self.instances += 1;
        if takes_work {
            self.ready += 1;
            self.offered.extend(workload.ports.iter().map(ServicePort::key));
        }
    }
}

impl v1::ServiceView {
    /// The services of a network; `is_ready` says which of their instances count as ready, which those outside every network all do.
    /// Each workload is looked at once.
    ///
    /// None is ready while a port of the service's is offered by none that takes work: calls there fail.
    pub fn all(
        snapshot: &NetworkSnapshot,
        is_ready: impl Fn(&Workload) -> bool,
    ) -> impl Iterator<Item = Self> {
        let mut counted: HashMap<&ServiceName, Counted> = HashMap::new();
        for workload in &snapshot.workloads {
            if let Some(service) = &workload.service {
                let takes_work = is_ready(workload) && !workload.weight.is_drained();
                counted.entry(service).or_default().add(workload, takes_work);
            }
        }
        snapshot.services.iter().map(move |service| {
            let counted = counted.remove(&service.name).unwrap_or_default();
            // One outside every network offers all of them.
            let outside = service.external.instances.len();
            let (instances, ready) = (counted.instances + outside, counted.ready + outside);
            let unserved = service.ports.iter();
            let unserved = unserved.filter(|port| outside == 0 && !counted.offered.contains(&port.key()));
            let unserved: Vec<_> =
                unserved.map(|port| format!("{}/{}", port.port, port.protocol.transport())).collect();
            Self {
                network: snapshot.network.name.to_string(),
                service: Some(service.into()),
                ready: if unserved.is_empty() { count(ready) } else { 0 },
                instances: count(instances),
                mtls: service.mtls_in(&snapshot.network).to_string(),
                unserved: if ready > 0 { unserved } else { Vec::new() },
                failing: Vec::new(),
            }
        })
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
