//! Invariants that hold after every step.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use sealane_agent::simulation::Id;
use sealane_proto::types::{MacAddr, NetworkName, NodeName, OverlayIp};

use crate::agent::{Life, Told};
use crate::world::World;

impl World {
    /// Looks whether every invariant holds.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        self.check_state()?;
        self.check_holders()?;
        self.check_assigned()?;
        self.check_ports()?;
        self.check_let_go()?;
        self.check_views()?;
        self.check_forward()?;
        self.check_acknowledged()
    }

    /// Checks that no host that was connected all the time sends a workload anything once every host has confirmed its end.
    fn check_let_go(&mut self) -> Result<(), String> {
        let gone: Vec<_> =
            self.agents.values_mut().flat_map(|agent| std::mem::take(&mut agent.let_go)).collect();
        for (workload, step) in gone {
            let connected =
                self.agents.values().filter(|agent| agent.up_since().is_some_and(|since| since < step));
            for agent in connected.filter(|agent| agent.is_member(&self.control)) {
                let name =
                    workload.service.as_ref().map_or(workload.name.as_str(), |service| service.as_str());
                let reached = agent.host.reached(&workload.network, name);
                if reached.contains(&workload.address.to_ipv4()) {
                    return Err(format!(
                        "{} leads to {reached:?} on {}, whose holder is gone",
                        name, agent.name
                    ));
                }
            }
        }
        Ok(())
    }

    /// Checks desired state: nobody has what is another's.
    fn check_state(&self) -> Result<(), String> {
        let state = self.control.state();
        let vnis: Vec<_> = state.networks.values().map(|network| network.network.vni).collect();
        distinct(vnis, "a VNI is two networks'")?;
        for (name, network) in &state.networks {
            let vips = network.services.values().map(|service| service.vip);
            let addresses = network.workloads.values().map(|workload| workload.address);
            let all: Vec<OverlayIp> = vips.chain(addresses).collect();
            if let Some(address) = all.iter().find(|address| network.resting_at(**address).is_some()) {
                return Err(format!("{address} of network {name} is given while it rests"));
            }
            distinct(all, "an address is given twice by control")?;
            let macs: Vec<MacAddr> = network.workloads.values().map(|workload| workload.mac).collect();
            distinct(macs, "an Ethernet address is given twice by control")?;
            for workload in network.workloads.values() {
                if !network.carried_by(&workload.node) || !state.nodes.contains_key(&workload.node) {
                    return Err(format!(
                        "{} of network {name} is on a host that does not carry it",
                        workload.name
                    ));
                }
            }
            for block in network.blocks.values() {
                if let Some(node) = block.node.as_ref().filter(|node| !state.nodes.contains_key(*node)) {
                    return Err(format!(
                        "block {} of network {name} is held by {node}, which is no host",
                        block.range
                    ));
                }
            }
        }
        Ok(())
    }

    /// Checks what runs: no two workloads have one address, or one Ethernet address.
    fn check_holders(&self) -> Result<(), String> {
        let mut held: BTreeMap<(NetworkName, u64, OverlayIp), (NodeName, Id)> = BTreeMap::new();
        let mut macs: BTreeMap<(NetworkName, u64, MacAddr), (NodeName, Id)> = BTreeMap::new();
        for agent in self.agents.values().filter(|agent| agent.is_member(&self.control)) {
            for (id, workload) in agent.workloads() {
                // What control refuses, or has not seen, works nowhere yet.
                let Some(Life::Running(incarnation)) = agent.lives.get(&id).copied() else { continue };
                if self.restored {
                    continue;
                }
                let own = (agent.name.clone(), id.clone());
                let place = (id.0.clone(), incarnation, workload.address);
                if let Some(other) = held.insert(place, own.clone()) {
                    return Err(format!("{} is held by {other:?} and {own:?}", workload.address));
                }
                if let Some(other) = macs.insert((id.0.clone(), incarnation, workload.mac), own.clone()) {
                    return Err(format!("{} is held by {other:?} and {own:?}", workload.mac));
                }
            }
        }
        Ok(())
    }

    /// Checks that no two hosts assign the same addresses, by what each of them knows.
    fn check_assigned(&self) -> Result<(), String> {
        for (network, created) in self.created.iter().filter(|_| !self.restored) {
            let mut assigned: Vec<(Ipv4Net, &NodeName)> = vec![];
            for agent in self.agents.values().filter(|agent| agent.is_member(&self.control)) {
                let known = agent.host.assigns(network).filter(|(known, _)| known.revision >= *created);
                let ranges = known.into_iter().flat_map(|(_, ranges)| ranges);
                assigned.extend(ranges.map(|range| (range, &agent.name)));
            }
            assigned.sort_unstable();
            let mut pairs = assigned.iter().zip(assigned.iter().skip(1));
            if let Some((one, other)) = pairs.find(|(one, other)| one.0.contains(&other.0)) {
                return Err(format!("{one:?} and {other:?} assign the same addresses of network {network}"));
            }
        }
        Ok(())
    }

    /// A workload that got its port keeps it until it gives it up.
    fn check_ports(&self) -> Result<(), String> {
        for agent in self.agents.values() {
            for (id, life) in &agent.lives {
                let works = matches!(life, Life::Registering(_) | Life::Running(_));
                let kernel = agent.host.kernel().get(&id.0);
                let has = kernel
                    .is_some_and(|kernel| kernel.desired.ports.iter().any(|port| port.workload == id.1));
                if works && !has && !agent.host.evicted().contains(id) {
                    return Err(format!("workload {id:?} of {} has lost its port ({life:?})", agent.name));
                }
            }
        }
        Ok(())
    }

    /// A host acknowledges what its kernel has, and never an older generation than before.
    fn check_acknowledged(&mut self) -> Result<(), String> {
        for agent in self.agents.values() {
            for (network, generation) in agent.host.followed().applied {
                let key = (agent.name.clone(), network.clone());
                let before = self.acknowledged.insert(key, generation);
                if let Some(before) = before.filter(|before| {
                    before.epoch == generation.epoch && before.revision > generation.revision
                }) {
                    return Err(format!(
                        "{} acknowledged {generation} of {network} after {before}",
                        agent.name
                    ));
                }
                let kernel = agent.host.kernel().get(&network).map(|kernel| kernel.generation);
                if kernel.is_none_or(|kernel| !kernel.includes(generation)) {
                    return Err(format!(
                        "{} acknowledges {generation} of {network}, its kernel has {kernel:?}",
                        agent.name
                    ));
                }
            }
        }
        Ok(())
    }

    /// Checks what control has just told a host: networks that it carries, durable, and never older than before.
    pub(crate) fn check_told(&mut self, host: u8) -> Result<(), String> {
        let Some(agent) = self.agents.get_mut(&host) else { return Ok(()) };
        let durable = self.control.generation();
        if let Some(network) = agent.host.followed().astray.first().filter(|_| !self.was_put_back) {
            return Err(format!("{} cannot follow what it is told of {network}", agent.name));
        }
        for Told { network, generation, is_for_it } in std::mem::take(&mut agent.fresh) {
            if !is_for_it {
                return Err(format!("{} is told of {network}, which it does not carry", agent.name));
            }
            if !durable.includes(generation) {
                return Err(format!(
                    "{} is told {generation} of {network}; durable is {durable}",
                    agent.name
                ));
            }
            let key = (agent.name.clone(), network.clone());
            let before = self.told.insert(key, generation);
            if let Some(before) = before
                .filter(|before| before.epoch == generation.epoch && before.revision > generation.revision)
            {
                return Err(format!("{} is told {generation} of {network} after {before}", agent.name));
            }
        }
        Ok(())
    }
}

fn distinct<T: Ord + std::fmt::Debug + Clone>(all: Vec<T>, wrong: &str) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    match all.into_iter().find(|one| !seen.insert(one.clone())) {
        Some(twice) => Err(format!("{wrong}: {twice:?}")),
        None => Ok(()),
    }
}
