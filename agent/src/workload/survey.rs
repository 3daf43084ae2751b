//! Survey of a namespace of somebody else's before anything of ours is in it.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use sealane_fabric::netlink::{NetlinkError, Socket};
use sealane_fabric::seat::{DeviceName, Owner, Seat};
use sealane_proto::resource::Network;
use sealane_proto::types::overlap;
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;

use super::AttachError;
use crate::attachment::Attachment;

/// The interfaces of a namespace and what they can reach directly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Survey {
    interfaces: Vec<String>,
    nets: Vec<(String, IpNet)>,
}

impl Survey {
    /// Looks around in `netns`.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub(super) fn of(hopper: &Hopper, netns: &NetNs) -> Result<Self, NetlinkError> {
        let mut socket = Socket::open(hopper, netns)?;
        let links = socket.links()?;
        let name_of = |index| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
        let nets = socket.addresses()?.into_iter().filter_map(|known| {
            // Every interface has link-local addresses (RFC 4291, section 2.8); they tell nothing apart.
            let linked = matches!(known.address, IpAddr::V6(address) if address.is_unicast_link_local());
            let net = IpNet::new(known.address, known.prefix_len).ok().filter(|_| !linked)?;
            Some((name_of(known.index)?, net.trunc()))
        });
        let nets = nets.collect();
        Ok(Self { interfaces: links.into_iter().map(|link| link.name).collect(), nets })
    }

    /// The first free seats beside those of `sharing`.
    pub(super) fn seats(&self, sharing: &[Attachment], count: usize) -> Vec<Seat> {
        let free = |seat: &Seat| {
            sharing.iter().all(|other| other.seat.number() != seat.number())
                && !self.interfaces.iter().any(|name| seat.interface().is_named(name))
        };
        Seat::all(Owner::Other).filter(free).take(count).collect()
    }

    /// Refuses a network that the namespace is in already, or could not tell from another. What its runtime has given the
    /// interface `given` is the attachment's.
    pub(super) fn check(
        &self,
        network: &Network,
        sharing: &[Attachment],
        given: Option<DeviceName>,
    ) -> Result<(), AttachError> {
        let name = &network.name;
        if let Some(same) = sharing.iter().find(|other| other.workload.network == *name) {
            return Err(AttachError::Namespace(format!(
                "the namespace is in network {name} already, as workload {}; hint: detach that first",
                same.workload.name
            )));
        }
        for own in network.nets() {
            let is_own = |name: &str| given.is_some_and(|given| given.as_str() == name);
            let mut others = self.nets.iter().filter(|(interface, _)| !is_own(interface));
            if let Some((interface, net)) = others.find(|(_, net)| overlap(own, *net)) {
                return Err(AttachError::Namespace(format!(
                    "subnet {own} of network {name} overlaps {net} of interface {interface} in the namespace, \
                     which could not tell them apart"
                )));
            }
        }
        Ok(())
    }
}

/// Returns true if somebody has a socket at `address` in the calling thread's namespace, whatever its port: Docker's
/// resolver has one behind a port that its rules lead to.
pub(super) fn is_used(address: std::net::Ipv4Addr) -> io::Result<bool> {
    let [a, b, c, d] = address.octets();
    // As the kernel prints it: a number in the host's byte order.
    let local = format!("{:08X}:", u32::from_ne_bytes([a, b, c, d]));
    for table in ["udp", "tcp"] {
        let sockets = std::fs::read_to_string(format!("/proc/thread-self/net/{table}"))?;
        if sockets.lines().any(|line| line.split_whitespace().nth(1).is_some_and(|at| at.starts_with(&local)))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use sealane_proto::resource::Egress;
    use sealane_proto::types::Vni;

    use super::*;

    #[test]
    fn a_namespace_with_interfaces_of_its_own_has_free_seats() {
        let survey = Survey {
            interfaces: ["lo", "eth0", "sl0"].map(str::to_owned).into(),
            nets: [("eth0", "172.17.0.0/16"), ("eth0", "fd42:0:0:7::/64")]
                .map(|(name, net)| (name.to_owned(), net.parse().unwrap()))
                .into(),
        };
        let names: Vec<_> = survey.seats(&[], 2).iter().map(|seat| seat.interface().to_string()).collect();
        assert_eq!(names, ["sl1", "sl2"]);
        let check = |subnet: &str, subnet6: Option<&str>| {
            let network = Network {
                name: "shop".parse().unwrap(),
                hosts: Default::default(),
                subnet: subnet.parse().unwrap(),
                vni: Vni::FIRST,
                mtu: None,
                egress: Egress::Allow,
                subnet6: subnet6.map(|subnet6| subnet6.parse().unwrap()),
                mtls: None,
            };
            survey.check(&network, &[], None).map_err(|error| error.to_string())
        };
        let error = check("172.17.128.0/17", None).unwrap_err();
        assert!(error.contains("172.17.128.0/17 of network shop overlaps 172.17.0.0/16 of interface eth0"));
        let error = check("10.42.0.0/16", Some("fd42:0:0:7::/64")).unwrap_err();
        assert!(error.contains("fd42:0:0:7::/64 of network shop overlaps fd42:0:0:7::/64 of interface eth0"));
        assert_eq!(check("10.42.0.0/16", Some("fd42:0:0:8::/64")), Ok(()));
    }
}
