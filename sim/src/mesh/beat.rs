//! A host's agent beside its watch and its conversations: control, kernel, workloads, and what it shows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sealane_agent::simulation::{Id, SimulatedWatch, Voice, Wish};
use sealane_proto::types::NodeName;

use super::{Event, Host, Mesh, TENTH, TIMEOUT, Tally, Ways};
use crate::agent::Life;
use crate::step::Step;
use crate::world::{World, network, parsed};

/// Time for which an agent gathers what it hears before it shows it.
const PACE: Duration = Duration::from_millis(20);
/// Interval at which control looks for what is due.
const UPKEEP: Duration = Duration::from_millis(500);

impl Mesh {
    /// New hosts, each with an instance of a service.
    pub(super) fn new(count: u8, seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut world = World::new();
        world.create_network_of(0, "10.64.0.0/16");
        let now = world.now.instant;
        let ways = Ways::new(count, bytes, now);
        let mut mesh = Self {
            world,
            ways,
            hosts: vec![],
            numbers: BTreeMap::new(),
            ends: vec![],
            queue: Default::default(),
            sequence: 0,
            connections: 0,
            now,
            skipped: Duration::ZERO,
            is_control_gone: false,
            without_control: BTreeSet::new(),
            workloads: 0,
            tally: Tally::default(),
        };
        (0..count).for_each(|host| mesh.join(host));
        mesh.begin_ends();
        for host in 0..count {
            mesh.want(host, mesh.service(host));
            mesh.begin(host);
        }
        mesh.push(now + UPKEEP, Event::Control);
        mesh
    }

    fn join(&mut self, host: u8) {
        self.world.join(host);
        let Some(agent) = self.world.agents.get(&host) else { return };
        let (name, now) = (agent.name.clone(), self.now);
        self.numbers.insert(name.clone(), host);
        self.hosts.push(Host {
            name,
            watch: None,
            wake: now,
            answers: vec![],
            lost: BTreeSet::new(),
            voice: Voice::default(),
            peers: BTreeMap::new(),
            peers_since: now,
            said: BTreeMap::new(),
            is_dirty: false,
            works: 0,
            run: 0,
            still: None,
            awake: now,
            wanted: BTreeMap::new(),
            ready: BTreeSet::new(),
        });
    }

    /// A service by a number: there are so many that each has some instances.
    pub(super) fn service(&self, number: u8) -> u8 {
        number % u8::try_from(self.hosts.len() / 3 + 1).unwrap_or(u8::MAX)
    }

    /// Asks for one more instance of a service on a host.
    pub(super) fn want(&mut self, host: u8, service: u8) {
        self.workloads += 1;
        let wish = Wish {
            network: network(0),
            name: parsed(&format!("wl-{}", self.workloads)),
            service: Some(parsed(&format!("svc-{service}"))),
            ports: vec![parsed("80")],
            address: None,
        };
        self.host_mut(host).wanted.insert((wish.network.clone(), wish.name.clone()), wish);
    }

    /// An agent starts.
    pub(super) fn begin(&mut self, host: u8) {
        let Some(agent) = self.world.agents.get(&host) else { return };
        let carried = agent.host.carried();
        let (seed, now) = (self.ways.seed(), self.now);
        let offset = Duration::from_micros(self.ways.random(50_000));
        let known = self.host_mut(host);
        let watch = SimulatedWatch::new(known.name.clone(), TIMEOUT, seed, &carried, now);
        (known.watch, known.awake, known.still) = (Some(watch), now, None);
        (known.lost, known.ready) = (BTreeSet::new(), BTreeSet::new());
        (known.answers, known.peers, known.peers_since) = (vec![], BTreeMap::new(), now);
        (known.run, known.wake) = (known.run + 1, now + offset);
        let (run, wake) = (known.run, known.wake);
        self.push(wake, Event::Wake(host));
        self.push(wake, Event::Tick(host, run));
    }

    /// Does what waits for nothing but time.
    pub(super) fn tick(&mut self, host: u8) -> Result<(), String> {
        self.world.step += 1;
        let partitioned = self.is_control_gone || self.without_control.contains(&host);
        let wanted: Vec<Wish> = self.host(host).wanted.values().cloned().collect();
        let mut is_told = Ok(());
        if let Some((agent, mut around)) = self.world.at(host) {
            agent.partitioned = partitioned;
            agent.link = agent.link.take().filter(|_| !partitioned);
            for wish in wanted {
                let id: Id = (wish.network.clone(), wish.name.clone());
                if !agent.lives.contains_key(&id) && !agent.wishes.contains(&wish) {
                    agent.wishes.push(wish);
                }
            }
            agent.connect(&mut around);
            agent.say(usize::MAX, &mut around);
            agent.take_messages(&mut around);
            is_told = agent.hear(usize::MAX);
            while let Some(network) = agent.host.begin_job(around.now.instant) {
                agent.host.end_job(&network, true, around.now.instant);
            }
            agent.publish();
            agent.tend(&mut around);
        }
        is_told?;
        self.world.check_told(host)?;
        self.make_ready(host);
        self.show(host);
        Ok(())
    }

    /// Makes what runs ready at once.
    fn make_ready(&mut self, host: u8) {
        let Some(agent) = self.world.agents.get_mut(&host) else { return };
        let known = &mut self.hosts[usize::from(host)];
        known.ready.retain(|id| agent.lives.contains_key(id));
        for (id, life) in &agent.lives {
            if matches!(life, Life::Running(_)) && known.ready.insert(id.clone()) {
                agent.host.set_ready(id, true);
            }
        }
    }

    /// An instance of a host, by its place, ends.
    pub(super) fn end(&mut self, host: u8, place: u8) -> Option<Wish> {
        let known = self.host_mut(host);
        let ids: Vec<Id> = known.wanted.keys().cloned().collect();
        let id = ids.get(usize::from(place) % ids.len().max(1))?.clone();
        let wish = known.wanted.remove(&id);
        known.ready.remove(&id);
        self.world.end_workload(host, &id);
        self.soil(host);
        wish
    }

    /// A host has heard something, which it shows soon.
    pub(super) fn soil(&mut self, host: u8) {
        let at = self.now + PACE;
        if !std::mem::replace(&mut self.host_mut(host).is_dirty, true) {
            self.push(at, Event::Publish(host));
        }
    }

    pub(super) fn publish(&mut self, host: u8) {
        self.host_mut(host).is_dirty = false;
        if self.host(host).watch.is_some() {
            self.show(host);
        }
    }

    /// A host shows what it knows, watches who shares networks with it, and tells them what is new.
    pub(super) fn show(&mut self, host: u8) {
        let now = self.world.now.instant;
        let Some(agent) = self.world.agents.get_mut(&host) else { return };
        agent.publish();
        // Its kernel takes everything at once.
        while let Some(network) = agent.host.begin_job(now) {
            agent.host.end_job(&network, true, now);
        }
        agent.publish();
        let (peers, facts) = (agent.host.peers(), agent.host.facts());
        let known = &mut self.hosts[usize::from(host)];
        let mut is_news = false;
        for (network, facts) in facts {
            let said = known.said.entry(network.clone()).or_default();
            if said.last().is_none_or(|(_, last)| *last != facts.edition()) {
                said.push((self.now, facts.edition()));
                is_news = true;
            }
        }
        if is_news {
            known.voice.follow(facts);
        }
        let number = |name: &NodeName| self.numbers.get(name).copied();
        let peers: BTreeMap<u8, _> =
            peers.into_iter().filter_map(|(name, networks)| Some((number(&name)?, networks))).collect();
        if let Some(watch) = known.watch.as_mut().filter(|_| known.peers != peers) {
            watch.follow(&agent.host.carried());
            (known.peers, known.peers_since, is_news) = (peers, self.now, true);
            // One that waits for nobody has new peers to ask.
            self.push(self.now, Event::Wake(host));
            self.host_mut(host).wake = self.now;
            self.begin_dialling(host);
        }
        if is_news {
            self.tell_all(host);
        }
        self.acknowledge_all(host);
    }

    pub(super) fn tend_control(&mut self) {
        let now = self.world.now;
        self.world.control.tend(now);
        self.world.control.tick();
        self.push(self.now + UPKEEP, Event::Control);
    }

    /// Checks a mesh in which all that was broken is whole again, and nothing else happens but what follows.
    pub(super) fn check_rest(&mut self) -> Result<(), String> {
        self.check()?;
        for host in self.all() {
            if !self.host(host).lost.is_empty() {
                return Err(format!("{} has lost {:?} still", self.host(host).name, self.host(host).lost));
            }
        }
        if self.hosts.len() > 16 { Ok(()) } else { self.world.take(&Step::Calm) }
    }

    /// The time of a number of tenths.
    pub(super) fn tenths(count: u8) -> Duration {
        TENTH * u32::from(count.max(1))
    }
}
