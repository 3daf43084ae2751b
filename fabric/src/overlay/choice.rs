//! Choice of a host's underlay address among those that the host has.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use sealane_proto::types::{IpFamily, UnderlayAddr};
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;

use super::underlay::{Underlay, UnderlayError};
use crate::netlink::Socket;

/// Longest name of a device in bytes (`IFNAMSIZ` of linux/if.h, without the zero).
const LONGEST_NAME: usize = 15;

/// Choice of a host's underlay address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UnderlayChoice {
    /// The source address of packets to control; kept for as long as the host has it.
    #[default]
    Auto,
    /// This address and no other.
    Address(UnderlayAddr),
    /// An address of the device of this name.
    Interface(String),
    /// An address within this prefix.
    Prefix(IpNet),
}

/// Choices of a host's underlay addresses: one, or one for each family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnderlayChoices {
    /// Choice of the main address. Without another choice, an interface or `auto` finds one of the other family as well.
    pub first: UnderlayChoice,
    /// Choice of the address of the other family.
    pub other: Option<UnderlayChoice>,
}

/// A text that chooses no underlay address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseChoiceError {
    /// Neither an address nor anything that addresses are chosen by.
    #[error(
        "{0:?} must be an address (192.0.2.11), a prefix (192.0.2.0/24, 2001:db8::/32), the name of an interface (eth0) or auto"
    )]
    Malformed(String),
    /// Bits are set behind the prefix.
    #[error("{given} has host bits set; did you mean {meant}?")]
    HostBits {
        /// Prefix that was written.
        given: IpNet,
        /// The same without host bits.
        meant: IpNet,
    },
}

/// An address that the host has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnAddress {
    /// The address.
    pub(super) address: IpAddr,
    /// Name of its device.
    pub(super) device: String,
    /// True if the device is up.
    pub(super) up: bool,
}

impl FromStr for UnderlayChoice {
    type Err = ParseChoiceError;
    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        if let Ok(address) = text.parse::<UnderlayAddr>() {
            return Ok(Self::Address(address));
        }
        if let Ok(given) = text.parse::<IpNet>() {
            let meant = given.trunc();
            let fits = given == meant;
            return if fits {
                Ok(Self::Prefix(given))
            } else {
                Err(ParseChoiceError::HostBits { given, meant })
            };
        }
        // What looks like an address is a mistyped one.
        let named = !text.is_empty()
            && text.len() <= LONGEST_NAME
            && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"/:".contains(&byte))
            && text.bytes().any(|byte| byte.is_ascii_alphabetic());
        if named {
            Ok(Self::Interface(text.to_owned()))
        } else {
            Err(ParseChoiceError::Malformed(text.to_owned()))
        }
    }
}

impl From<UnderlayChoice> for UnderlayChoices {
    fn from(first: UnderlayChoice) -> Self {
        Self { first, other: None }
    }
}

impl fmt::Display for UnderlayChoices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        self.other.iter().try_for_each(|other| write!(f, " and {other}"))
    }
}

impl fmt::Display for UnderlayChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Interface(name) => f.write_str(name),
            Self::Prefix(prefix) => write!(f, "{prefix}"),
        }
    }
}

impl UnderlayChoice {
    /// Chooses among the addresses that the host in whose namespace the calling thread is has now. `before` is kept where it
    /// is one of several that fit; `family` is the only one that fits, if it is given. `None` leaves it to the host's ways: see
    /// [`source_towards`](super::source_towards).
    ///
    /// # Errors
    /// When none fits, with what to do about it.
    pub fn resolve(
        &self,
        hopper: &Hopper,
        before: Option<UnderlayAddr>,
        family: Option<IpFamily>,
    ) -> Result<Option<UnderlayAddr>, UnderlayError> {
        let mut socket = Socket::open(hopper, &NetNs::current()?)?;
        if let Self::Address(address) = self {
            if let Some(family) = family.filter(|family| *family != address.family()) {
                return Err(UnderlayError::OneFamily { address: *address, family });
            }
            return Underlay::find(&mut socket, *address).map(|found| Some(found.address));
        }
        let mut own = own_addresses(&mut socket)?;
        own.retain(|known| family.is_none_or(|family| family == IpFamily::of(known.address)));
        match (self.pick(before, &own), self) {
            (Some(address), _) => Ok(Some(address)),
            (None, Self::Auto) => Ok(None),
            (None, Self::Address(address)) => Err(UnderlayError::NotHere(*address)),
            (None, Self::Interface(name)) => {
                let there = socket.link(name)?.is_some();
                Err(UnderlayError::NoneOn { interface: name.clone(), there })
            }
            (None, Self::Prefix(prefix)) => Err(UnderlayError::NoneIn(*prefix)),
        }
    }

    /// Picks an address without asking for ways; `None` when no address of the host's fits.
    fn pick(&self, before: Option<UnderlayAddr>, own: &[OwnAddress]) -> Option<UnderlayAddr> {
        let fits = |known: &OwnAddress| match self {
            // Loopback is for who is alone: once there is a better one, that is taken.
            Self::Auto => before.is_some_and(|before| before.to_ip() == known.address),
            Self::Address(address) => address.to_ip() == known.address,
            Self::Interface(name) => known.device == *name,
            Self::Prefix(prefix) => prefix.contains(&known.address),
        };
        let mut fitting: Vec<&OwnAddress> =
            own.iter().filter(|known| is_of_one_host(known.address) && fits(known)).collect();
        // Of equals, the kernel's first: the primary one.
        fitting.sort_by_key(|known| {
            let is_before = before.is_some_and(|before| before.to_ip() == known.address);
            let same_family = before.is_none_or(|before| before.to_ip().is_ipv4() == known.address.is_ipv4());
            (!is_before, !known.up, !same_family, known.address.is_ipv6())
        });
        fitting.first().map(|known| known.address.into())
    }
}

/// The addresses that may be used, in the kernel's order: none that is being tried or about to go.
fn own_addresses(socket: &mut Socket) -> Result<Vec<OwnAddress>, UnderlayError> {
    let links = socket.links()?;
    let addresses = socket.lasting_addresses()?.into_iter().filter_map(|known| {
        let link = links.iter().find(|link| link.index == known.index)?;
        Some(OwnAddress { address: known.address, device: link.name.clone(), up: link.up })
    });
    Ok(addresses.collect())
}

/// Returns true if others may send to the address: neither loopback nor link-local.
#[must_use]
pub fn is_of_one_host(address: IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(local || address.is_loopback() || address.is_multicast() || address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(device: &str, address: &str) -> OwnAddress {
        OwnAddress { address: address.parse().unwrap(), device: device.to_owned(), up: true }
    }

    fn picked(choice: &str, before: Option<&str>, own: &[OwnAddress]) -> Option<String> {
        let choice: UnderlayChoice = choice.parse().unwrap();
        let before = before.map(|before| before.parse().unwrap());
        choice.pick(before, own).map(|address| address.to_string())
    }

    #[test]
    fn a_choice_is_an_address_a_prefix_an_interface_or_none() {
        for text in [
            "auto",
            "192.0.2.11",
            "2001:db8::11",
            "10.0.0.0/8",
            "2001:db8::/32",
            "eth0",
            "eth0.100",
            "interface-of-15",
        ] {
            assert_eq!(text.parse::<UnderlayChoice>().unwrap().to_string(), text);
        }
        let [first, other] = ["eth0", "2001:db8::/32"].map(|text| text.parse::<UnderlayChoice>().unwrap());
        assert_eq!(UnderlayChoices::from(first.clone()).to_string(), "eth0");
        assert_eq!(UnderlayChoices { first, other: Some(other) }.to_string(), "eth0 and 2001:db8::/32");
        for (text, said) in [
            ("", "must be an address"),
            ("192.0.2", "must be an address"),
            ("192.0.2.999", "must be an address"),
            ("2001:db8:::1", "must be an address"),
            ("10.0.0.0/33", "must be an address"),
            ("eth0:1", "must be an address"),
            ("interface-of-16b", "must be an address"),
            ("10.1.0.0/8", "did you mean 10.0.0.0/8?"),
        ] {
            let error = text.parse::<UnderlayChoice>().unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn the_address_from_before_stays_for_as_long_as_it_fits() {
        let own = [
            own("lo", "127.0.0.1"),
            own("eth0", "192.0.2.1"),
            own("eth0", "192.0.2.2"),
            own("eth1", "10.1.2.3"),
        ];
        for (choice, before, expected) in [
            ("eth0", Some("192.0.2.2"), Some("192.0.2.2")),
            ("eth0", Some("10.1.2.3"), Some("192.0.2.1")),
            ("eth0", None, Some("192.0.2.1")),
            ("10.0.0.0/8", Some("192.0.2.1"), Some("10.1.2.3")),
            ("172.16.0.0/12", Some("192.0.2.1"), None),
            ("eth2", Some("192.0.2.1"), None),
            ("lo", None, None),
            ("192.0.2.2", Some("192.0.2.1"), Some("192.0.2.2")),
            ("auto", Some("192.0.2.2"), Some("192.0.2.2")),
            ("auto", Some("192.0.2.9"), None),
            ("auto", Some("127.0.0.1"), None),
            ("auto", None, None),
        ] {
            assert_eq!(picked(choice, before, &own).as_deref(), expected, "{choice} {before:?}");
        }
    }

    #[test]
    fn others_send_to_addresses_of_one_host_that_are_good_beyond_it_and_its_link() {
        for (address, expected) in [
            ("192.0.2.1", true),
            ("2001:db8::1", true),
            ("127.0.0.1", false),
            ("::1", false),
            ("169.254.7.7", false),
            ("fe80::1", false),
            ("224.0.0.1", false),
            ("ff02::1", false),
            ("0.0.0.0", false),
            ("::", false),
        ] {
            assert_eq!(is_of_one_host(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn an_address_of_the_family_from_before_comes_first() {
        let own = [own("eth0", "192.0.2.1"), own("eth0", "fe80::1"), own("eth0", "2001:db8::1")];
        assert_eq!(picked("eth0", Some("2001:db8::9"), &own).as_deref(), Some("2001:db8::1"));
        assert_eq!(picked("eth0", Some("192.0.2.9"), &own).as_deref(), Some("192.0.2.1"));
        assert_eq!(picked("eth0", None, &own).as_deref(), Some("192.0.2.1"));
        let down = [OwnAddress { up: false, ..own[0].clone() }, own[2].clone()];
        assert_eq!(picked("eth0", Some("192.0.2.9"), &down).as_deref(), Some("2001:db8::1"));
        assert_eq!(
            picked("eth0", Some("192.0.2.1"), &down).as_deref(),
            Some("192.0.2.1"),
            "a cable may come back"
        );
    }
}
