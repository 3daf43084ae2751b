//! Instances of services outside every network.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Port;

/// The place where an instance outside every network listens: an address that means the same on every host, and a port where that
/// is another one than the service's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExternalAddr {
    address: Ipv4Addr,
    port: Option<Port>,
}

/// A reason for which something is no such address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExternalAddrError {
    /// No address, or a port that is none.
    #[error("{0:?} is no external address: it is IP or IP:PORT, such as 192.0.2.50:5432")]
    Malformed(String),
    /// An IPv6 one.
    #[error("{0} is an IPv6 address: ways out of a network lead to IPv4 addresses only")]
    Ipv6(String),
    /// An address that is not the same machine everywhere, or nobody's.
    #[error("{address} is {what}: {why}")]
    Unfit {
        /// The address.
        address: Ipv4Addr,
        /// The kind of the address.
        what: &'static str,
        /// The reason for which no instance has it.
        why: &'static str,
    },
}

/// Names the kind of an address that does not mean one machine wherever it is used, and why nobody is reached there;
/// `None` for all others.
pub(super) fn unfit(address: Ipv4Addr) -> Option<(&'static str, &'static str)> {
    match address.octets() {
        [0, ..] => Some(("no host's address", "name the one that the instance has on its network")),
        [127, ..] => {
            Some(("a loopback address", "it leads every workload to itself; name the host's address"))
        }
        [169, 254, ..] => Some((
            "a link-local address",
            "it means another machine on every link, cloud metadata among them",
        )),
        [224..=239, ..] => Some(("a multicast address", "no single instance answers there")),
        [240..=255, ..] => Some(("a reserved address", "nothing is reached there")),
        _ => None,
    }
}

/// The beginning of a text that is refused.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

impl ExternalAddr {
    /// The address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The instance's own port, if it has one.
    #[must_use]
    pub fn port(&self) -> Option<Port> {
        self.port
    }

    /// The place where it serves a port of its service.
    #[must_use]
    pub fn serving(&self, port: Port) -> SocketAddrV4 {
        SocketAddrV4::new(self.address, self.port.unwrap_or(port).get())
    }

    fn new(address: Ipv4Addr, port: Option<Port>) -> Result<Self, ExternalAddrError> {
        match unfit(address) {
            Some((what, why)) => Err(ExternalAddrError::Unfit { address, what, why }),
            None => Ok(Self { address, port }),
        }
    }
}

impl FromStr for ExternalAddr {
    type Err = ExternalAddrError;
    fn from_str(text: &str) -> Result<Self, ExternalAddrError> {
        let malformed = || ExternalAddrError::Malformed(shown(text));
        if let Ok(address) = text.parse::<IpAddr>() {
            return match address {
                IpAddr::V4(address) => Self::new(address, None),
                IpAddr::V6(_) => Err(ExternalAddrError::Ipv6(text.to_owned())),
            };
        }
        if text.starts_with('[') {
            return Err(ExternalAddrError::Ipv6(shown(text)));
        }
        let (address, port) = text.split_once(':').ok_or_else(malformed)?;
        let address = address.parse().map_err(|_| malformed())?;
        // As people write a number: no sign, nothing before it.
        let digits = port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
        let number: u16 = port.parse().ok().filter(|_| digits).ok_or_else(malformed)?;
        Self::new(address, Some(Port::try_from(number).map_err(|_| malformed())?))
    }
}

impl fmt::Display for ExternalAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => f.pad(&format!("{}:{port}", self.address)),
            None => f.pad(&self.address.to_string()),
        }
    }
}

impl Serialize for ExternalAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ExternalAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_external_address_is_one_that_means_the_same_on_every_host() {
        for good in ["192.0.2.50", "192.0.2.50:5432", "10.0.0.1:1", "100.64.0.1:65535"] {
            assert_eq!(good.parse::<ExternalAddr>().unwrap().to_string(), good);
        }
        for (wrong, why) in [
            ("", "IP or IP:PORT"),
            ("db:5432", "IP or IP:PORT"),
            ("192.0.2.50:", "IP or IP:PORT"),
            ("192.0.2.50:0", "IP or IP:PORT"),
            ("192.0.2.50:+1", "IP or IP:PORT"),
            ("192.0.2.50:65536", "IP or IP:PORT"),
            ("192.0.2.50/24", "IP or IP:PORT"),
            ("2001:db8::1", "IPv6"),
            ("[2001:db8::1]:80", "IPv6"),
            ("0.0.0.0:80", "no host's address"),
            ("127.0.0.1:80", "leads every workload to itself"),
            ("169.254.169.254:80", "cloud metadata"),
            ("224.0.0.1", "multicast"),
            ("255.255.255.255", "reserved"),
        ] {
            let error = wrong.parse::<ExternalAddr>().unwrap_err().to_string();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }

    #[test]
    fn an_instance_with_a_port_of_its_own_serves_there() {
        let port = Port::try_from(80_u16).unwrap();
        let serving = |text: &str| text.parse::<ExternalAddr>().unwrap().serving(port).to_string();
        assert_eq!(serving("192.0.2.50"), "192.0.2.50:80");
        assert_eq!(serving("192.0.2.50:8080"), "192.0.2.50:8080");
    }
}
