//! Requirements of a workload to be attached, checked before anything is touched.

use std::fmt;

use sealane_fabric::seat::{DeviceName, Seat};
use sealane_proto::resource::Workload;
use sealane_proto::sidecar::SidecarPorts;
use sealane_proto::types::{
    Alias, Aliases, Check, MacAddr, Misread, NetworkName, OverlayIp, Probe, ServiceName, ServicePort,
    Transport, Weight, WorkloadName,
};

use super::Hold;

/// A network to join, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetworkSeat {
    /// The network.
    pub(crate) network: NetworkName,
    /// A certain address; the next free one without it.
    pub(crate) address: Option<OverlayIp>,
    /// A certain Ethernet address; one that follows from the address without it.
    pub(crate) mac: Option<MacAddr>,
    /// The interface's name, inside; the usual one without it.
    pub(crate) interface: Option<DeviceName>,
    /// Further names there.
    pub(crate) aliases: Aliases,
    /// Holder that has reserved its addresses, which are those of the reservation then.
    pub(crate) reserved: Option<Hold>,
}

/// Wishes of an asker at a door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AttachRequest {
    /// The networks, the first one's names first.
    pub(crate) seats: Vec<NetworkSeat>,
    /// Name; one is made without it.
    pub(crate) name: Option<WorkloadName>,
    /// Name unless that is in use.
    pub(crate) preferred: Option<WorkloadName>,
    /// Beginning of a made name where it is of no service.
    pub(crate) stem: String,
    /// The service that it is an instance of.
    pub(crate) service: Option<ServiceName>,
    /// The ports that it offers.
    pub(crate) ports: Vec<ServicePort>,
    /// True if a sidecar carries its calls.
    pub(crate) sidecar: bool,
    /// Share of its service's new work.
    pub(crate) weight: Weight,
    /// Check of its own, in place of its service's.
    pub(crate) health: Option<Check>,
}

impl AttachRequest {
    /// Checks that whoever asks for the names that are asked for gets to the workload. One that was attached before keeps what
    /// it has.
    ///
    /// # Errors
    /// Names the field and what its name is taken for.
    pub(crate) fn check_names(&self) -> Result<(), SpecError> {
        let name = self.name.iter().map(|name| (Field::Name, name.as_str()));
        let service = self.service.iter().map(|name| (Field::Service, name.as_str()));
        let aliases = self.seats.iter().flat_map(|seat| seat.aliases.iter().map(Alias::as_str));
        let mut names = name.chain(service).chain(aliases.map(|alias| (Field::Alias, alias)));
        names.try_for_each(|(field, name)| {
            let wrong = |why| SpecError::Field { field, reason: format!("{name}: {why}") };
            Misread::check(name).map_err(wrong)
        })
    }

    /// Checks that there is something to ask.
    fn check_health(&self) -> Result<(), SpecError> {
        let Some(check) = &self.health else { return Ok(()) };
        let streams = self.ports.iter().any(|port| port.protocol.transport() == Transport::Tcp);
        if check.port.is_some() || streams || matches!(check.probe, Probe::Exec(_)) {
            return Ok(());
        }
        let reason = format!("{} needs a port over TCP, and the workload offers none: name one", check.probe);
        Err(SpecError::Field { field: Field::Health, reason })
    }
}

/// A checked request; the name may still have to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AttachSpec(AttachRequest);

/// Field of a request that is wrong; every door has its own word for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// A network's name.
    Network,
    /// An address.
    Address,
    /// An Ethernet address.
    Mac,
    /// The name of an interface.
    Interface,
    /// The workload's name.
    Name,
    /// The service.
    Service,
    /// A port.
    Port,
    /// The weight.
    Weight,
    /// A further name.
    Alias,
    /// The check.
    Health,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Network => "network",
            Self::Address => "address",
            Self::Mac => "MAC address",
            Self::Interface => "interface",
            Self::Name => "name",
            Self::Service => "service",
            Self::Port => "port",
            Self::Weight => "weight",
            Self::Alias => "alias",
            Self::Health => "health",
        })
    }
}

/// Faults of a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpecError {
    /// A field that does not parse.
    #[error("{field}: {reason}")]
    Field {
        /// The field.
        field: Field,
        /// Fault, in the words of its type.
        reason: String,
    },
    /// No network at all.
    #[error("no network is named: a workload is in one at least")]
    NoNetwork,
    /// Ports without a service.
    #[error("a port needs a service: the one whose port it is")]
    NoService,
    /// A network twice.
    #[error("network {0} is given twice")]
    NetworkTwice(NetworkName),
    /// The name of an interface twice.
    #[error("interface {0} is given twice")]
    InterfaceTwice(DeviceName),
    /// More ports than control takes.
    #[error("{0} ports are too many: a workload offers {most} at most", most = Workload::MOST_PORTS)]
    ManyPorts(usize),
    /// A port twice.
    #[error("port {0}/{1} is given twice")]
    PortTwice(u16, Transport),
    /// A port that the sidecar uses.
    #[error(
        "port {0} is one of the sidecar's own ports; hint: listen on another one, or leave the sidecar out"
    )]
    SidecarPort(u16),
}

impl AttachSpec {
    /// Checks what is wanted.
    ///
    /// # Errors
    /// Names the field and what is wrong with it.
    pub(crate) fn new(mut wanted: AttachRequest, sidecar_ports: SidecarPorts) -> Result<Self, SpecError> {
        let twice =
            wanted.seats.iter().enumerate().find(|(place, seat)| {
                wanted.seats[..*place].iter().any(|before| before.network == seat.network)
            });
        if let Some((_, seat)) = twice {
            return Err(SpecError::NetworkTwice(seat.network.clone()));
        }
        let named = |seats: &[NetworkSeat], name| seats.iter().any(|seat| seat.interface == Some(name));
        let mut interfaces =
            wanted.seats.iter().enumerate().filter_map(|(place, seat)| Some((place, seat.interface?)));
        if let Some((_, twice)) = interfaces.find(|(place, name)| named(&wanted.seats[..*place], *name)) {
            return Err(SpecError::InterfaceTwice(twice));
        }
        if wanted.seats.is_empty() {
            return Err(SpecError::NoNetwork);
        }
        if wanted.ports.len() > Workload::MOST_PORTS {
            return Err(SpecError::ManyPorts(wanted.ports.len()));
        }
        wanted.ports.sort_by_key(ServicePort::key);
        if wanted.service.is_none() && !wanted.ports.is_empty() {
            return Err(SpecError::NoService);
        }
        wanted.check_health()?;
        if let Some([twice, _]) = wanted.ports.array_windows().find(|[a, b]| a.key() == b.key()) {
            return Err(SpecError::PortTwice(twice.port.get(), twice.protocol.transport()));
        }
        if let Some(taken) = wanted.ports.iter().find(|port| wanted.sidecar && sidecar_ports.has(port)) {
            return Err(SpecError::SidecarPort(taken.port.get()));
        }
        Ok(Self(wanted))
    }

    /// Returns the asker's wishes.
    #[must_use]
    pub(crate) fn wanted(&self) -> &AttachRequest {
        &self.0
    }

    /// The same under this name.
    #[must_use]
    pub(crate) fn named(self, name: WorkloadName) -> Self {
        Self(AttachRequest { name: Some(name), ..self.0 })
    }

    /// The networks, the first one's names first.
    pub(crate) fn networks(&self) -> impl ExactSizeIterator<Item = &NetworkName> {
        self.0.seats.iter().map(|seat| &seat.network)
    }

    /// Returns true if a name was asked for; a made one can be made again.
    #[must_use]
    pub(crate) fn is_named(&self) -> bool {
        self.0.name.is_some()
    }

    /// The workload to be, a spec per network and seat; a name that was not asked for is the preferred one, or, when that
    /// is in use, made from the random number `made`.
    #[must_use]
    pub(crate) fn specs(&self, made: Option<u32>, seats: &[Seat]) -> Option<Vec<AttachmentSpec>> {
        let AttachRequest { service, ports, sidecar, weight, health, .. } = &self.0;
        let preferred = self.0.preferred.clone().filter(|_| made.is_none());
        let name = match self.0.name.clone().or(preferred) {
            Some(name) => name,
            None => made_name(self.stem(), made.unwrap_or_else(rand::random))?,
        };
        let spec = |(wanted, &seat): (&NetworkSeat, &Seat)| AttachmentSpec {
            network: wanted.network.clone(),
            name: name.clone(),
            service: service.clone(),
            ports: ports.clone(),
            address: wanted.address,
            mac: wanted.mac,
            reserved: wanted.reserved.clone(),
            sidecar: *sidecar,
            weight: *weight,
            health: health.clone(),
            aliases: wanted.aliases.clone(),
            seat: seat.named(wanted.interface),
        };
        (self.0.seats.len() <= seats.len()).then(|| self.0.seats.iter().zip(seats).map(spec).collect())
    }

    fn stem(&self) -> &str {
        self.0.service.as_ref().map_or(self.0.stem.as_str(), ServiceName::as_str)
    }
}

/// Requirements of a new attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AttachmentSpec {
    /// The network.
    pub(crate) network: NetworkName,
    /// Name of the workload.
    pub(crate) name: WorkloadName,
    /// The service that it is an instance of.
    pub(crate) service: Option<ServiceName>,
    /// The ports that it offers.
    pub(crate) ports: Vec<ServicePort>,
    /// A certain address.
    pub(crate) address: Option<OverlayIp>,
    /// A certain Ethernet address.
    pub(crate) mac: Option<MacAddr>,
    /// Holder that has reserved its addresses.
    pub(crate) reserved: Option<Hold>,
    /// True if a sidecar carries its calls.
    pub(crate) sidecar: bool,
    /// Share of its service's new work.
    pub(crate) weight: Weight,
    /// Check of its own, in place of its service's.
    pub(crate) health: Option<Check>,
    /// Further names in the network.
    pub(crate) aliases: Aliases,
    /// Seat in its namespace.
    pub(crate) seat: Seat,
}

#[cfg(any(test, feature = "simulation"))]
impl AttachmentSpec {
    /// An attachment that asks for nothing beyond a name, and has a sidecar.
    pub(crate) fn plain(network: NetworkName, name: WorkloadName) -> Self {
        Self {
            network,
            name,
            service: None,
            ports: vec![],
            address: None,
            mac: None,
            reserved: None,
            sidecar: true,
            weight: Weight::default(),
            health: None,
            aliases: Aliases::default(),
            seat: Seat::default(),
        }
    }
}

/// `<stem>-<five letters and digits>`.
fn made_name(stem: &str, mut random: u32) -> Option<WorkloadName> {
    const DIGITS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut name: String = label(stem).chars().take(50).collect();
    name.push('-');
    for _ in 0..5 {
        name.push(char::from(DIGITS[(random % 32) as usize]));
        random /= 32;
    }
    name.parse().ok()
}

/// A command's or container's name as a workload's, or as the beginning of one.
#[must_use]
pub(crate) fn label(text: &str) -> String {
    let base = text.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let mapped: String = base.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let trimmed = mapped.trim_matches('-');
    if trimmed.is_empty() { "workload".to_owned() } else { trimmed.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(network: &str) -> NetworkSeat {
        NetworkSeat {
            network: network.parse().unwrap(),
            address: None,
            mac: None,
            interface: None,
            aliases: Aliases::default(),
            reserved: None,
        }
    }

    fn wanted() -> AttachRequest {
        AttachRequest {
            seats: vec![seat("shop")],
            name: None,
            preferred: None,
            stem: "/usr/bin/Curl_7".to_owned(),
            service: None,
            ports: vec![],
            sidecar: true,
            weight: Weight::default(),
            health: None,
        }
    }

    fn api(ports: &[&str]) -> AttachRequest {
        let ports = ports.iter().map(|port| port.parse().unwrap()).collect();
        AttachRequest { service: Some("api".parse().unwrap()), ports, ..wanted() }
    }

    fn name(wanted: AttachRequest, made: impl Into<Option<u32>>) -> String {
        let spec = AttachSpec::new(wanted, SidecarPorts::default()).unwrap();
        spec.specs(made.into(), &[Seat::default()]).unwrap()[0].name.to_string()
    }

    #[test]
    fn names_are_made_from_the_service_or_the_command() {
        assert_eq!(name(wanted(), 0), "curl-7-aaaaa");
        assert_eq!(name(api(&["80"]), 33), "api-bbaaa");
        let preferred = AttachRequest { preferred: label("Demo_api_1").parse().ok(), ..wanted() };
        assert_eq!(name(preferred.clone(), None), "demo-api-1");
        assert_eq!(name(preferred, 0), "curl-7-aaaaa", "in use");
    }

    #[test]
    fn a_service_needs_no_port() {
        let spec = AttachSpec::new(api(&[]), SidecarPorts::default()).unwrap();
        let spec = &spec.specs(Some(0), &[Seat::default()]).unwrap()[0];
        assert_eq!((spec.service.as_ref().unwrap().as_str(), spec.ports.len()), ("api", 0));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused_by_their_field() {
        let check = |wanted: AttachRequest, expected: Option<Field>| {
            let refused = wanted.check_names().err().map(|error| {
                let SpecError::Field { field, .. } = error else { panic!("{error}") };
                field
            });
            assert_eq!(refused, expected);
        };
        let alias = |alias: &str| {
            let aliases = Aliases::parse([alias]).unwrap();
            AttachRequest { seats: vec![NetworkSeat { aliases, ..seat("shop") }], ..wanted() }
        };
        check(AttachRequest { name: "localhost".parse().ok(), ..wanted() }, Some(Field::Name));
        check(AttachRequest { service: "10".parse().ok(), ..wanted() }, Some(Field::Service));
        check(alias("localhost"), Some(Field::Alias));
        check(alias("0x7f000001"), Some(Field::Alias));
        check(alias("752947911111"), None);
        check(api(&["80"]), None);
    }

    #[test]
    fn wrong_requests_are_refused_by_what_is_wrong() {
        let check = |wanted: AttachRequest, expected: &str| {
            let error = AttachSpec::new(wanted, SidecarPorts::default()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(AttachRequest { service: None, ..api(&["80"]) }, "a port needs a service");
        check(api(&["80", "80"]), "port 80/tcp is given twice");
        assert!(AttachSpec::new(api(&["80", "15001/udp"]), SidecarPorts::default()).is_ok());
        check(api(&["15001/udp", "15001/udp"]), "port 15001/udp is given twice");
        check(api(&["15001"]), "sidecar's own");
        let ports: Vec<String> = (1..=65).map(|port| format!("{port}/udp")).collect();
        let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
        assert!(AttachSpec::new(api(&ports[..64]), SidecarPorts::default()).is_ok());
        check(api(&ports), "65 ports are too many: a workload offers 64 at most");
        check(
            AttachRequest { seats: vec![seat("shop"), seat("shop")], ..wanted() },
            "network shop is given twice",
        );
        check(AttachRequest { seats: vec![], ..wanted() }, "no network");
    }
}
