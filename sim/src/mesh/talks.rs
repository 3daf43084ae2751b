//! Conversations between hosts: who calls whom, and frames that go on arriving in order, or not at all.
//!
//! Connections are a table like TCP: what is lost is sent again, later and later, and an end that is gone is noticed where there is a way.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sealane_agent::simulation::{Memory, SimulatedTalk};
use sealane_proto::peer::PeerFrame;

use super::{Event, Mesh};
use crate::talk::accepts;

/// Waits of an agent between calls, and of the host with the greater name for a call.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
const PATIENCE: Duration = Duration::from_secs(2);
/// Time that an agent gives a call, and that it gives a handshake.
const CONNECT: Duration = Duration::from_secs(2);
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A connection that lasted so long was a success.
const LASTING: Duration = Duration::from_secs(2);
/// First time after which a kernel sends again.
const AGAIN: Duration = Duration::from_millis(200);

/// End of what two hosts have between them.
#[derive(Debug)]
pub(super) struct End {
    /// The conversation over the connection of this number.
    pub(super) talk: Option<(u64, SimulatedTalk)>,
    /// Words of the other host that outlived earlier ones.
    memory: Option<Memory>,
    /// Frames that wait for their turn, and the time after which the first one is sent again.
    queue: VecDeque<PeerFrame>,
    again: Option<Duration>,
    /// Time at which the last frame arrives.
    arrival: Instant,
    /// Time at which the conversation is due, and of the next call.
    due: Instant,
    dial: Option<Instant>,
    wait: Duration,
    opened: Instant,
}

impl End {
    fn new(now: Instant) -> Self {
        Self {
            talk: None,
            memory: None,
            queue: VecDeque::new(),
            again: None,
            arrival: now,
            due: now,
            dial: None,
            wait: WAITS.0,
            opened: now,
        }
    }

    /// Ends the conversation; returns the number of its connection.
    fn hang_up(&mut self, now: Instant) -> Option<u64> {
        let (connection, talk) = self.talk.take()?;
        self.memory = Some(talk.into_memory());
        self.queue.clear();
        self.again = None;
        if now >= self.opened + LASTING {
            self.wait = WAITS.0;
        }
        Some(connection)
    }

    fn next_wait(&mut self) -> Duration {
        let wait = self.wait;
        self.wait = (self.wait * 2).min(WAITS.1);
        wait
    }
}

impl Mesh {
    pub(super) fn begin_ends(&mut self) {
        let count = self.hosts.len() * self.hosts.len();
        self.ends = (0..count).map(|_| End::new(self.now)).collect();
    }

    pub(super) fn end_mut(&mut self, from: u8, to: u8) -> &mut End {
        let place = usize::from(from) * self.hosts.len() + usize::from(to);
        &mut self.ends[place]
    }

    /// A host calls those that share networks with it and that it does not talk to.
    pub(super) fn begin_dialling(&mut self, host: u8) {
        for to in self.host(host).peers.keys().copied().collect::<Vec<_>>() {
            let end = self.end_mut(host, to);
            if end.talk.is_none() && end.dial.is_none() {
                let spread = Duration::from_millis(self.ways.random(50));
                let wait = if host < to { spread } else { PATIENCE + spread };
                self.dial_after(host, to, wait);
            }
        }
    }

    fn dial_after(&mut self, from: u8, to: u8, wait: Duration) {
        let at = self.now + wait;
        self.end_mut(from, to).dial = Some(at);
        self.push(at, Event::Dial(from, to));
    }

    /// A call: a connection and a handshake, three times to and fro.
    pub(super) fn dial(&mut self, from: u8, to: u8) {
        let now = self.now;
        let is_watched = self.host(from).watch.is_some() && self.host(from).peers.contains_key(&to);
        let end = self.end_mut(from, to);
        if end.dial.is_none_or(|at| at > now) {
            return;
        }
        end.dial = None;
        if end.talk.is_some() || !is_watched {
            return;
        }
        let tries = [Duration::ZERO, Duration::from_secs(1)];
        let mut took = None;
        for tried in tries {
            let there_and_back = self.ways.carry(from, to).zip(self.ways.carry(to, from));
            took = took.or(there_and_back.map(|(there, back)| tried + 3 * (there + back)));
        }
        match took {
            Some(took) => {
                self.end_mut(from, to).dial = Some(now + took);
                self.push(now + took, Event::Connected(from, to));
            }
            None => self.call_again(from, to, CONNECT),
        }
    }

    fn call_again(&mut self, from: u8, to: u8, after: Duration) {
        let wait = self.end_mut(from, to).next_wait();
        self.dial_after(from, to, after + wait);
    }

    /// A call has come through, unless the way or the other agent is gone meanwhile.
    pub(super) fn connected(&mut self, from: u8, to: u8) {
        let now = self.now;
        let end = self.end_mut(from, to);
        if end.dial.is_none_or(|at| at > now) || end.talk.is_some() {
            return;
        }
        end.dial = None;
        let hears = self.host(to).watch.is_some();
        let one = self.world.agents.get(&from).zip(self.world.agents.get(&to));
        let agree = one.is_some_and(|(one, other)| accepts(one, other) && accepts(other, one));
        if !self.ways.whole(from, to).0 {
            return self.call_again(from, to, CONNECT);
        }
        if self.host(to).still.is_some() {
            return self.call_again(from, to, HANDSHAKE);
        }
        // Of two calls, that of the host with the smaller name counts, as long as it is not silent.
        let talk = self.end_mut(to, from).talk.as_ref();
        let has_better = to < from && talk.is_some_and(|(_, talk)| talk.silence(now) < PATIENCE);
        if !hears || !agree || has_better {
            return self.call_again(from, to, Duration::ZERO);
        }
        self.connections += 1;
        self.open(from, to);
        self.open(to, from);
        self.serve(from, to);
        self.serve(to, from);
    }

    fn open(&mut self, own: u8, peer: u8) {
        let (now, connection) = (self.now, self.connections);
        let name = self.host(peer).name.clone();
        let end = self.end_mut(own, peer);
        end.hang_up(now);
        let memory = end.memory.take().unwrap_or_else(|| Memory::of(name));
        end.talk = Some((connection, SimulatedTalk::new(memory, now)));
        (end.opened, end.arrival, end.dial) = (now, now, None);
        self.tell(own, peer);
        self.acknowledge(own, peer);
    }

    /// A host tells another one by which of its words it works.
    fn acknowledge(&mut self, own: u8, peer: u8) {
        let name = self.host(peer).name.clone();
        let place = usize::from(own) * self.hosts.len() + usize::from(peer);
        let agent = self.world.agents.get(&own);
        if let Some((agent, (_, talk))) = agent.zip(self.ends[place].talk.as_mut()) {
            talk.works(&agent.host.works(&name));
        }
    }

    /// A host tells the others by which of their words it works, where that is news.
    pub(super) fn acknowledge_all(&mut self, host: u8) {
        let Some(agent) = self.world.agents.get(&host) else { return };
        let version = agent.host.works_version();
        if std::mem::replace(&mut self.host_mut(host).works, version) == version {
            return;
        }
        for peer in self.all().filter(|peer| *peer != host) {
            if self.end_mut(host, peer).talk.is_some() {
                self.acknowledge(host, peer);
                self.serve(host, peer);
            }
        }
    }

    fn tell(&mut self, own: u8, peer: u8) {
        let place = usize::from(own) * self.hosts.len() + usize::from(peer);
        let known = &self.hosts[usize::from(own)];
        let shared = known.peers.get(&peer).cloned().unwrap_or_default();
        if let Some((_, talk)) = &mut self.ends[place].talk {
            talk.tell(&known.voice, &shared);
        }
    }

    /// A host tells all others what is new.
    pub(super) fn tell_all(&mut self, host: u8) {
        for peer in self.all().filter(|peer| *peer != host) {
            if self.end_mut(host, peer).talk.is_some() {
                self.tell(host, peer);
                self.serve(host, peer);
            }
        }
    }

    /// Does what an end does when something has happened to it, or its time has come.
    pub(super) fn serve(&mut self, own: u8, peer: u8) {
        let now = self.now;
        let Some((connection, talk)) = &mut self.end_mut(own, peer).talk else { return };
        let connection = *connection;
        if talk.is_over(now) {
            return self.hang_up(own, peer);
        }
        let frames: Vec<PeerFrame> = std::iter::from_fn(|| talk.poll_frame(now)).collect();
        let words: Vec<_> = std::iter::from_fn(|| talk.poll_word()).collect();
        let (hints, due) = (talk.take_hints(), talk.due());
        let acknowledged = talk.take_acknowledged();
        if !frames.is_empty() {
            self.end_mut(own, peer).queue.extend(frames);
            self.send(own, peer, connection);
        }
        let name = self.host(peer).name.clone();
        if let Some((agent, acknowledged)) = self.world.agents.get_mut(&own).zip(acknowledged) {
            agent.host.acknowledged(name.clone(), acknowledged);
        }
        let clock = self.world.clock_of(own);
        for word in words {
            if let Some(agent) = self.world.agents.get_mut(&own) {
                agent.host.hear(name.clone(), word, clock);
            }
            self.soil(own);
        }
        let known = self.host_mut(own);
        if let Some(watch) = known.watch.as_mut().filter(|_| !hints.is_empty()) {
            watch.handle_hint(&name, &hints);
            known.wake = now;
            self.push(now, Event::Wake(own));
        }
        let end = self.end_mut(own, peer);
        if end.due <= now || due < end.due {
            end.due = due;
            self.push(due, Event::Serve(own, peer));
        }
    }

    /// Sends what waits, unless the first of it waits to be sent again.
    fn send(&mut self, from: u8, to: u8, connection: u64) {
        if self.end_mut(from, to).again.is_some() || self.end_mut(from, to).queue.is_empty() {
            return;
        }
        let now = self.now;
        let Some(way) = self.ways.carry(from, to) else {
            self.end_mut(from, to).again = Some(AGAIN);
            return self.push(now + AGAIN, Event::Retry(from, to, connection));
        };
        let end = self.end_mut(from, to);
        let (at, frames) = (end.arrival.max(now + way), std::mem::take(&mut end.queue));
        end.arrival = at;
        for frame in frames {
            self.push(at, Event::Frame { from, to, connection, frame: Box::new(frame) });
        }
    }

    pub(super) fn retry(&mut self, from: u8, to: u8, connection: u64) {
        let end = self.end_mut(from, to);
        if end.talk.as_ref().is_none_or(|(known, _)| *known != connection) {
            return;
        }
        let Some(again) = end.again.take() else { return };
        self.send(from, to, connection);
        let end = self.end_mut(from, to);
        if end.again.is_some() {
            // The one that `send` has asked for comes later and later.
            end.again = Some(again * 2);
        }
    }

    pub(super) fn hear(&mut self, from: u8, to: u8, connection: u64, frame: PeerFrame) {
        let now = self.now;
        if !self.ways.is_on(to) {
            return;
        }
        let Some((known, talk)) = &mut self.end_mut(to, from).talk else { return };
        if *known != connection {
            return;
        }
        let heard = talk.handle_frame(frame, now);
        self.tally.frames += 1;
        match heard {
            Ok(()) => self.serve(to, from),
            Err(_) => self.hang_up(to, from),
        }
    }

    /// The other end is gone.
    pub(super) fn reset(&mut self, from: u8, to: u8, connection: u64) {
        if self.end_mut(to, from).talk.as_ref().is_some_and(|(known, _)| *known == connection) {
            self.hang_up(to, from);
        }
    }

    /// An agent gives a conversation up, and calls again.
    fn hang_up(&mut self, own: u8, peer: u8) {
        let now = self.now;
        let Some(connection) = self.end_mut(own, peer).hang_up(now) else { return };
        let name = self.host(peer).name.clone();
        if let Some(agent) = self.world.agents.get_mut(&own) {
            agent.host.fall_silent(&name);
        }
        self.soil(own);
        self.say_goodbye(own, peer, connection);
        let wait = if own < peer { self.end_mut(own, peer).next_wait() } else { PATIENCE };
        self.dial_after(own, peer, wait);
    }

    fn say_goodbye(&mut self, own: u8, peer: u8, connection: u64) {
        if let Some(way) = self.ways.carry(own, peer) {
            let at = self.end_mut(own, peer).arrival.max(self.now + way);
            self.push(at, Event::Reset { from: own, to: peer, connection });
        }
    }

    /// A host's agent is gone, with all that it remembers of conversations.
    pub(super) fn forget_talks(&mut self, host: u8) {
        let now = self.now;
        for peer in self.all().filter(|peer| *peer != host) {
            let connection = self.end_mut(host, peer).hang_up(now);
            *self.end_mut(host, peer) = End::new(now);
            if let Some(connection) = connection {
                self.say_goodbye(host, peer, connection);
            }
        }
    }
}
