//! Rest: everything broken is mended and everything under way comes to its end; then all hosts and control agree.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use sealane_agent::simulation::Id;
use sealane_proto::types::{Generation, NetworkName};

use crate::agent::{Agent, Life};
use crate::world::World;

/// Rounds after which a mesh that has not come to rest never will.
const ROUNDS: usize = 120;
/// Rounds without a change that count as rest, and the seconds that pass before each next look: what waits for a time has
/// happened then.
const QUIET: [u64; 8] = [1, 1, 11, 1, 31, 1, 61, 1];

/// Everything that moves.
type Fingerprint = (
    Generation,
    usize,
    Vec<(u64, [u64; 2], [usize; 2], BTreeMap<NetworkName, Generation>, BTreeMap<Id, Life>)>,
);

impl World {
    /// Comes to rest, and looks whether all agree then.
    pub(crate) fn calm(&mut self) -> Result<(), String> {
        let (mut quiet, mut before) = (0, None);
        for _ in 0..ROUNDS {
            self.round()?;
            let now = self.fingerprint();
            if before.as_ref() == Some(&now) {
                let Some(seconds) = QUIET.get(quiet) else { return self.check_agreement() };
                self.pass(*seconds);
                quiet += 1;
            } else {
                quiet = 0;
                self.pass(1);
            }
            before = Some(now);
        }
        Err(format!("the mesh does not come to rest: {:?}", self.fingerprint()))
    }

    /// Everything that can happen now, does.
    fn round(&mut self) -> Result<(), String> {
        self.step += 1;
        for host in self.agents.keys().copied().collect::<Vec<_>>() {
            let Some((agent, mut around)) = self.at(host) else { continue };
            agent.partitioned = false;
            agent.connect(&mut around);
            agent.say(usize::MAX, &mut around);
            agent.take_messages(&mut around);
            agent.hear(usize::MAX)?;
            agent.begin_jobs(&mut around);
            for network in agent.host.under_way() {
                agent.host.end_job(&network, true, around.now.instant);
            }
            agent.publish();
            agent.tend(&mut around);
            self.check_told(host)?;
        }
        self.channels.mend();
        self.converse();
        self.control.tend(self.now);
        self.check()
    }

    fn fingerprint(&self) -> Fingerprint {
        let of = |agent: &Agent| {
            let (host, lives) = (&agent.host, agent.lives.clone());
            // What control does not accept is told again and again.
            let (told, queued) = match host.refused().is_empty() {
                true => ((host.report().version, host.reported()), agent.queued()),
                false => ((0, [0; 2]), [0; 2]),
            };
            (told.0, told.1, queued, host.followed().applied, lives)
        };
        (self.control.generation(), self.channels.queued(), self.agents.values().map(of).collect())
    }

    fn check_agreement(&self) -> Result<(), String> {
        let behind = self.control.behind();
        if !behind.is_empty() {
            return Err(format!("at rest, hosts are behind: {behind:?}"));
        }
        for agent in self.agents.values().filter(|agent| agent.is_member(&self.control)) {
            self.check_host(agent).map_err(|reason| format!("at rest, {}: {reason}", agent.name))?;
        }
        self.check_heard()?;
        self.check_ports_apart()?;
        self.check_identities()?;
        self.check_rests()
    }

    fn check_host(&self, agent: &Agent) -> Result<(), String> {
        if !agent.is_up() {
            return Err(format!("it is not connected ({:?})", agent.refused));
        }
        let (carried, known) = (self.control.carried_by(&agent.name), agent.host.carried());
        let own: BTreeSet<&NetworkName> = agent.lives.keys().map(|(network, _)| network).collect();
        for network in known.keys().filter(|network| !carried.contains_key(*network)) {
            if !own.contains(network) {
                return Err(format!("it keeps {network}, which is not its to carry"));
            }
        }
        if let Some(network) = agent.host.kernel().keys().find(|network| !known.contains_key(*network)) {
            return Err(format!("its kernel keeps {network}"));
        }
        let refused = agent.host.refused();
        for (network, snapshot) in &carried {
            if known.get(network) != Some(snapshot) {
                return Err(format!("it knows {:?}, control says {snapshot:?}", known.get(network)));
            }
            if agent.host.followed().applied.get(network) != Some(&snapshot.generation) {
                return Err(format!("it works by {:?} of {network}", agent.host.followed().applied));
            }
            let kernel = agent.host.kernel().get(network).map(|kernel| &kernel.desired);
            if kernel != agent.host.desired(network).as_ref() {
                return Err(format!("its kernel has {kernel:?} of {network}"));
            }
            if refused.keys().all(|(of, _)| of != network) {
                self.check_network(agent, network)?;
            }
        }
        self.check_workloads(agent, &refused)
    }

    /// Kernel and names are what control says, where it accepts all of the host.
    fn check_network(&self, agent: &Agent, network: &NetworkName) -> Result<(), String> {
        let Some(snapshot) = self.control.snapshot(network) else { return Ok(()) };
        let kernel = agent.host.kernel().get(network).map(|kernel| kernel.desired.clone());
        if kernel != agent.host.desired_by(&snapshot) {
            return Err(format!("its kernel has {kernel:?} of {network}, control says {snapshot:?}"));
        }
        for service in &snapshot.services {
            let instances = snapshot
                .workloads
                .iter()
                .filter(|workload| workload.ready && workload.service.as_ref() == Some(&service.name));
            let expected: BTreeSet<Ipv4Addr> = instances.map(|workload| workload.address.to_ipv4()).collect();
            let reached: BTreeSet<Ipv4Addr> =
                agent.host.reached(network, service.name.as_str()).into_iter().collect();
            if reached != expected {
                return Err(format!(
                    "{}.{network} leads to {reached:?}, ready is {expected:?}",
                    service.name
                ));
            }
        }
        Ok(())
    }

    /// Control has exactly the host's workloads, but for those that it refuses.
    fn check_workloads(&self, agent: &Agent, refused: &BTreeMap<Id, String>) -> Result<(), String> {
        // What control does not accept is told again and again.
        if refused.is_empty() && agent.host.reported() != [agent.host.report().version; 2] {
            let (version, reported) = (agent.host.report().version, agent.host.reported());
            return Err(format!("its report {version} is not settled: {reported:?}"));
        }
        let own = agent.workloads();
        let accepted = own.iter().filter(|(id, _)| !refused.contains_key(*id));
        let state = self.control.state();
        for (id, workload) in accepted.clone() {
            let known = state.networks.get(&id.0).and_then(|network| network.workloads.get(&id.1));
            if known != Some(workload) {
                return Err(format!("it runs {workload:?}, control knows {known:?}"));
            }
        }
        let known = state.networks.values().flat_map(|network| network.workloads_of(&agent.name));
        if known.count() != accepted.count() {
            return Err("control knows workloads that it does not run".to_owned());
        }
        let stuck = agent
            .lives
            .iter()
            .find(|(id, life)| !matches!(life, Life::Running(_)) && !refused.contains_key(*id));
        match stuck {
            Some((id, life)) => Err(format!("workload {id:?} stays {life:?}")),
            None => Ok(()),
        }
    }

    /// No address of a network is at two ports, whatever their hosts have gone by; unless a restored store gave it away before its host
    /// came back.
    fn check_ports_apart(&self) -> Result<(), String> {
        if self.restored {
            return Ok(());
        }
        let mut held = BTreeMap::new();
        for agent in self.agents.values().filter(|agent| agent.is_member(&self.control)) {
            for (network, kernel) in agent.host.kernel() {
                for port in &kernel.desired.ports {
                    let own = (agent.name.clone(), port.workload.clone());
                    if let Some(other) = held.insert((network.clone(), port.address), own.clone()) {
                        return Err(format!(
                            "{} of {network} is at the ports of {other:?} and {own:?}",
                            port.address
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// Control signs for what is registered on the asking host, and for nothing else.
    fn check_identities(&self) -> Result<(), String> {
        let state = self.control.state();
        for (name, network) in &state.networks {
            for workload in network.workloads.values() {
                let principal = workload.principal();
                for node in state.nodes.keys() {
                    let runs = network.workloads_of(node).any(|own| own.principal() == principal);
                    if self.control.signs_for(node, &principal) != runs {
                        return Err(format!(
                            "{principal} of network {name} on {node}: it runs there is {runs}"
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// No address rests for ever, where every host can say that it has forgotten who had it.
    fn check_rests(&self) -> Result<(), String> {
        let state = self.control.state();
        for (name, network) in &state.networks {
            let mut carriers = state.nodes.keys().filter(|node| network.carried_by(node));
            let all = carriers.all(|node| self.control.is_connected(node));
            if all && !network.resting.is_empty() {
                return Err(format!("at rest, addresses of {name} rest still: {:?}", network.resting));
            }
        }
        Ok(())
    }
}
