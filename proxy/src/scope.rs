//! Addresses of its network that the sidecar is told of. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use sealane_base::shared_map::SharedMap;
use sealane_proto::sidecar::{Change, Config};

/// The addresses of the network that a configuration speaks of, beside the instances of services there.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// The network's addresses, and those of them that it speaks of; `None` when it speaks of all.
    portion: Option<(Ipv4Net, SharedMap<Ipv4Addr, ()>)>,
}

impl Scope {
    /// The scope of a configuration.
    pub(crate) fn new(config: &Config) -> Self {
        let subnet = config.network.network.subnet.to_net();
        let told = |addresses: &BTreeSet<Ipv4Addr>| addresses.iter().map(|address| (*address, ())).collect();
        Self { portion: config.portion.as_ref().map(|portion| (subnet, told(&portion.addresses))) }
    }

    /// Takes a change in.
    pub(crate) fn change(&mut self, Change { told, untold, .. }: &Change) {
        let Some((_, known)) = &mut self.portion else { return };
        known.extend(told.iter().map(|address| (*address, ())));
        for address in untold {
            known.remove(address);
        }
    }

    /// Returns true if the address is one of the network's of which it does not speak.
    pub(crate) fn lacks(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else { return false };
        let lacks = |(subnet, told): &(Ipv4Net, SharedMap<_, _>)| {
            subnet.contains(&address) && told.get(&address).is_none()
        };
        self.portion.as_ref().is_some_and(lacks)
    }

    /// Returns true if it speaks of this address, and not of all.
    pub(crate) fn has(&self, address: Ipv4Addr) -> bool {
        self.portion.as_ref().is_some_and(|(_, told)| told.get(&address).is_some())
    }

    /// The addresses; none when it speaks of all.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.portion.iter().flat_map(|(_, told)| told.iter().map(|(address, ())| *address))
    }
}
