//! State that a connected sidecar was told of its network, and its next messages: a change where it can follow one, or
//! the whole state. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use sealane_fabric::transition;
use sealane_proto::sidecar::{Change, Down, Hello};

use super::leaving::Feed;
use crate::host::HostNetwork;

/// State that one connection has carried.
#[derive(Clone, Debug)]
pub(super) struct Telling {
    /// True if the sidecar can be told changes.
    follows: bool,
    /// True if it can be told who is away.
    fails_over: bool,
    sent: Option<Sent>,
    /// Workloads that it was told are away; `None` before the first word.
    away: Option<BTreeSet<IpAddr>>,
}

/// A configuration on its way.
#[derive(Clone, Copy, Debug)]
struct Sent {
    /// Sequence of the state.
    sequence: u64,
    /// The content of the network that it told.
    content: u64,
    /// The newest sequence that says the same.
    means: u64,
}

impl Telling {
    /// To a sidecar that has just introduced itself.
    pub(super) fn to(hello: &Hello) -> Self {
        Self { follows: hello.follows, fails_over: hello.fails_over, sent: None, away: None }
    }

    /// To nobody.
    pub(super) fn to_nobody() -> Self {
        Self { follows: false, fails_over: false, sent: None, away: None }
    }

    /// The message that says which workloads are away, if that is news to a sidecar that wants to know. An agent before this one may
    /// have told it of others.
    pub(super) fn away(&mut self, away: BTreeSet<IpAddr>) -> Option<Down> {
        if !self.fails_over || self.away.as_ref() == Some(&away) {
            return None;
        }
        self.away = Some(away.clone());
        Some(Down::Away(away))
    }

    /// The sequence of the last configuration, when that says all that the newest state does: whoever works by it works by
    /// the newest state.
    pub(super) fn knows(&mut self, newest: &HostNetwork) -> Option<u64> {
        let sent = self.sent.as_mut().filter(|sent| newest.content <= sent.sequence)?;
        sent.means = newest.sequence;
        Some(sent.sequence)
    }

    /// The newest sequence that says the same as this configuration.
    pub(super) fn meaning(&self, sequence: u64) -> u64 {
        self.sent.filter(|sent| sent.sequence == sequence).map_or(sequence, |sent| sent.means)
    }

    /// Builds the messages that lead to the newest state; none once the workload is not in it any more.
    pub(super) fn lead(&mut self, feed: &Feed, newest: &HostNetwork) -> Vec<Down> {
        let messages = self.steps(feed, newest).or_else(|| Some(vec![feed.config(newest)?]));
        let Some(messages) = messages else { return Vec::new() };
        let (sequence, content) = (newest.sequence, newest.content);
        self.sent = Some(Sent { sequence, content, means: sequence });
        messages
    }

    /// The changes since the last configuration; `None` when the whole state is due.
    fn steps(&self, feed: &Feed, newest: &HostNetwork) -> Option<Vec<Down>> {
        let sent = self.sent.filter(|_| self.follows)?;
        let steps = newest.steps.since(sent.content)?;
        let own = transition::workload(&newest.snapshot, &feed.id.workload)?;
        if steps.iter().any(|step| step.change.concerns(own)) {
            return None;
        }
        let (mut since, mut messages) = (sent.sequence, Vec::new());
        for (place, step) in steps.iter().enumerate() {
            let sequence = if place + 1 == steps.len() { newest.sequence } else { step.content };
            messages.push(Down::Change(Change { sequence, since, change: step.change.clone() }));
            since = sequence;
        }
        Some(messages)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sealane_proto::resource::NetworkSnapshot;
    use tokio::sync::watch;

    use super::*;
    use crate::attachment::AttachmentId;
    use crate::testing::{identity, snapshot, workload};

    /// `own`, and so many others.
    fn network(others: u8) -> NetworkSnapshot {
        let mut network = snapshot();
        network.workloads =
            (0..others).map(|n| workload(&format!("o{n:03}"), &format!("10.42.1.{n}"))).collect();
        network.workloads.push(workload("own", "10.42.0.2"));
        network
    }

    fn after(before: &HostNetwork, snapshot: NetworkSnapshot) -> HostNetwork {
        HostNetwork::new(before.sequence + 1, Arc::new(snapshot), Some(before))
    }

    fn feed(host_network: &Arc<HostNetwork>) -> Feed {
        Feed {
            id: AttachmentId { network: "shop".parse().unwrap(), workload: "own".parse().unwrap() },
            trust_domain: "sealane".parse().unwrap(),
            identity: watch::Sender::new(identity()).subscribe(),
            host_network: watch::Sender::new(host_network.clone()).subscribe(),
            unreachable: watch::Sender::default().subscribe(),
        }
    }

    fn hello(newer: bool) -> Hello {
        Hello {
            workload: "own".parse().unwrap(),
            network: "shop".parse().unwrap(),
            version: String::new(),
            has_listeners: false,
            leaves: newer,
            follows: newer,
            answers: newer,
            fails_over: newer,
        }
    }

    #[test]
    fn a_sidecar_is_told_who_is_away_when_that_is_news_and_one_of_before_is_not() {
        let away: BTreeSet<IpAddr> = [IpAddr::from([10, 42, 1, 1])].into();
        let told = |telling: &mut Telling, away: &BTreeSet<IpAddr>| match telling.away(away.clone()) {
            Some(Down::Away(told)) => Some(told),
            None => None,
            other => panic!("{other:?}"),
        };
        let mut telling = Telling::to(&hello(true));
        let nobody = BTreeSet::new();
        assert_eq!(told(&mut telling, &nobody), Some(nobody.clone()), "an earlier agent may have named some");
        assert_eq!(told(&mut telling, &nobody), None);
        assert_eq!(told(&mut telling, &away), Some(away.clone()));
        assert_eq!(told(&mut telling, &away), None);
        assert_eq!(told(&mut telling, &nobody), Some(nobody));
        assert_eq!(told(&mut Telling::to(&hello(false)), &away), None);
    }

    /// Describes the messages: whole states by their sequence, changes by those that they lead from and to.
    fn kinds(messages: &[Down]) -> Vec<String> {
        let kind = |message: &Down| match message {
            Down::Config(config) => format!("state {}", config.sequence),
            Down::Change(change) => format!("{} to {}", change.since, change.sequence),
            Down::Listeners(_)
            | Down::Identity(_)
            | Down::Away(_)
            | Down::Collect
            | Down::Ping
            | Down::Drain { .. }
            | Down::Leave { .. } => panic!("{message:?}"),
        };
        messages.iter().map(kind).collect()
    }

    #[test]
    fn a_sidecar_is_told_a_state_and_then_what_changes_beside_its_own_workload() {
        let first = Arc::new(HostNetwork::new(7, Arc::new(network(1)), None));
        let (feed, mut telling) = (feed(&first), Telling::to(&hello(true)));
        assert_eq!(kinds(&telling.lead(&feed, &first)), ["state 7"]);
        let second = after(&first, network(2));
        let third = after(&second, network(3));
        assert_eq!(telling.knows(&third), None);
        assert_eq!(kinds(&telling.lead(&feed, &third)), ["7 to 8", "8 to 9"], "none is left out");
        let mut same = network(3);
        same.generation.revision += 1;
        let fourth = after(&third, same);
        assert_eq!(telling.knows(&fourth), Some(9));
        assert_eq!((telling.meaning(9), telling.meaning(8)), (10, 8));
        let fifth = after(&fourth, network(4));
        assert_eq!(kinds(&telling.lead(&feed, &fifth)), ["9 to 11"]);
        let mut other = network(4);
        other.workloads.last_mut().unwrap().ready = false;
        let sixth = after(&fifth, other);
        assert_eq!(kinds(&telling.lead(&feed, &sixth)), ["state 12"], "its own workload is another");
        let mut gone = network(5);
        gone.workloads.pop();
        assert!(telling.lead(&feed, &after(&sixth, gone)).is_empty());
    }

    #[test]
    fn a_sidecar_that_knows_no_changes_is_told_states() {
        let first = Arc::new(HostNetwork::new(1, Arc::new(network(1)), None));
        let (feed, mut telling) = (feed(&first), Telling::to(&hello(false)));
        assert_eq!(kinds(&telling.lead(&feed, &first)), ["state 1"]);
        assert_eq!(kinds(&telling.lead(&feed, &after(&first, network(2)))), ["state 2"]);
    }

    #[tokio::test]
    async fn a_start_costs_other_sidecars_as_much_whatever_the_network_s_size() {
        let mut lengths = Vec::new();
        for others in [1, 200] {
            let first = Arc::new(HostNetwork::new(1, Arc::new(network(others)), None));
            let (feed, mut telling) = (feed(&first), Telling::to(&hello(true)));
            telling.lead(&feed, &first);
            let mut more = network(others);
            more.workloads.push(workload("p", "10.42.2.1"));
            let [message] = telling.lead(&feed, &after(&first, more)).try_into().unwrap();
            let (agent, _sidecar) = tokio::net::UnixStream::pair().unwrap();
            let mut agent = sealane_proto::sidecar::Channel::<Down, sealane_proto::sidecar::Up>::from(agent);
            lengths.push(agent.sender.send(message).await.unwrap());
        }
        assert_eq!(lengths[0], lengths[1]);
        assert!(lengths[0] < 200, "{lengths:?}");
    }
}
