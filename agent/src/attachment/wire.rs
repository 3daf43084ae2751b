//! A request as it travels and as it is kept on disk. The one file of this room that knows messages.

use sealane_proto::types::{Aliases, Check, Misread, ServicePort, WorkloadName};
use sealane_proto::wire::{v1, weight};

use super::spec::{AttachRequest, Field, NetworkSeat, SpecError, label};

fn field<T: std::str::FromStr<Err: ToString>>(field: Field, text: &str) -> Result<T, SpecError> {
    text.parse().map_err(|error: T::Err| SpecError::Field { field, reason: error.to_string() })
}

fn option<T: std::str::FromStr<Err: ToString>>(name: Field, text: &str) -> Result<Option<T>, SpecError> {
    if text.is_empty() { Ok(None) } else { field(name, text).map(Some) }
}

fn text(value: Option<&impl ToString>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

impl TryFrom<v1::NetworkChoice> for NetworkSeat {
    type Error = SpecError;
    fn try_from(choice: v1::NetworkChoice) -> Result<Self, SpecError> {
        Ok(Self {
            network: field(Field::Network, &choice.network)?,
            address: option(Field::Address, &choice.address)?,
            mac: option(Field::Mac, &choice.mac)?,
            interface: option(Field::Interface, &choice.interface)?,
            aliases: Aliases::parse(&choice.aliases)
                .map_err(|error| SpecError::Field { field: Field::Alias, reason: error.to_string() })?,
            reserved: None,
        })
    }
}

impl From<&NetworkSeat> for v1::NetworkChoice {
    fn from(seat: &NetworkSeat) -> Self {
        Self {
            network: seat.network.to_string(),
            address: text(seat.address.as_ref()),
            mac: text(seat.mac.as_ref()),
            interface: text(seat.interface.as_ref()),
            aliases: seat.aliases.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<v1::RunRequest> for AttachRequest {
    type Error = SpecError;
    fn try_from(request: v1::RunRequest) -> Result<Self, SpecError> {
        let v1::RunRequest { network, address, mac, aliases, .. } = request;
        let only = v1::NetworkChoice { network, address, mac, aliases, interface: String::new() };
        let choices = if request.networks.is_empty() { vec![only] } else { request.networks };
        let wrong = |field, reason: String| SpecError::Field { field, reason };
        let seats = choices.into_iter().map(NetworkSeat::try_from).collect::<Result<_, _>>()?;
        let ports = request.ports.into_iter().map(ServicePort::try_from).collect::<Result<_, _>>();
        let health = request.health.map(Check::try_from).transpose();
        let preferred = Some(label(&request.preferred)).filter(|_| !request.preferred.is_empty());
        // What its runtime calls it may be a name that nobody would ask for.
        let preferred = preferred.filter(|name| Misread::of(name).is_none());
        Ok(Self {
            seats,
            name: option(Field::Name, &request.name)?,
            preferred: preferred.and_then(|name| name.parse::<WorkloadName>().ok()),
            stem: request.command,
            service: option(Field::Service, &request.service)?,
            ports: ports.map_err(|error| wrong(Field::Port, error.to_string()))?,
            sidecar: !request.no_sidecar,
            weight: weight(request.weight).map_err(|error| wrong(Field::Weight, error.to_string()))?,
            health: health.map_err(|error| wrong(Field::Health, error.to_string()))?,
        })
    }
}

impl From<&AttachRequest> for v1::RunRequest {
    fn from(wanted: &AttachRequest) -> Self {
        Self {
            networks: wanted.seats.iter().map(Into::into).collect(),
            name: text(wanted.name.as_ref()),
            preferred: text(wanted.preferred.as_ref()),
            command: wanted.stem.clone(),
            service: text(wanted.service.as_ref()),
            ports: wanted.ports.iter().map(Into::into).collect(),
            no_sidecar: !wanted.sidecar,
            weight: Some(wanted.weight.get().into()),
            health: wanted.health.as_ref().map(Into::into),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> v1::RunRequest {
        v1::RunRequest { network: "shop".into(), command: "curl".into(), ..Default::default() }
    }

    #[test]
    fn a_request_is_read_back() {
        let port = v1::ServicePort { port: 80, protocol: "http".into(), ..Default::default() };
        let office = v1::NetworkChoice {
            network: "office".into(),
            address: "10.1.0.7".into(),
            mac: "02:00:00:00:00:07".into(),
            interface: "net1".into(),
            aliases: vec!["cache".into(), "db_1".into()],
        };
        let shop = v1::NetworkChoice { network: "shop".into(), ..Default::default() };
        for request in [
            request(),
            v1::RunRequest { service: "api".into(), ports: vec![port], weight: Some(7), ..request() },
            v1::RunRequest { network: String::new(), networks: vec![shop, office], ..request() },
            v1::RunRequest { preferred: "demo-api-1".into(), no_sidecar: true, ..request() },
        ] {
            let wanted = AttachRequest::try_from(request).unwrap();
            assert_eq!(AttachRequest::try_from(v1::RunRequest::from(&wanted)).unwrap(), wanted);
        }
    }

    #[test]
    fn what_does_not_parse_is_named() {
        let check = |request: v1::RunRequest, expected: Field| {
            let Err(SpecError::Field { field, .. }) = AttachRequest::try_from(request) else {
                panic!("{expected}")
            };
            assert_eq!(field, expected);
        };
        let port = |port: u32| v1::ServicePort { port, ..Default::default() };
        check(v1::RunRequest { network: "No".into(), ..request() }, Field::Network);
        check(v1::RunRequest { name: "-".into(), ..request() }, Field::Name);
        check(v1::RunRequest { weight: Some(1001), ..request() }, Field::Weight);
        check(v1::RunRequest { ports: vec![port(70000)], ..request() }, Field::Port);
        check(v1::RunRequest { address: "10.42".into(), ..request() }, Field::Address);
        check(v1::RunRequest { aliases: vec!["a.b".into()], ..request() }, Field::Alias);
        check(v1::RunRequest { mac: "ff:ff:ff:ff:ff:ff".into(), ..request() }, Field::Mac);
    }
}
