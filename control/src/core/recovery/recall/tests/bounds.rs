//! Bounds on all that hosts bring back, and on how often.

use super::*;

/// Counts the networks that host 1 brings back, which tells `told`, where there are `more` changes.
fn brought(backup: &State, more: impl Iterator<Item = Change>, told: &NetworkSnapshot) -> usize {
    let mut state = restored(backup);
    more.for_each(|change| state.apply(&change));
    let recall = Recall { node: "host-1".parse().unwrap(), networks: vec![told.clone()] };
    recall.decide(&state, NOW).unwrap().outcome.len()
}

#[test]
fn networks_are_brought_back_until_there_are_a_thousand() {
    let backup = backup();
    let mut lost = backup.clone();
    create(&mut lost, "new", "10.200.0.0/16");
    let told = seen(&lost, "new", 20);
    let shop = &backup.networks[&"shop".parse().unwrap()].network;
    let others = |count: usize| {
        (0..count).map(|number| {
            let network = Network {
                name: format!("other-{number}").parse().unwrap(),
                vni: Vni::try_from(100_000 + u32::try_from(number).unwrap()).unwrap(),
                subnet: format!("10.{}.{}.0/24", 100 + number / 256, number % 256).parse().unwrap(),
                subnet6: None,
                ..shop.clone()
            };
            Change::put(NetworkRecord { network, changed: 0 })
        })
    };
    assert_eq!(brought(&backup, others(NETWORKS - 2), &told), 1);
    assert_eq!(brought(&backup, others(NETWORKS - 1), &told), 0);
}

#[test]
fn hosts_are_brought_back_until_there_are_ten_thousand() {
    let backup = backup();
    let mut lost = backup.clone();
    join(&mut lost, 3);
    carry(&mut lost, "host-3", "shop");
    let mut told = seen(&lost, "shop", 20);
    told.blocks.clear();
    let others = |count: usize| {
        (0..count).map(|number| {
            let name = format!("other-{number}").parse().unwrap();
            let underlay = format!("172.16.{}.{}", number / 256, number % 256).parse().unwrap();
            Change::put(NodeRecord::new(Node { name, underlay, mtu: None }, [9; 32], NOW))
        })
    };
    assert_eq!(brought(&backup, others(HEARSAY - 3), &told), 1);
    assert_eq!(brought(&backup, others(HEARSAY - 2), &told), 0);
}

#[test]
fn what_is_brought_back_is_so_once_and_a_network_that_is_removed_then_stays_so() {
    let backup = backup();
    let mut lost = backup.clone();
    create(&mut lost, "new", "10.200.0.0/16");
    let told = [seen(&lost, "new", 20)];
    let mut state = restored(&backup);
    assert_eq!(recall(&mut state, "host-1", &told), ["new"]);
    let again = Recall { node: "host-1".parse().unwrap(), networks: told.to_vec() };
    assert_eq!(again.decide(&state, NOW).unwrap().changes, []);
    state.apply(&Change::remove::<NetworkRecord>("new".parse().unwrap()));
    assert_eq!(recall(&mut state, "host-1", &told), [""; 0]);
    let stranger = Recall { node: "host-9".parse().unwrap(), networks: told.to_vec() };
    assert!(stranger.decide(&state, NOW).unwrap_err().to_string().contains("node host-9 is not known"));
}

#[test]
fn a_network_is_the_same_by_its_number_and_the_first_number_is_one() {
    let mut state = State::default();
    join(&mut state, 1);
    let mut lost = state.clone();
    create(&mut lost, "shop", "10.42.0.0/16");
    carry(&mut lost, "host-1", "shop");
    let told = seen(&lost, "shop", 20);
    assert_eq!(told.network.vni, Vni::FIRST);
    let mut other = told.clone();
    other.network.vni = Vni::try_from(5_000).unwrap();
    let mut early = told.clone();
    early.network.vni = Vni::try_from(Vni::FIRST.get() - 1).unwrap();
    let mut state = restored(&state);
    assert_eq!(recall(&mut state, "host-1", &[early]), [""; 0]);
    let mut bare = told.clone();
    bare.content.blocks.clear();
    assert_eq!(recall(&mut state, "host-1", &[bare]), ["shop"]);
    assert_eq!(recall(&mut state, "host-1", &[other]), [""; 0], "its blocks are another network's");
    assert_eq!(recall(&mut state, "host-1", &[told]), ["shop"]);
}

#[test]
fn a_block_that_is_not_told_of_ends_unless_its_host_is_known_to_use_it() {
    let backup = backup();
    let carries = |workloads: bool| {
        let mut told = seen(&backup, "shop", 20);
        told.content.blocks.clear();
        if !workloads {
            told.content.workloads = Default::default();
        }
        let mut state = restored(&backup);
        recall(&mut state, "host-1", &[told]);
        state.networks[&"shop".parse().unwrap()].carried_by(&"host-1".parse().unwrap())
    };
    assert!(carries(true) && !carries(false));
}

#[test]
fn a_block_that_rests_comes_back_to_nobody() {
    let mut state = restored(&backup());
    assert!(takes_block(&state, "host-2", "host-2", "10.42.9.0/24"));
    let rest = state.networks[&"shop".parse().unwrap()].rest("10.42.9.7/32".parse().unwrap(), NOW);
    state.apply(&rest);
    assert!(!takes_block(&state, "host-2", "host-2", "10.42.9.0/24"));
}

#[test]
fn a_first_block_among_the_last_addresses_has_the_root_of_their_number() {
    let mut state = State::default();
    (1..3).for_each(|number| join(&mut state, number));
    create(&mut state, "shop", "10.42.0.0/16");
    carry(&mut state, "host-1", "shop");
    // A quarter and less than 256 addresses more are free.
    for range in [
        "10.42.128.0/17",
        "10.42.64.0/19",
        "10.42.96.0/20",
        "10.42.112.0/21",
        "10.42.120.0/22",
        "10.42.124.0/23",
        "10.42.126.0/24",
    ] {
        let block = Block { node: Some("host-1".parse().unwrap()), range: range.parse().unwrap() };
        state.apply(&Change::put_in(&"shop".parse().unwrap(), block));
    }
    let state = restored(&state);
    let free = Taken::new(
        "10.42.0.0/16".parse().unwrap(),
        state.networks[&"shop".parse().unwrap()].blocks.keys().copied(),
    );
    let quarter = 1 << 14;
    assert!((quarter..quarter + 256).contains(&free.free()), "{}", free.free());
    assert!(takes_block(&state, "host-2", "host-2", "10.42.8.0/24"));
    assert!(!takes_block(&state, "host-2", "host-2", "10.42.8.0/23"));
    assert!(!takes_block(&state, "host-1", "host-1", "10.42.8.0/24"), "it has one");
}
