//! What the command line asks for, checked before anything is touched.

use sealane_proto::sidecar::SidecarPorts;
use sealane_proto::types::{
    MacAddr, NetworkName, OverlayIp, ServiceName, ServicePort, Transport, Weight, WorkloadName,
};
use sealane_proto::wire::{v1, weight};

use crate::host::Spec;
use crate::seat::Seat;

/// A checked request; the name may still have to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunSpec {
    /// At least one.
    joins: Vec<Join>,
    name: Option<WorkloadName>,
    /// Its name, unless that is in use.
    preferred: Option<WorkloadName>,
    /// What a made name begins with.
    stem: String,
    service: Option<ServiceName>,
    ports: Vec<ServicePort>,
    sidecar: bool,
    weight: Weight,
    /// Whether an earlier agent may have taken it in.
    pub(super) again: bool,
}

/// A network to join, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Join {
    network: NetworkName,
    address: Option<OverlayIp>,
    mac: Option<MacAddr>,
}

/// What is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpecError {
    /// A field that does not parse.
    #[error("{flag}: {reason}")]
    Field {
        /// The flag.
        flag: &'static str,
        /// What is wrong, in the words of its type.
        reason: String,
    },
    /// Ports without a service.
    #[error("--port needs --service: the service whose port it is")]
    NoService,
    /// A network twice.
    #[error("--network {0} is given twice")]
    NetworkTwice(NetworkName),
    /// A port twice.
    #[error("--port {0}/{1} is given twice")]
    Twice(u16, Transport),
    /// A port that the sidecar uses.
    #[error("--port {0} is one of the sidecar's own ports; hint: listen on another one, or use --no-sidecar")]
    SidecarPort(u16),
}

fn field<T: std::str::FromStr<Err: ToString>>(flag: &'static str, text: &str) -> Result<T, SpecError> {
    text.parse().map_err(|error: T::Err| SpecError::Field { flag, reason: error.to_string() })
}

fn option<T: std::str::FromStr<Err: ToString>>(
    flag: &'static str,
    text: &str,
) -> Result<Option<T>, SpecError> {
    if text.is_empty() { Ok(None) } else { field(flag, text).map(Some) }
}

fn joins(request: &v1::RunRequest) -> Result<Vec<Join>, SpecError> {
    let only = [v1::NetworkChoice {
        network: request.network.clone(),
        address: request.address.clone(),
        mac: request.mac.clone(),
    }];
    let choices = if request.networks.is_empty() { &only[..] } else { &request.networks };
    let mut joins: Vec<Join> = Vec::new();
    for choice in choices {
        let network: NetworkName = field("--network", &choice.network)?;
        if joins.iter().any(|known| known.network == network) {
            return Err(SpecError::NetworkTwice(network));
        }
        let (address, mac) = (option("--ip", &choice.address)?, option("--mac", &choice.mac)?);
        joins.push(Join { network, address, mac });
    }
    Ok(joins)
}

impl RunSpec {
    /// Checks a request.
    ///
    /// # Errors
    /// Names the flag and what is wrong with it.
    pub(crate) fn parse(request: v1::RunRequest, sidecar_ports: SidecarPorts) -> Result<Self, SpecError> {
        let joins = joins(&request)?;
        let service: Option<ServiceName> = option("--service", &request.service)?;
        let ports = request.ports.into_iter().map(ServicePort::try_from).collect::<Result<Vec<_>, _>>();
        let mut ports =
            ports.map_err(|error| SpecError::Field { flag: "--port", reason: error.to_string() })?;
        ports.sort_by_key(ServicePort::key);
        if service.is_none() && !ports.is_empty() {
            return Err(SpecError::NoService);
        }
        if let Some([twice, _]) = ports.array_windows().find(|[a, b]| a.key() == b.key()) {
            return Err(SpecError::Twice(twice.port.get(), twice.protocol.transport()));
        }
        let sidecar = !request.no_sidecar;
        if let Some(taken) = ports.iter().find(|port| sidecar && sidecar_ports.has(port)) {
            return Err(SpecError::SidecarPort(taken.port.get()));
        }
        let stem = service.as_ref().map_or_else(|| label(&request.command), ToString::to_string);
        Ok(Self {
            joins,
            name: option("--name", &request.name)?,
            preferred: Some(label(&request.preferred))
                .filter(|_| !request.preferred.is_empty())
                .and_then(|name| name.parse().ok()),
            stem,
            service,
            ports,
            sidecar,
            weight: weight(request.weight)
                .map_err(|error| SpecError::Field { flag: "--weight", reason: error.to_string() })?,
            again: request.again,
        })
    }

    /// The networks, the first one's names first.
    pub(crate) fn networks(&self) -> impl ExactSizeIterator<Item = &NetworkName> {
        self.joins.iter().map(|join| &join.network)
    }

    /// Whether a name was asked for; a made one can be made again.
    #[must_use]
    pub(crate) fn is_named(&self) -> bool {
        self.name.is_some()
    }

    /// The workload to be, a spec per network and seat; a name that was not asked for is the preferred one, or, when that
    /// is in use, made from the random number `made`.
    #[must_use]
    pub(crate) fn specs(&self, made: Option<u32>, seats: &[Seat]) -> Option<Vec<Spec>> {
        let preferred = self.preferred.clone().filter(|_| made.is_none());
        let name = match self.name.clone().or(preferred) {
            Some(name) => name,
            None => made_name(&self.stem, made.unwrap_or_else(rand::random))?,
        };
        let spec = |(join, &seat): (&Join, &Seat)| Spec {
            network: join.network.clone(),
            name: name.clone(),
            service: self.service.clone(),
            ports: self.ports.clone(),
            address: join.address,
            mac: join.mac,
            sidecar: self.sidecar,
            weight: self.weight,
            seat,
        };
        (self.joins.len() <= seats.len()).then(|| self.joins.iter().zip(seats).map(spec).collect())
    }
}

/// `<stem>-<five letters and digits>`.
fn made_name(stem: &str, mut random: u32) -> Option<WorkloadName> {
    const DIGITS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut name: String = stem.chars().take(50).collect();
    name.push('-');
    for _ in 0..5 {
        name.push(char::from(DIGITS[(random % 32) as usize]));
        random /= 32;
    }
    name.parse().ok()
}

/// A command's name as the beginning of a workload's.
fn label(command: &str) -> String {
    let base = command.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let mapped: String = base.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let trimmed = mapped.trim_matches('-');
    if trimmed.is_empty() { "workload".to_owned() } else { trimmed.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> v1::RunRequest {
        v1::RunRequest { network: "shop".into(), command: "/usr/bin/Curl_7".into(), ..Default::default() }
    }

    fn name(spec: &RunSpec, made: impl Into<Option<u32>>) -> String {
        spec.specs(made.into(), &[Seat::default()]).unwrap()[0].name.to_string()
    }

    fn port(port: u32) -> v1::ServicePort {
        v1::ServicePort { port, ..Default::default() }
    }

    #[test]
    fn names_are_made_from_the_service_or_the_command() {
        let plain = RunSpec::parse(request(), SidecarPorts::default()).unwrap();
        assert_eq!(name(&plain, 0), "curl-7-aaaaa");
        let service = v1::RunRequest { service: "api".into(), ports: vec![port(80)], ..request() };
        let service = RunSpec::parse(service, SidecarPorts::default()).unwrap();
        assert_eq!(name(&service, 33), "api-bbaaa");
        let preferred = v1::RunRequest { preferred: "Demo_api_1".into(), ..request() };
        let preferred = RunSpec::parse(preferred, SidecarPorts::default()).unwrap();
        assert_eq!(name(&preferred, None), "demo-api-1");
        assert_eq!(name(&preferred, 0), "curl-7-aaaaa", "in use");
    }

    #[test]
    fn a_service_needs_no_port() {
        let worker = v1::RunRequest { service: "worker".into(), ..request() };
        let worker = RunSpec::parse(worker, SidecarPorts::default()).unwrap();
        let spec = &worker.specs(Some(0), &[Seat::default()]).unwrap()[0];
        assert_eq!((spec.service.as_ref().unwrap().as_str(), spec.ports.len()), ("worker", 0));
    }

    #[test]
    fn wrong_requests_name_the_flag() {
        let check = |request: v1::RunRequest, expected: &str| {
            let error = RunSpec::parse(request, SidecarPorts::default()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(v1::RunRequest { network: "No".into(), ..request() }, "--network: network name");
        check(v1::RunRequest { ports: vec![port(80)], ..request() }, "--port needs --service");
        let api = |ports| v1::RunRequest { service: "api".into(), ports, ..request() };
        check(api(vec![port(80), port(80)]), "--port 80/tcp is given twice");
        let udp = v1::ServicePort { protocol: "udp".into(), ..port(15001) };
        assert!(RunSpec::parse(api(vec![port(80), udp.clone()]), SidecarPorts::default()).is_ok());
        check(api(vec![udp.clone(), udp]), "--port 15001/udp is given twice");
        check(v1::RunRequest { weight: Some(1001), ..request() }, "--weight: weight \"1001\"");
        check(api(vec![port(70000)]), "port \"70000\"");
        check(api(vec![port(15001)]), "sidecar's own");
        let shop = v1::NetworkChoice { network: "shop".into(), ..Default::default() };
        let twice = vec![shop.clone(), shop.clone()];
        check(v1::RunRequest { networks: twice, ..request() }, "--network shop is given twice");
        let wrong = v1::NetworkChoice { network: "office".into(), address: "10.x".into(), ..shop.clone() };
        check(v1::RunRequest { networks: vec![shop, wrong], ..request() }, "--ip: ");
        check(v1::RunRequest { address: "10.42".into(), ..request() }, "--ip: ");
        check(v1::RunRequest { mac: "ff:ff:ff:ff:ff:ff".into(), ..request() }, "--mac: ");
    }
}
