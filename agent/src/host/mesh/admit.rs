//! New workloads: who may come, and which name and addresses they get. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Instant;

use ipnet::IpNet;
use sealane_proto::resource::Workload;
use sealane_proto::types::{
    Finding, MacAddr, NetworkName, NodeName, OverlayIp, ServiceName, WorkloadName, overlap,
};

use super::{CarriedNetwork, HostedAttachment, Mesh};
use crate::attachment::{Attachment, AttachmentId, AttachmentSpec, Hold, Reservation};
use crate::ipam::{IpamError, Tenant};

/// Reasons for which a workload cannot be attached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AdmitError {
    /// Two networks that a workload could not tell apart.
    #[error(
        "network {network} ({subnet}) and network {other} ({taken}) overlap: a workload cannot be in both"
    )]
    Overlap {
        /// Network that has them.
        network: NetworkName,
        /// Addresses of the network.
        subnet: IpNet,
        /// The other.
        other: NetworkName,
        /// Addresses that are taken.
        taken: IpNet,
    },
    /// This host does not carry the network.
    #[error("network {0} is not carried by this host")]
    UnknownNetwork(NetworkName),
    /// The name is taken.
    #[error("workload name {name} in network {network} is in use on {node}; hint: choose another one")]
    NameInUse {
        /// The name.
        name: WorkloadName,
        /// The network.
        network: NetworkName,
        /// Host on which it is in use.
        node: NodeName,
    },
    /// The address is taken.
    #[error("address {address} in network {network} is in use by {holder}; hint: choose another one, {}", holder.way_out())]
    AddressInUse {
        /// The address.
        address: OverlayIp,
        /// The network.
        network: NetworkName,
        /// Owner of the address.
        holder: Holder,
    },
    /// The workload that has this name or address is just ending.
    #[error("workload {0} is still ending on this host")]
    Ending(AttachmentId),
    /// No address, or not that one.
    #[error("network {network}: {source}")]
    Address {
        /// The network.
        network: NetworkName,
        /// Fault of the address.
        source: IpamError,
    },
    /// The address is another host's to give.
    #[error(
        "address {address} in network {network} belongs to the block of {owner}; hint: choose one outside every block{}",
        if *.of_services { "" } else { ", or run it there" }
    )]
    ForeignBlock {
        /// The address.
        address: OverlayIp,
        /// The network.
        network: NetworkName,
        /// Owner of the block.
        owner: String,
        /// True if it is for services, and no host's.
        of_services: bool,
    },
    /// The Ethernet address is taken.
    #[error("MAC address {mac} in network {network} is in use by {holder}; hint: choose another one, {}", holder.way_out())]
    MacInUse {
        /// The Ethernet address.
        mac: MacAddr,
        /// The network.
        network: NetworkName,
        /// Owner of the address.
        holder: Holder,
    },
    /// Nothing is reserved by that name.
    #[error("{0} has reserved no address in network {1}")]
    NotReserved(Hold, NetworkName),
    /// The Ethernet address goes with another address.
    #[error(
        "MAC address {mac} in network {network} goes with address {address}; hint: choose another, or none at all"
    )]
    MacReserved {
        /// The Ethernet address.
        mac: MacAddr,
        /// The network.
        network: NetworkName,
        /// The gateway's, a workload's, or one that a workload may get.
        address: OverlayIp,
    },
}

/// Owner of an address that somebody else asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A workload on a host.
    Workload(WorkloadName, NodeName),
    /// A service, whose address it is.
    Service(ServiceName),
    /// A runtime for which the address is reserved on this host.
    Reserved(Hold),
    /// A host itself.
    Host(NodeName),
}

impl Holder {
    /// Says what ends the hold, as the second half of a hint.
    fn way_out(&self) -> String {
        match self {
            Self::Workload(name, node) => format!("or end workload {name} on {node} first"),
            Self::Service(_) => "outside the addresses of services".to_owned(),
            Self::Reserved(hold) => format!("or `sealane detach --holder {hold}` if its container is gone"),
            Self::Host(_) => "or none at all".to_owned(),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(name, node) => write!(f, "workload {name} on {node}"),
            Self::Service(name) => write!(f, "service {name}"),
            Self::Reserved(hold) => write!(f, "{hold}, for which it is reserved on this host"),
            Self::Host(node) => write!(f, "host {node} itself"),
        }
    }
}

/// Addresses that a workload is reached by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host) struct Addresses {
    pub(in crate::host) address: OverlayIp,
    pub(in crate::host) mac: MacAddr,
}

impl Mesh {
    /// Takes a new workload in, in each of these networks or in none.
    ///
    /// # Errors
    /// As [`Mesh::admit`], and when two of the networks overlap; nothing is changed then.
    pub(crate) fn admit_all(
        &mut self,
        specs: &[AttachmentSpec],
        now: Instant,
    ) -> Result<Vec<Attachment>, AdmitError> {
        self.check_overlap(specs)?;
        let version = self.version;
        let mut admitted: Vec<Attachment> = Vec::new();
        for spec in specs {
            match self.admit(spec, now) {
                Ok(workload) => admitted.push(Attachment { workload, seat: spec.seat, ending: false }),
                Err(error) => {
                    for attachment in &admitted {
                        self.hosted.remove(&attachment.id());
                    }
                    self.version = version;
                    return Err(error);
                }
            }
        }
        Ok(admitted)
    }

    fn check_overlap(&self, specs: &[AttachmentSpec]) -> Result<(), AdmitError> {
        let known = specs.iter().filter_map(|spec| self.snapshot(&spec.network));
        let nets = known.flat_map(|known| known.network.nets().map(|net| (&known.network.name, net)));
        let nets: Vec<(&NetworkName, IpNet)> = nets.collect();
        for (at, &(network, subnet)) in nets.iter().enumerate() {
            let overlaps =
                |&&(other, taken): &&(&NetworkName, IpNet)| other != network && overlap(taken, subnet);
            if let Some(&(other, taken)) = nets[..at].iter().find(overlaps) {
                let (network, other) = (network.clone(), other.clone());
                return Err(AdmitError::Overlap { network, subnet, other, taken });
            }
        }
        Ok(())
    }

    /// Finds name and addresses for a new workload and takes it in, not ready yet.
    ///
    /// # Errors
    /// When name or address are taken; nothing is changed then.
    pub(crate) fn admit(&mut self, spec: &AttachmentSpec, now: Instant) -> Result<Workload, AdmitError> {
        let id = AttachmentId { network: spec.network.clone(), workload: spec.name.clone() };
        self.check_name(&id)?;
        let (address, mac) = self.kept_for(spec)?;
        self.check_ending(&spec.network, address, mac)?;
        let tenant = Tenant { name: spec.name.clone(), service: spec.service.clone() };
        let own = spec.reserved.as_ref();
        let Addresses { address, mac } =
            self.find_addresses(&spec.network, (address, mac), own, Some(&tenant), now)?;
        let node = self.node.name.clone();
        let workload = Workload {
            name: spec.name.clone(),
            network: spec.network.clone(),
            node,
            address,
            mac,
            service: spec.service.clone(),
            ports: spec.ports.clone(),
            sidecar: spec.sidecar,
            ready: false,
            ready6: false,
            weight: spec.weight,
            aliases: spec.aliases.clone(),
            finding: Finding::default(),
        };
        self.host(Attachment { workload: workload.clone(), seat: spec.seat, ending: false });
        Ok(workload)
    }

    /// Finds addresses for `tenant` in a network that nobody else has; those that `own` has reserved are nobody else's.
    ///
    /// # Errors
    /// When one that is asked for is taken, or there is none left.
    pub(in crate::host) fn find_addresses(
        &mut self,
        network: &NetworkName,
        (address, mac): (Option<OverlayIp>, Option<MacAddr>),
        own: Option<&Hold>,
        tenant: Option<&Tenant>,
        now: Instant,
    ) -> Result<Addresses, AdmitError> {
        let (used, taken_macs) = self.taken(network, own);
        let node = self.node.name.clone();
        let carried = self.networks.get_mut(network);
        let carried = carried.ok_or_else(|| AdmitError::UnknownNetwork(network.clone()))?;
        let no_address = |source| AdmitError::Address { network: network.clone(), source };
        let address = match address {
            Some(address) => {
                match carried.ipam.claim(address, &used) {
                    Err(IpamError::InUse(_)) => {
                        let holder = self.holder_of(network, (Some(address), None), own);
                        return Err(AdmitError::AddressInUse { address, network: network.clone(), holder });
                    }
                    claimed => claimed.map_err(no_address)?,
                }
                carried.check_block(address, &node)?;
                address
            }
            None => carried.ipam.next(&used, tenant, now).map_err(no_address)?,
        };
        let mac = mac.unwrap_or_else(|| carried.snapshot.network.mac_of(address));
        if taken_macs.contains(&mac) {
            let holder = self.holder_of(network, (None, Some(mac)), own);
            return Err(AdmitError::MacInUse { mac, network: network.clone(), holder });
        }
        if let Some(owner) = carried.snapshot.network.address_of(mac).filter(|owner| *owner != address) {
            return Err(AdmitError::MacReserved { mac, network: network.clone(), address: owner });
        }
        Ok(Addresses { address, mac })
    }

    /// Returns the reserved addresses, which are what it gets.
    fn kept_for(&self, spec: &AttachmentSpec) -> Result<(Option<OverlayIp>, Option<MacAddr>), AdmitError> {
        let Some(hold) = &spec.reserved else { return Ok((spec.address, spec.mac)) };
        let kept = self.reserved.get(hold).filter(|kept| kept.network == spec.network);
        let kept = kept.ok_or_else(|| AdmitError::NotReserved(hold.clone(), spec.network.clone()))?;
        Ok((Some(kept.address), Some(kept.mac)))
    }

    fn check_name(&self, id: &AttachmentId) -> Result<(), AdmitError> {
        let in_use = |node: &NodeName| AdmitError::NameInUse {
            name: id.workload.clone(),
            network: id.network.clone(),
            node: node.clone(),
        };
        if let Some(hosted) = self.hosted.get(id) {
            return Err(if hosted.ending { AdmitError::Ending(id.clone()) } else { in_use(&self.node.name) });
        }
        let known = self.overlaid(&id.network);
        let mut known = known.iter().flat_map(|known| &known.workloads);
        let other = known.find(|known| known.name == id.workload && known.node != self.node.name);
        other.map_or(Ok(()), |other| Err(in_use(&other.node)))
    }

    /// Checks that no object that is asked for by name is still in the hands of one that is about to let go of it.
    fn check_ending(
        &self,
        network: &NetworkName,
        address: Option<OverlayIp>,
        mac: Option<MacAddr>,
    ) -> Result<(), AdmitError> {
        let holds = |hosted: &HostedAttachment| {
            let workload = &hosted.workload;
            address == Some(workload.address) || mac == Some(workload.mac)
        };
        let mut ending = self.hosted.iter().filter(|(id, hosted)| hosted.ending && id.network == *network);
        let holder = ending.find(|(_, hosted)| holds(hosted));
        holder.map_or(Ok(()), |(id, _)| Err(AdmitError::Ending(id.clone())))
    }

    /// Finds the owner of an address, or of an Ethernet address, that is taken.
    fn holder_of(
        &self,
        network: &NetworkName,
        (address, mac): (Option<OverlayIp>, Option<MacAddr>),
        own: Option<&Hold>,
    ) -> Holder {
        let is_it = |its: OverlayIp, its_mac: MacAddr| address == Some(its) || mac == Some(its_mac);
        let overlaid = self.overlaid(network);
        let overlaid = overlaid.as_ref();
        let mut workloads = overlaid.into_iter().flat_map(|known| &known.workloads);
        let mut services = overlaid.into_iter().flat_map(|known| &known.services);
        let mut reserved = self.reserved_in(network, own);
        if let Some(workload) = workloads.find(|known| is_it(known.address, known.mac)) {
            Holder::Workload(workload.shown(), workload.node.clone())
        } else if let Some(service) = services.find(|known| address == Some(known.vip)) {
            Holder::Service(service.name.clone())
        } else if let Some(kept) = reserved.find(|kept| is_it(kept.address, kept.mac)) {
            Holder::Reserved(kept.hold.clone())
        } else {
            Holder::Host(self.node.name.clone())
        }
    }

    /// The addresses and Ethernet addresses that are taken in the network, as far as this host knows.
    fn taken(&self, network: &NetworkName, own: Option<&Hold>) -> (BTreeSet<OverlayIp>, BTreeSet<MacAddr>) {
        let Some(overlaid) = self.overlaid(network) else {
            return Default::default();
        };
        let vips = overlaid.services.iter().map(|service| service.vip);
        let reserved = self.reserved_in(network, own).map(|kept| kept.address);
        let used = overlaid.workloads.iter().map(|known| known.address).chain(vips).chain(reserved).collect();
        let reserved = self.reserved_in(network, own).map(|kept| kept.mac);
        (used, overlaid.workloads.iter().map(|known| known.mac).chain(reserved).collect())
    }

    /// The reservations of the network but `own`.
    fn reserved_in(&self, network: &NetworkName, own: Option<&Hold>) -> impl Iterator<Item = &Reservation> {
        self.reserved.values().filter(move |kept| kept.network == *network && Some(&kept.hold) != own)
    }
}

impl CarriedNetwork {
    fn check_block(&self, address: OverlayIp, node: &NodeName) -> Result<(), AdmitError> {
        let block = self.snapshot.blocks.iter().find(|block| block.range.contains(&address.to_ipv4()));
        match block {
            Some(block) if block.node.as_ref() != Some(node) => Err(AdmitError::ForeignBlock {
                address,
                network: self.snapshot.network.name.clone(),
                owner: block
                    .node
                    .as_ref()
                    .map_or_else(|| "service addresses".to_owned(), ToString::to_string),
                of_services: block.node.is_none(),
            }),
            Some(_) | None => Ok(()),
        }
    }
}
