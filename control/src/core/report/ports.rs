//! The ports of a service: those of all its instances together.

use std::collections::BTreeMap;

use sealane_proto::types::{Port, Protocol, ServicePort, Transport};

/// Ports by number and transport.
#[derive(Clone, Debug, Default)]
pub(in crate::core) struct Ports(BTreeMap<(Port, Transport), ServicePort>);

/// Conflict of two protocols on one number over one transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core) struct Conflict {
    pub(in crate::core) port: Port,
    pub(in crate::core) spoken: Protocol,
    pub(in crate::core) offered: Protocol,
}

impl Ports {
    /// Adds an instance's ports. An explicit protocol wins over `auto`, the first name over later ones, and of two modes
    /// the strict one.
    pub(in crate::core) fn add(&mut self, offered: &[ServicePort]) -> Result<(), Conflict> {
        for port in offered {
            match self.0.get_mut(&port.key()) {
                None => drop(self.0.insert(port.key(), port.clone())),
                Some(known) => {
                    known.protocol = agree(port.port, known.protocol, port.protocol)?;
                    known.mtls = known.mtls.max(port.mtls);
                    known.name = known.name.take().or_else(|| port.name.clone());
                }
            }
        }
        Ok(())
    }

    /// The number of ports.
    pub(in crate::core) fn len(&self) -> usize {
        self.0.len()
    }

    /// Sorted by number and transport.
    pub(in crate::core) fn into_vec(self) -> Vec<ServicePort> {
        self.0.into_values().collect()
    }
}

fn agree(port: Port, spoken: Protocol, offered: Protocol) -> Result<Protocol, Conflict> {
    if offered == spoken || offered == Protocol::Auto {
        Ok(spoken)
    } else if spoken == Protocol::Auto {
        Ok(offered)
    } else {
        Err(Conflict { port, spoken, offered })
    }
}

#[cfg(test)]
mod tests {
    use sealane_proto::types::Mtls;

    use super::*;

    fn union(instances: &[&[&str]]) -> Result<Vec<String>, Conflict> {
        let mut ports = Ports::default();
        for instance in instances {
            let offered: Vec<ServicePort> = instance.iter().map(|text| text.parse().unwrap()).collect();
            ports.add(&offered)?;
        }
        Ok(ports.into_vec().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_union_is_sorted_and_explicit_protocols_win() {
        let table: [(&[&[&str]], &[&str]); 5] = [
            (&[&["9090"], &["80/http"]], &["80/http", "9090"]),
            (&[&["80"], &["80/http"]], &["80/http"]),
            (&[&["80/http"], &["80"]], &["80/http"]),
            (&[&["80"], &["web=80"], &["other=80"]], &["web=80"]),
            (&[&["53/udp", "dns=53/tcp"], &["53"]], &["dns=53/tcp", "53/udp"]),
        ];
        for (instances, expected) in table {
            assert_eq!(union(instances).unwrap(), expected);
        }
    }

    #[test]
    fn of_two_modes_the_strict_one_counts() {
        let port = |mtls| ServicePort { mtls, .."80".parse().unwrap() };
        let (strict, permissive) = (Some(Mtls::Strict), Some(Mtls::Permissive));
        let table = [
            ([None, None], None),
            ([None, permissive], permissive),
            ([permissive, None], permissive),
            ([permissive, strict], strict),
            ([strict, permissive], strict),
        ];
        for (instances, expected) in table {
            let mut ports = Ports::default();
            instances.iter().for_each(|&mtls| ports.add(&[port(mtls)]).unwrap());
            assert_eq!(ports.into_vec()[0].mtls, expected, "{instances:?}");
        }
    }

    #[test]
    fn one_port_does_not_speak_two_protocols() {
        let conflict = union(&[&["80/http"], &["80/tcp"]]).unwrap_err();
        assert_eq!((conflict.spoken, conflict.offered), (Protocol::Http, Protocol::Tcp));
    }
}
