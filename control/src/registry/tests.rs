use std::net::SocketAddr;

use sealane_proto::resource::{Block, Node};

use super::*;
use crate::core::{Affected, Change, NodeRecord, State, model};

fn registry() -> Arc<Registry> {
    registry_with(None)
}

fn registry_with(mtu: Option<Mtu>) -> Arc<Registry> {
    let mut state = State::default();
    let node = Node { name: "host-1".parse().unwrap(), underlay: "192.0.2.1".parse().unwrap(), mtu };
    state.apply(&Change::put(NodeRecord::new(node, [1; 32], Timestamp::default())));
    let affected = Affected { nodes: true, ..Affected::default() };
    let directory = Directory::default().next(&state, Generation { epoch: 1, revision: 1 }, &affected);
    Registry::new(directory, IntGauge::new("connected", "Connected.").unwrap(), Timestamp::default())
}

fn open(registry: &Arc<Registry>, peer: &str, seconds: u64) -> AgentStream {
    let (peer, now) = (peer.parse().unwrap(), Timestamp::from_unix(seconds));
    let claimant = Claimant { peer, instance: None };
    let arrival = Arrival { version: "0.1.0".to_owned(), claimant, now };
    registry.open("host-1".parse().unwrap(), arrival, &BTreeMap::new())
}

fn contest(registry: &Registry, seconds: u64) -> Option<[SocketAddr; 2]> {
    let seen = registry.seen();
    let claims = &seen.get(&"host-1".parse().unwrap())?.claims;
    claims.contest(Timestamp::from_unix(seconds)).map(|contest| contest.peers)
}

#[test]
fn two_agents_that_take_a_nodes_place_from_each_other_are_a_contest_and_a_lost_connection_is_none() {
    let registry = registry();
    let (one, other) = ("192.0.2.1:40001", "192.0.2.9:40002");
    let first = open(&registry, one, 1_000);
    let second = open(&registry, other, 1_010);
    assert!(
        first.desired.borrow().replaced && contest(&registry, 1_010).is_none(),
        "once may be a lost connection"
    );
    let third = open(&registry, one, 1_040);
    assert!(second.desired.borrow().replaced);
    let peers = [other, one].map(|peer| peer.parse().unwrap());
    assert_eq!(contest(&registry, 1_041), Some(peers));
    assert_eq!(contest(&registry, 1_341), None, "it is over");
    drop(third);
    let _alone = open(&registry, one, 1_342);
    assert_eq!(contest(&registry, 1_342), None);
}

#[test]
fn an_address_is_yielded_by_who_has_been_away_for_a_while_alone() {
    let registry = registry();
    let gone = |address: &str, seconds: u64| {
        registry
            .gone_from(address.parse().unwrap(), None, Timestamp::from_unix(seconds))
            .map(|name| name.to_string())
    };
    let there = open(&registry, "192.0.2.1:40001", 1_000);
    assert_eq!(gone("192.0.2.1", 1_100), None, "it is connected");
    there.heard(Timestamp::from_unix(1_100));
    drop(there);
    assert_eq!(gone("192.0.2.1", 1_104), None, "an agent that is restarted needs a moment");
    assert_eq!(gone("192.0.2.1", 1_105).as_deref(), Some("host-1"));
    assert_eq!(gone("192.0.2.2", 1_105), None, "nobody has it");
    let _back = open(&registry, "192.0.2.1:40002", 1_105);
    assert_eq!(gone("192.0.2.1", 1_105), None, "it came back within the second");
}

#[test]
fn who_is_lost_is_known_though_the_clock_was_ahead_at_the_start_and_while_a_host_was_heard() {
    let registry = registry();
    let lost =
        |now| registry.lost(Timestamp::from_unix(now)).keys().map(ToString::to_string).collect::<Vec<_>>();
    let there = open(&registry, "192.0.2.1:40001", 900_000);
    there.heard(Timestamp::from_unix(900_000));
    drop(there);
    assert!(lost(1_000).is_empty(), "the clock has been set back");
    assert!(lost(1_004).is_empty());
    assert_eq!(lost(1_005), ["host-1"]);
}

#[test]
fn who_comes_with_a_later_revision_of_the_epoch_shows_that_the_store_is_an_earlier_copy() {
    let registry = registry();
    let open = |epoch, revision| {
        let claimant = Claimant { peer: "192.0.2.1:40001".parse().unwrap(), instance: None };
        let arrival = Arrival { version: "0.1.0".to_owned(), claimant, now: Timestamp::default() };
        let applied = [("shop".parse().unwrap(), Generation { epoch, revision })].into();
        drop(registry.open("host-1".parse().unwrap(), arrival, &applied));
        registry.seen().into_values().next().unwrap().ahead
    };
    assert_eq!((open(1, 1), open(9, 7)), (None, None), "it knows no more, or of another epoch");
    assert_eq!(open(1, 2), Some((2, 1)));
    assert_eq!(open(1, 1), Some((2, 1)), "what it has missed stays missed");
}

#[test]
fn an_address_is_yielded_at_once_by_who_says_that_it_is_elsewhere() {
    let registry = registry();
    let gone = || registry.gone_from("192.0.2.1".parse().unwrap(), None, Timestamp::from_unix(1_000));
    let _there = open(&registry, "192.0.2.1:40001", 1_000);
    assert_eq!(gone(), None);
    let [name, stranger] = ["host-1", "host-9"].map(|name| name.parse::<NodeName>().unwrap());
    let told = ToldPlace { underlay: "192.0.2.2".parse().unwrap(), placed: None };
    registry.note_elsewhere(&stranger, told);
    assert_eq!(gone(), None);
    registry.note_elsewhere(&name, told);
    assert_eq!((gone(), registry.elsewhere(&name)), (Some(name.clone()), Some(told)));
    let _back = open(&registry, "192.0.2.1:40002", 1_000);
    assert_eq!(gone(), None, "it is there again");
}

#[test]
fn a_host_that_is_connected_from_elsewhere_yields_an_address_to_who_comes_from_it() {
    let registry = registry();
    let now = Timestamp::from_unix(1_000);
    let gone = |source: &str| {
        let yields = registry.gone_from("192.0.2.1".parse().unwrap(), Some(source.parse().unwrap()), now);
        yields.map(|name| name.to_string())
    };
    let there = open(&registry, "192.0.2.1:40001", 1_000);
    assert_eq!(gone("192.0.2.1"), None, "it is there itself");
    drop(there);
    let _usurper = open(&registry, "192.0.2.9:40001", 1_000);
    assert_eq!(gone("192.0.2.1").as_deref(), Some("host-1"));
    assert_eq!(gone("::ffff:192.0.2.1").as_deref(), Some("host-1"));
    for elsewhere in ["192.0.2.9", "192.0.2.7"] {
        assert_eq!(gone(elsewhere), None, "neither comes from the address: who has it keeps it");
    }
    let both = UnderlayAddrs::of_wire("192.0.2.1", "2001:db8::7").unwrap();
    let other = Some("2001:db8::7".parse().unwrap());
    assert_eq!(registry.gone_from(both, other, now), None, "it comes from another address of its own");
}

#[test]
fn who_is_displaced_carries_what_it_carried_and_its_stream_ends() {
    let mut state = State::default();
    model::decide(&state, &model::Step::CreateNetwork(0, 0)).iter().for_each(|change| state.apply(change));
    let network: NetworkName = "net-0".parse().unwrap();
    let name: NodeName = "host-1".parse().unwrap();
    let node = Node { name: name.clone(), underlay: "192.0.2.1".parse().unwrap(), mtu: None };
    let record = NodeRecord::new(node, [1; 32], Timestamp::default());
    state.apply(&Change::put(record.clone()));
    let block = Block { node: Some(name.clone()), range: "10.0.0.16/28".parse().unwrap() };
    state.apply(&Change::put_in(&network, block));
    let affected = Affected::all([network.clone()]);
    let directory = Directory::default().next(&state, Generation { epoch: 1, revision: 1 }, &affected);
    let connected = IntGauge::new("connected", "Connected.").unwrap();
    let registry = Registry::new(directory.clone(), connected, Timestamp::default());
    let there = open(&registry, "192.0.2.1:40001", 1_000);

    let displaced = NodeRecord { displaced: Some("host-2".parse().unwrap()), ..record };
    state.apply(&Change::put(displaced));
    registry.publish(directory.next(&state, Generation { epoch: 1, revision: 2 }, &affected));
    assert!(there.desired.borrow().displaced);
    drop(there);
    let directory = registry.directory();
    assert_eq!(directory.networks[&network].nodes(), [], "nobody is told where it is");
    assert!(directory.networks[&network].carriers().contains(&name));
    let (_, away) = registry.late(&BTreeSet::from([network]));
    assert_eq!(away, BTreeSet::from([name]), "it does not know what was changed since");
}

#[test]
fn a_host_changes_the_length_of_everybodys_packets_seldom_and_while_it_is_there() {
    let known = Mtu::try_from(1_450).unwrap();
    let registry = registry_with(Some(known));
    let (name, start) = ("host-1".parse().unwrap(), Instant::now());
    let taken = |bytes: u32, millis: u64| {
        let told = Mtu::try_from(bytes).unwrap();
        registry.takes_mtu(&name, told, start + Duration::from_millis(millis))
    };
    assert!(!taken(1_450, 0), "it is no news");
    let often = (0..600_u32).filter(|step| taken(1_500 + step % 2, u64::from(*step) * 100)).count();
    assert_eq!(often, 4, "within a minute");
    assert!(
        !taken(1_500, 59_950) && taken(1_300, 59_950) && taken(1_500, 60_000),
        "what came too early is taken over when it comes again, and what is shorter comes never too early"
    );
    // A network beneath that becomes smaller in steps; a host that does so for ever has its bound.
    assert!((0..16).all(|step| taken(1_299 - step, 100_000)));
    let often = (0..600_u32).filter(|step| taken(1_280 - step, 100_000 + u64::from(*step) * 100)).count();
    assert_eq!(often, 60, "within a minute");
    // Away since the beginning; then there; then away again.
    assert!(registry.away(Timestamp::from_unix(599)).is_empty());
    assert_eq!(registry.away(Timestamp::from_unix(600)).len(), 1);
    let here = open(&registry, "192.0.2.1:40001", 1_000);
    assert!(registry.away(Timestamp::from_unix(5_000)).is_empty());
    here.heard(Timestamp::from_unix(5_000));
    drop(here);
    assert!(registry.away(Timestamp::from_unix(5_599)).is_empty());
    assert_eq!(registry.away(Timestamp::from_unix(5_600)).len(), 1);
}

#[test]
fn a_refusal_of_addresses_is_a_problem_until_the_host_gets_some_or_asks_no_more() {
    let mut state = State::default();
    let [change] = model::decide(&state, &model::Step::CreateNetwork(0, 0)).try_into().unwrap();
    state.apply(&change);
    let network = state.networks.keys().next().unwrap().clone();
    let affected = Affected::all([network.clone()]);
    let directory = Directory::default().next(&state, Generation { epoch: 1, revision: 1 }, &affected);
    let shortages = Shortages::default();
    let [host, other]: [NodeName; 2] = ["host-1", "host-2"].map(|name| name.parse().unwrap());
    let said = |directory: &Directory, second| shortages.problems(directory, Timestamp::from_unix(second));
    let note = |directory: &Directory| {
        let refused = (host.clone(), "the last 2 are kept".to_owned());
        shortages.note(directory, network.clone(), refused, Timestamp::from_unix(100));
    };
    note(&Directory::default());
    assert!(said(&directory, 103).is_empty(), "there are more addresses than there were");
    note(&directory);
    assert!(said(&Directory::default(), 100).is_empty(), "the network is gone");
    assert_eq!(said(&directory, 103), ["node host-1 got no more addresses 3 s ago: the last 2 are kept"]);
    assert!(said(&directory, 700).is_empty());
    shortages.end(&network, &other);
    assert_eq!(said(&directory, 103).len(), 1);
    shortages.end(&network, &host);
    assert!(said(&directory, 103).is_empty());
}
