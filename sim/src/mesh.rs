//! Hosts that watch each other and tell each other what they have, moment by moment: each packet takes its time, is lost, or has no way.
//!
//! Control, agents, watches and conversations decide by their own code; ways, machines and clocks are tables. Main type: [`Mesh`].

mod beat;
mod echoes;
mod judge;
mod scene;
mod talks;
mod trouble;
mod ways;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::{Duration, Instant};

use sealane_agent::simulation::{Id, SimulatedWatch, Voice, Wish};
use sealane_proto::peer::PeerFrame;
use sealane_proto::resource::Edition;
use sealane_proto::types::{NetworkName, NodeName};

use crate::world::World;
pub use scene::{Change, Scene};
pub(crate) use scene::{MANY, MOST, scenes};
use talks::End;
use ways::{Cut, Ways};

/// Time within which a dead host is to be known, as agents have it when nobody says otherwise.
const TIMEOUT: Duration = Duration::from_secs(1);
const TENTH: Duration = Duration::from_millis(100);
/// Time in which a mesh of new hosts comes up, and that everything takes at most once all trouble is over.
const SETTLING: Duration = Duration::from_secs(25);

/// Event at one moment. Those of a host that stands still wait for it.
#[derive(Debug)]
enum Event {
    /// A watch is due.
    Wake(u8),
    /// An agent does what there is to do, in this run of its machine.
    Tick(u8, u64),
    /// A host shows what it has heard.
    Publish(u8),
    /// An end of a conversation is due.
    Serve(u8, u8),
    /// A frame arrives, of the connection of this number.
    Frame { from: u8, to: u8, connection: u64, frame: Box<PeerFrame> },
    /// The frames of a connection that wait are sent again.
    Retry(u8, u8, u64),
    /// An end learns that the other one has ended the connection.
    Reset { from: u8, to: u8, connection: u64 },
    /// A host calls another one.
    Dial(u8, u8),
    /// A call of a host has come to another one and back.
    Connected(u8, u8),
    /// A machine that stood still, or whose processes did, goes on.
    Thaw(u8),
    /// A way that was cut for a while is open again.
    Mend(Cut),
    /// A host is cut off once more, of so many times, for so long.
    Flap(u8, Duration, u8),
    /// Control looks for what is due.
    Control,
    /// All invariants are looked at.
    Check,
}

/// Event with its time; of two at one time, the older one is first.
#[derive(Debug)]
struct Due {
    at: Instant,
    sequence: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// A host's part that watches and talks.
#[derive(Debug)]
struct Host {
    name: NodeName,
    /// `None` while the machine has no power.
    watch: Option<SimulatedWatch>,
    /// Time of the watch's next wake.
    wake: Instant,
    /// Answers in its kernel or on their way to it.
    answers: Vec<(Instant, u8, u64)>,
    /// Hosts that it has lost.
    lost: BTreeSet<u8>,
    voice: Voice,
    /// Hosts that share networks with it, and since when they are these.
    peers: BTreeMap<u8, BTreeSet<NetworkName>>,
    peers_since: Instant,
    /// Editions of what it says, with their times.
    said: BTreeMap<NetworkName, Vec<(Instant, Edition)>>,
    /// True if it has heard something that it has not shown.
    is_dirty: bool,
    /// Number of changes of what it works by that it has told its peers of.
    works: u64,
    /// Run of its machine.
    run: u64,
    /// Time until which it stands still, and since which it does not.
    still: Option<Instant>,
    awake: Instant,
    /// Workloads that are to run here, whatever happens, and those that were made ready.
    wanted: BTreeMap<Id, Wish>,
    ready: BTreeSet<Id>,
}

/// Sums over a scene, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Time that passed in the scene.
    pub time: Duration,
    /// Echoes that were sent.
    pub echoes: u64,
    /// Frames that arrived.
    pub frames: u64,
    /// Hosts that were lost, by how many others.
    pub lost: u64,
}

/// The mesh.
#[derive(Debug)]
pub struct Mesh {
    world: World,
    ways: Ways,
    hosts: Vec<Host>,
    numbers: BTreeMap<NodeName, u8>,
    ends: Vec<End>,
    queue: BinaryHeap<Reverse<Due>>,
    sequence: u64,
    connections: u64,
    now: Instant,
    /// Hours that passed at once.
    skipped: Duration,
    /// True while nobody reaches control; hosts that are on an island without it.
    is_control_gone: bool,
    without_control: BTreeSet<u8>,
    /// Number of workloads so far.
    workloads: u32,
    tally: Tally,
}

impl Mesh {
    /// Lives through a scene, and looks whether everything is as it was once all trouble is over.
    ///
    /// # Errors
    /// The first invariant that does not hold, with when and after which change.
    pub fn live(scene: &Scene, seed: u64) -> Result<Tally, String> {
        let mut mesh = Self::new(scene.hosts.clamp(2, MOST), seed);
        mesh.run(SETTLING).map_err(|reason| format!("in the beginning: {reason}"))?;
        mesh.push(mesh.now, Event::Check);
        let began = mesh.now;
        for (number, (tenths, change)) in scene.changes.iter().enumerate() {
            mesh.run(TENTH * u32::from(*tenths)).and_then(|()| mesh.change(change)).map_err(|reason| {
                format!("before change {number}, {change:?}, at {:?}: {reason}", mesh.now - began)
            })?;
        }
        mesh.come_to_rest().map_err(|reason| format!("at the end, at {:?}: {reason}", mesh.now - began))?;
        mesh.tally.time = mesh.now - began + mesh.skipped;
        Ok(mesh.tally)
    }

    fn come_to_rest(&mut self) -> Result<(), String> {
        for change in [Change::Heal, Change::On, Change::Blackout(false)] {
            self.change(&change)?;
        }
        // Whoever stands still for a while goes on within six seconds, and flaps end.
        self.run(2 * SETTLING)?;
        self.change(&Change::Heal)?;
        self.run(SETTLING)?;
        self.check_rest()
    }

    fn number(&self, name: &NodeName) -> Option<u8> {
        self.numbers.get(name).copied()
    }

    fn all(&self) -> std::ops::Range<u8> {
        0..u8::try_from(self.hosts.len()).unwrap_or(u8::MAX)
    }

    fn host(&self, host: u8) -> &Host {
        &self.hosts[usize::from(host)]
    }

    fn host_mut(&mut self, host: u8) -> &mut Host {
        &mut self.hosts[usize::from(host)]
    }

    fn push(&mut self, at: Instant, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse(Due { at, sequence: self.sequence, event }));
    }

    /// Lets time pass.
    fn run(&mut self, time: Duration) -> Result<(), String> {
        let end = self.now + time;
        while self.queue.peek().is_some_and(|Reverse(due)| due.at <= end) {
            let Some(Reverse(Due { at, event, .. })) = self.queue.pop() else { break };
            self.set_time(at);
            match self.host_of(&event).and_then(|host| self.host(host).still) {
                Some(until) => self.push(until.max(at), event),
                None => self.handle(event)?,
            }
        }
        self.set_time(end);
        Ok(())
    }

    fn set_time(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.now);
        self.now = now;
        self.world.pass_time(passed);
    }

    /// The host whose processes an event needs.
    fn host_of(&self, event: &Event) -> Option<u8> {
        match event {
            Event::Wake(host) | Event::Tick(host, _) | Event::Publish(host) => Some(*host),
            Event::Serve(host, _) | Event::Dial(host, _) | Event::Connected(host, _) => Some(*host),
            Event::Frame { to, .. } | Event::Reset { to, .. } => Some(*to),
            Event::Retry(..) | Event::Thaw(_) | Event::Mend(_) | Event::Flap(..) => None,
            Event::Control | Event::Check => None,
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Wake(host) => self.wake(host)?,
            Event::Tick(host, run) if run == self.host(host).run => {
                self.tick(host)?;
                self.push(self.now + self.period(), Event::Tick(host, run));
            }
            Event::Tick(..) => {}
            Event::Publish(host) => self.publish(host),
            Event::Serve(from, to) => self.serve(from, to),
            Event::Frame { from, to, connection, frame } => self.hear(from, to, connection, *frame),
            Event::Retry(from, to, connection) => self.retry(from, to, connection),
            Event::Reset { from, to, connection } => self.reset(from, to, connection),
            Event::Dial(from, to) => self.dial(from, to),
            Event::Connected(from, to) => self.connected(from, to),
            Event::Thaw(host) => self.thaw(host),
            Event::Mend(cut) => self.ways.mend(&cut, self.now),
            Event::Flap(host, time, times) => self.flap(host, time, times),
            Event::Control => self.tend_control(),
            Event::Check => {
                self.check()?;
                self.forget_said();
                self.push(self.now + self.period() * 5, Event::Check);
            }
        }
        Ok(())
    }

    /// Time between two looks of an agent at what there is to do.
    fn period(&self) -> Duration {
        if self.hosts.len() > 16 { TENTH * 2 } else { TENTH / 2 }
    }
}
