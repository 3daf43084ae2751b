//! Invariants of a mesh in trouble: verdicts are right and in time, facts arrive, and names lead where they can.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use sealane_agent::simulation::SimulatedWatch;
use sealane_proto::resource::{NetworkSnapshot, Workload};
use sealane_proto::types::{NetworkName, ServiceName};

use super::{Mesh, SETTLING};
use crate::talk::{check_known, said_of};

/// Peers that are asked per interval, and hastily at once.
const SAMPLE: usize = SimulatedWatch::SAMPLE;
const HASTY: usize = SimulatedWatch::HASTY;
/// Interval of echoes.
const ROUND: Duration = Duration::from_millis(200);
/// Time in which a host is asked hastily as often as it takes to lose it, or to find one back that comes and goes.
const HASTE: Duration = Duration::from_millis(650);
/// Time that is granted beyond these.
const SLACK: Duration = Duration::from_millis(150);
/// Time in which a host that is reached has been reached for long enough not to be lost, whatever is dropped.
const CERTAIN: Duration = Duration::from_secs(1);
/// Time more that it takes to find a host back where packets are lost.
const LOSSY: Duration = Duration::from_secs(10);
/// Time in which a word arrives where nothing is wrong, and after something was.
const WORD: Duration = Duration::from_secs(1);
const WORD_AGAIN: Duration = Duration::from_secs(10);

impl Mesh {
    /// Looks whether every invariant holds.
    pub(super) fn check(&mut self) -> Result<(), String> {
        self.world.check()?;
        for observer in self.all() {
            let known = self.host(observer);
            if known.watch.is_none() || known.still.is_some() {
                continue;
            }
            self.check_verdicts(observer)?;
            self.check_words(observer)?;
            if known.is_dirty {
                // It is about to show what it has just heard.
                continue;
            }
            self.check_names(observer)
                .map_err(|reason| format!("at {}: {reason}", self.host(observer).name))?;
        }
        Ok(())
    }

    /// A host that was just lost was out of reach, or so much was dropped that nobody can know.
    pub(super) fn check_lost(&self, observer: u8, lost: u8) -> Result<(), String> {
        let (whole, since) = self.ways.whole(observer, lost);
        let for_long = self.now >= since + CERTAIN;
        if whole && for_long {
            let names = (&self.host(observer).name, &self.host(lost).name);
            let age = self.now - since;
            return Err(format!("{} loses {}, which it has reached for {age:?}", names.0, names.1));
        }
        Ok(())
    }

    /// Time since which both hosts could find out about each other.
    fn since(&self, observer: u8, peer: u8) -> (bool, Instant) {
        let (whole, since) = self.ways.whole(observer, peer);
        let known = self.host(observer);
        (whole, since.max(known.awake).max(known.peers_since))
    }

    fn check_verdicts(&self, observer: u8) -> Result<(), String> {
        let known = self.host(observer);
        let rounds = u32::try_from(known.peers.len().div_ceil(SAMPLE)).unwrap_or(u32::MAX);
        let changed = |is_whole: bool| {
            known.peers.keys().filter(|peer| self.ways.whole(observer, **peer).0 == is_whole).count()
        };
        let bound = |count: usize| {
            let groups = u32::try_from(count.div_ceil(HASTY)).unwrap_or(u32::MAX);
            ROUND * rounds + HASTE * groups + SLACK
        };
        let (dead, mut back) = (bound(changed(false)), bound(known.lost.len()));
        if self.ways.loss.0 > 0 || self.now < self.ways.loss.1 + LOSSY {
            back += LOSSY;
        }
        for peer in known.peers.keys().copied() {
            let ((whole, since), is_lost) = (self.since(observer, peer), known.lost.contains(&peer));
            let (age, other) = (self.now.saturating_duration_since(since), &self.host(peer).name);
            if !whole && !is_lost && age > dead {
                return Err(format!(
                    "{} has not lost {other}, which it does not reach for {age:?} ({:?})",
                    known.name,
                    known.watch.as_ref().map(|watch| watch.words().remove(other)),
                ));
            }
            if whole && is_lost && age > back {
                return Err(format!("{} has lost {other}, which it reaches for {age:?}", known.name));
            }
        }
        Ok(())
    }

    /// Says whether a host has to know by now what another one said at a time.
    fn has_to_know(&self, observer: u8, owner: u8, said: Instant) -> bool {
        let (one, other) = (self.host(observer), self.host(owner));
        if other.watch.is_none() || other.still.is_some() || self.ways.loss.0 > 0 {
            return false;
        }
        let (whole, since) = self.since(observer, owner);
        let since = since.max(other.awake).max(other.peers_since).max(self.ways.loss.1).max(one.awake);
        let calm = self.now.saturating_duration_since(since);
        let age = self.now.saturating_duration_since(said);
        // Something that was wrong for as long as the other one was away may have used up all of a call's waits.
        whole && calm >= WORD_AGAIN && age >= if calm >= WORD_AGAIN + WORD { WORD } else { WORD_AGAIN }
    }

    /// Looks whether each owner's word is where it has to be by now.
    fn check_words(&self, observer: u8) -> Result<(), String> {
        let Some(agent) = self.world.agents.get(&observer) else { return Ok(()) };
        for (owner, networks) in &self.host(observer).peers {
            let other = self.host(*owner);
            let both = |network: &&NetworkName| {
                other.peers.get(&observer).is_some_and(|shared| shared.contains(*network))
            };
            for network in networks.iter().filter(both) {
                let mut said = other.said.get(network).into_iter().flatten();
                let due = said.rfind(|(at, _)| self.has_to_know(observer, *owner, *at));
                let goes_by = agent.host.goes_by(network, &other.name);
                if let Some((at, edition)) = due.filter(|(_, edition)| goes_by < Some(*edition)) {
                    return Err(format!(
                        "{} goes by {goes_by:?} of {}, which has said {edition:?} {:?} ago",
                        agent.name,
                        other.name,
                        self.now - *at
                    ));
                }
            }
        }
        Ok(())
    }

    /// Names lead to every instance within reach, and to those out of reach where there is no other one.
    fn check_names(&self, observer: u8) -> Result<(), String> {
        let Some(agent) = self.world.agents.get(&observer) else { return Ok(()) };
        for (network, snapshot) in agent.host.carried() {
            let seen = agent.host.seen(&network).unwrap_or_default();
            let mut services = BTreeSet::new();
            for owner in self.all().filter(|owner| *owner != observer) {
                self.check_owner(observer, owner, (&snapshot, &seen))?;
            }
            for instance in &seen {
                services.extend(instance.service.clone().filter(|name| knows(&snapshot, name)));
            }
            for service in services {
                self.check_service(observer, &network, &service, &seen)?;
            }
        }
        Ok(())
    }

    /// Looks whether a host's workloads are seen as it says, once its newest word is there.
    fn check_owner(
        &self,
        observer: u8,
        owner: u8,
        (snapshot, seen): (&NetworkSnapshot, &[Workload]),
    ) -> Result<(), String> {
        let (Some(agent), Some(owner)) = (self.world.agents.get(&observer), self.world.agents.get(&owner))
        else {
            return Ok(());
        };
        let network = &snapshot.network.name;
        let Some(said) = owner.host.facts().get(network) else { return Ok(()) };
        if agent.host.goes_by(network, &owner.name) != Some(said.edition()) {
            return Ok(());
        }
        for workload in seen.iter().filter(|workload| workload.node == owner.name) {
            said_of(said, workload)?;
        }
        check_known(snapshot, said, seen, &owner.name)
    }

    fn check_service(
        &self,
        observer: u8,
        network: &NetworkName,
        service: &ServiceName,
        seen: &[Workload],
    ) -> Result<(), String> {
        let Some(agent) = self.world.agents.get(&observer) else { return Ok(()) };
        let reached: BTreeSet<Ipv4Addr> = agent.host.reached(network, service.as_str()).into_iter().collect();
        let lost = &self.host(observer).lost;
        // Owners say what is ready, and this host's verdicts what is out of reach.
        let instances: Vec<(&Workload, bool, bool)> = seen
            .iter()
            .filter(|instance| instance.service.as_ref() == Some(service))
            .filter_map(|instance| {
                let owner = self.number(&instance.node)?;
                let facts = self.world.agents.get(&owner)?.host.facts().get(network)?;
                let own = facts.workloads.iter().find(|own| own.name == instance.name)?;
                let newest =
                    owner == observer || agent.host.goes_by(network, &instance.node) == Some(facts.edition());
                newest.then_some((instance, own.ready, lost.contains(&owner)))
            })
            .collect();
        let is_served = instances.iter().any(|(_, ready, is_lost)| *ready && !is_lost);
        for (instance, ready, is_lost) in &instances {
            let is_reached = reached.contains(&instance.address.to_ipv4());
            if *ready && !is_lost && !is_reached {
                return Err(format!(
                    "{service} leads to {reached:?}, not to {instance:?}, which is within reach"
                ));
            }
            if is_reached && (!ready || (*is_lost && is_served)) {
                return Err(format!(
                    "{service} leads to {instance:?}, out of reach: {is_lost}, ready: {ready}"
                ));
            }
        }
        let all = seen.iter().filter(|instance| instance.service.as_ref() == Some(service)).count();
        let panics = instances.len() == all && !is_served;
        if panics && reached.is_empty() && instances.iter().any(|(_, ready, _)| *ready) {
            return Err(format!("{service} leads nowhere, although it has {instances:?}"));
        }
        Ok(())
    }

    /// Forgets editions of which nobody will ask any more.
    pub(super) fn forget_said(&mut self) {
        let before = self.now.checked_sub(SETTLING);
        for known in &mut self.hosts {
            for said in known.said.values_mut() {
                let old = said.iter().filter(|(at, _)| before.is_some_and(|before| *at < before)).count();
                said.drain(..old.saturating_sub(1));
            }
        }
    }
}

fn knows(snapshot: &NetworkSnapshot, service: &ServiceName) -> bool {
    snapshot.services.iter().any(|known| known.name == *service)
}
