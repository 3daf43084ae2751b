//! `sealane service register` and `deregister`: services whose instances run outside every network. On the control host they are
//! documents as any; on another one its agent registers them, in a file of its services.d.

use sealane_proto::document::{
    ApiVersion, CheckSpec, Document, DocumentId, ServiceDocument, ServiceKind, ServiceMetadata, ServiceSpec,
};
use sealane_proto::types::{Check, Hosts, Mtls, Port, Probe, Protocol, ServicePort};
use sealane_proto::wire::v1;
use sealane_sys::run_dir::CONTROL_SOCKET;
use v1::agent_client::AgentClient;
use v1::document_result::Effect;

use super::apply::{end, submit};
use super::members::{find_service, locate};
use crate::args::{Common, NamedService, Register};
use crate::client::{admin, agent, answer, converse};
use crate::document::Written;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::view::Done;

/// Tells whether a control plane is here, or is the one that is meant.
fn is_control_host(common: &Common) -> bool {
    match &common.socket {
        Some(socket) => socket.file_name().is_some_and(|name| name == CONTROL_SOCKET),
        None => common.run_dir.socket(CONTROL_SOCKET).exists(),
    }
}

/// `sealane service register`.
pub(crate) fn register(asked: &Register, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let document = Document::Service(document(asked)?);
    document.check().map_err(|error| {
        let flag = if error.path.starts_with("spec.external") { "--address" } else { "the service" };
        Failure::usage(format!("{flag}: {}", error.reason))
    })?;
    let name = &asked.name;
    let (effect, waits) = if is_control_host(common) {
        let written = [Written { document, place: "service register".to_owned() }];
        let results = converse(async { submit(&mut admin(common).await?, &written, false).await })?;
        let unchanged = results.first().is_some_and(|result| result.effect() == Effect::Unchanged);
        (if unchanged { "unchanged" } else { "registered" }, String::new())
    } else {
        let text = document.to_json().map_err(Failure::of("cannot write JSON"))?;
        let request = v1::RegisterServiceRequest { document: text };
        let asked = converse(async {
            answer(AgentClient::new(agent(common).await?).register_service(request)).await
        })?;
        ("registered", asked.waits)
    };
    let network = asked.network.to_string();
    printer.done(
        &Done::of("Service", name, effect).in_network(network.clone()),
        &format!("service {name} of network {network} {effect}; its external instances are called in plain"),
    )?;
    wait(&waits, printer);
    Ok(())
}

fn wait(waits: &str, printer: &Printer) {
    if !waits.is_empty() {
        printer.talk(&format!("control does not know of it yet ({waits}); it hears of it when it is there"));
    }
}

/// `sealane service deregister`.
pub(crate) fn deregister(named: &NamedService, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let (name, network, waits) = if is_control_host(common) {
        let (name, network) = end_document(named, common)?;
        (name, network, String::new())
    } else {
        let (name, network) = locate(named, common)?;
        let request = v1::DeregisterServiceRequest { network: network.clone(), name: name.clone() };
        let done = converse(async {
            answer(AgentClient::new(agent(common).await?).deregister_service(request)).await
        })?;
        (name, network, done.waits)
    };
    let text = format!("service {name} of network {network} deregistered");
    printer.done(&Done::of("Service", &name, "deregistered").in_network(network), &text)?;
    wait(&waits, printer);
    Ok(())
}

/// Ends the document of a service that was registered on the control host; answers the service's name and network.
fn end_document(named: &NamedService, common: &Common) -> Result<(String, String), Failure> {
    let (v1::ServiceView { network, service, .. }, _) = find_service(named, common)?;
    let v1::Service { name, external, registrar, .. } = service.unwrap_or_default();
    if external.is_empty() {
        return Err(Failure::new(format!("service {name} of network {network} has no external instances"))
            .hint(format!("`sealane delete service {name}.{network}` ends its document")));
    }
    if !registrar.is_empty() {
        let message = format!("service {name} of network {network} is registered by node {registrar}");
        return Err(
            Failure::new(message).hint(format!("`sealane service deregister {name}.{network}` there"))
        );
    }
    let id = DocumentId::Service(
        network.parse().map_err(Failure::of("the network"))?,
        name.parse().map_err(Failure::of("the service"))?,
    );
    end(&[(String::new(), id)], false, false, common)?;
    Ok((name, network))
}

/// Makes a document of what is asked for; without a port, with the one that the addresses have.
fn document(asked: &Register) -> Result<ServiceDocument, Failure> {
    let mut external = asked.addresses.clone();
    external.sort_unstable();
    external.dedup();
    let ports = match asked.ports.as_slice() {
        [] => vec![only_port(asked)?],
        ports => ports.to_vec(),
    };
    if ports.iter().any(|port: &ServicePort| port.mtls == Some(Mtls::Strict)) {
        return Err(Failure::usage("--port: external instances are called in plain"));
    }
    let check = match (&asked.check, asked.interval) {
        (Some(Probe::Exec(_)), _) => {
            return Err(Failure::usage(
                "--check: commands are run for workloads alone, by `sealane run --health`; ask an instance outside by tcp, http: or grpc",
            ));
        }
        (Some(probe), interval) => {
            let interval = interval.unwrap_or_default();
            Some(CheckSpec::from(Check { interval, ..Check::of(probe.clone()) }))
        }
        (None, _) => None,
    };
    Ok(ServiceDocument {
        api_version: ApiVersion::V1,
        kind: ServiceKind::Service,
        metadata: ServiceMetadata { name: asked.name.clone(), network: asked.network.clone() },
        spec: ServiceSpec {
            ports: ports.into_iter().map(Into::into).collect(),
            hosts: Hosts::default(),
            mtls: None,
            external,
            check,
        },
    })
}

fn only_port(asked: &Register) -> Result<ServicePort, Failure> {
    let ports: Vec<Option<Port>> = asked.addresses.iter().map(|address| address.port()).collect();
    match ports.first().copied().flatten() {
        Some(port) if ports.iter().all(|other| *other == Some(port)) => {
            Ok(ServicePort { name: None, port, protocol: Protocol::default(), mtls: None })
        }
        Some(_) | None => {
            Err(Failure::usage("--port is missing: the addresses do not all have one and the same port")
                .hint("`--port NAME=PORT/PROTO`, such as --port sql=5432/tcp, says what the service has"))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        register: Register,
    }

    fn json(words: &str) -> Result<String, String> {
        let line = Line::try_parse_from(["register"].into_iter().chain(words.split(' ')));
        let asked = line.map_err(|error| error.to_string())?.register;
        let document = Document::Service(document(&asked).map_err(|failure| failure.sentence())?);
        document.check().map_err(|error| error.to_string())?;
        Ok(document.to_json().unwrap())
    }

    #[test]
    fn a_command_line_is_a_document() {
        let spec = |words: &str| {
            let text = json(words).unwrap();
            text.split_once(r#""spec":"#).unwrap().1.trim_end_matches('}').to_owned()
        };
        let db = "db --network shop --address 192.0.2.51:5432,192.0.2.50:5432";
        assert_eq!(spec(db), r#"{"ports":[{"port":5432}],"external":["192.0.2.50:5432","192.0.2.51:5432"]"#);
        let checked = format!("{db} --port sql=5432/tcp --check tcp --interval 2s");
        assert!(spec(&checked).ends_with(r#""check":{"interval":"2s""#), "{}", spec(&checked));
        let two =
            "web --network shop --address 192.0.2.50 --port 80/http --port 443/tls --check http:/health";
        assert!(
            spec(two).contains(r#""external":["192.0.2.50"],"check":{"http":"/health""#),
            "{}",
            spec(two)
        );
    }

    #[test]
    fn a_command_line_that_says_too_little_or_too_much_is_refused() {
        let table = [
            ("db --network shop --address 192.0.2.50", "--port is missing"),
            ("db --network shop --address 192.0.2.50:1,192.0.2.50:2", "--port is missing"),
            ("db --network shop --address 127.0.0.1:1", "loopback"),
            ("db --network shop --address 192.0.2.50:1 --port 1 --port 2", "write 192.0.2.50 alone"),
            ("db --network shop --address 192.0.2.50:1 --check icmp", "it is `tcp`, `http:`"),
            ("db --network shop --address 192.0.2.50:1 --interval 1s", "--check"),
            ("db --network shop --address 192.0.2.50:1 --check exec:true", "`sealane run --health`"),
            ("db --network shop --address 192.0.2.50:1 --port 1/udp --check tcp", "needs a port over TCP"),
        ];
        for (words, expected) in table {
            let error = json(words).unwrap_err();
            assert!(error.contains(expected), "{words}: {error}");
        }
    }
}
