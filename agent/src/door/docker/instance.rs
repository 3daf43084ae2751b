//! The service that a container is an instance of: by its labels, or because Compose or Swarm says so. Pure.

use sealane_proto::types::{ServiceName, ServicePort};

use super::names;
use crate::engine::Container;
use crate::labels::{self, LabelledInstance};

/// The most exposed ports that are looked at: some images expose whole ranges.
const MOST: usize = 32;

/// Reads what `container` is to be: what its labels ask for, and where they name no service, one of the ports that it exposes under
/// the name that Compose or Swarm has for it; and whether one of its ports is enough: an image exposes those that it may listen on.
///
/// # Errors
/// A sentence that names the label and what is wrong with it.
pub(super) fn asked(container: &Container) -> Result<(LabelledInstance, bool), String> {
    let read = labels::read(&container.labels, "label")?;
    let (asked, any_port) = exposed(container, read);
    asked.check_effect(&container.labels, "label")?;
    Ok((asked, any_port))
}

fn exposed(container: &Container, asked: LabelledInstance) -> (LabelledInstance, bool) {
    let service = names::service(container).and_then(|name| name.parse::<ServiceName>().ok());
    let Some(service) = service.filter(|_| asked.service.is_none()) else { return (asked, false) };
    let service = Some(service);
    if !asked.ports.is_empty() {
        return (LabelledInstance { service, ..asked }, false);
    }
    // What is spoken over TCP is seen when it is.
    let plain = container.exposed.iter().map(|port| port.strip_suffix("/tcp").unwrap_or(port));
    let exposed = plain.filter_map(|port| port.parse::<ServicePort>().ok());
    let mut ports: Vec<ServicePort> = exposed.take(MOST).collect();
    if ports.is_empty() {
        // Its name leads to its instances, whatever they listen on.
        return (asked, false);
    }
    labels::require(&mut ports, labels::mtls(&container.labels));
    (LabelledInstance { service, ports, ..asked }, true)
}

#[cfg(test)]
mod tests {
    use super::super::names::COMPOSE_SERVICE;
    use super::*;
    use crate::testing::labels;

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
}
