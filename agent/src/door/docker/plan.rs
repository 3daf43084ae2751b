//! The workload that a container's end becomes: what its labels and name ask for. Pure.

use sealane_fabric::seat::DeviceName;
use sealane_proto::sidecar::SidecarPorts;
use sealane_proto::types::{Misread, WorkloadName};

use super::book::Endpoint;
use super::{instance, names};
use crate::attachment::{AttachRequest, AttachSpec, NetworkSeat, SpecError, label};
use crate::engine::Container;

/// The workload, and whether one of its ports is enough for it to be ready.
type Planned = (AttachSpec, bool);

/// Plans the workload at `interface`. With wrong labels the container is in the network all the same, without a service.
pub(super) fn plan(
    endpoint: &Endpoint,
    container: &Container,
    interface: DeviceName,
    ports: SidecarPorts,
) -> Result<Planned, SpecError> {
    let plain = plain(endpoint, container, Some(interface));
    asked(container, plain.clone(), ports).or_else(|_| Ok((AttachSpec::new(plain, ports)?, false)))
}

/// Tells what is wrong with a container's labels, which are fixed with it.
pub(super) fn complaint(endpoint: &Endpoint, container: &Container, ports: SidecarPorts) -> Option<String> {
    let why = asked(container, plain(endpoint, container, None), ports).err()?;
    let Container { name, .. } = container;
    Some(format!(
        "container {name} is in network {} without the service that its labels name: {why}; make it again with a right one \
         (docker rm -f {name}, then docker run)",
        endpoint.network
    ))
}

/// Checks what a container's labels ask for beside what is `plain`.
fn asked(container: &Container, plain: AttachRequest, ports: SidecarPorts) -> Result<Planned, String> {
    let (asked, any_port) = instance::asked(container)?;
    let wanted = asked.ask(plain);
    let spec = wanted.check_names().and_then(|()| AttachSpec::new(wanted, ports));
    let spec = spec.map_err(|error| {
        if error == SpecError::NoService {
            "label sealane.port needs label sealane.service=NAME too".to_owned()
        } else {
            error.to_string()
        }
    })?;
    Ok((spec, any_port))
}

/// The workload without a service.
fn plain(endpoint: &Endpoint, container: &Container, interface: Option<DeviceName>) -> AttachRequest {
    let end = container.ends.iter().find(|end| end.network == endpoint.network_id);
    let seat = NetworkSeat {
        network: endpoint.network.clone(),
        aliases: names::names(container, &end.cloned().unwrap_or_default(), &container.name),
        address: None,
        mac: None,
        interface,
        reserved: endpoint.hold(),
    };
    AttachRequest {
        health: None,
        seats: vec![seat],
        name: None,
        preferred: label(&container.name).parse().ok().filter(is_asked_for),
        stem: container.name.clone(),
        service: None,
        ports: Vec::new(),
        sidecar: true,
        weight: Default::default(),
    }
}

fn is_asked_for(name: &WorkloadName) -> bool {
    Misread::of(name.as_str()).is_none()
}

#[cfg(test)]
mod tests {
    use super::super::book;
    use super::*;
    use crate::testing::labels;

    #[test]
    fn what_a_workload_cannot_be_is_complained_of_as_long_as_its_container_is_there() {
        let endpoint = book::testing::endpoint("docker/4f1c");
        let check = |of: &[(&str, &str)], service: Option<&str>, complaint: Option<&str>| {
            let container = Container { name: "web".to_owned(), labels: labels(of), ..Container::default() };
            let interface = "eth0".parse().unwrap();
            let (spec, _) = plan(&endpoint, &container, interface, SidecarPorts::default()).unwrap();
            assert_eq!(spec.wanted().service.as_ref().map(|name| name.as_str()), service, "{of:?}");
            let said = super::complaint(&endpoint, &container, SidecarPorts::default());
            let expected = complaint.map(|why| {
                format!(
                    "container web is in network shop without the service that its labels name: {why}; make it again with a \
                     right one (docker rm -f web, then docker run)"
                )
            });
            assert_eq!(said, expected);
        };
        let (service, port) = (("sealane.service", "api"), ("sealane.port", "8080"));
        check(&[service, port], Some("api"), None);
        check(&[], None, None);
        check(&[port], None, Some("label sealane.port needs label sealane.service=NAME too"));
        check(&[service, ("sealane.port", "80,80")], None, Some("port 80/tcp is given twice"));
        let itself = format!("service: localhost: {}", Misread::Itself);
        check(&[("sealane.service", "localhost")], None, Some(&itself));
    }
}
