//! The whole mesh, and the steps that it takes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use sealane_agent::simulation::{Id, Wish};
use sealane_control::core::{
    CreateNetwork, CreateToken, DrainNode, GrowNetwork, JoinNode, RemoveNetwork, RemoveNode, RemoveService,
};
use sealane_control::simulation::{Moment, SimulatedControl, StoreCopy};
use sealane_proto::resource::{Edition, Egress, Node};
use sealane_proto::token::TokenSecret;
use sealane_proto::types::{Generation, NetworkName, NodeName};

use crate::agent::{Agent, Life, Surroundings, ahead_by};
use crate::channels::Channels;
use crate::step::Step;

/// Hosts, control, and what is between them.
#[derive(Debug)]
pub struct World {
    pub(crate) control: SimulatedControl,
    pub(crate) agents: BTreeMap<u8, Agent>,
    pub(crate) now: Moment,
    pub(crate) step: u64,
    backup: Option<Vec<u8>>,
    copy: Option<StoreCopy>,
    epochs: u64,
    keys: u8,
    tokens: u32,
    /// Numbers that tell networks of one name apart.
    pub(crate) incarnations: BTreeMap<NetworkName, u64>,
    /// The revision since which each network is there.
    pub(crate) created: BTreeMap<NetworkName, u64>,
    /// True once a store was restored: from then on hosts may hold what control does not know.
    pub(crate) restored: bool,
    /// True once a store was put back: from then on hosts may be told what does not follow from what they have.
    pub(crate) was_put_back: bool,
    /// The newest generation that each host was told of each network.
    pub(crate) told: BTreeMap<(NodeName, NetworkName), Generation>,
    /// The newest generation that each host has acknowledged of each network.
    pub(crate) acknowledged: BTreeMap<(NodeName, NetworkName), Generation>,
    /// Channels over which hosts speak to each other.
    pub(crate) channels: Channels,
    /// The newest word of each host that each other one has gone by.
    pub(crate) went_by: BTreeMap<(NodeName, NodeName, NetworkName), Edition>,
}

/// Name of a network.
pub(crate) fn network(number: u8) -> NetworkName {
    parsed(&format!("net-{number}"))
}

/// Name of a host.
fn node(number: u8) -> NodeName {
    parsed(&format!("host-{number}"))
}

/// Reads a text of the simulation's own.
pub(crate) fn parsed<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text} is what it should be"))
}

impl World {
    /// Lives through a history from a new store on, and comes to rest at its end.
    ///
    /// # Errors
    /// The first invariant that does not hold, with the step after which it does not.
    pub fn live(steps: &[Step]) -> Result<(), String> {
        let mut world = Self::new();
        for (number, step) in steps.iter().chain([&Step::Calm]).enumerate() {
            world.take(step).map_err(|reason| format!("after step {number}, {step:?}: {reason}"))?;
        }
        Ok(())
    }

    pub(crate) fn new() -> Self {
        let clock = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let now = Moment { clock, instant: Instant::now() };
        Self {
            control: SimulatedControl::new(1, now),
            agents: BTreeMap::new(),
            now,
            step: 0,
            backup: None,
            copy: None,
            epochs: 1,
            keys: 0,
            tokens: 0,
            incarnations: BTreeMap::new(),
            created: BTreeMap::new(),
            restored: false,
            was_put_back: false,
            told: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            channels: Channels::default(),
            went_by: BTreeMap::new(),
        }
    }

    /// Takes a step, and looks whether every invariant holds after it.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn take(&mut self, step: &Step) -> Result<(), String> {
        self.step += 1;
        self.apply(step)?;
        self.pump()?;
        self.check()
    }

    /// Returns an agent and its surroundings.
    pub(crate) fn at(&mut self, host: u8) -> Option<(&mut Agent, Surroundings<'_>)> {
        let Self { control, agents, now, step, incarnations, .. } = self;
        let agent = agents.get_mut(&host)?;
        Some((agent, Surroundings { control, now: *now, step: *step, incarnations }))
    }

    fn with(&mut self, host: u8, act: impl FnOnce(&mut Agent, &mut Surroundings<'_>)) {
        if let Some((agent, mut around)) = self.at(host) {
            act(agent, &mut around);
            agent.publish();
        }
    }

    /// Lets messages begin their way.
    pub(crate) fn pump(&mut self) -> Result<(), String> {
        for host in self.agents.keys().copied().collect::<Vec<_>>() {
            self.with(host, |agent, around| agent.take_messages(around));
            self.check_told(host)?;
        }
        Ok(())
    }

    pub(crate) fn pass(&mut self, seconds: u64) {
        self.pass_time(Duration::from_secs(seconds));
    }

    pub(crate) fn pass_time(&mut self, passed: Duration) {
        self.now = Moment { clock: self.now.clock + passed, instant: self.now.instant + passed };
    }

    #[allow(clippy::too_many_lines, reason = "an arm per step")]
    fn apply(&mut self, step: &Step) -> Result<(), String> {
        let now = self.now;
        match *step {
            Step::CreateNetwork(number) => self.create_network(number),
            Step::RemoveNetwork(number) => drop(self.control.submit(RemoveNetwork(network(number)), now)),
            Step::GrowNetwork(number, prefix) => {
                let (name, subnet) = (network(number), parsed(&format!("10.0.{number}.0/{prefix}")));
                drop(self.control.submit(GrowNetwork { name, subnet }, now));
            }
            Step::RemoveService(number, service) => {
                let name = parsed(&format!("svc-{service}"));
                drop(self.control.submit(RemoveService { network: network(number), name }, now));
            }
            Step::RemoveHost(host) => {
                let name = node(host);
                let connected = self.control.is_connected(&name);
                drop(self.control.submit(RemoveNode { name, connected, force: true }, now));
            }
            Step::Drain(host, drained) => {
                drop(self.control.submit(DrainNode { name: node(host), drained }, now));
            }
            Step::Join(host) => self.join(host),
            Step::Attach(host, number, workload, service, address) => {
                self.attach(host, wish(number, workload, service, address));
            }
            Step::Ready(host, place, ready) => self.with(host, |agent, _| {
                let running = |life: &Life| matches!(life, Life::Running(_));
                if let Some(id) = pick(agent, place, running) {
                    agent.host.set_ready(&id, ready);
                }
            }),
            Step::End(host, place) => self.with(host, |agent, around| {
                if let Some(id) = pick(agent, place, |life| !matches!(life, Life::Ending(..))) {
                    let ending = agent.ending(&id, around);
                    agent.lives.insert(id, ending);
                }
            }),
            Step::Tend(host) => self.with(host, Agent::tend),
            Step::Begin(host) => self.with(host, Agent::begin_jobs),
            Step::Finish(host, place, works) => self.with(host, |agent, around| {
                let under_way = agent.host.under_way();
                if let Some(network) = nth(&under_way, place) {
                    agent.host.end_job(network, works, around.now.instant);
                }
            }),
            Step::Connect(host) => self.with(host, Agent::connect),
            Step::Up(host, count) => self.with(host, |agent, around| agent.say(count.into(), around)),
            Step::Down(host, count) => self.hear(host, count)?,
            Step::Cut(host, noticed) => self.with(host, |agent, around| agent.cut(noticed, around)),
            Step::Partition(host, cut) => self.with(host, |agent, _| {
                agent.partitioned = cut;
                agent.link = agent.link.take().filter(|_| !cut);
            }),
            Step::Blackout(gone) => self.black_out(gone),
            Step::Say(from, to) => self.say(from, to),
            Step::Hear(from, to, count) => self.hear_words(from, to, count.into()),
            Step::CutChannel(from, to) => self.cut_channel(from, to),
            Step::Part(one, other, apart) => {
                self.channels.part(one, other, apart);
                self.cut_channel(one, other);
                self.cut_channel(other, one);
            }
            Step::Converse => {
                self.converse();
                self.check_heard()?;
            }
            Step::KillAgent(host, gone) => self.kill(host, gone),
            Step::KillControl => self.replace_control(|control| control.restarted(now)),
            Step::Backup => {
                self.backup = Some(self.control.backup(now));
                self.copy = Some(self.control.copy());
            }
            Step::PutBack => self.put_back(),
            Step::Restore => self.restore(),
            Step::Wait(seconds) => self.pass(seconds.into()),
            Step::Hours(hours) => self.pass(3_600 * u64::from(hours)),
            Step::Upkeep => {
                self.control.tend(now);
                self.control.tick();
            }
            Step::Calm => self.calm()?,
        }
        Ok(())
    }

    fn hear(&mut self, host: u8, count: u8) -> Result<(), String> {
        self.at(host).map_or(Ok(()), |(agent, _)| agent.hear(count.into()))
    }

    fn black_out(&mut self, gone: bool) {
        for agent in self.agents.values_mut() {
            agent.partitioned = gone;
            agent.link = agent.link.take().filter(|_| !gone);
        }
    }

    fn restore(&mut self) {
        if let Some(backup) = self.backup.clone() {
            self.epochs += 1;
            let (epoch, now) = (self.epochs, self.now);
            self.replace_control(|control| control.restored(&backup, epoch, now));
            self.restored = true;
        }
    }

    fn put_back(&mut self) {
        if let Some(copy) = self.copy.clone() {
            let now = self.now;
            self.replace_control(|control| control.put_back(&copy, now));
            (self.restored, self.was_put_back) = (true, true);
            // It tells numbers again that it has told before.
            self.told.clear();
        }
    }

    /// The stream of a host breaks.
    pub(crate) fn cut(&mut self, host: u8, noticed: bool) {
        self.with(host, |agent, around| agent.cut(noticed, around));
    }

    /// The time of day of a host jumps by so many minutes.
    pub(crate) fn jump(&mut self, host: u8, minutes: i32) {
        if let Some(agent) = self.agents.get_mut(&host) {
            agent.minutes_ahead = i64::from(minutes);
        }
    }

    /// Time of day as a host has it.
    pub(crate) fn clock_of(&self, host: u8) -> SystemTime {
        let ahead = self.agents.get(&host).map_or(0, |agent| agent.minutes_ahead);
        ahead_by(self.now.clock, ahead)
    }

    /// A workload of a host ends.
    pub(crate) fn end_workload(&mut self, host: u8, id: &Id) {
        self.with(host, |agent, around| {
            if agent.lives.get(id).is_some_and(|life| !matches!(life, Life::Ending(..))) {
                let ending = agent.ending(id, around);
                agent.lives.insert(id.clone(), ending);
            }
        });
    }

    /// A host has lost its power, and starts.
    pub(crate) fn reboot(&mut self, host: u8) {
        let Some(agent) = self.agents.remove(&host) else { return };
        let Self { control, now, step, incarnations, .. } = self;
        let around = Surroundings { control, now: *now, step: *step, incarnations };
        self.agents.insert(host, agent.reboot(&around));
    }

    pub(crate) fn kill(&mut self, host: u8, gone: u8) {
        self.end_channels(host);
        let Some(mut agent) = self.agents.remove(&host) else { return };
        if gone % 2 == 1 && agent.is_up() {
            // In the middle of giving addresses back.
            agent.host.give_back(true, self.now.instant);
        }
        let ended = |id: &Id| {
            id.1.as_str().bytes().last().is_some_and(|last| gone & (1 << (last % 8)) != 0 && gone > 127)
        };
        let Self { control, now, step, incarnations, .. } = self;
        let around = Surroundings { control, now: *now, step: *step, incarnations };
        let again = agent.restart(&ended, &around);
        // A killed agent's connection ends with it.
        around.control.close(&again.name);
        self.agents.insert(host, again);
    }

    fn replace_control(&mut self, next: impl FnOnce(SimulatedControl) -> SimulatedControl) {
        let before = std::mem::replace(&mut self.control, SimulatedControl::new(u64::MAX, self.now));
        self.control = next(before);
        self.agents.values_mut().for_each(|agent| agent.link = None);
    }

    fn create_network(&mut self, number: u8) {
        // Small, so that blocks and addresses run short.
        self.create_network_of(number, &format!("10.0.{number}.0/{}", if number == 2 { 28 } else { 26 }));
    }

    pub(crate) fn create_network_of(&mut self, number: u8, subnet: &str) {
        let name = network(number);
        let create = CreateNetwork {
            name: name.clone(),
            hosts: Default::default(),
            subnet: parsed(subnet),
            mtu: None,
            egress: Egress::Allow,
            subnet6: None,
            mtls: None,
        };
        if self.control.submit(create, self.now).is_ok() {
            self.created.insert(name.clone(), self.control.generation().revision);
            *self.incarnations.entry(name).or_default() += 1;
        }
    }

    pub(crate) fn join(&mut self, host: u8) {
        let known = self.agents.get(&host);
        if known.is_some_and(|agent| agent.refused.is_none()) {
            return;
        }
        let now = self.now;
        let (id, secret) = (format!("token{:03}", self.tokens), TokenSecret::new([7; 20]));
        self.tokens += 1;
        let create = CreateToken {
            id: id.clone(),
            hash: secret.hash(),
            ttl: Duration::from_secs(3_600),
            uses: None,
            node: None,
            networks: BTreeSet::new(),
        };
        drop(self.control.submit(create, now));
        self.keys = self.keys.wrapping_add(1).max(1);
        let (key, name) = ([self.keys; 32], node(host));
        let place = Node { name, underlay: parsed(&format!("192.0.2.{}", host + 1)), mtu: None };
        let gone = self.control.gone_from(place.underlay, now);
        let join = JoinNode { token: id, secret, node: place.clone(), key, gone };
        if self.control.submit(join, now).is_ok() {
            self.end_channels(host);
            self.agents.insert(host, Agent::new(place, key, now.clock));
        }
    }

    fn attach(&mut self, host: u8, wish: Wish) {
        self.with(host, |agent, around| {
            agent.wishes.push(wish);
            agent.tend(around);
        });
    }
}

/// A workload that somebody wants.
fn wish(number: u8, workload: u8, service: u8, address: u8) -> Wish {
    Wish {
        network: network(number),
        name: parsed(&format!("wl-{workload}")),
        service: (service > 0).then(|| parsed(&format!("svc-{service}"))),
        ports: if service > 0 { vec![parsed("80")] } else { vec![] },
        address: (address > 0).then(|| parsed(&format!("10.0.{number}.{address}"))),
    }
}

/// The thing at a place, counted around.
fn nth<T>(all: &[T], place: u8) -> Option<&T> {
    all.get(usize::from(place) % all.len().max(1))
}

fn pick(agent: &Agent, place: u8, of: impl Fn(&Life) -> bool) -> Option<Id> {
    let all: Vec<&Id> = agent.lives.iter().filter(|(_, life)| of(life)).map(|(id, _)| id).collect();
    nth(&all, place).map(|id| (*id).clone())
}
