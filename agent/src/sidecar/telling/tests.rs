//! Sidecars that are told of a network by what each of them knows.

use std::sync::Arc;

use sealane_proto::resource::NetworkSnapshot;
use sealane_proto::sidecar::{Config, Portion};
use tokio::sync::watch;

use sealane_base::shared_list::SharedList;

use super::*;
use crate::attachment::AttachmentId;
use crate::sidecar::scope::MOST;
use crate::testing::{Chance, identity, random_network, service, snapshot, workload};

mod routes;

/// `own`, and so many others.
fn network(others: u8) -> NetworkSnapshot {
    let mut network = snapshot();
    network.workloads = (0..others).map(|n| workload(&format!("o{n:03}"), &format!("10.42.1.{n}"))).collect();
    network.workloads.push(workload("own", "10.42.0.2"));
    network
}

fn after(before: &HostNetwork, snapshot: NetworkSnapshot) -> Arc<HostNetwork> {
    Arc::new(HostNetwork::new(before.sequence + 1, Arc::new(snapshot), Some(before)))
}

fn feed(host_network: &Arc<HostNetwork>) -> Feed {
    Feed {
        id: AttachmentId { network: "shop".parse().unwrap(), workload: "own".parse().unwrap() },
        trust_domain: "sealane".parse().unwrap(),
        identity: watch::Sender::new(identity()).subscribe(),
        host_network: watch::Sender::new(host_network.clone()).subscribe(),
        unreachable: watch::Sender::default().subscribe(),
        networks: Default::default(),
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
        asks: false,
        calls: BTreeSet::new(),
    }
}

fn to(hello: &Hello) -> Telling {
    Telling::to(hello, &BTreeSet::new())
}

#[test]
fn a_sidecar_is_told_who_is_away_when_that_is_news_and_one_of_before_is_not() {
    let away: BTreeSet<IpAddr> = [IpAddr::from([10, 42, 1, 0])].into();
    let mut network = network(1);
    network.workloads[0].node = "host-2".parse().unwrap();
    let node = network.workloads[0].node.clone();
    let network = Arc::new(HostNetwork::new(1, Arc::new(network), None));
    let told = |telling: &mut Telling, away: &BTreeSet<IpAddr>| {
        let unreachable = if away.is_empty() { BTreeSet::new() } else { [node.clone()].into() };
        let mut feed = feed(&network);
        feed.unreachable = watch::Sender::new(Arc::new(unreachable)).subscribe();
        match telling.away(&mut feed) {
            Some(Down::Away(told)) => Some(told),
            None => None,
            other => panic!("{other:?}"),
        }
    };
    let mut telling = to(&hello(true));
    let nobody = BTreeSet::new();
    assert_eq!(told(&mut telling, &nobody), Some(nobody.clone()), "an earlier agent may have named some");
    assert_eq!(told(&mut telling, &nobody), None);
    assert_eq!(told(&mut telling, &away), Some(away.clone()));
    assert_eq!(told(&mut telling, &away), None);
    assert_eq!(told(&mut telling, &nobody), Some(nobody));
    assert_eq!(told(&mut to(&hello(false)), &away), None);
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
    let (feed, mut telling) = (feed(&first), to(&hello(true)));
    assert_eq!(kinds(&telling.lead(&feed, &first)), ["state 7"]);
    let second = after(&first, network(2));
    let third = after(&second, network(3));
    assert_eq!(telling.knows(&feed.id, &third), None);
    assert_eq!(kinds(&telling.lead(&feed, &third)), ["7 to 8", "8 to 9"], "none is left out");
    let mut same = network(3);
    same.generation.revision += 1;
    let fourth = after(&third, same);
    assert_eq!(telling.knows(&feed.id, &fourth), Some(9));
    assert_eq!((telling.meaning(9), telling.meaning(8)), (10, 8));
    let fifth = after(&fourth, network(4));
    assert_eq!(kinds(&telling.lead(&feed, &fifth)), ["9 to 11"]);
    let mut other = network(4);
    other.workloads.iter_mut().last().unwrap().ready = false;
    let sixth = after(&fifth, other);
    assert_eq!(kinds(&telling.lead(&feed, &sixth)), ["state 12"], "its own workload is another");
    let mut gone = network(5);
    gone.workloads.pop();
    assert!(telling.lead(&feed, &after(&sixth, gone)).is_empty());
}

#[test]
fn a_sidecar_that_knows_no_changes_is_told_states() {
    let first = Arc::new(HostNetwork::new(1, Arc::new(network(1)), None));
    let (feed, mut telling) = (feed(&first), to(&hello(false)));
    assert_eq!(kinds(&telling.lead(&feed, &first)), ["state 1"]);
    assert_eq!(kinds(&telling.lead(&feed, &after(&first, network(2)))), ["state 2"]);
}

#[tokio::test]
async fn a_start_costs_other_sidecars_as_much_whatever_the_network_s_size() {
    let mut lengths = Vec::new();
    for others in [1, 200] {
        let first = Arc::new(HostNetwork::new(1, Arc::new(network(others)), None));
        let (feed, mut telling) = (feed(&first), to(&hello(true)));
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

/// A sidecar that asks, as far as its configuration goes.
#[derive(Debug, Default)]
struct Asker {
    /// The sequence that it works by, and what it has; nothing before the first configuration.
    current: Option<(u64, Config)>,
}

impl Asker {
    /// Takes in what it is told; answers the sequences that it works by then.
    fn follow(&mut self, messages: Vec<Down>) -> Vec<u64> {
        messages.into_iter().map(|message| self.take(message)).collect()
    }

    fn take(&mut self, message: Down) -> u64 {
        if let Down::Config(config) = message {
            let sequence = config.sequence;
            self.current = Some((sequence, *config));
            return sequence;
        }
        let Down::Change(change) = message else { panic!("no configuration: {message:?}") };
        let (current, config) = self.current.as_mut().unwrap();
        assert_eq!(*current, change.since);
        *current = change.sequence;
        let portion = config.portion.as_mut().unwrap();
        portion.addresses.extend(&change.told);
        portion.addresses.retain(|address| !change.untold.contains(address));
        let content = &mut config.network.content;
        let NetworkChange { services, services_gone, workloads, workloads_gone } = &*change.change;
        let names = change.change.service_names().chain(services_gone).collect::<BTreeSet<_>>();
        content.services.retain(|service| !names.contains(&service.name));
        content.services.extend(services.iter().cloned());
        content.services = by_name(&content.services, |item| &item.name);
        let names = change.change.workload_names().chain(workloads_gone).collect::<BTreeSet<_>>();
        content.workloads.retain(|workload| !names.contains(&workload.name));
        content.workloads.extend(workloads.iter().cloned());
        content.workloads = by_name(&content.workloads, |item| &item.name);
        change.sequence
    }

    fn addresses(&self) -> BTreeSet<Ipv4Addr> {
        let portion = self.current.as_ref().and_then(|(_, config)| config.portion.clone());
        portion.map(|Portion { addresses, .. }| addresses).unwrap_or_default()
    }

    fn hello(&self) -> Hello {
        Hello { asks: true, calls: self.addresses(), ..hello(true) }
    }
}

fn want(addresses: &[[u8; 4]]) -> Want {
    Want { addresses: addresses.iter().copied().map(Ipv4Addr::from).collect(), unused: BTreeSet::new() }
}

/// `own`, and two services with an instance each.
fn shop() -> NetworkSnapshot {
    let mut network = network(0);
    network.services = vec![
        service("api", "10.42.255.1", std::iter::once("80")),
        service("db", "10.42.255.2", std::iter::once("81")),
    ]
    .into();
    for (name, address) in [("api", "10.42.1.1"), ("db", "10.42.1.2")] {
        let instance = workload(&format!("{name}-1"), address);
        network.workloads.push(Workload { service: Some(name.parse().unwrap()), ..instance });
    }
    network.workloads = by_name(&network.workloads, |item| &item.name);
    network
}

#[test]
fn a_sidecar_that_asks_is_told_of_what_it_calls_alone() {
    let first = Arc::new(HostNetwork::new(1, Arc::new(shop()), None));
    let (feed, mut asker) = (feed(&first), Asker::default());
    let mut telling = to(&asker.hello());
    asker.follow(telling.lead(&feed, &first));
    let (_, config) = asker.current.as_ref().unwrap();
    assert!(config.network.services.is_empty() && config.network.workloads.is_empty());
    assert_eq!(config.workload.name.as_str(), "own");
    asker.follow(telling.answer(want(&[[10, 42, 255, 1]]), &feed));
    let (_, config) = asker.current.as_ref().unwrap();
    let names: Vec<_> = config.network.workloads.iter().map(|other| other.name.as_str()).collect();
    assert_eq!(names, ["api-1"]);
    // Another service's instance is none of its business, and it works by the state that has it.
    let mut other = shop();
    other.workloads[1].ready = false;
    let second = after(&first, other.clone());
    assert_eq!(telling.knows(&feed.id, &second), Some(1));
    assert_eq!(telling.meaning(1), 2);
    other.workloads[0].ready = false;
    let third = after(&second, other.clone());
    assert_eq!(telling.knows(&feed.id, &third), None);
    assert_eq!(kinds(&telling.lead(&feed, &third)), ["1 to 3"]);
    // Its own workload is told apart, with its service.
    other.workloads[2].ready = false;
    let fourth = after(&third, other);
    assert_eq!(telling.knows(&feed.id, &fourth), None);
    assert_eq!(kinds(&telling.lead(&feed, &fourth)), ["state 4"]);
}

#[test]
fn who_calls_very_many_addresses_is_told_everything() {
    let first = Arc::new(HostNetwork::new(1, Arc::new(shop()), None));
    let (feed, mut telling) = (feed(&first), to(&Asker::default().hello()));
    telling.lead(&feed, &first);
    let many = |count: usize| {
        let address = |n: usize| Ipv4Addr::from_bits(0x0a2a_0000 + u32::try_from(n).unwrap());
        Want { addresses: (0..count).map(address).collect(), unused: BTreeSet::new() }
    };
    assert_eq!(kinds(&telling.answer(many(MOST), &feed)), ["1 to 1"]);
    let [Down::Config(config)] = &telling.answer(many(MOST + 1), &feed)[..] else { panic!() };
    assert!(config.portion.is_none() && config.network.services.len() == 2);
    assert!(telling.answer(want(&[[10, 42, 255, 1]]), &feed).is_empty());
}

/// An agent and a sidecar, and what becomes of them by chance.
struct History {
    chance: Chance,
    network: Arc<HostNetwork>,
    telling: Telling,
    asker: Asker,
    /// The sequence that the sidecar works by, as its agent takes it.
    works: Option<u64>,
    /// Addresses that the agent remembers.
    former: BTreeSet<Ipv4Addr>,
}

impl History {
    fn new(seed: u64) -> Self {
        let (mut chance, asker) = (Chance::of(seed), Asker::default());
        let network = Arc::new(HostNetwork::new(1, Arc::new(Self::any_network(&mut chance)), None));
        let telling = to(&asker.hello());
        Self { chance, network, telling, asker, works: None, former: BTreeSet::new() }
    }

    /// The own workload is seldom missing.
    fn any_network(chance: &mut Chance) -> NetworkSnapshot {
        let mut network = random_network(chance, 30);
        if !chance.one_in(12) {
            network.workloads.push(workload("own", "10.42.3.2"));
            network.workloads = by_name(&network.workloads, |item| &item.name);
        }
        network
    }

    /// The sidecar connects again, to this agent or to the next one, or another one does in its place.
    fn connect(&mut self) {
        if self.chance.one_in(2) {
            self.network = Arc::new(HostNetwork::new(1, self.network.snapshot.clone(), None));
            self.former = BTreeSet::new();
        }
        if self.chance.one_in(3) {
            self.asker = Asker::default();
        }
        self.telling = Telling::to(&self.asker.hello(), &self.former);
        self.works = None;
    }

    fn some_addresses(&mut self) -> BTreeSet<Ipv4Addr> {
        let third = if self.chance.one_in(2) { 255 } else { 0 };
        (0..self.chance.below(3)).map(|_| [10, 42, third, self.chance.below(20)].into()).collect()
    }

    fn ask(&mut self) {
        let want = Want { addresses: self.some_addresses(), unused: self.some_addresses() };
        let wanted = want.addresses.clone();
        let messages = self.telling.update_and_answer(want, &mut feed(&self.network));
        self.hear(messages.into_iter().filter(|message| !matches!(message, Down::Away(_))).collect());
        self.former = self.telling.scope().unwrap().addresses().clone();
        assert!(self.telling.sent.is_none() || wanted.is_subset(&self.asker.addresses()));
    }

    fn hear(&mut self, messages: Vec<Down>) {
        for sequence in self.asker.follow(messages) {
            self.works = self.works.max(Some(self.telling.meaning(sequence)));
        }
    }

    fn lead(&mut self) {
        let feed = feed(&self.network);
        match self.telling.knows(&feed.id, &self.network) {
            Some(sent) => {
                assert!(self.works >= Some(sent), "it works by what it was told");
                self.works = Some(self.network.sequence);
            }
            None => {
                let messages = self.telling.lead(&feed, &self.network);
                self.hear(messages);
            }
        }
    }

    /// The sidecar has what its agent has at its addresses, and works by the newest state.
    fn check(&self) {
        let network = &self.network.snapshot;
        let Some(own) = network.workloads.iter().find(|other| other.name.as_str() == "own") else { return };
        let (current, config) = self.asker.current.as_ref().unwrap();
        let scope = self.telling.scope().unwrap();
        assert_eq!(config.network.content, scope.content(network));
        assert_eq!((&config.workload, &self.asker.addresses()), (own, scope.addresses()));
        let newest = self.network.sequence;
        assert_eq!((self.telling.meaning(*current), self.works), (newest, Some(newest)));
    }
}

#[test]
fn any_history_of_changes_wants_and_connections_ends_in_what_the_agent_has() {
    for seed in 0..30 {
        let mut history = History::new(seed);
        for _ in 0..150 {
            match history.chance.below(8) {
                0 => history.connect(),
                1 | 2 => history.ask(),
                _ => {
                    let next = History::any_network(&mut history.chance);
                    history.network = after(&history.network, next);
                }
            }
            history.lead();
            history.check();
        }
    }
}

/// The items of a list, sorted by their names.
fn by_name<T: Clone, N: Ord>(items: &SharedList<T>, name: impl Fn(&T) -> &N) -> SharedList<T> {
    let mut items: Vec<T> = items.iter().cloned().collect();
    items.sort_by(|one, other| name(one).cmp(name(other)));
    items.into()
}
