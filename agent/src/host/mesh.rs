//! The decisions: who may come, what is reported, what is acknowledged. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use sealane_proto::client::LinkReport;
use sealane_proto::resource::{Network, NetworkSnapshot, Node, Workload};
use sealane_proto::types::{Aliases, Generation, MacAddr, NetworkName, NodeName, OverlayIp, WorkloadName};

use super::{Outside, Spec};
use crate::attachment::{Hold, Reservation};
use crate::ipam::{Ipam, IpamError};
use crate::overlay::Local;
use crate::seat::Seat;
use crate::sidecar::Key;

/// Everything that this host knows.
#[derive(Debug)]
pub(crate) struct Mesh {
    node: Node,
    networks: BTreeMap<NetworkName, Carried>,
    hosted: BTreeMap<Key, Hosted>,
    /// Addresses that are kept for somebody.
    pub(super) reserved: BTreeMap<Hold, Reservation>,
    /// The instances outside every network that do not work, seen from here.
    pub(super) down: BTreeSet<Outside>,
    version: u64,
}

#[derive(Debug)]
struct Carried {
    snapshot: Arc<NetworkSnapshot>,
    ipam: Ipam,
    /// What the kernel and the names work by: the sequence of the newest [`super::Effective`], and of what.
    published: Option<(u64, Generation)>,
}

#[derive(Debug)]
struct Hosted {
    workload: Workload,
    seat: Seat,
    ending: bool,
    /// Whether its port goes, or is gone: none is made again.
    detached: bool,
    /// The sequences that its data planes work by; one that is not there is not waited for.
    applied: BTreeMap<DataPlane, u64>,
}

/// What of a workload must follow a change before it is acknowledged, beside the network's kernel state and names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DataPlane {
    /// Its sidecar.
    Sidecar,
    /// The rules of service addresses in its namespace.
    Rules,
}

/// Why a workload cannot be attached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AdmitError {
    /// Two networks that a workload could not tell apart.
    #[error(
        "network {network} ({subnet}) and network {other} ({taken}) overlap: a workload cannot be in both"
    )]
    Overlap {
        /// One of them.
        network: NetworkName,
        /// Its addresses.
        subnet: IpNet,
        /// The other.
        other: NetworkName,
        /// Its addresses.
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
        /// Where it is in use.
        node: NodeName,
    },
    /// The workload that has this name or address is just ending.
    #[error("workload {0} is still ending on this host")]
    Ending(Key),
    /// No address, or not that one.
    #[error("network {network}: {source}")]
    Address {
        /// The network.
        network: NetworkName,
        /// What is wrong.
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
        /// Whose block.
        owner: String,
        /// Whether it is for services, and no host's.
        of_services: bool,
    },
    /// The Ethernet address is taken.
    #[error("MAC address {mac} in network {network} is in use by {name}")]
    MacInUse {
        /// The Ethernet address.
        mac: MacAddr,
        /// The network.
        network: NetworkName,
        /// Who has it.
        name: String,
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

/// What a workload is reached by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) address: OverlayIp,
    pub(super) mac: MacAddr,
}

impl Mesh {
    /// A host that knows nothing yet.
    #[must_use]
    pub(crate) fn new(node: Node) -> Self {
        Self {
            node,
            networks: BTreeMap::new(),
            hosted: BTreeMap::new(),
            reserved: BTreeMap::new(),
            down: BTreeSet::new(),
            version: 0,
        }
    }

    /// This host.
    #[must_use]
    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// Takes a network's state. Returns whether it says anything new; older states of the same epoch do not.
    pub(crate) fn accept(&mut self, snapshot: NetworkSnapshot) -> bool {
        let name = snapshot.network.name.clone();
        let known = self.networks.get(&name);
        if known.is_some_and(|known| !snapshot.generation.replaces(known.snapshot.generation)) {
            return false;
        }
        let mut ipam = match self.networks.remove(&name) {
            Some(known) if known.snapshot.network.subnet == snapshot.network.subnet => known.ipam,
            _ => Ipam::new(snapshot.network.subnet),
        };
        let own = snapshot.blocks.iter().filter(|block| block.node.as_ref() == Some(&self.node.name));
        ipam.lease(own.map(|block| block.range));
        self.networks.insert(name, Carried { snapshot: Arc::new(snapshot), ipam, published: None });
        true
    }

    /// Forgets a network that is no more. Refused (false) while workloads of it run here.
    pub(crate) fn drop_network(&mut self, network: &NetworkName) -> bool {
        !self.uses(network) && self.networks.remove(network).is_some()
    }

    /// The networks that this host carries.
    #[must_use]
    pub(crate) fn networks(&self) -> Vec<NetworkName> {
        self.networks.keys().cloned().collect()
    }

    /// What control last said of the network.
    #[must_use]
    pub(crate) fn snapshot(&self, network: &NetworkName) -> Option<&NetworkSnapshot> {
        self.networks.get(network).map(|carried| carried.snapshot.as_ref())
    }

    /// What control last said of every network.
    #[must_use]
    pub(crate) fn carried(&self) -> sealane_proto::client::Carried {
        self.networks.iter().map(|(name, carried)| (name.clone(), carried.snapshot.clone())).collect()
    }

    /// Whether workloads of the network run here.
    #[must_use]
    pub(crate) fn uses(&self, network: &NetworkName) -> bool {
        self.hosted.keys().any(|key| key.network == *network)
    }

    /// This host's workloads in the network that are to have a port.
    #[must_use]
    pub(crate) fn attached(&self, network: &NetworkName) -> Vec<Local> {
        let attached = self.hosted_in(network).filter(|hosted| !hosted.detached);
        attached.map(|hosted| Local { workload: hosted.workload.clone(), seat: hosted.seat }).collect()
    }

    /// Those of the workloads `unattached` that were attached before; the others are still on their way.
    pub(crate) fn cut_off(&self, network: &NetworkName, unattached: &[WorkloadName]) -> Vec<String> {
        let attached_before =
            |hosted: &&Hosted| hosted.applied.contains_key(&DataPlane::Rules) && !hosted.ending;
        let known = self.hosted_in(network).filter(attached_before).map(|hosted| &hosted.workload.name);
        known.filter(|name| unattached.contains(name)).map(ToString::to_string).collect()
    }

    fn hosted_in(&self, network: &NetworkName) -> impl Iterator<Item = &Hosted> {
        let network = network.clone();
        self.hosted.iter().filter(move |(key, _)| key.network == network).map(|(_, hosted)| hosted)
    }

    /// Control's snapshot with this host's own workloads as they are now.
    #[must_use]
    pub(crate) fn effective(&self, network: &NetworkName) -> Option<NetworkSnapshot> {
        let mut snapshot = self.snapshot(network)?.clone();
        let mut local: Vec<Workload> =
            self.hosted_in(network).map(|hosted| hosted.workload.clone()).collect();
        if snapshot.drained.contains(&self.node.name) {
            local.iter_mut().filter(|own| own.service.is_some()).for_each(|own| own.ready = false);
        }
        snapshot
            .workloads
            .retain(|known| known.node != self.node.name && !local.iter().any(|own| own.name == known.name));
        snapshot.workloads.extend(local);
        snapshot.workloads.sort_by(|a, b| a.name.cmp(&b.name));
        self.leave_out(&mut snapshot);
        Some(snapshot)
    }

    /// Takes a new workload in, in each of these networks or in none.
    ///
    /// # Errors
    /// As [`Mesh::admit`], and when two of the networks overlap; nothing is changed then.
    pub(crate) fn admit_all(&mut self, specs: &[Spec], now: Instant) -> Result<Vec<Local>, AdmitError> {
        self.check_overlap(specs)?;
        let version = self.version;
        let mut admitted: Vec<Local> = Vec::new();
        for spec in specs {
            match self.admit(spec, now) {
                Ok(workload) => admitted.push(Local { workload, seat: spec.seat }),
                Err(error) => {
                    for local in &admitted {
                        self.hosted.remove(&Key::of(&local.workload));
                    }
                    self.version = version;
                    return Err(error);
                }
            }
        }
        Ok(admitted)
    }

    fn check_overlap(&self, specs: &[Spec]) -> Result<(), AdmitError> {
        let known = specs.iter().filter_map(|spec| self.snapshot(&spec.network));
        let nets = known.flat_map(|known| known.network.nets().map(|net| (&known.network.name, net)));
        let nets: Vec<(&NetworkName, IpNet)> = nets.collect();
        for (at, &(network, subnet)) in nets.iter().enumerate() {
            // Of two prefixes one contains the other, or they have nothing in common.
            let overlaps = |&&(other, taken): &&(&NetworkName, IpNet)| {
                other != network && (taken.contains(&subnet) || subnet.contains(&taken))
            };
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
    pub(crate) fn admit(&mut self, spec: &Spec, now: Instant) -> Result<Workload, AdmitError> {
        let key = Key { network: spec.network.clone(), workload: spec.name.clone() };
        self.check_name(&key)?;
        let (address, mac) = self.kept_for(spec)?;
        self.check_ending(&spec.network, address, mac)?;
        let Addresses { address, mac } =
            self.find_addresses(&spec.network, address, mac, spec.reserved.as_ref(), now)?;
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
            weight: spec.weight,
            aliases: spec.aliases.clone(),
        };
        self.host(Local { workload: workload.clone(), seat: spec.seat });
        Ok(workload)
    }

    /// Finds addresses in a network that nobody else has; those that `own` has reserved are nobody else's.
    ///
    /// # Errors
    /// When one that is asked for is taken, or there is none left.
    pub(super) fn find_addresses(
        &mut self,
        network: &NetworkName,
        address: Option<OverlayIp>,
        mac: Option<MacAddr>,
        own: Option<&Hold>,
        now: Instant,
    ) -> Result<Addresses, AdmitError> {
        let (used, taken_macs) = self.taken(network, own);
        let node = self.node.name.clone();
        let carried = self.networks.get_mut(network);
        let carried = carried.ok_or_else(|| AdmitError::UnknownNetwork(network.clone()))?;
        let no_address = |source| AdmitError::Address { network: network.clone(), source };
        let address = match address {
            Some(address) => {
                carried.ipam.claim(address, &used).map_err(no_address)?;
                carried.check_block(address, &node)?;
                address
            }
            None => carried.ipam.next(&used, now).map_err(no_address)?,
        };
        let mac = mac.unwrap_or_else(|| carried.snapshot.network.mac_of(address));
        if let Some(name) = taken_macs.get(&mac) {
            return Err(AdmitError::MacInUse { mac, network: network.clone(), name: name.clone() });
        }
        if let Some(owner) = carried.snapshot.network.address_of(mac).filter(|owner| *owner != address) {
            return Err(AdmitError::MacReserved { mac, network: network.clone(), address: owner });
        }
        Ok(Addresses { address, mac })
    }

    /// What was reserved is what it gets.
    fn kept_for(&self, spec: &Spec) -> Result<(Option<OverlayIp>, Option<MacAddr>), AdmitError> {
        let Some(hold) = &spec.reserved else { return Ok((spec.address, spec.mac)) };
        let kept = self.reserved.get(hold).filter(|kept| kept.network == spec.network);
        let kept = kept.ok_or_else(|| AdmitError::NotReserved(hold.clone(), spec.network.clone()))?;
        Ok((Some(kept.address), Some(kept.mac)))
    }

    /// The network's own addresses rest after this one, which nobody has any more.
    pub(super) fn rest_address(&mut self, network: &NetworkName, address: OverlayIp, now: Instant) {
        if let Some(carried) = self.networks.get_mut(network) {
            carried.ipam.release(address, now);
        }
    }

    /// Takes in a workload that has its addresses already: one that ran before this agent did.
    pub(crate) fn host(&mut self, local: Local) {
        let Local { workload, seat } = local;
        let key = Key::of(&workload);
        let hosted = Hosted { workload, seat, ending: false, detached: false, applied: BTreeMap::new() };
        self.hosted.insert(key, hosted);
        self.version += 1;
    }

    /// Sets whether calls may be sent to the workload; returns the new workload when that is news.
    pub(crate) fn set_ready(&mut self, key: &Key, ready: bool) -> Option<Workload> {
        let hosted = self.hosted.get_mut(key)?;
        let ready = ready && !hosted.ending;
        if hosted.workload.ready == ready {
            return None;
        }
        hosted.workload.ready = ready;
        self.version += 1;
        Some(hosted.workload.clone())
    }

    /// The workload has these further names from now on; returns it as it is then, when that is news.
    pub(crate) fn name_anew(&mut self, key: &Key, aliases: &Aliases) -> Option<Workload> {
        let hosted = self.hosted.get_mut(key).filter(|hosted| hosted.workload.aliases != *aliases)?;
        hosted.workload.aliases = aliases.clone();
        self.version += 1;
        Some(hosted.workload.clone())
    }

    /// The workload gets no new calls any more.
    pub(crate) fn end(&mut self, key: &Key) {
        self.set_ready(key, false);
        if let Some(hosted) = self.hosted.get_mut(key) {
            hosted.ending = true;
        }
    }

    /// The workload's port goes before its namespace does; until it is gone altogether, its address stays its own.
    pub(crate) fn detach(&mut self, key: &Key) {
        if let Some(hosted) = self.hosted.get_mut(key) {
            hosted.detached = true;
        }
    }

    /// The workload is gone; its address rests.
    pub(crate) fn remove(&mut self, key: &Key, now: Instant) {
        if let Some(hosted) = self.hosted.remove(key) {
            self.version += 1;
            if let Some(carried) = self.networks.get_mut(&key.network) {
                carried.ipam.release(hosted.workload.address, now);
            }
        }
    }

    /// A data plane of the workload works by this sequence; `None`: it is not there, and nobody waits for it.
    pub(crate) fn set_applied(&mut self, key: &Key, plane: DataPlane, sequence: Option<u64>) {
        if let Some(hosted) = self.hosted.get_mut(key) {
            match sequence {
                Some(sequence) => hosted.applied.insert(plane, sequence),
                None => hosted.applied.remove(&plane),
            };
        }
    }

    /// Kernel and names work by this sequence of the network.
    pub(crate) fn set_published(&mut self, network: &NetworkName, sequence: u64) {
        if let Some(carried) = self.networks.get_mut(network) {
            carried.published = Some((sequence, carried.snapshot.generation));
        }
    }

    /// What control knows of this host may be told to it again.
    pub(crate) fn tell_anew(&mut self) {
        self.version += 1;
    }

    /// Counts the changes that control should hear of.
    #[must_use]
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// What control should know of this host.
    #[must_use]
    pub(crate) fn report(&self) -> LinkReport {
        let workloads = self.hosted.values().map(|hosted| hosted.workload.clone()).collect();
        LinkReport { version: self.version, workloads }
    }

    /// The generation per network that every data plane of this host works by.
    #[must_use]
    pub(crate) fn applied(&self) -> BTreeMap<NetworkName, Generation> {
        let applied = self.networks.iter().filter_map(|(name, carried)| {
            let (sequence, generation) = carried.published?;
            let hosted = self.hosted.iter().filter(|(key, _)| key.network == *name);
            let mut planes = hosted.flat_map(|(_, hosted)| hosted.applied.values());
            planes.all(|applied| *applied >= sequence).then(|| (name.clone(), generation))
        });
        applied.collect()
    }

    fn check_name(&self, key: &Key) -> Result<(), AdmitError> {
        let in_use = |node: &NodeName| AdmitError::NameInUse {
            name: key.workload.clone(),
            network: key.network.clone(),
            node: node.clone(),
        };
        if let Some(hosted) = self.hosted.get(key) {
            return Err(if hosted.ending {
                AdmitError::Ending(key.clone())
            } else {
                in_use(&self.node.name)
            });
        }
        let known = self.snapshot(&key.network).into_iter().flat_map(|snapshot| &snapshot.workloads);
        let other =
            known.filter(|known| known.node != self.node.name).find(|known| known.name == key.workload);
        other.map_or(Ok(()), |other| Err(in_use(&other.node)))
    }

    /// What is asked for by name may still be in the hands of one that is about to let go of it.
    fn check_ending(
        &self,
        network: &NetworkName,
        address: Option<OverlayIp>,
        mac: Option<MacAddr>,
    ) -> Result<(), AdmitError> {
        let holds = |hosted: &Hosted| {
            let workload = &hosted.workload;
            address == Some(workload.address) || mac == Some(workload.mac)
        };
        let mut ending = self.hosted.iter().filter(|(key, hosted)| hosted.ending && key.network == *network);
        let holder = ending.find(|(_, hosted)| holds(hosted));
        holder.map_or(Ok(()), |(key, _)| Err(AdmitError::Ending(key.clone())))
    }

    /// The addresses and Ethernet addresses that are taken in the network, as far as this host knows.
    fn taken(
        &self,
        network: &NetworkName,
        own: Option<&Hold>,
    ) -> (BTreeSet<OverlayIp>, BTreeMap<MacAddr, String>) {
        let Some(effective) = self.effective(network) else {
            return Default::default();
        };
        let vips = effective.services.iter().map(|service| service.vip);
        let kept: Vec<&Reservation> = self
            .reserved
            .values()
            .filter(|kept| kept.network == *network && Some(&kept.hold) != own)
            .collect();
        let reserved = kept.iter().map(|kept| kept.address);
        let used =
            effective.workloads.iter().map(|known| known.address).chain(vips).chain(reserved).collect();
        let of_reserved = kept.iter().map(|kept| (kept.mac, kept.hold.to_string()));
        let macs = effective.workloads.iter().map(|known| (known.mac, format!("workload {}", known.name)));
        (used, of_reserved.chain(macs).collect())
    }
}

impl Carried {
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

#[cfg(test)]
mod tests;
