//! Services.

use std::time::SystemTime;

use sealane_proto::types::{Check, Mtls};
use sealane_proto::wire::v1;
use serde::Serialize;

use super::{PortView, WorkloadView, dash, hosts, modes, ports, text};
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
    /// Ports of the service, such as `80/tcp`, at which no instance takes calls.
    unserved: Vec<String>,
    /// Instances outside every network, which are called in plain; on a host, those that work seen from there.
    external: Vec<String>,
    /// Instances that fail the check of the host that answers, and are out of its names and balancing.
    failing: Vec<String>,
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
            ("ready", service.ready_line()),
        ];
        lines.extend(self.endpoints.iter().map(|endpoint| ("endpoint", endpoint.line())));
        lines.extend(service.external.iter().map(|at| ("external", format!("{at}, called in plain"))));
        let failing = service.failing.iter().map(|at| {
            (
                "external",
                format!("{at}, left out: it fails the check of this host; `sealane status` says why"),
            )
        });
        lines.extend(failing);
        lines.extend(
            service.check.iter().map(|check| ("check", format!("{check}, {}", service.checked_by()))),
        );
        lines.extend(service.registrar.iter().map(|node| ("registered by", format!("node {node}"))));
        lines
    }
}

impl From<v1::ServiceView> for ServiceView {
    fn from(view: v1::ServiceView) -> Self {
        let service = view.service.unwrap_or_default();
        let unserved = match (view.ready, view.unserved.as_slice()) {
            (0, []) => service.ports.iter().map(numbered).collect(),
            _ => view.unserved,
        };
        Self {
            network: view.network,
            name: service.name,
            vip: service.vip,
            ports: service.ports.into_iter().map(Into::into).collect(),
            hosts: service.hosts,
            mtls: text(view.mtls).unwrap_or_else(|| Mtls::Permissive.to_string()),
            ready: view.ready,
            instances: view.instances,
            unserved,
            external: service.external,
            failing: view.failing,
            check: service.check.map(check),
            registrar: text(service.registrar),
        }
    }
}

fn check(check: v1::Check) -> String {
    Check::try_from(check).map_or_else(|error| error.to_string(), |check| check.to_string())
}

impl ServiceView {
    /// The reason for which its calls are refused, if all calls to one of its ports are.
    fn problem(&self) -> Option<String> {
        match (self.unserved.as_slice(), self.instances) {
            ([], _) => None,
            (_, 0) => Some("no instance".to_owned()),
            (ports, _) => Some(format!("no instance takes calls at {}", ports.join(", "))),
        }
    }

    /// Says who checks its instances.
    fn checked_by(&self) -> &'static str {
        if self.external.is_empty() { "by the host of each instance" } else { "by every host for itself" }
    }

    fn ready_line(&self) -> String {
        let why = self.problem().filter(|_| self.instances > 0);
        let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
        format!("{} of {}{why}", self.ready, self.instances)
    }
}

/// A port as `80/tcp`.
fn numbered(port: &v1::ServicePort) -> String {
    let transport = if port.protocol == "udp" { "udp" } else { "tcp" };
    format!("{}/{transport}", port.port)
}

impl Row for ServiceView {
    const HEADERS: &'static [&'static str] = &["NETWORK", "NAME", "ADDRESS", "PORTS", "READY", "PROBLEM"];
    const NONE: &'static str = "no services here: `sealane run --network N --service S --port PORT -- CMD` starts an instance of one";

    fn cells(&self, _: SystemTime) -> Vec<String> {
        let ready = format!("{}/{}", self.ready, self.instances);
        vec![
            self.network.clone(),
            self.name.clone(),
            self.vip.clone(),
            ports(&self.ports),
            ready,
            dash(self.problem().as_ref()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_nobody_serves_names_its_ports_and_the_instances_that_fail_their_check() {
        let ports = [("", 8080), ("udp", 53)].map(|(protocol, port)| v1::ServicePort {
            port,
            protocol: protocol.into(),
            ..Default::default()
        });
        let service = v1::Service { name: "api".into(), ports: ports.into(), ..Default::default() };
        let view = |ready, instances, unserved: &[&str]| v1::ServiceView {
            service: Some(service.clone()),
            ready,
            instances,
            unserved: unserved.iter().map(|&port| port.to_owned()).collect(),
            failing: vec!["192.0.2.50".to_owned()],
            ..Default::default()
        };
        let check = |view: v1::ServiceView, ready: &str, problem: &str| {
            let sheet = ServiceSheet::new(view.clone(), vec![]);
            let lines = sheet.lines(SystemTime::now());
            assert!(lines.contains(&("ready", ready.to_owned())), "{lines:?}");
            assert!(
                lines
                    .iter()
                    .any(|(name, text)| *name == "external" && text.starts_with("192.0.2.50, left out"))
            );
            assert_eq!(ServiceView::from(view).cells(SystemTime::now())[5], problem);
        };
        let nobody = "no instance takes calls at 8080/tcp, 53/udp";
        check(view(0, 3, &[]), &format!("0 of 3 ({nobody})"), nobody);
        check(
            view(0, 2, &["53/udp"]),
            "0 of 2 (no instance takes calls at 53/udp)",
            "no instance takes calls at 53/udp",
        );
        check(view(2, 3, &[]), "2 of 3", "-");
        check(view(0, 0, &[]), "0 of 0", "no instance");
    }
}
