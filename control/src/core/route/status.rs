//! Status of a route as the Gateway API has it, computed from what is declared alone. Pure.

use sealane_proto::gateway::{
    BackendObjectRef, Condition, MESH_CONTROLLER, ParentRef, RefFault, RouteParentStatus, RouteStatus,
    instant,
};
use sealane_proto::resource::{Route, RouteDocument, Service};
use sealane_proto::types::{NetworkName, Port, Protocol, ServiceName, ServicePort};
use serde_json::json;

/// Number of faults that a message names.
const NAMED: usize = 3;

/// Services by network and name.
pub trait Services {
    /// The service, if it is there.
    fn service(&self, network: &NetworkName, name: &ServiceName) -> Option<&Service>;
}

/// The API's word for a cause, and the cause in words.
type Said = (&'static str, String);

/// The fields that a cluster's server adds to a route's document, as JSON; empty for one that this version does not understand.
#[must_use]
pub fn observed(route: &Route, services: &impl Services) -> String {
    let Some(document) = &route.document else { return String::new() };
    let metadata = json!({ "generation": route.generation, "creationTimestamp": instant(route.created) });
    json!({ "metadata": metadata, "status": status(route, document, services) }).to_string()
}

fn status(route: &Route, document: &RouteDocument, services: &impl Services) -> RouteStatus {
    let condition = |kind: &str, said: Result<Said, Said>| {
        let status = if said.is_ok() { "True" } else { "False" };
        let (reason, message) = match said {
            Ok(said) | Err(said) => said,
        };
        Condition {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: route.generation,
            last_transition_time: instant(route.changed),
        }
    };
    let parents = document.parents().iter().map(|parent| RouteParentStatus {
        parent_ref: parent.clone(),
        controller_name: MESH_CONTROLLER.to_owned(),
        conditions: vec![
            condition("Accepted", accepted(document, parent, services)),
            condition("ResolvedRefs", resolved(document, parent, services)),
        ],
    });
    RouteStatus { parents: parents.collect() }
}

/// Tells if the route acts at a parent.
fn accepted(document: &RouteDocument, parent: &ParentRef, services: &impl Services) -> Result<Said, Said> {
    let (own, none) = (document.network(), |message: String| Err(("NoMatchingParent", message)));
    let (network, name) = (parent.network(own), &parent.name);
    if !parent.is_service() {
        let kind = &parent.kind;
        return none(format!("there is no {kind} {name} in network {network}; routes act at Services"));
    }
    let service = name.as_str().parse().ok().and_then(|name| services.service(network, &name));
    let Some(service) = service else {
        return none(format!("there is no service {name} in network {network}"));
    };
    let named: Vec<&ServicePort> = service.ports.iter().filter(|port| is_named(port, parent)).collect();
    if named.is_empty() {
        return none(format!("service {name} has no port {}", part(parent)));
    }
    if let Some(port) = named.iter().find(|port| speaks(document, port.protocol)) {
        let whose = if network == own {
            format!("acts for all callers of service {name}, from port {} on", port.port)
        } else {
            format!(
                "acts for callers of service {name} that are workloads of network {own} as well as of {network}"
            )
        };
        return Ok(("Accepted", whose));
    }
    let spoken: Vec<String> = named.iter().map(|port| port.to_string()).collect();
    none(format!("service {name} speaks no {} at {}", wanted(document), spoken.join(", ")))
}

fn is_named(port: &ServicePort, parent: &ParentRef) -> bool {
    let by_number = parent.port.is_none_or(|number| port.port == number);
    let named = |section: &str| port.name.as_ref().is_some_and(|name| name.as_str() == section);
    by_number && parent.section_name.as_ref().is_none_or(|section| named(section.as_str()))
}

fn part(parent: &ParentRef) -> String {
    let number = parent.port.as_ref().map(ToString::to_string);
    let name = parent.section_name.as_ref().map(|name| format!("named {name}"));
    number.into_iter().chain(name).collect::<Vec<_>>().join(" ")
}

const fn wanted(document: &RouteDocument) -> &'static str {
    match document {
        RouteDocument::Http(_) => "HTTP",
        RouteDocument::Grpc(_) => "gRPC",
    }
}

/// Returns true if requests of the route's kind may be made where this protocol is spoken.
fn speaks(document: &RouteDocument, protocol: Protocol) -> bool {
    match protocol {
        Protocol::Auto | Protocol::Http2 | Protocol::Grpc => true,
        Protocol::Http => matches!(document, RouteDocument::Http(_)),
        Protocol::Tcp | Protocol::Tls | Protocol::Udp => false,
    }
}

/// Tells if all objects that the route sends requests to are there, for calls to a parent.
fn resolved(document: &RouteDocument, parent: &ParentRef, services: &impl Services) -> Result<Said, Said> {
    let faults =
        document.backends().into_iter().filter_map(|backend| fault(document, parent, &backend, services));
    let mut faults: Vec<Said> = faults.collect();
    faults.dedup();
    let Some((reason, _)) = faults.first() else {
        return Ok(("ResolvedRefs", "all backends are there".to_owned()));
    };
    let more = faults.len().saturating_sub(NAMED);
    let mut words: Vec<String> = faults.iter().take(NAMED).map(|(_, message)| message.clone()).collect();
    if more > 0 {
        words.push(format!("and {more} more"));
    }
    Err((reason, words.join("; ")))
}

fn fault(
    document: &RouteDocument,
    parent: &ParentRef,
    backend: &BackendObjectRef,
    services: &impl Services,
) -> Option<Said> {
    let own = document.network();
    // A gateway's routes send to services of their own network.
    let calls = if parent.is_service() { parent.network(own) } else { own };
    let (name, network) = (&backend.name, backend.network(own));
    let (service, port) = match backend.service(own, calls) {
        Ok(target) => target,
        Err(RefFault::Kind) => {
            let (group, kind) = (backend.group.as_str(), &backend.kind);
            let group = if group.is_empty() { String::new() } else { format!("{group}/") };
            return Some((
                "InvalidKind",
                format!("{group}{kind} {name} is no Service, and nothing else can be a backend"),
            ));
        }
        Err(RefFault::NotPermitted) => {
            return Some((
                "RefNotPermitted",
                format!("service {name} is in network {network}, of which the route is not, nor its parent"),
            ));
        }
        Err(RefFault::Unreachable) => {
            return Some((
                "BackendNotFound",
                format!(
                    "service {name} is in network {network}, and calls to the parent stay in network {calls}"
                ),
            ));
        }
        Err(RefFault::Name) => return Some(missing(name.as_str(), calls)),
    };
    match services.service(calls, &service) {
        None => Some(missing(service.as_str(), calls)),
        Some(service) => port_fault(document, service, port),
    }
}

fn missing(name: &str, network: &NetworkName) -> Said {
    ("BackendNotFound", format!("there is no service {name} in network {network}"))
}

fn port_fault(document: &RouteDocument, service: &Service, port: Port) -> Option<Said> {
    let mut ports = service.ports.iter().filter(|known| known.port == port).peekable();
    if ports.peek().is_none() {
        return Some(("BackendNotFound", format!("service {} has no port {port}", service.name)));
    }
    if ports.any(|known| speaks(document, known.protocol)) {
        return None;
    }
    let message = format!("service {} speaks no {} at port {port}", service.name, wanted(document));
    Some(("UnsupportedProtocol", message))
}
