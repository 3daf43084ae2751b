use super::*;
use crate::core::{Change, NodeRecord, State, Touched};

fn registry() -> Arc<Registry> {
    let mut state = State::default();
    let node = sealane_proto::resource::Node {
        name: "host-1".parse().unwrap(),
        underlay: "192.0.2.1".parse().unwrap(),
        mtu: None,
    };
    state.apply(&Change::PutNode(NodeRecord::new(node, [1; 32], Timestamp::default())));
    let touched = Touched { nodes: true, ..Touched::default() };
    let directory = Directory::default().next(&state, Generation { epoch: 1, revision: 1 }, &touched);
    Registry::new(directory, IntGauge::new("connected", "Connected.").unwrap(), Timestamp::default())
}

fn seat(registry: &Arc<Registry>, peer: &str, seconds: u64) -> Seat {
    let (peer, now) = (peer.parse().unwrap(), Timestamp::from_unix(seconds));
    let arrival = Arrival { version: "0.1.0".to_owned(), peer, now };
    registry.seat("host-1".parse().unwrap(), arrival, &BTreeMap::new())
}

fn contest(registry: &Registry, seconds: u64) -> Option<[SocketAddr; 2]> {
    let seen = registry.seen();
    let takeover = seen.get(&"host-1".parse().unwrap())?.takeover?;
    takeover.is_contest(Timestamp::from_unix(seconds)).then_some(takeover.peers)
}

#[test]
fn two_agents_that_take_a_nodes_place_from_each_other_are_a_contest_and_a_lost_connection_is_none() {
    let registry = registry();
    let (one, other) = ("192.0.2.1:40001", "192.0.2.9:40002");
    let first = seat(&registry, one, 1_000);
    let second = seat(&registry, other, 1_010);
    assert!(
        first.view.borrow().replaced && contest(&registry, 1_010).is_none(),
        "once may be a lost connection"
    );
    let third = seat(&registry, one, 1_040);
    assert!(second.view.borrow().replaced);
    let peers = [other, one].map(|peer| peer.parse().unwrap());
    assert_eq!(contest(&registry, 1_041), Some(peers));
    assert_eq!(contest(&registry, 1_341), None, "it is over");
    drop(third);
    let _alone = seat(&registry, one, 1_342);
    assert_eq!(contest(&registry, 1_342), None);
}
