use proptest::prelude::*;
use sealane_proto::types::NetworkName;

use super::*;
use crate::core::{Affected, Change, model};
use crate::registry::Directory;

/// A state with what is published of it, and what was before.
struct History {
    state: State,
    directory: Directory,
    revision: u64,
    /// Snapshots that hosts may still have.
    earlier: Vec<(NetworkName, NetworkSnapshot)>,
}

impl History {
    fn new() -> Self {
        let state = model::beginning();
        let directory = Directory::first(&state, Generation { epoch: 1, revision: 1 }, &Default::default());
        Self { state, directory, revision: 1, earlier: vec![] }
    }

    /// Commits changes as the writer does.
    fn commit(&mut self, changes: &[Change]) {
        let mut affected = Affected::default();
        for change in changes {
            self.state.affects(change, &mut affected);
            self.state.apply(change);
        }
        self.revision += 1;
        self.state.stamp(affected.networks.keys(), self.revision);
        let snapshots = self.directory.networks.iter();
        self.earlier.extend(snapshots.map(|(name, published)| (name.clone(), published.snapshot())));
        let generation = Generation { epoch: 1, revision: self.revision };
        self.directory = self.directory.next(&self.state, generation, &affected);
    }

    /// What is published is the state, and every way leads there.
    fn check(&self) -> Result<(), TestCaseError> {
        let published = self.directory.networks.iter();
        let published = published.map(|(name, known)| (name.clone(), known.content())).collect::<Vec<_>>();
        let desired = self.state.networks.keys();
        let desired = desired.map(|name| (name.clone(), self.state.snapshot(name, 1).unwrap().content));
        prop_assert_eq!(published, desired.collect::<Vec<_>>());
        for known in self.directory.networks.values() {
            prop_assert_eq!(known.voucher.digest, Digest::of(&known.content()));
        }
        for (name, before) in &self.earlier {
            let Some(now) = self.directory.networks.get(name) else { continue };
            let Some(way) = now.way_from(before.generation) else { continue };
            let delta: NetworkDelta = v1::NetworkDelta::decode(way).unwrap().try_into().unwrap();
            prop_assert_eq!(delta.applied(before), Ok(now.snapshot()));
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn what_is_published_step_by_step_is_the_state_and_every_way_leads_there(
        steps in prop::collection::vec(model::step(), 1..60),
    ) {
        let mut history = History::new();
        for step in &steps {
            let changes = model::decide(&history.state, step);
            history.commit(&changes);
            history.check()?;
        }
    }
}

/// A network with so many workloads of host-1.
fn shop(workloads: u8) -> History {
    let mut history = History::new();
    let network: NetworkName = "shop".parse().unwrap();
    let created = model::decide(&history.state, &model::Step::CreateNetwork(0, 0));
    let [Change::Network(crate::core::Edit::Put(_, record))] = &*created else { panic!("{created:?}") };
    let mut record = record.clone();
    record.network.name = network.clone();
    let all = (1..=workloads).map(|number| {
        let address = format!("10.0.0.{number}").parse().unwrap();
        Change::put_in(&network, model::workload(address))
    });
    let changes: Vec<Change> = std::iter::once(Change::put(record)).chain(all).collect();
    history.commit(&changes);
    history
}

fn flip(history: &mut History, number: u8) {
    let network: NetworkName = "shop".parse().unwrap();
    let name = format!("w-{number}").parse().unwrap();
    let mut workload = history.state.networks[&network].workloads[&name].clone();
    workload.ready = !workload.ready;
    history.commit(&[Change::put_in(&network, workload)]);
}

#[test]
fn a_way_has_what_changed_on_it_once_and_one_that_is_longer_than_the_state_is_none() {
    let mut history = shop(60);
    for number in 1..=20 {
        flip(&mut history, number % 10 + 1);
    }
    let published = &history.directory.networks[&"shop".parse().unwrap()];
    let from = |revision| published.way_from(Generation { epoch: 1, revision });
    let changes = |revision| {
        let delta: NetworkDelta = v1::NetworkDelta::decode(from(revision)?).unwrap().try_into().unwrap();
        Some(delta.len())
    };
    assert_eq!([changes(2), changes(12), changes(17), changes(21)], [Some(10), Some(10), Some(5), Some(1)]);
    assert_eq!([changes(1), changes(22)], [None, None], "before it was made, and where it is");
    assert_eq!(published.way_from(Generation { epoch: 2, revision: 21 }), None);
    for number in 1..=40 {
        flip(&mut history, number);
    }
    let published = &history.directory.networks[&"shop".parse().unwrap()];
    assert_eq!(published.log.len(), 30, "half as many as there are workloads");
    assert!(published.way_from(Generation { epoch: 1, revision: 22 }).is_none());
    assert!(published.way_from(Generation { epoch: 1, revision: 32 }).is_some());
}

#[test]
fn what_nobody_is_told_of_makes_no_generation() {
    let mut history = shop(3);
    let before = history.directory.networks.clone();
    let network: NetworkName = "shop".parse().unwrap();
    let name = "w-1".parse().unwrap();
    let same = history.state.networks[&network].workloads[&name].clone();
    history.commit(&[Change::put_in(&network, same)]);
    assert!(Arc::ptr_eq(&before[&network], &history.directory.networks[&network]));
    flip(&mut history, 1);
    assert!(!Arc::ptr_eq(&before[&network], &history.directory.networks[&network]));
}
