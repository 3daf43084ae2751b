//! Queue of one agent's next messages: answers in order, then what it does not have yet of its desired state. Pure.

use std::collections::{BTreeMap, VecDeque};

use sealane_proto::types::{Generation, NetworkName};
use sealane_proto::wire::v1;
use v1::control_message::Message;

use crate::registry::DesiredState;

/// Compares what the agent should have with what it has been sent.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    answers: VecDeque<Message>,
    /// Generations that the agent has, or will have when it has read everything.
    sent: BTreeMap<NetworkName, Generation>,
    settled: u64,
    heartbeat: bool,
    /// True while the agent is still telling its memory: until then it keeps that.
    held: bool,
}

impl Outbox {
    /// For an agent that works by these generations.
    pub(super) fn new(applied: BTreeMap<NetworkName, Generation>) -> Self {
        Self { sent: applied, ..Self::default() }
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
        self.sent.entry(network).or_insert(generation);
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
    pub(super) fn has_news(&self, desired: &DesiredState) -> bool {
        !self.answers.is_empty()
            || self.heartbeat
            || (!self.held
                && (self.settled != desired.settled
                    || self.gone(desired).is_some()
                    || self.newer(desired).is_some()))
    }

    /// The next message.
    pub(super) fn next(&mut self, desired: &DesiredState) -> Option<Message> {
        let message = self.news(desired);
        if message.is_some() {
            // Anything says that control is there.
            self.heartbeat = false;
        }
        message
    }

    fn news(&mut self, desired: &DesiredState) -> Option<Message> {
        if let Some(answer) = self.answers.pop_front() {
            return Some(answer);
        }
        if self.held {
            return self.heartbeat.then_some(Message::Heartbeat(v1::Heartbeat::default()));
        }
        if let Some(network) = self.gone(desired).cloned() {
            self.sent.remove(&network);
            return Some(Message::Gone(v1::NetworkGone { network: network.to_string() }));
        }
        if let Some(name) = self.newer(desired).cloned()
            && let Some(snapshot) = desired.networks.get(&name)
        {
            self.sent.insert(name, snapshot.generation);
            return Some(Message::State(snapshot.encoded()));
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

    fn newer<'a>(&self, desired: &'a DesiredState) -> Option<&'a NetworkName> {
        let mut all = desired.networks.iter();
        let newer = all.find(|(name, snapshot)| self.sent.get(*name) != Some(&snapshot.generation));
        newer.map(|(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prost::Message as _;
    use sealane_proto::resource::{Egress, Network, NetworkSnapshot};
    use sealane_proto::types::Vni;

    use super::*;

    fn desired(networks: &[(&str, u64)], settled: u64) -> DesiredState {
        let networks = networks.iter().map(|(name, revision)| {
            let network = Network {
                name: name.parse().unwrap(),
                hosts: Default::default(),
                subnet: "10.42.0.0/16".parse().unwrap(),
                vni: Vni::FIRST,
                mtu: None,
                egress: Egress::Allow,
                subnet6: None,
                mtls: None,
            };
            let snapshot = NetworkSnapshot {
                generation: Generation { epoch: 1, revision: *revision },
                content: network.into(),
            };
            (name.parse().unwrap(), Arc::new(snapshot.into()))
        });
        DesiredState { networks: networks.collect(), settled, ..DesiredState::default() }
    }

    fn drain(outbox: &mut Outbox, desired: &DesiredState) -> Vec<String> {
        let mut all = vec![];
        while outbox.has_news(desired) {
            all.push(match outbox.next(desired).unwrap() {
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
        assert!(outbox.next(desired).is_none());
        all
    }

    #[test]
    fn a_network_that_is_acknowledged_late_and_is_no_more_goes() {
        let mut outbox = Outbox::new(BTreeMap::new());
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
        let mut outbox = Outbox::new(applied.into());
        let desired = desired(&[("same", 5), ("old", 5), ("restored", 5), ("new", 5)], 0);
        assert_eq!(drain(&mut outbox, &desired), ["-gone", "new@5", "old@5", "restored@5"]);
        assert_eq!(drain(&mut outbox, &desired), [""; 0]);
    }

    #[test]
    fn an_agent_that_is_still_telling_what_it_has_keeps_it() {
        let mut outbox = Outbox::new([("new".parse().unwrap(), Generation { epoch: 9, revision: 5 })].into());
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
}
