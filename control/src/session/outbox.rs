//! Queue of one agent's next messages: answers in order, then what it does not have yet of its desired state. Pure.
//!
//! Of each network one message is under way: the next one follows when the agent has acknowledged that, or after a pause. So the
//! busier hosts or control are, the more changes one message has; none stands in line behind others.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use sealane_proto::types::{Generation, NetworkName};
use sealane_proto::wire::v1;
use tokio::time::Instant;
use v1::control_message::Message;

use crate::registry::{DesiredState, PublishedNetwork};

/// Pause after what has not been acknowledged: a host that works by it acknowledges it within some 10 ms, or has much to do.
const PAUSE: Duration = Duration::from_millis(50);
/// Addition to it per octet: a state of 1 MB takes a host about a second.
const PAUSE_PER_OCTET: Duration = Duration::from_micros(1);

/// Compares what the agent should have with what it has been sent.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    answers: VecDeque<Message>,
    /// Generations that the agent has, or will have when it has read everything.
    sent: BTreeMap<NetworkName, Generation>,
    /// Messages that the agent has not acknowledged, and until when nothing more of their networks is sent.
    under_way: BTreeMap<NetworkName, (Generation, Instant)>,
    /// True if the agent reads deltas.
    deltas: bool,
    settled: u64,
    heartbeat: bool,
    /// True while the agent is still telling its memory: until then it keeps that.
    held: bool,
}

impl Outbox {
    /// For an agent that works by these generations, and reads deltas or only states.
    pub(super) fn new(applied: BTreeMap<NetworkName, Generation>, deltas: bool) -> Self {
        Self { sent: applied, deltas, ..Self::default() }
    }

    /// Sends no states until [`Outbox::release`].
    pub(super) fn hold(&mut self) {
        self.held = true;
    }

    /// Sends states from now on.
    pub(super) fn release(&mut self) {
        self.held = false;
    }

    /// The agent has this network, though Hello may have come too early to say so: a restarted agent acknowledges what
    /// it took up from its disk. One that is no more has to go.
    pub(super) fn carries(&mut self, network: NetworkName, generation: Generation) {
        if self.under_way.get(&network).is_some_and(|(sent, _)| *sent == generation) {
            self.under_way.remove(&network);
        }
        self.sent.entry(network).or_insert(generation);
    }

    /// The agent has not got what the last delta of this network led on from.
    pub(super) fn misses(&mut self, network: &NetworkName) {
        // As of a time before all: it is sent the state.
        if let Some(sent) = self.sent.get_mut(network) {
            *sent = Generation::default();
        }
    }

    /// Sends an answer before anything else.
    pub(super) fn push(&mut self, answer: Message) {
        self.answers.push_back(answer);
    }

    /// Returns the number of networks that the agent has, as far as it says or was sent them.
    pub(super) fn networks(&self) -> usize {
        self.sent.len()
    }

    /// Returns the number of answers that wait.
    pub(super) fn answers(&self) -> usize {
        self.answers.len()
    }

    /// Says that control is there, if nothing else does.
    pub(super) fn heartbeat(&mut self) {
        self.heartbeat = true;
    }

    /// Returns true if [`Outbox::next`] has something.
    pub(super) fn has_news(&self, desired: &DesiredState, now: Instant) -> bool {
        !self.answers.is_empty()
            || self.heartbeat
            || (!self.held
                && (self.settled != desired.settled
                    || self.gone(desired).is_some()
                    || self.newer(desired).any(|network| self.may_send(network, now))))
    }

    /// Time at which there is something although nothing happens until then.
    pub(super) fn due(&self, desired: &DesiredState) -> Option<Instant> {
        let waiting = self.newer(desired).filter_map(|network| self.under_way.get(network));
        waiting.map(|&(_, until)| until).min().filter(|_| !self.held)
    }

    /// The next message.
    pub(super) fn next(&mut self, desired: &DesiredState, now: Instant) -> Option<Message> {
        let message = self.news(desired, now);
        if message.is_some() {
            // Anything says that control is there.
            self.heartbeat = false;
        }
        message
    }

    fn news(&mut self, desired: &DesiredState, now: Instant) -> Option<Message> {
        if let Some(answer) = self.answers.pop_front() {
            return Some(answer);
        }
        if self.held {
            return self.heartbeat.then_some(Message::Heartbeat(v1::Heartbeat::default()));
        }
        if let Some(network) = self.gone(desired).cloned() {
            self.sent.remove(&network);
            self.under_way.remove(&network);
            return Some(Message::Gone(v1::NetworkGone { network: network.to_string() }));
        }
        let next = self.newer(desired).find(|network| self.may_send(network, now)).cloned();
        if let Some(name) = next
            && let Some(network) = desired.networks.get(&name)
        {
            return Some(self.send(name, network, now));
        }
        if self.settled != desired.settled {
            self.settled = desired.settled;
            return Some(Message::Settled(v1::Settled { sequence: desired.settled }));
        }
        self.heartbeat.then_some(Message::Heartbeat(v1::Heartbeat::default()))
    }

    fn gone(&self, desired: &DesiredState) -> Option<&NetworkName> {
        self.sent.keys().find(|network| !desired.networks.contains_key(*network))
    }

    /// The networks of which the agent has not been sent the newest.
    fn newer<'a>(&'a self, desired: &'a DesiredState) -> impl Iterator<Item = &'a NetworkName> {
        let networks = desired.networks.iter();
        let newer = networks.filter(|(name, network)| self.sent.get(*name) != Some(&network.generation));
        newer.map(|(name, _)| name)
    }

    fn may_send(&self, network: &NetworkName, now: Instant) -> bool {
        self.under_way.get(network).is_none_or(|&(_, until)| until <= now)
    }

    /// The way to a network's newest state from what the agent has, or the state.
    fn send(&mut self, name: NetworkName, network: &PublishedNetwork, now: Instant) -> Message {
        let known = self.sent.insert(name.clone(), network.generation);
        let way = known.filter(|_| self.deltas).and_then(|known| network.way_from(known));
        let (octets, message): (_, fn(_) -> _) = match way {
            Some(way) => (way, Message::Delta),
            None => (network.state(), Message::State),
        };
        let length = u32::try_from(octets.len()).unwrap_or(u32::MAX);
        self.under_way.insert(name, (network.generation, now + PAUSE + PAUSE_PER_OCTET * length));
        message(octets)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use sealane_proto::resource::{Egress, Network, NetworkDelta};
    use sealane_proto::types::Vni;

    use super::*;
    use crate::core::{Affected, Change, NetworkRecord, State};
    use crate::registry::Directory;

    fn network(name: &str) -> Network {
        Network {
            name: name.parse().unwrap(),
            hosts: Default::default(),
            subnet: "10.42.0.0/16".parse().unwrap(),
            vni: Vni::FIRST,
            mtu: None,
            egress: Egress::Allow,
            subnet6: None,
            mtls: None,
        }
    }

    fn at(revision: u64) -> Generation {
        Generation { epoch: 1, revision }
    }

    fn desired(networks: &[(&str, u64)], settled: u64) -> DesiredState {
        let mut state = State::default();
        for (name, changed) in networks {
            state.apply(&Change::put(NetworkRecord { network: network(name), changed: *changed }));
        }
        let networks = Directory::first(&state, at(9), &Default::default()).networks;
        DesiredState { networks, settled, ..DesiredState::default() }
    }

    fn drain(outbox: &mut Outbox, desired: &DesiredState) -> Vec<String> {
        drain_at(outbox, desired, Instant::now())
    }

    fn drain_at(outbox: &mut Outbox, desired: &DesiredState, now: Instant) -> Vec<String> {
        let mut all = vec![];
        while outbox.has_news(desired, now) {
            all.push(match outbox.next(desired, now).unwrap() {
                Message::Delta(delta) => {
                    let delta = NetworkDelta::try_from(v1::NetworkDelta::decode(delta).unwrap()).unwrap();
                    format!("{}:{}-{}", delta.name, delta.from, delta.to.revision)
                }
                Message::State(state) => {
                    let state = v1::NetworkState::decode(state).unwrap();
                    format!("{}@{}", state.network.unwrap().name, state.generation.unwrap().revision)
                }
                Message::Gone(gone) => format!("-{}", gone.network),
                Message::Settled(settled) => format!("settled {}", settled.sequence),
                Message::Reported(reported) => format!("reported {}", reported.sequence),
                Message::Heartbeat(_) => "heartbeat".into(),
                Message::Welcome(_) => "welcome".into(),
            });
        }
        assert!(outbox.next(desired, now).is_none());
        all
    }

    #[test]
    fn a_network_that_is_acknowledged_late_and_is_no_more_goes() {
        let mut outbox = Outbox::new(BTreeMap::new(), false);
        let desired = desired(&[("shop", 5)], 0);
        assert_eq!(drain(&mut outbox, &desired), ["shop@5"]);
        outbox.carries("shop".parse().unwrap(), Generation { epoch: 1, revision: 4 });
        assert_eq!(drain(&mut outbox, &desired), [""; 0], "what was sent stands");
        outbox.carries("gone".parse().unwrap(), Generation { epoch: 1, revision: 4 });
        assert_eq!(drain(&mut outbox, &desired), ["-gone"]);
    }

    #[test]
    fn only_what_the_agent_does_not_have_is_sent() {
        let applied = [
            ("same".parse().unwrap(), Generation { epoch: 1, revision: 5 }),
            ("old".parse().unwrap(), Generation { epoch: 1, revision: 4 }),
            ("restored".parse().unwrap(), Generation { epoch: 9, revision: 5 }),
            ("gone".parse().unwrap(), Generation { epoch: 1, revision: 5 }),
        ];
        let mut outbox = Outbox::new(applied.into(), true);
        let desired = desired(&[("same", 5), ("old", 5), ("restored", 5), ("new", 5)], 0);
        assert_eq!(drain(&mut outbox, &desired), ["-gone", "new@5", "old@5", "restored@5"]);
        assert_eq!(drain(&mut outbox, &desired), [""; 0]);
    }

    #[test]
    fn an_agent_that_is_still_telling_what_it_has_keeps_it() {
        let mut outbox =
            Outbox::new([("new".parse().unwrap(), Generation { epoch: 9, revision: 5 })].into(), true);
        outbox.hold();
        outbox.heartbeat();
        assert_eq!(drain(&mut outbox, &desired(&[("shop", 7)], 0)), ["heartbeat"]);
        outbox.release();
        assert_eq!(drain(&mut outbox, &desired(&[("new", 8), ("shop", 8)], 0)), ["new@8", "shop@8"]);
    }

    #[test]
    fn answers_go_first_and_settled_after_the_state() {
        let mut outbox = Outbox::default();
        outbox.heartbeat();
        outbox.push(Message::Reported(v1::Reported { sequence: 3, refused: vec![] }));
        assert_eq!(drain(&mut outbox, &desired(&[("shop", 7)], 3)), ["reported 3", "shop@7", "settled 3"]);
        outbox.heartbeat();
        assert_eq!(drain(&mut outbox, &desired(&[("shop", 7)], 3)), ["heartbeat"]);
    }

    /// A network whose egress has been turned so many times, at the revisions from 5 on.
    fn turned(times: u64) -> Vec<DesiredState> {
        let mut state = State::default();
        state.apply(&Change::put(NetworkRecord { network: network("shop"), changed: 5 }));
        let mut directory = Directory::first(&state, at(5), &Default::default());
        let mut all = vec![];
        for revision in 6..6 + times {
            all.push(DesiredState { networks: directory.networks.clone(), ..DesiredState::default() });
            let network = Network { egress: Egress::from_denied(revision % 2 == 0), ..network("shop") };
            let change = Change::put(NetworkRecord { network, changed: revision });
            let mut affected = Affected::default();
            state.affects(&change, &mut affected);
            state.apply(&change);
            directory = directory.next(&state, at(revision), &affected);
        }
        all.push(DesiredState { networks: directory.networks.clone(), ..DesiredState::default() });
        all
    }

    #[test]
    fn one_message_of_a_network_is_under_way_and_the_next_one_has_all_that_changed_meanwhile() {
        let states = turned(4);
        let (mut outbox, start) = (Outbox::new(BTreeMap::new(), true), Instant::now());
        assert_eq!(drain_at(&mut outbox, &states[0], start), ["shop@5"]);
        assert_eq!(drain_at(&mut outbox, &states[1], start), [""; 0]);
        assert_eq!(outbox.due(&states[0]), None, "nothing waits");
        let due = outbox.due(&states[1]).unwrap();
        assert!(due > start + PAUSE && due < start + 2 * PAUSE);
        outbox.carries("shop".parse().unwrap(), at(4));
        assert_eq!(
            drain_at(&mut outbox, &states[2], start),
            [""; 0],
            "an acknowledgement of something older"
        );
        outbox.carries("shop".parse().unwrap(), at(5));
        assert_eq!(drain_at(&mut outbox, &states[2], start), ["shop:5-7"]);
        assert_eq!(drain_at(&mut outbox, &states[4], start + PAUSE), [""; 0]);
        assert_eq!(drain_at(&mut outbox, &states[4], start + 2 * PAUSE), ["shop:7-9"]);
        outbox.misses(&"shop".parse().unwrap());
        outbox.carries("shop".parse().unwrap(), at(9));
        assert_eq!(drain_at(&mut outbox, &states[4], start + 2 * PAUSE), ["shop@9"]);
    }

    #[test]
    fn an_agent_that_reads_no_deltas_gets_states() {
        let states = turned(1);
        let mut outbox = Outbox::new([("shop".parse().unwrap(), at(5))].into(), false);
        assert_eq!(drain(&mut outbox, &states[1]), ["shop@6"]);
        let mut outbox = Outbox::new([("shop".parse().unwrap(), at(5))].into(), true);
        assert_eq!(drain(&mut outbox, &states[1]), ["shop:5-6"]);
    }
}
