//! What makes a container an instance of a service: its labels, or that Compose or Swarm says so. Pure.

use std::collections::BTreeMap;

use sealane_proto::types::{Mtls, ServiceName, ServicePort, Transport, Weight};

use super::names;
use crate::attachment::Wanted;
use crate::engine::Container;

/// What all of ours begin with.
const PREFIX: &str = "sealane.";
/// How many exposed ports are looked at: some images expose whole ranges.
const MOST: usize = 32;
/// All that there are.
const KNOWN: [&str; 5] = ["service", "port", "sidecar", "weight", "mtls"];

/// What labels ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The service that the container is an instance of.
    pub service: Option<ServiceName>,
    /// The ports that it offers.
    pub ports: Vec<ServicePort>,
    /// Whether a sidecar carries its calls.
    pub sidecar: bool,
    /// Its share of its service's new work.
    pub weight: Weight,
}

/// What `container` is to be: what its labels ask for, and where they name no service, one of the ports that it exposes under the
/// name that Compose has for it; and whether one of its ports is enough: those that an image exposes are those that it may listen on.
///
/// # Errors
/// A sentence that names the label and what is wrong with it.
pub(super) fn asked(container: &Container) -> Result<(Asked, bool), String> {
    let asked = read(&container.labels, "label")?;
    let service = names::service(container).and_then(|name| name.parse::<ServiceName>().ok());
    let Some(service) = service.filter(|_| asked.service.is_none()) else { return Ok((asked, false)) };
    let service = Some(service);
    if !asked.ports.is_empty() {
        return Ok((Asked { service, ..asked }, false));
    }
    // What is spoken over TCP is seen when it is.
    let plain = container.exposed.iter().map(|port| port.strip_suffix("/tcp").unwrap_or(port));
    let exposed = plain.filter_map(|port| port.parse::<ServicePort>().ok());
    let mut ports: Vec<ServicePort> = exposed.take(MOST).collect();
    if ports.is_empty() {
        // Its name leads to its instances, whatever they listen on.
        return Ok((asked, false));
    }
    let mtls = container.labels.get(&format!("{PREFIX}mtls")).and_then(|mode| mode.trim().parse().ok());
    require(&mut ports, mtls);
    Ok((Asked { service, ports, ..asked }, true))
}

/// Reads a container's labels, or what its runtime has in their place: `kind` is the runtime's word for one.
///
/// # Errors
/// A sentence that names the label and what is wrong with it.
pub fn read(labels: &BTreeMap<String, String>, kind: &str) -> Result<Asked, String> {
    let wrong = |label: &str, why: &dyn std::fmt::Display| format!("{kind} {PREFIX}{label}: {why}");
    let ours = labels.keys().filter_map(|key| key.strip_prefix(PREFIX));
    if let Some(unknown) = ours.clone().find(|key| !KNOWN.contains(key)) {
        let known = KNOWN.map(|key| format!("{PREFIX}{key}")).join(", ");
        return Err(format!("there is no {kind} {PREFIX}{unknown}; there are {known}"));
    }
    let value = |key: &str| labels.get(&format!("{PREFIX}{key}")).map(|value| value.trim());
    let service =
        value("service").map(|name| name.parse()).transpose().map_err(|error| wrong("service", &error))?;
    let mtls: Option<Mtls> =
        value("mtls").map(|mode| mode.parse()).transpose().map_err(|error| wrong("mtls", &error))?;
    let ports = value("port").unwrap_or_default().split([',', ' ']).filter(|port| !port.is_empty());
    let ports = ports.map(|port| port.parse::<ServicePort>().map_err(|error| wrong("port", &error)));
    let mut ports: Vec<ServicePort> = ports.collect::<Result<_, _>>()?;
    require(&mut ports, mtls);
    let sidecar = match value("sidecar") {
        None | Some("on") => true,
        Some("off") => false,
        Some(other) => return Err(wrong("sidecar", &format!("it is on or off, not {other:?}"))),
    };
    let weight =
        value("weight").map(|weight| weight.parse()).transpose().map_err(|error| wrong("weight", &error))?;
    Ok(Asked { service, ports, sidecar, weight: weight.unwrap_or_default() })
}

/// Lets ports take calls in this mode, which datagrams have not.
fn require(ports: &mut [ServicePort], mtls: Option<Mtls>) {
    for port in ports {
        port.mtls = mtls.filter(|_| port.protocol.transport() == Transport::Tcp);
    }
}

impl Asked {
    /// What is wanted, with what the labels ask for.
    pub(super) fn ask(self, plain: Wanted) -> Wanted {
        let Self { service, ports, sidecar, weight } = self;
        Wanted { service, ports, sidecar, weight, ..plain }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPOSE_SERVICE: &str = "com.docker.compose.service";

    fn labels(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn labels_make_a_service_of_several_ports() {
        let asked = read(
            &labels(&[
                ("sealane.service", "api"),
                ("sealane.port", "8080/http, dns=53/udp"),
                ("sealane.weight", "7"),
                ("sealane.mtls", "permissive"),
                ("sealane.sidecar", "off"),
                ("com.example.other", "x"),
            ]),
            "label",
        )
        .unwrap();
        assert_eq!(asked.service.unwrap().as_str(), "api");
        assert_eq!(asked.ports.len(), 2);
        assert!(asked.ports[0].mtls.is_some() && asked.ports[1].mtls.is_none(), "datagrams have no mode");
        assert!(!asked.sidecar && asked.weight.get() == 7);
        let none = read(&labels(&[]), "label").unwrap();
        assert!(none.service.is_none() && none.sidecar);
    }

    #[test]
    fn a_compose_service_is_one_of_its_exposed_ports_unless_labels_say_more() {
        let check =
            |of: &[(&str, &str)], exposed: &[&str], service: Option<&str>, ports: &[u16], any: bool| {
                let container = Container {
                    labels: labels(of),
                    exposed: exposed.iter().map(|port| (*port).to_owned()).collect(),
                    ..Container::default()
                };
                let (asked, any_port) = asked(&container).unwrap();
                assert_eq!(asked.service.as_ref().map(ServiceName::as_str), service);
                let numbers: Vec<u16> = asked.ports.iter().map(|port| port.port.get()).collect();
                assert_eq!((numbers.as_slice(), any_port), (ports, any), "{of:?}");
                asked
            };
        let web = (COMPOSE_SERVICE, "web");
        let strict = ("sealane.mtls", "strict");
        let exposed = check(&[web, strict], &["53/udp", "8080/tcp"], Some("web"), &[53, 8080], true);
        assert!(exposed.ports[0].mtls.is_none() && exposed.ports[1].mtls.is_some());
        check(&[web, ("sealane.port", "9000")], &["8080/tcp"], Some("web"), &[9000], false);
        check(&[web, ("sealane.service", "api")], &["8080/tcp"], Some("api"), &[], false);
        check(&[web], &[], None, &[], false);
        check(&[], &["8080/tcp"], None, &[], false);
        check(&[(COMPOSE_SERVICE, "Web_1")], &["80/tcp"], None, &[], false);
    }

    #[test]
    fn a_wrong_label_is_named() {
        for (key, value, expected) in [
            ("sealane.service", "No", "label sealane.service: "),
            ("sealane.port", "70000", "label sealane.port: "),
            ("sealane.sidecar", "maybe", "it is on or off"),
            ("sealane.weight", "-1", "label sealane.weight: "),
            ("sealane.mtls", "yes", "label sealane.mtls: "),
            ("sealane.servcie", "api", "there is no label sealane.servcie"),
        ] {
            let error = read(&labels(&[(key, value)]), "label").unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
