use sealane_proto::resource::Totals;

use super::*;
use crate::disk::{delta_to_bytes, led_on};

/// A state that tells all that deltas may be about.
fn told(revision: u64) -> NetworkSnapshot {
    let mut snapshot = state("shop", revision);
    snapshot.reported = Some(Default::default());
    snapshot.mute = Some(vec![]);
    snapshot.placed = Some(Default::default());
    snapshot
}

/// The way from a revision to the next but one, on which a workload comes.
fn delta(from: u64, workload: &str, address: &str, workloads: usize) -> NetworkDelta {
    let known = told(from);
    let totals = Totals { workloads, ..Totals::of(&known) };
    let to = Generation { revision: from + 2, ..known.generation };
    let mut delta = NetworkDelta::new(name("shop"), from, to, totals);
    let workload = testing::workload(workload, address);
    delta.workloads.set(workload.name.clone(), Some(workload));
    delta
}

fn known(core: &HostCore) -> (u64, usize) {
    let snapshot = core.mesh.snapshot(&name("shop")).unwrap();
    (snapshot.generation.revision, snapshot.workloads.len())
}

/// Number of deltas that wait for the disk; `None` for the whole.
fn unsaved(core: &mut HostCore) -> Vec<Option<usize>> {
    let unsaved = core.poll_unsaved().into_values();
    let unsaved = unsaved.map(|unsaved| match unsaved {
        Unsaved::Whole => None,
        Unsaved::Deltas(deltas) => Some(deltas.len()),
    });
    unsaved.collect()
}

#[test]
fn deltas_are_followed_and_kept_as_such_and_one_that_leads_from_elsewhere_makes_the_host_ask_for_the_whole() {
    let now = Instant::now();
    let mut core = core();
    core.handle_delta(delta(1, "web", "10.42.0.9", 1));
    assert_eq!(core.followed().astray, [name("shop")].into(), "nothing is known");
    core.handle_state(told(1));
    assert!(core.followed().astray.is_empty());
    core.handle_delta(delta(1, "web", "10.42.0.9", 1));
    assert_eq!((known(&core), unsaved(&mut core)), ((3, 1), vec![None]), "nothing was on disk");
    core.handle_delta(delta(3, "api", "10.42.0.8", 2));
    core.handle_delta(delta(5, "db", "10.42.0.7", 3));
    assert_eq!((known(&core), unsaved(&mut core)), ((7, 3), vec![Some(2)]));
    end(&mut core, "shop", now);
    assert_eq!(core.followed().applied[&name("shop")].revision, 7);
    core.handle_delta(delta(5, "db", "10.42.0.7", 3));
    assert_eq!((known(&core), unsaved(&mut core)), ((7, 3), vec![]), "it leads to where the host is");
    core.handle_delta(delta(8, "late", "10.42.0.6", 4));
    assert_eq!((known(&core), core.followed().astray.len()), ((7, 3), 1));
    core.handle_delta(delta(7, "late", "10.42.0.6", 9));
    assert_eq!((known(&core), core.followed().astray.len()), ((7, 3), 1), "it leads to another number");
    core.handle_state(told(10));
    assert_eq!((known(&core), unsaved(&mut core)), ((10, 0), vec![None]));
    assert!(core.followed().astray.is_empty());
    let mut blocks = delta(10, "web", "10.42.0.9", 1);
    blocks.blocks.set("10.42.0.0/24".parse().unwrap(), Some(testing::block(Some("host-1"), "10.42.0.0/24")));
    core.handle_delta(blocks);
    assert_eq!(unsaved(&mut core), [None], "what this host gives back follows from its blocks");
}

#[test]
fn a_record_is_led_on_by_the_log_beside_it_as_far_as_that_follows() {
    let steps =
        [delta(1, "web", "10.42.0.9", 1), delta(3, "api", "10.42.0.8", 2), delta(5, "db", "10.42.0.7", 3)];
    let log: Vec<Vec<u8>> = steps.iter().map(delta_to_bytes).collect();
    let led = |snapshot: NetworkSnapshot, log: &[Vec<u8>]| {
        let led = led_on(snapshot, log);
        (led.generation.revision, led.workloads.len())
    };
    assert_eq!(led(told(1), &log), (7, 3));
    assert_eq!(led(told(1), &log[..2]), (5, 2));
    assert_eq!(led(told(1), &[]), (1, 0));
    assert_eq!(led(told(8), &log), (8, 0), "the log is older than the state");
    assert_eq!(led(told(1), &[b"no delta".to_vec()]), (1, 0));
    let mut newer = led_on(told(1), &log[..2]);
    assert_eq!(led(newer.clone(), &log), (7, 3), "the state was written while the log had its beginning");
    newer.generation.epoch += 1;
    assert_eq!(led(newer, &log), (5, 2), "of another control plane");
}
