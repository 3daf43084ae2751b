//! Draft of a network after a report: other hosts' objects stay, the reporter's are replaced.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use sealane_proto::resource::{Block, External, Service, Workload};
use sealane_proto::types::{MacAddr, NodeName, OverlayIp, ServiceName, ServicePort, WorkloadName};

use super::ports::Ports;
use super::{AddressRefusal, WorkloadRefusal, bounds};
use crate::core::declare::agree;
use crate::core::vip::{self, NoServiceAddress};
use crate::core::{Change, Idle, NetworkState, State, Timestamp, hosts, ipam, room};

/// The future of one network, workload by workload.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    state: &'a State,
    network: &'a NetworkState,
    node: &'a NodeName,
    /// The blocks that nobody holds in which the reporter may have workloads: they count as its own.
    room: BTreeSet<Ipv4Net>,
    /// The load of the admitted workloads, as [`bounds::load`] counts it.
    load: usize,
    /// The reporter's workloads that are admitted.
    accepted: BTreeMap<WorkloadName, Workload>,
    addresses: BTreeMap<OverlayIp, WorkloadName>,
    /// The addresses that the report names, admitted or not: no service gets the block of one. What the reporter
    /// had before does not count, so that the same report leads to the same network whatever was there.
    named: BTreeSet<OverlayIp>,
    macs: BTreeMap<MacAddr, WorkloadName>,
    /// The number of services that the reporter has left without instances, and that the report does not name.
    left: usize,
    instances: BTreeMap<ServiceName, BTreeSet<WorkloadName>>,
    /// Services that the report makes, with their addresses.
    vips: BTreeMap<ServiceName, OverlayIp>,
    /// Blocks that their addresses are from, where the network's own did not suffice.
    blocks: Vec<Ipv4Net>,
    /// No address is left for one more service: nothing else that the report makes changes that.
    is_full: bool,
}

impl<'a> Draft<'a> {
    pub(super) fn new(state: &'a State, network: &'a NetworkState, node: &'a NodeName) -> Self {
        Self {
            state,
            network,
            node,
            room: BTreeSet::new(),
            load: 0,
            accepted: BTreeMap::new(),
            addresses: BTreeMap::new(),
            named: BTreeSet::new(),
            macs: BTreeMap::new(),
            left: 0,
            instances: BTreeMap::new(),
            vips: BTreeMap::new(),
            blocks: vec![],
            is_full: false,
        }
    }

    /// The order of admission: what is known at its address already goes before what wants to take it.
    pub(super) fn order(&mut self, mut workloads: Vec<Workload>) -> Vec<Workload> {
        self.named.extend(workloads.iter().map(|workload| workload.address));
        let wanted: BTreeSet<&ServiceName> =
            workloads.iter().filter_map(|workload| workload.service.as_ref()).collect();
        self.left = self.network.idle_of(self.node).filter(|name| !wanted.contains(name)).count();
        self.room = room::of(self.state, self.network, self.node, &self.named);
        workloads.sort_by_key(|workload| match self.network.workloads.get(&workload.name) {
            Some(known) if known == workload => 0,
            Some(known) if known.address == workload.address => 1,
            Some(_) | None => 2,
        });
        workloads
    }

    /// Admits a workload, or says why not.
    pub(super) fn admit(&mut self, workload: Workload) -> Result<(), WorkloadRefusal> {
        let load = self.load + bounds::load(&workload);
        // What is as it was keeps every rule already: others are measured against it.
        if self.network.workloads.get(&workload.name) != Some(&workload) {
            self.check_place(&workload)?;
            bounds::check(&workload)?;
            self.check_address(workload.address)?;
            self.check_mac(&workload)?;
            self.check_ports(&workload)?;
            bounds::check_all(&workload, self.accepted.len() + 1, load)?;
        } else if self.accepted.contains_key(&workload.name) {
            return Err(self.name_in_use(&workload.name, self.node));
        }
        if let Some(service) = &workload.service {
            self.ensure_service(service)?;
            self.instances.entry(service.clone()).or_default().insert(workload.name.clone());
        }
        self.load = load;
        self.addresses.insert(workload.address, workload.name.clone());
        self.macs.insert(workload.mac, workload.name.clone());
        self.accepted.insert(workload.name.clone(), workload);
        Ok(())
    }

    /// Computes the changes that lead from the network as it is to the draft: removals first, then blocks, services,
    /// workloads.
    pub(super) fn changes(self, now: Timestamp) -> Vec<Change> {
        let network = &self.network.network.name;
        let gone = self.network.workloads_of(self.node);
        let gone = gone.filter(|workload| !self.accepted.contains_key(&workload.name));
        let mut changes: Vec<Change> =
            gone.map(|workload| Change::remove_in::<Workload>(network, workload.name.clone())).collect();
        let leased = self.blocks.iter();
        changes.extend(leased.map(|&range| Change::put_in(network, Block { node: None, range })));
        changes.extend(self.services().map(|service| Change::put_in(network, service)));
        let known = |workload: &Workload| self.network.workloads.get(&workload.name) == Some(workload);
        let new = self.accepted.values().filter(|workload| !known(workload));
        changes.extend(new.map(|workload| Change::put_in(network, workload.clone())));
        changes.extend(self.idle(now));
        changes
    }

    /// Notes which services have lost their last instance, and which have one again.
    fn idle(&self, now: Timestamp) -> Vec<Change> {
        let network = self.network;
        let name = &network.network.name;
        let is_ready = |instance: &WorkloadName| self.accepted.get(instance).is_some_and(|one| one.ready);
        let again = self.instances.iter().filter(|(service, instances)| {
            let note = network.idle.get(*service);
            note.is_some_and(|note| !note.fresh || instances.iter().any(is_ready))
        });
        let again = again.map(|(service, _)| Change::remove_in::<Idle>(name, service.clone()));
        let before = network.workloads_of(self.node).filter_map(|workload| workload.service.as_ref());
        let left: BTreeSet<&ServiceName> =
            before.filter(|service| !self.instances.contains_key(*service)).collect();
        let left = left.into_iter().filter(|service| network.is_idle(service, Some(self.node)));
        let put = |service: &ServiceName, fresh: bool| {
            let by = Some(self.node.clone());
            Change::put_in(name, Idle { service: service.clone(), since: now, by, fresh })
        };
        let left = left.flat_map(|service| match network.ends_at_once(service) {
            true => network.end(service, now),
            false => vec![put(service, false)],
        });
        let new = self.vips.keys().filter(|service| {
            let mut instances = self.instances.get(*service).into_iter().flatten();
            !instances.any(is_ready)
        });
        again.chain(left).chain(new.map(|service| put(service, true))).collect()
    }

    fn check_place(&self, workload: &Workload) -> Result<(), WorkloadRefusal> {
        if workload.node != *self.node {
            let (reporter, node) = (self.node.clone(), workload.node.clone());
            return Err(WorkloadRefusal::OtherNode { reporter, node });
        }
        if let Some(service) = &workload.service {
            hosts::check_service(self.network, service, self.node)?;
        }
        if !self.network.carried_by(self.node) {
            let network = self.network.network.name.clone();
            return Err(WorkloadRefusal::NotCarried { node: self.node.clone(), network });
        }
        if self.accepted.contains_key(&workload.name) {
            return Err(self.name_in_use(&workload.name, self.node));
        }
        match self.network.workloads.get(&workload.name) {
            Some(other) if other.node != *self.node => Err(self.name_in_use(&workload.name, &other.node)),
            Some(_) | None => Ok(()),
        }
    }

    fn name_in_use(&self, workload: &WorkloadName, node: &NodeName) -> WorkloadRefusal {
        WorkloadRefusal::NameInUse {
            workload: workload.clone(),
            network: self.network.network.name.clone(),
            node: node.clone(),
        }
    }

    fn check_address(&self, address: OverlayIp) -> Result<(), AddressRefusal> {
        let (subnet, network) = (self.network.network.subnet, &self.network.network.name);
        if !subnet.contains(address) {
            return Err(AddressRefusal::Outside { address, subnet, network: network.clone() });
        }
        if !ipam::is_assignable(subnet, address) {
            return Err(AddressRefusal::Reserved { address, subnet });
        }
        let drafted = self.blocks.iter().copied().find(|block| block.contains(&address.to_ipv4()));
        match self.network.holder(address).map(|block| (block.range, &block.node)) {
            Some((block, Some(node))) if node != self.node => {
                return Err(AddressRefusal::OtherBlock { address, block, node: node.clone() });
            }
            Some((_, Some(_))) => {}
            Some((block, None)) => return Err(AddressRefusal::ServiceBlock { address, block }),
            None => {
                if let Some(block) = drafted {
                    return Err(AddressRefusal::ServiceBlock { address, block });
                }
                // Then it is never leased to another host.
                let block = ipam::cell_of(subnet, address);
                if !self.room.contains(&block) {
                    let (node, network) = (self.node.clone(), network.clone());
                    return Err(AddressRefusal::NoRoom { address, block, node, network });
                }
            }
        }
        if let Some(range) = self.network.resting_at(address) {
            return Err(AddressRefusal::Resting { address, range });
        }
        let foreign = self.network.at(address).filter(|workload| workload.node != *self.node);
        match self.addresses.get(&address).or(foreign.map(|workload| &workload.name)) {
            Some(holder) => {
                Err(AddressRefusal::InUse { address, network: network.clone(), holder: holder.clone() })
            }
            None => Ok(()),
        }
    }

    fn check_mac(&self, workload: &Workload) -> Result<(), WorkloadRefusal> {
        let (mac, network) = (workload.mac, &self.network.network);
        let stored =
            self.network.workloads.index().macs.get(&mac).and_then(|name| self.network.workloads.get(name));
        let foreign = stored.filter(|workload| workload.node != *self.node);
        if let Some(holder) = self.macs.get(&mac).or(foreign.map(|workload| &workload.name)) {
            let network = network.name.clone();
            return Err(WorkloadRefusal::MacInUse { mac, network, holder: holder.clone() });
        }
        let known = self.network.workloads.get(&workload.name).is_some_and(|known| known.mac == mac);
        match network.address_of(mac) {
            Some(address) if address != workload.address && !known => {
                Err(WorkloadRefusal::MacReserved { mac, network: network.name.clone(), address })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_ports(&self, workload: &Workload) -> Result<(), WorkloadRefusal> {
        let Some(service) = &workload.service else {
            let without = || WorkloadRefusal::PortsWithoutService(workload.name.clone());
            return if workload.ports.is_empty() { Ok(()) } else { Err(without()) };
        };
        if let Some(declared) = self.network.services.get(service).filter(|service| service.declared) {
            return self.check_declared(workload, declared);
        }
        let mut ports = self.ports_of(service);
        ports.add(&workload.ports).map_err(|conflict| WorkloadRefusal::Protocol {
            port: conflict.port,
            service: service.clone(),
            network: self.network.network.name.clone(),
            spoken: conflict.spoken,
            offered: conflict.offered,
        })?;
        bounds::check_service(workload, service, ports.len())
    }

    /// A document says which ports a service has. What was admitted before its ports were withdrawn stays.
    fn check_declared(&self, workload: &Workload, declared: &Service) -> Result<(), WorkloadRefusal> {
        let known = self.network.workloads.get(&workload.name);
        if known.is_some_and(|known| known.service == workload.service && known.ports == workload.ports) {
            return Ok(());
        }
        let (service, network) = (declared.name.clone(), self.network.network.name.clone());
        for port in &workload.ports {
            self.check_mtls(port, declared)?;
            let known = declared.ports.iter().find(|known| known.key() == port.key());
            let offered = port.protocol;
            match known.map(|known| known.protocol) {
                Some(spoken) if agree(spoken, offered) => {}
                Some(spoken) => {
                    let port = port.port;
                    return Err(WorkloadRefusal::Protocol { port, service, network, spoken, offered });
                }
                None => {
                    let declared: Vec<String> = declared.ports.iter().map(ToString::to_string).collect();
                    let (port, declared) = (port.clone(), declared.join(", "));
                    return Err(WorkloadRefusal::Undeclared { port, service, network, declared });
                }
            }
        }
        Ok(())
    }

    fn check_mtls(&self, offered: &ServicePort, declared: &Service) -> Result<(), WorkloadRefusal> {
        let network = &self.network.network;
        let known = declared.port_mtls_in(network, offered.key());
        match offered.mtls {
            Some(asked) if asked != known => Err(WorkloadRefusal::Mtls {
                port: offered.port,
                service: declared.name.clone(),
                network: network.name.clone(),
                declared: known,
                asked,
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// The ports of a service's instances so far: other hosts' and those admitted.
    fn ports_of(&self, service: &ServiceName) -> Ports {
        let mut instances: BTreeMap<&WorkloadName, &Workload> = BTreeMap::new();
        let foreign = self.network.instances_of(service).filter(|workload| workload.node != *self.node);
        instances.extend(foreign.map(|workload| (&workload.name, workload)));
        let own = self.instances.get(service).into_iter().flatten();
        instances.extend(own.filter_map(|name| self.accepted.get_key_value(name)));
        let mut ports = Ports::default();
        for workload in instances.values() {
            // Each was measured against the others when it came.
            let _ = ports.add(&workload.ports);
        }
        ports
    }

    /// Gives a new service its address.
    fn ensure_service(&mut self, service: &ServiceName) -> Result<(), WorkloadRefusal> {
        if self.network.services.contains_key(service) || self.vips.contains_key(service) {
            return Ok(());
        }
        if self.left >= self.network.most_idle() {
            let (service, network) = (service.clone(), self.network.network.name.clone());
            let (node, left) = (self.node.clone(), self.left);
            return Err(WorkloadRefusal::ServicesLeft { service, network, node, left });
        }
        let vip = if self.is_full { None } else { self.next_vip() };
        self.is_full = vip.is_none();
        let vip = vip.ok_or_else(|| NoServiceAddress::new(self.network, service))?;
        self.vips.insert(service.clone(), vip);
        Ok(())
    }

    /// The next free service address, from one more block when those there are full.
    fn next_vip(&mut self) -> Option<OverlayIp> {
        let subnet = self.network.network.subnet;
        let stored = self.network.services.values().map(|service| service.vip);
        let taken: BTreeSet<OverlayIp> = stored.chain(self.vips.values().copied()).collect();
        let own = self.network.blocks.index().own();
        let held: Vec<Ipv4Net> = own.rev().chain(self.blocks.iter().copied()).collect();
        let unusable = |address| taken.contains(&address) || self.network.resting_at(address).is_some();
        // The first one is everybody's; further ones are not taken from hosts that have none.
        let has_one = !held.is_empty();
        let find = |most: usize| self.free_block(if has_one { most.min(self.spare()) } else { most });
        let (vip, block) = vip::free(subnet, &held, unusable, find)?;
        self.blocks.extend(block);
        Some(vip)
    }

    /// The number of addresses that are not kept for hosts that have none.
    fn spare(&self) -> usize {
        let own = self.room.iter().chain(&self.blocks).copied();
        let free = room::taken(self.network, self.node, own).free();
        free.saturating_sub(room::kept(self.state, self.network))
    }

    /// A block for services, of at most so many addresses.
    fn free_block(&self, most: usize) -> Option<Ipv4Net> {
        let network = self.network;
        let named = self.named.iter().filter(|&&address| network.network.subnet.contains(address));
        let named = named.map(|&address| ipam::cell_of(network.network.subnet, address));
        let resting = network.resting.keys().copied();
        let own = resting.chain(self.blocks.iter().copied()).chain(named);
        room::taken(network, self.node, own).find(most, ipam::End::Top)
    }

    /// Services that are new or have other ports than before. Without instances, the last ports stay.
    fn services(&self) -> impl Iterator<Item = Service> {
        let before = self.network.workloads_of(self.node).filter_map(|workload| workload.service.as_ref());
        let concerned: BTreeSet<&ServiceName> = before.chain(self.instances.keys()).collect();
        concerned.into_iter().filter_map(|name| {
            let ports = self.ports_of(name).into_vec();
            match (self.network.services.get(name), self.vips.get(name)) {
                (Some(known), _) if known.declared || ports.is_empty() || known.ports == ports => None,
                (Some(known), _) => Some(Service { ports, ..known.clone() }),
                (None, Some(&vip)) => Some(Service {
                    name: name.clone(),
                    hosts: Default::default(),
                    vip,
                    ports,
                    declared: false,
                    mtls: None,
                    external: External::default(),
                }),
                (None, None) => None,
            }
        })
    }
}
