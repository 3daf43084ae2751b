//! One host of the simulation: its agent, its stream to control, and the lives of its workloads.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use sealane_agent::simulation::{Ending, Id, NotAdmitted, SimulatedHost, Wish};
use sealane_control::core::{CarryNetwork, LeaseAhead, Timestamp};
use sealane_control::simulation::{CallingHost, Moment, SimulatedControl};
use sealane_proto::client::LinkEvent;
use sealane_proto::client::uplink::{Uplink, ack, events, held, recalls};
use sealane_proto::identity::Principal;
use sealane_proto::resource::{Node, Workload};
use sealane_proto::types::{Generation, NetworkName, NodeName};
use sealane_proto::wire::{OLDEST_PROTOCOL, PROTOCOL, v1};
use v1::control_message::Message as Down;

/// Number of messages of control that are on their way to a host at most.
const ON_THE_WAY: usize = 4;

/// Life of a certificate.
const CERTIFICATE: Duration = Duration::from_secs(72 * 3_600);

/// A stream as its host sees it.
#[derive(Debug)]
pub(crate) struct Link {
    up: VecDeque<v1::AgentMessage>,
    down: VecDeque<v1::ControlMessage>,
    /// Generations that its hello told.
    told: BTreeMap<NetworkName, Generation>,
    /// Once control has welcomed the host.
    uplink: Option<Uplink>,
    /// The step in which it opened.
    since: u64,
}

/// A message of control about a network.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) network: NetworkName,
    pub(crate) generation: Generation,
    /// False if it is a whole state that this host is not in.
    pub(crate) is_for_it: bool,
}

/// Stage in the life of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// The workload has a name and an address.
    Admitted,
    /// The workload has a port, and waits until control knows of it by this report.
    Registering(u64),
    /// An agent that started anew takes it up.
    Resuming,
    /// The workload works; the number tells the networks of one name apart.
    Running(u64),
    /// The workload has left names and balancing, in this step.
    Ending(Ending, u64),
}

/// A host.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) name: NodeName,
    /// SHA-256 of its key; another one after each cleaning.
    pub(crate) key: [u8; 32],
    issued: Timestamp,
    pub(crate) host: SimulatedHost,
    pub(crate) link: Option<Link>,
    pub(crate) partitioned: bool,
    /// Words of control, when it wanted nothing of this host.
    pub(crate) refused: Option<String>,
    pub(crate) lives: BTreeMap<Id, Life>,
    pub(crate) wishes: Vec<Wish>,
    /// Workloads that have let go of their ports as every host had confirmed their ends, with the steps in which they ended.
    pub(crate) let_go: Vec<(Workload, u64)>,
    /// What control has just sent of networks.
    pub(crate) fresh: Vec<Told>,
    /// Identities on disk, and when they end.
    identities: BTreeMap<Principal, SystemTime>,
    instance: u64,
    /// Minutes by which its time of day is ahead of everybody else's.
    pub(crate) minutes_ahead: i64,
}

/// Everything around an agent that it can reach.
pub(crate) struct Surroundings<'a> {
    pub(crate) control: &'a mut SimulatedControl,
    pub(crate) now: Moment,
    pub(crate) step: u64,
    /// Numbers that tell networks of one name apart.
    pub(crate) incarnations: &'a BTreeMap<NetworkName, u64>,
}

impl Agent {
    pub(crate) fn new(node: Node, key: [u8; 32], now: SystemTime) -> Self {
        Self {
            name: node.name.clone(),
            key,
            issued: now.into(),
            host: SimulatedHost::new(node, now),
            link: None,
            partitioned: false,
            refused: None,
            lives: BTreeMap::new(),
            wishes: vec![],
            let_go: vec![],
            fresh: vec![],
            identities: BTreeMap::new(),
            instance: 1,
            minutes_ahead: 0,
        }
    }

    /// Returns true if control knows this very host.
    pub(crate) fn is_member(&self, control: &SimulatedControl) -> bool {
        control.state().nodes.get(&self.name).is_some_and(|record| record.key == self.key)
    }

    /// Returns true if the host's stream has been welcomed and may be used for calls.
    pub(crate) fn is_up(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.uplink.is_some())
    }

    /// The step since which the stream is open.
    pub(crate) fn up_since(&self) -> Option<u64> {
        self.link.as_ref().filter(|link| link.uplink.is_some()).map(|link| link.since)
    }

    /// Workloads as this host knows them.
    pub(crate) fn workloads(&self) -> BTreeMap<Id, Workload> {
        let all = self.host.report().workloads.into_iter();
        all.map(|workload| ((workload.network.clone(), workload.name.clone()), workload)).collect()
    }

    pub(crate) fn connect(&mut self, around: &mut Surroundings<'_>) {
        if self.partitioned || self.link.is_some() {
            return;
        }
        let told = self.host.followed().applied;
        let node = self.host.node();
        let hello = v1::Hello {
            protocol: PROTOCOL,
            version: "0.1.0".to_owned(),
            applied: told.iter().map(|(network, generation)| ack(network, *generation)).collect(),
            oldest_protocol: OLDEST_PROTOCOL,
            underlay: node.underlay.first().to_string(),
            recalls: true,
            echoes: true,
            // As hosts of versions before did.
            takes_deltas: !self.name.as_str().ends_with('3'),
            instance: self.instance,
            held: held(&self.host.carried()),
            ..v1::Hello::default()
        };
        let addr = SocketAddr::new(node.underlay.first().to_ip(), 40_000);
        let caller = CallingHost { node: self.name.clone(), key: self.key, issued: self.issued, addr };
        match around.control.open_stream(&caller, hello, around.now) {
            Ok(()) => {
                self.refused = None;
                let (up, down, since) = (VecDeque::new(), VecDeque::new(), around.step);
                self.link = Some(Link { up, down, told, uplink: None, since });
            }
            Err(ended) => self.refused = Some(ended.reason).filter(|_| ended.refused),
        }
    }

    /// The stream breaks; control notices that or does not.
    pub(crate) fn cut(&mut self, noticed: bool, around: &mut Surroundings<'_>) {
        self.host.handle_down();
        if self.link.take().is_some() && noticed {
            around.control.close(&self.name);
        }
    }

    /// Begins all work on the kernel that may begin.
    pub(crate) fn begin_jobs(&mut self, around: &mut Surroundings<'_>) {
        while self.host.begin_job(around.now.instant).is_some() {}
    }

    /// Hands control's next messages to the network between.
    pub(crate) fn take_messages(&mut self, around: &mut Surroundings<'_>) {
        while let Some(link) = &mut self.link
            && link.down.len() < ON_THE_WAY
        {
            match around.control.send(&self.name, around.now) {
                Ok(Some(message)) => {
                    self.fresh.extend(told(&message, &self.name));
                    link.down.push_back(message);
                }
                Ok(None) => return,
                Err(ended) => {
                    self.refused = Some(ended.reason).filter(|_| ended.refused);
                    self.link = None;
                }
            }
        }
    }

    /// So many messages arrive at the host.
    pub(crate) fn hear(&mut self, count: usize) -> Result<(), String> {
        for _ in 0..count {
            let Some(message) = self.link.as_mut().and_then(|link| link.down.pop_front()) else { break };
            if let Some(Down::Welcome(welcome)) = &message.message {
                let carried = self.host.carried();
                self.host.handle_up(welcome.takes_blocks);
                if let Some(link) = &mut self.link {
                    link.up.extend(recalls(&carried, welcome.epoch));
                    link.uplink = Some(Uplink::new(link.told.clone()));
                }
            }
            for event in events(message, SystemTime::UNIX_EPOCH)? {
                self.host.handle_event(event);
            }
            self.publish();
        }
        Ok(())
    }

    /// So many messages arrive at control.
    pub(crate) fn say(&mut self, count: usize, around: &mut Surroundings<'_>) {
        for _ in 0..count {
            let Some(message) = self.link.as_mut().and_then(|link| link.up.pop_front()) else { return };
            if around.control.receive(&self.name, message, around.now).is_err() {
                self.link = None;
            }
        }
    }

    /// Shows what has changed, and says it to control.
    pub(crate) fn publish(&mut self) {
        self.host.publish();
        let (report, followed) = (self.host.report(), self.host.followed());
        if let Some(link) = &mut self.link
            && let Some(uplink) = &mut link.uplink
        {
            link.up.extend(uplink.report(&report));
            link.up.extend(uplink.followed(&followed));
        }
    }

    /// Does everything that waits for neither the kernel nor control.
    pub(crate) fn tend(&mut self, around: &mut Surroundings<'_>) {
        for wish in std::mem::take(&mut self.wishes) {
            self.grant(wish, around);
        }
        for id in self.lives.keys().cloned().collect::<Vec<_>>() {
            self.live(&id, around);
        }
        if self.is_up() {
            self.host.give_back(false, around.now.instant);
            for network in self.host.asks_again(around.now.instant) {
                self.carry(network, 0, around);
            }
            for (network, blocks_held) in self.host.asks_ahead(around.now.instant) {
                let carry = CarryNetwork { node: self.name.clone(), network, blocks_held };
                if self.is_member(around.control) {
                    drop(around.control.submit(LeaseAhead(carry), around.now));
                }
            }
        }
        self.publish();
    }

    fn grant(&mut self, wish: Wish, around: &mut Surroundings<'_>) {
        if self.refused.is_some() {
            return;
        }
        let id = (wish.network.clone(), wish.name.clone());
        match self.host.admit(wish.clone(), around.now.instant) {
            Ok(_) => drop(self.lives.insert(id, Life::Admitted)),
            Err(NotAdmitted::Blocks(held)) => {
                if !self.is_up() || self.carry(wish.network.clone(), held, around) {
                    self.wishes.push(wish);
                }
            }
            Err(NotAdmitted::Refused(_)) => {}
        }
    }

    /// Asks for (more) addresses of a network; false when control refuses.
    fn carry(&mut self, network: NetworkName, blocks_held: usize, around: &mut Surroundings<'_>) -> bool {
        let command = CarryNetwork { node: self.name.clone(), network, blocks_held };
        self.is_member(around.control) && around.control.submit(command, around.now).is_ok()
    }

    fn live(&mut self, id: &Id, around: &mut Surroundings<'_>) {
        let Some(life) = self.lives.get(id).copied() else { return };
        let next = match life {
            Life::Admitted if self.refused.is_some() => self.ending(id, around),
            Life::Admitted if self.host.plumb(id) => Life::Registering(self.host.set_ready(id, false)),
            // One whose identity it does not get is not taken up.
            Life::Resuming if !self.host.refused().contains_key(id) && self.host.plumb(id) => {
                self.host.follow(id);
                Life::Running(self.incarnation(id, around))
            }
            Life::Registering(report) => self.register(id, report, around),
            Life::Running(_) => {
                self.host.follow(id);
                life
            }
            Life::Ending(mut ending, step) => {
                let over = self.host.is_over(id, &mut ending, self.is_up(), around.now.instant);
                if let Some(confirmed) = over
                    && self.host.unplumb(id)
                {
                    let workload = self.workloads().remove(id).filter(|_| confirmed);
                    self.let_go.extend(workload.map(|workload| (workload, step)));
                    self.host.remove(id, around.now.instant);
                    self.lives.remove(id);
                    return;
                }
                Life::Ending(ending, step)
            }
            Life::Admitted | Life::Resuming => life,
        };
        self.lives.insert(id.clone(), next);
    }

    fn register(&mut self, id: &Id, report: u64, around: &mut Surroundings<'_>) -> Life {
        let [known, _] = self.host.reported();
        if self.refused.is_some() || (known >= report && self.host.refused().contains_key(id)) {
            return self.ending(id, around);
        }
        let workloads = self.workloads();
        let alone = !self.is_up() && self.host.can_go_alone(id) && self.has_identity(id, around);
        let signed = known >= report
            && self.is_up()
            && workloads
                .get(id)
                .is_some_and(|workload| around.control.signs_for(&self.name, &workload.principal()));
        if !signed && !alone {
            return Life::Registering(report);
        }
        if signed && let Some(workload) = workloads.get(id) {
            let until = self.clock(around) + CERTIFICATE;
            self.identities.insert(workload.principal(), until);
        }
        self.host.follow(id);
        Life::Running(self.incarnation(id, around))
    }

    /// Returns true if a certificate for a workload is on disk that is good now.
    fn has_identity(&self, id: &Id, around: &Surroundings<'_>) -> bool {
        let own = self.workloads();
        let until = own.get(id).and_then(|own| self.identities.get(&own.principal()));
        until.is_some_and(|until| *until > self.clock(around))
    }

    fn incarnation(&self, id: &Id, around: &Surroundings<'_>) -> u64 {
        around.incarnations.get(&id.0).copied().unwrap_or_default()
    }

    /// Takes a workload out of names and balancing.
    pub(crate) fn ending(&mut self, id: &Id, around: &Surroundings<'_>) -> Life {
        let registered = matches!(self.lives.get(id), Some(Life::Running(_) | Life::Resuming));
        Life::Ending(self.host.end(id, registered), around.step)
    }

    /// Time of day as this host has it.
    fn clock(&self, around: &Surroundings<'_>) -> SystemTime {
        ahead_by(around.now.clock, self.minutes_ahead)
    }

    /// The start of the whole host: all of its workloads have ended.
    pub(crate) fn reboot(self, around: &Surroundings<'_>) -> Self {
        let clock = self.clock(around);
        let again = Self { host: self.host.rebooted(clock), ..self };
        again.restarted(&|_| true, around)
    }

    /// Kill -9 of the agent, and another start. The workloads for which `gone` says so have ended meanwhile.
    pub(crate) fn restart(self, gone: &dyn Fn(&Id) -> bool, around: &Surroundings<'_>) -> Self {
        let clock = self.clock(around);
        Self { host: self.host.restarted(clock, gone), ..self }.restarted(gone, around)
    }

    /// An agent that has just started takes up what its host has.
    fn restarted(self, gone: &dyn Fn(&Id) -> bool, around: &Surroundings<'_>) -> Self {
        let mut lives = BTreeMap::new();
        let mut again =
            Self { link: None, refused: None, wishes: vec![], instance: self.instance + 1, ..self };
        for id in again.host.stored() {
            lives.insert(id, Life::Resuming);
        }
        again.lives = lives;
        for id in again.host.stored().into_iter().filter(gone) {
            let ending = again.ending(&id, around);
            again.lives.insert(id, ending);
        }
        again.publish();
        again
    }

    /// Messages on their way, either way.
    pub(crate) fn queued(&self) -> [usize; 2] {
        self.link.as_ref().map_or([0; 2], |link| [link.up.len(), link.down.len()])
    }
}

/// A time of day that is ahead by so many minutes.
pub(crate) fn ahead_by(clock: SystemTime, minutes: i64) -> SystemTime {
    let by = Duration::from_secs(60 * minutes.unsigned_abs());
    if minutes < 0 { clock - by } else { clock + by }
}

/// Reads what a message says of a network to this host, if it is about one.
fn told(message: &v1::ControlMessage, host: &NodeName) -> Option<Told> {
    let read = events(message.clone(), SystemTime::UNIX_EPOCH).ok()?;
    read.into_iter().find_map(|event| match event {
        LinkEvent::State(state) => Some(Told {
            network: state.network.name.clone(),
            generation: state.generation,
            is_for_it: state.nodes.iter().any(|node| node.name == *host),
        }),
        LinkEvent::Delta(delta) => Some(Told { network: delta.name, generation: delta.to, is_for_it: true }),
        LinkEvent::Up { .. }
        | LinkEvent::Down { .. }
        | LinkEvent::Clocks(_)
        | LinkEvent::Lost(_)
        | LinkEvent::Gone(_)
        | LinkEvent::Reported { .. }
        | LinkEvent::Settled { .. } => None,
    })
}
