//! Details behind the counts: hosts, networks, services, and those of them that are not as they should be.

use std::time::SystemTime;

use sealane_proto::wire::v1;
use serde::Serialize;

use crate::printer::Row;
use crate::view::{NetworkView, NodeView, ServiceView};

/// Number of things of a kind that a status shows; the listing verbs show them all.
const SHOWN: usize = 12;

/// The things themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Details {
    hosts: Vec<NodeView>,
    networks: Vec<NetworkView>,
    services: Vec<ServiceView>,
    workloads: u32,
    sidecars: u32,
    #[serde(skip)]
    problems: Vec<String>,
}

impl Details {
    pub(crate) fn new(
        hosts: Vec<v1::NodeView>,
        networks: Vec<v1::NetworkView>,
        services: Vec<v1::ServiceView>,
        workloads: &[v1::WorkloadView],
    ) -> Self {
        let known = workloads.iter().filter_map(|view| view.workload.as_ref());
        Self {
            problems: services.iter().filter_map(|view| down(view, workloads)).collect(),
            hosts: hosts.into_iter().map(Into::into).collect(),
            networks: networks.into_iter().map(Into::into).collect(),
            services: services.into_iter().map(Into::into).collect(),
            workloads: u32::try_from(workloads.len()).unwrap_or(u32::MAX),
            sidecars: u32::try_from(known.filter(|known| known.sidecar).count()).unwrap_or(u32::MAX),
        }
    }

    /// Returns the problems, each with its remedy.
    pub(super) fn problems(&self) -> impl Iterator<Item = &String> {
        self.problems.iter()
    }

    /// The hosts that are known not to be connected.
    pub(super) fn lost(&self) -> impl Iterator<Item = &str> {
        self.hosts.iter().filter(|host| host.is_lost()).map(NodeView::name)
    }

    pub(super) fn lines(&self, now: SystemTime) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        lines.extend(some("host", &self.hosts, now, &["NAME", "UNDERLAY", "STATE", "VERSION"]));
        lines.extend(some("network", &self.networks, now, &["NAME", "SUBNET"]));
        lines.extend(some("service", &self.services, now, &["NETWORK", "NAME", "ADDRESS", "READY"]));
        if self.workloads > 0 {
            lines.push(("sidecars", format!("{} of {} workloads have one", self.sidecars, self.workloads)));
        }
        lines
    }
}

/// The first of these things, by some of the columns that their list has.
fn some<R: Row>(
    what: &'static str,
    rows: &[R],
    now: SystemTime,
    columns: &[&str],
) -> Vec<(&'static str, String)> {
    let line = |row: &R| {
        let cells = row.cells(now);
        let named = R::HEADERS.iter().zip(cells).filter(|(header, _)| columns.contains(header));
        (what, named.map(|(_, cell)| cell).collect::<Vec<_>>().join("  "))
    };
    let mut lines: Vec<_> = rows.iter().take(SHOWN).map(line).collect();
    if rows.len() > SHOWN {
        lines.push((what, format!("and {} more: `sealane {what} ls`", rows.len() - SHOWN)));
    }
    lines
}

/// Describes a service whose calls are all refused.
fn down(view: &v1::ServiceView, workloads: &[v1::WorkloadView]) -> Option<String> {
    let v1::ServiceView { network, service, ready: 0, instances, unserved, .. } = view else { return None };
    let v1::Service { name, declared, ports, check, external, .. } = service.as_ref()?;
    // Nobody calls a service that offers nothing; what keeps instances outside every network, the host says that checks them.
    if ports.is_empty() || (check.is_some() && !external.is_empty()) {
        return None;
    }
    if !unserved.is_empty() {
        let (ports, s) = (unserved.join(", "), if unserved.len() > 1 { "s" } else { "" });
        return Some(format!(
            "service {network}/{name} has no ready instance that offers port{s} {ports}, so calls there fail; start one \
             with `--port`, or take the port{s} out of the service"
        ));
    }
    if let Some(idle) = without_weight((network, name), workloads) {
        let own = format!("{}.{network}", idle.name);
        return Some(format!(
            "service {network}/{name} has no instance with a weight above 0, so its calls are refused; `sealane workload set {own} \
             --weight 1` on {} has {} take calls",
            idle.node, idle.name
        ));
    }
    if *instances > 0 {
        let none =
            format!("service {network}/{name} has no instance that is known to be ready and not drained");
        let listing = format!("`sealane workload ls --network {network}`");
        return Some(match (hindered((network, name), workloads), *instances) {
            (Some((first, why)), 1) => format!("{none}: {} on {}: {why}", first.name, first.node),
            (Some((first, why)), _) => {
                format!(
                    "{none}: {} on {}: {why}; {listing} says what keeps the others",
                    first.name, first.node
                )
            }
            (None, 1) => format!("{none}; {listing} says what keeps its instance from being ready"),
            (None, _) => format!("{none}; {listing} says what keeps its instances from being ready"),
        });
    }
    let end = if *declared { "delete service" } else { "service rm" };
    Some(format!(
        "service {network}/{name} has no instance, so its calls are refused; start one, or end the service by `sealane \
         {end} {name} --network {network}` on the control host"
    ))
}

/// Finds an instance of which it is known what keeps it from being ready.
fn hindered<'a>(
    (network, service): (&str, &str),
    workloads: &'a [v1::WorkloadView],
) -> Option<(&'a v1::Workload, &'a str)> {
    workloads.iter().find_map(|view| {
        let known = view.workload.as_ref()?;
        let is_one = known.network == network && known.service == service;
        (is_one && !view.problem.is_empty()).then_some((known, view.problem.as_str()))
    })
}

/// Finds an instance that is ready and gets no calls for its weight of 0 alone, which nobody drained.
fn without_weight<'a>(
    (network, service): (&str, &str),
    workloads: &'a [v1::WorkloadView],
) -> Option<&'a v1::Workload> {
    let known = workloads.iter().filter_map(|view| view.workload.as_ref());
    let mut instances = known.filter(|known| known.network == network && known.service == service);
    instances.find(|known| known.ready && known.weight == Some(0) && known.kept_weight.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, ready: u32, instances: u32) -> v1::ServiceView {
        let ports = vec![v1::ServicePort { port: 80, ..Default::default() }];
        let service = v1::Service { name: name.into(), vip: "10.42.0.9".into(), ports, ..Default::default() };
        v1::ServiceView {
            network: "shop".into(),
            service: Some(service),
            ready,
            instances,
            ..Default::default()
        }
    }

    #[test]
    fn a_service_that_nobody_serves_is_a_problem_whether_it_has_instances_or_not() {
        let mut declared = service("new", 0, 0);
        declared.service.as_mut().unwrap().declared = true;
        let services = vec![service("api", 1, 2), service("db", 0, 3), service("old", 0, 0), declared];
        let details = Details::new(vec![], vec![], services, &[]);
        let problems: Vec<_> = details.problems().collect();
        assert_eq!(problems.len(), 3);
        assert!(problems[0].starts_with(
            "service shop/db has no instance that is known to be ready and not drained; `sealane workload ls"
        ));
        assert!(
            problems[1].contains("shop/old has no instance")
                && problems[1].contains("`sealane service rm old")
        );
        assert!(problems[2].contains("`sealane delete service new --network shop`"));
        let lines = details.lines(SystemTime::now());
        assert_eq!(lines[0], ("service", "shop  api  10.42.0.9  1/2".to_owned()));
    }

    #[test]
    fn a_service_with_a_check_is_a_problem_as_any_other_unless_its_instances_are_outside() {
        let checked = |external: &[&str]| {
            let mut view = service("api", 0, 1);
            let service = view.service.as_mut().unwrap();
            service.check = Some(v1::Check::default());
            service.external = external.iter().map(|&instance| instance.to_owned()).collect();
            Details::new(vec![], vec![], vec![view], &[]).problems().count()
        };
        assert_eq!(
            (checked(&[]), checked(&["192.0.2.9"])),
            (1, 0),
            "of those outside, the host tells that checks them"
        );
    }

    #[test]
    fn a_port_that_nobody_offers_is_a_problem_by_its_number() {
        let mut half = service("api", 0, 2);
        half.unserved = vec!["9999/tcp".to_owned()];
        let details = Details::new(vec![], vec![], vec![half], &[]);
        let problem = details.problems().next().unwrap();
        assert!(
            problem.starts_with("service shop/api has no ready instance that offers port 9999/tcp"),
            "{problem}"
        );
    }

    #[test]
    fn what_keeps_an_instance_from_being_ready_is_told_with_its_service() {
        let said = |instances| {
            let workload = v1::Workload {
                network: "shop".into(),
                name: "api-1".into(),
                node: "host-2".into(),
                service: "api".into(),
                ..Default::default()
            };
            let problem = "not ready: its check fails: connection refused".to_owned();
            let view = v1::WorkloadView { workload: Some(workload), problem, ..Default::default() };
            let details = Details::new(vec![], vec![], vec![service("api", 0, instances)], &[view]);
            details.problems().next().unwrap().clone()
        };
        let one = said(1);
        assert!(
            one.ends_with("not drained: api-1 on host-2: not ready: its check fails: connection refused"),
            "{one}"
        );
        assert!(said(2).contains("connection refused; `sealane workload ls --network shop` says"));
    }

    #[test]
    fn a_weight_of_nothing_that_keeps_a_service_from_its_calls_is_named_with_what_to_type() {
        let said = |weight: Option<u32>, kept_weight: Option<u32>| {
            let workload = v1::Workload {
                network: "shop".into(),
                name: "api-1".into(),
                node: "host-2".into(),
                service: "api".into(),
                ready: true,
                weight,
                kept_weight,
                ..Default::default()
            };
            let view = v1::WorkloadView { workload: Some(workload), ..Default::default() };
            let details = Details::new(vec![], vec![], vec![service("api", 0, 1)], &[view]);
            details.problems().next().unwrap().clone()
        };
        let idle = said(Some(0), None);
        assert!(idle.starts_with("service shop/api has no instance with a weight above 0"), "{idle}");
        assert!(idle.contains("`sealane workload set api-1.shop --weight 1` on host-2"), "{idle}");
        assert!(said(Some(0), Some(1)).contains("not drained"), "who drained it knows");
        assert!(said(None, None).contains("known to be ready"));
    }

    #[test]
    fn only_the_first_of_many_are_shown() {
        let services = (0..20).map(|n| service(&format!("s{n}"), 1, 1)).collect();
        let lines = Details::new(vec![], vec![], services, &[]).lines(SystemTime::now());
        assert_eq!(lines.len(), SHOWN + 1);
        assert_eq!(lines[SHOWN].1, "and 8 more: `sealane service ls`");
    }
}
