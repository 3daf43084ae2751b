//! The underlay addresses of a host: one, or one of each family.

use std::fmt;
use std::net::{AddrParseError, IpAddr};
use std::str::FromStr;

use super::UnderlayAddr;

/// Family of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The underlay addresses of a host. The first one is the host's main one; two are of different families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnderlayAddrs {
    first: UnderlayAddr,
    other: Option<UnderlayAddr>,
}

/// Two addresses between which packets of two hosts travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnderlayWay {
    /// Address of the host that looks.
    pub own: UnderlayAddr,
    /// Address of the other one.
    pub peer: UnderlayAddr,
}

/// Two addresses that are not those of one host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnderlayAddrsError {
    /// A text is no address.
    #[error(transparent)]
    Malformed(#[from] AddrParseError),
    /// Both are of one family.
    #[error("{0} and {1} are both of {family}: a host has one underlay address of each family", family = .0.family())]
    OneFamily(UnderlayAddr, UnderlayAddr),
}

impl IpFamily {
    /// Both families.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Returns the family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Returns the other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
}

impl UnderlayAddr {
    /// Returns the family of the address.
    #[must_use]
    pub fn family(self) -> IpFamily {
        IpFamily::of(self.to_ip())
    }
}

impl UnderlayAddrs {
    /// Joins a host's addresses.
    ///
    /// # Errors
    /// When both are of one family.
    pub fn new(first: UnderlayAddr, other: Option<UnderlayAddr>) -> Result<Self, UnderlayAddrsError> {
        match other {
            Some(other) if other.family() == first.family() => {
                Err(UnderlayAddrsError::OneFamily(first, other))
            }
            _ => Ok(Self { first, other }),
        }
    }

    /// Returns the main address.
    #[must_use]
    pub fn first(self) -> UnderlayAddr {
        self.first
    }

    /// Returns the address of the other family than the first one's.
    #[must_use]
    pub fn other(self) -> Option<UnderlayAddr> {
        self.other
    }

    /// Returns all of them, the first one first.
    pub fn iter(self) -> impl Iterator<Item = UnderlayAddr> {
        [Some(self.first), self.other].into_iter().flatten()
    }

    /// Returns the address of a family.
    #[must_use]
    pub fn of(self, family: IpFamily) -> Option<UnderlayAddr> {
        self.iter().find(|address| address.family() == family)
    }

    /// Returns true if an address is one of them.
    #[must_use]
    pub fn contains(self, address: UnderlayAddr) -> bool {
        self.iter().any(|own| own == address)
    }

    /// Returns true if both hosts claim one address.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        other.iter().any(|address| self.contains(address))
    }

    /// Reads both from a message.
    ///
    /// # Errors
    /// When one is none, or both are of one family.
    pub fn of_wire(first: &str, other: &str) -> Result<Self, UnderlayAddrsError> {
        let other = Some(other).filter(|other| !other.is_empty()).map(str::parse).transpose()?;
        Self::new(first.parse()?, other)
    }

    /// Writes both for a message; an address that the host has not is empty.
    #[must_use]
    pub fn to_wire(self) -> (String, String) {
        (self.first.to_string(), self.other.map(|other| other.to_string()).unwrap_or_default())
    }

    /// Returns the addresses between which packets to another host travel, the same for both: of the family of both main
    /// addresses; if these differ, of IPv4 before IPv6. `None` when they have no family in common.
    #[must_use]
    pub fn way_to(self, peer: Self) -> Option<UnderlayWay> {
        let main = self.first.family();
        let both = IpFamily::ALL.into_iter();
        let preferred = Some(main).filter(|main| peer.first.family() == *main);
        preferred
            .into_iter()
            .chain(both)
            .find_map(|family| Some(UnderlayWay { own: self.of(family)?, peer: peer.of(family)? }))
    }
}

impl From<UnderlayAddr> for UnderlayAddrs {
    fn from(first: UnderlayAddr) -> Self {
        Self { first, other: None }
    }
}

impl From<IpAddr> for UnderlayAddrs {
    fn from(first: IpAddr) -> Self {
        UnderlayAddr::from(first).into()
    }
}

impl FromStr for UnderlayAddrs {
    type Err = UnderlayAddrsError;
    fn from_str(text: &str) -> Result<Self, UnderlayAddrsError> {
        match text.split_once(',') {
            Some((first, other)) => Self::new(first.parse()?, Some(other.parse()?)),
            None => Ok(text.parse::<UnderlayAddr>()?.into()),
        }
    }
}

impl fmt::Display for IpFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

impl fmt::Display for UnderlayAddrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        self.other.map_or(Ok(()), |other| write!(f, ",{other}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_address_or_one_of_each_family() {
        for text in ["192.0.2.1", "2001:db8::1", "192.0.2.1,2001:db8::1", "2001:db8::1,192.0.2.1"] {
            assert_eq!(text.parse::<UnderlayAddrs>().unwrap().to_string(), text);
        }
        let same = "192.0.2.1,::ffff:192.0.2.2".parse::<UnderlayAddrs>().unwrap_err().to_string();
        assert!(same.starts_with("192.0.2.1 and 192.0.2.2 are both of IPv4"), "{same}");
        assert!("192.0.2.1,".parse::<UnderlayAddrs>().is_err());
    }

    #[test]
    fn two_hosts_choose_the_same_family_that_both_have() {
        for (one, two, way) in [
            ("192.0.2.1", "192.0.2.2", Some("192.0.2.1 192.0.2.2")),
            ("2001:db8::1", "2001:db8::2", Some("2001:db8::1 2001:db8::2")),
            ("192.0.2.1", "2001:db8::2", None),
            ("192.0.2.1,2001:db8::1", "2001:db8::2", Some("2001:db8::1 2001:db8::2")),
            ("192.0.2.1,2001:db8::1", "192.0.2.2", Some("192.0.2.1 192.0.2.2")),
            ("2001:db8::1,192.0.2.1", "192.0.2.2", Some("192.0.2.1 192.0.2.2")),
            ("2001:db8::1,192.0.2.1", "2001:db8::2,192.0.2.2", Some("2001:db8::1 2001:db8::2")),
            ("192.0.2.1,2001:db8::1", "2001:db8::2,192.0.2.2", Some("192.0.2.1 192.0.2.2")),
        ] {
            let [one, two]: [UnderlayAddrs; 2] = [one, two].map(|text| text.parse().unwrap());
            let found = one.way_to(two);
            assert_eq!(found.map(|way| format!("{} {}", way.own, way.peer)).as_deref(), way, "{one} {two}");
            let back = two.way_to(one).map(|way| UnderlayWay { own: way.peer, peer: way.own });
            assert_eq!(back, found, "{one} {two}");
        }
    }
}
