//! Labels that make a container an instance of a service, or what its runtime has in their place. Pure.

use std::collections::BTreeMap;

use sealane_proto::types::{Mtls, ServiceName, ServicePort, Transport, Weight};

use crate::attachment::AttachRequest;

/// The beginning of all of ours.
pub const PREFIX: &str = "sealane.";
/// All that there are.
const KNOWN: [&str; 5] = ["service", "port", "sidecar", "weight", "mtls"];

/// Instance that labels ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledInstance {
    /// The service that the container is an instance of.
    pub service: Option<ServiceName>,
    /// The ports that it offers.
    pub ports: Vec<ServicePort>,
    /// True if a sidecar carries its calls.
    pub sidecar: bool,
    /// Share of its service's new work.
    pub weight: Weight,
}

/// Reads a container's labels, or what its runtime has in their place: `kind` is the runtime's word for one.
///
/// # Errors
/// A sentence that names the label and what is wrong with it.
pub fn read(labels: &BTreeMap<String, String>, kind: &str) -> Result<LabelledInstance, String> {
    let wrong = |label: &str, why: &dyn std::fmt::Display| self::wrong(kind, label, why);
    let ours = labels.keys().filter_map(|key| key.strip_prefix(PREFIX));
    if let Some(unknown) = ours.clone().find(|key| !KNOWN.contains(key)) {
        let known = KNOWN.map(|key| format!("{PREFIX}{key}")).join(", ");
        return Err(format!("there is no {kind} {PREFIX}{unknown}; there are {known}"));
    }
    let value = |key: &str| value(labels, key);
    let service =
        value("service").map(|name| name.parse()).transpose().map_err(|error| wrong("service", &error))?;
    let mtls: Option<Mtls> =
        value("mtls").map(|mode| mode.parse()).transpose().map_err(|error| wrong("mtls", &error))?;
    let ports = value("port").unwrap_or_default().split([',', ' ']).filter(|port| !port.is_empty());
    let ports = ports.map(|port| port.parse::<ServicePort>().map_err(|error| wrong("port", &error)));
    let mut ports: Vec<ServicePort> = ports.collect::<Result<_, _>>()?;
    if mtls.is_some()
        && !ports.is_empty()
        && ports.iter().all(|port| port.protocol.transport() == Transport::Udp)
    {
        return Err(wrong(
            "mtls",
            &"datagrams pass by sidecars, whatever the mode, and there is no TCP port",
        ));
    }
    require(&mut ports, mtls);
    let sidecar = match value("sidecar") {
        None | Some("on") => true,
        Some("off") => false,
        Some(other) => return Err(wrong("sidecar", &format!("it is on or off, not {other:?}"))),
    };
    if mtls.is_some() && !sidecar {
        return Err(wrong("mtls", &"only sidecars do mutual TLS, and there is to be none"));
    }
    let weight =
        value("weight").map(|weight| weight.parse()).transpose().map_err(|error| wrong("weight", &error))?;
    Ok(LabelledInstance { service, ports, sidecar, weight: weight.unwrap_or_default() })
}

fn wrong(kind: &str, label: &str, why: &dyn std::fmt::Display) -> String {
    format!("{kind} {PREFIX}{label}: {why}")
}

fn value<'a>(labels: &'a BTreeMap<String, String>, key: &str) -> Option<&'a str> {
    labels.get(&format!("{PREFIX}{key}")).map(|value| value.trim())
}

/// Finds the mode in which labels that were read let ports take calls.
pub(crate) fn mtls(labels: &BTreeMap<String, String>) -> Option<Mtls> {
    value(labels, "mtls").and_then(|mode| mode.parse().ok())
}

/// Lets ports take calls in this mode, which datagrams have not.
pub(crate) fn require(ports: &mut [ServicePort], mtls: Option<Mtls>) {
    for port in ports {
        port.mtls = mtls.filter(|_| port.protocol.transport() == Transport::Tcp);
    }
}

impl LabelledInstance {
    /// Refuses labels that would have no effect on what they, and whatever else is known, have made of the container.
    ///
    /// # Errors
    /// A sentence that names the label and what to do.
    pub fn check_effect(&self, labels: &BTreeMap<String, String>, kind: &str) -> Result<(), String> {
        if self.service.is_none() && self.weight != Weight::default() {
            let why = format!(
                "it shares out the calls of a service, and there is none; add {PREFIX}service, or leave it out"
            );
            return Err(wrong(kind, "weight", &why));
        }
        if mtls(labels).is_some() && self.ports.is_empty() {
            let why = format!(
                "it is for the ports of a service, and there is none; add {PREFIX}port, or leave it out"
            );
            return Err(wrong(kind, "mtls", &why));
        }
        Ok(())
    }

    /// Adds what the labels ask for to what is wanted.
    pub(crate) fn ask(self, plain: AttachRequest) -> AttachRequest {
        let Self { service, ports, sidecar, weight } = self;
        AttachRequest { service, ports, sidecar, weight, ..plain }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::labels;

    #[test]
    fn labels_make_a_service_of_several_ports() {
        let asked = read(
            &labels(&[
                ("sealane.service", "api"),
                ("sealane.port", "8080/http, dns=53/udp"),
                ("sealane.weight", "7"),
                ("sealane.mtls", "permissive"),
                ("sealane.sidecar", "on"),
                ("com.example.other", "x"),
            ]),
            "label",
        )
        .unwrap();
        assert_eq!(asked.service.unwrap().as_str(), "api");
        assert_eq!(asked.ports.len(), 2);
        assert!(asked.ports[0].mtls.is_some() && asked.ports[1].mtls.is_none(), "datagrams have no mode");
        assert!(asked.sidecar && asked.weight.get() == 7);
        assert!(!read(&labels(&[("sealane.sidecar", "off")]), "label").unwrap().sidecar);
        let none = read(&labels(&[]), "label").unwrap();
        assert!(none.service.is_none() && none.sidecar);
    }

    #[test]
    fn a_mode_that_would_have_no_effect_is_refused() {
        let check = |more: (&str, &str), expected: &str| {
            let error = read(&labels(&[("sealane.mtls", "strict"), more]), "label").unwrap_err();
            assert!(error.starts_with("label sealane.mtls: ") && error.contains(expected), "{error}");
        };
        check(("sealane.port", "53/udp"), "there is no TCP port");
        check(("sealane.sidecar", "off"), "only sidecars");
    }

    #[test]
    fn a_label_without_anything_that_it_could_be_for_is_refused() {
        let check = |of: &[(&str, &str)], expected: Option<&str>| {
            let labels = labels(of);
            let refused = read(&labels, "label").unwrap().check_effect(&labels, "label").err();
            let named = refused.as_deref().map(|said| said.split(':').next().unwrap_or_default());
            assert_eq!(named, expected, "{refused:?}");
        };
        let (service, port) = (("sealane.service", "api"), ("sealane.port", "80"));
        check(&[("sealane.weight", "5")], Some("label sealane.weight"));
        check(&[("sealane.weight", "5"), service], None);
        check(&[("sealane.mtls", "strict"), service], Some("label sealane.mtls"));
        check(&[("sealane.mtls", "strict"), service, port], None);
        check(&[], None);
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
