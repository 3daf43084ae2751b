//! Services.

use std::time::{Duration, SystemTime};

use sealane_proto::types::{Mtls, Probe};
use sealane_proto::wire::v1;
use serde::Serialize;

use super::{PortView, WorkloadView, hosts, modes, ports, text};
use crate::printer::{Row, Sheet};

/// A service as `service ls` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ServiceView {
    network: String,
    name: String,
    vip: String,
    ports: Vec<PortView>,
    /// Hosts that may run its instances; none: all that may carry the network.
    hosts: Vec<String>,
    /// For the ports that say nothing else: `strict` or `permissive`.
    mtls: String,
    ready: u32,
    instances: u32,
    /// Instances outside every network, which are called in plain; on a host, those that work seen from there.
    external: Vec<String>,
    /// The check by which hosts find out which of these work: `tcp` or `http:PATH`, and how often; null: none.
    check: Option<String>,
    /// The host that has registered it.
    registrar: Option<String>,
}

/// A service with its instances, as `service inspect` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ServiceSheet {
    #[serde(flatten)]
    service: ServiceView,
    endpoints: Vec<WorkloadView>,
}

impl ServiceSheet {
    /// The service with its instances.
    pub(crate) fn new(service: v1::ServiceView, instances: Vec<v1::WorkloadView>) -> Self {
        Self { service: service.into(), endpoints: instances.into_iter().map(Into::into).collect() }
    }
}

impl Sheet for ServiceSheet {
    fn lines(&self, _: SystemTime) -> Vec<(&'static str, String)> {
        let service = &self.service;
        let mut lines = vec![
            ("name", service.name.clone()),
            ("network", service.network.clone()),
            ("address", service.vip.clone()),
            ("ports", if service.ports.is_empty() { "-".to_owned() } else { ports(&service.ports) }),
            ("hosts", hosts(&service.hosts)),
            ("mtls", modes(&service.mtls, &service.ports)),
            ("ready", format!("{} of {}", service.ready, service.instances)),
        ];
        lines.extend(self.endpoints.iter().map(|endpoint| ("endpoint", endpoint.line())));
        lines.extend(service.external.iter().map(|at| ("external", format!("{at}, called in plain"))));
        lines.extend(
            service.check.iter().map(|check| ("check", format!("{check}, by every host for itself"))),
        );
        lines.extend(service.registrar.iter().map(|node| ("registered by", format!("node {node}"))));
        lines
    }
}

impl From<v1::ServiceView> for ServiceView {
    fn from(view: v1::ServiceView) -> Self {
        let service = view.service.unwrap_or_default();
        Self {
            network: view.network,
            name: service.name,
            vip: service.vip,
            ports: service.ports.into_iter().map(Into::into).collect(),
            hosts: service.hosts,
            mtls: text(view.mtls).unwrap_or_else(|| Mtls::Permissive.to_string()),
            ready: view.ready,
            instances: view.instances,
            external: service.external,
            check: service.check.map(check),
            registrar: text(service.registrar),
        }
    }
}

fn check(check: v1::Check) -> String {
    let http = check.http.parse().ok();
    let interval = Duration::from_millis(check.interval_millis.into());
    format!("{} every {}", Probe(http), humantime::format_duration(interval))
}

impl Row for ServiceView {
    const HEADERS: &'static [&'static str] = &["NETWORK", "NAME", "ADDRESS", "PORTS", "READY"];
    const NONE: &'static str = "no services here: `sealane run --network N --service S --port PORT -- CMD` starts an instance of one";

    fn cells(&self, _: SystemTime) -> Vec<String> {
        let ready = format!("{}/{}", self.ready, self.instances);
        vec![self.network.clone(), self.name.clone(), self.vip.clone(), ports(&self.ports), ready]
    }
}
