//! Seats of attachments in a namespace: several may share one, each with its own interface, its own address for the
//! sidecar and its own rules.

mod device;

use std::fmt;
use std::net::Ipv4Addr;

pub use device::number;
pub use device::{DeviceName, DeviceNameError};

/// The highest number of a seat: what the sidecars' loopback addresses have room for.
const LAST: u8 = 253;

/// Owner of the namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// The agent made it for the workload, and it goes with that: its interfaces are `eth0`, `eth1`, ...
    #[default]
    Agent,
    /// Somebody else has it, with interfaces of its own; ours are `sl0`, `sl1`, ...
    Other,
}

/// Place of one attachment among those of its namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat {
    owner: Owner,
    number: u8,
    /// Name of its interface, where it is not the usual one.
    name: Option<DeviceName>,
}

impl Seat {
    /// The seat of this number.
    #[must_use]
    pub fn new(owner: Owner, number: u8) -> Self {
        Self { owner, number: number.min(LAST), name: None }
    }

    /// The seats of a namespace in their order.
    pub fn all(owner: Owner) -> impl Iterator<Item = Self> {
        (0..=LAST).map(move |number| Self { owner, number, name: None })
    }

    /// The same seat with an interface of this name, or of the usual one.
    #[must_use]
    pub fn named(self, name: Option<DeviceName>) -> Self {
        Self { name, ..self }
    }

    /// The interface's name, where it is not the usual one.
    #[must_use]
    pub fn name(self) -> Option<DeviceName> {
        self.name
    }

    /// Returns the owner of the namespace.
    #[must_use]
    pub fn owner(self) -> Owner {
        self.owner
    }

    /// Returns the number, alike in no two attachments of a namespace.
    #[must_use]
    pub fn number(self) -> u8 {
        self.number
    }

    /// The name of the interface.
    #[must_use]
    pub fn interface(self) -> Interface {
        Interface(self)
    }

    /// Returns the address at which the sidecar listens for the workload's own calls: out of reach for others (RFC
    /// 1122, section 3.2.1.3).
    #[must_use]
    pub fn loopback(self) -> Ipv4Addr {
        Ipv4Addr::new(127, 15, 0, self.number + 1)
    }

    /// The name of the nft table that holds its rules.
    #[must_use]
    pub fn table(self) -> String {
        match self.number {
            0 => "sealane".to_owned(),
            number => format!("sealane-{number}"),
        }
    }
}

/// The name of an attachment's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interface(Seat);

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.0.name {
            return name.fmt(f);
        }
        let prefix = match self.0.owner {
            Owner::Agent => "eth",
            Owner::Other => "sl",
        };
        write!(f, "{prefix}{}", self.0.number)
    }
}

impl Interface {
    /// Returns the number of the seat.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0.number
    }

    /// Returns the owner of the namespace.
    #[must_use]
    pub fn owner(self) -> Owner {
        self.0.owner
    }

    /// Returns true if a runtime has named it, and may take it away again.
    #[must_use]
    pub fn is_of_runtime(self) -> bool {
        self.0.name.is_some()
    }

    /// Returns true if a device of this name is the one.
    #[must_use]
    pub fn is_named(self, name: &str) -> bool {
        self.to_string() == name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_have_names_and_addresses_of_their_own() {
        let seats: Vec<Seat> = Seat::all(Owner::Other).collect();
        assert_eq!(seats[0].interface().to_string(), "sl0");
        assert_eq!((seats[0].table().as_str(), seats[1].table().as_str()), ("sealane", "sealane-1"));
        assert_eq!(seats.last().unwrap().loopback(), Ipv4Addr::new(127, 15, 0, 254));
        assert_eq!(Seat::default().interface().to_string(), "eth0");
        let named = seats[1].named("net1".parse().ok());
        assert_eq!((named.interface().to_string().as_str(), named.table().as_str()), ("net1", "sealane-1"));
    }
}
