//! Some hundred histories, in four parts that run beside each other.

/// Histories of each part.
const EACH: u64 = 60;

fn live(part: u64) {
    for seed in part * EACH..(part + 1) * EACH {
        if let Err(failure) = sealane_sim::run_seed(seed) {
            panic!("{failure}");
        }
    }
}

#[test]
fn the_invariants_hold_in_the_first_histories() {
    live(0);
}

#[test]
fn the_invariants_hold_in_further_histories() {
    live(1);
}

#[test]
fn the_invariants_hold_in_more_histories() {
    live(2);
}

#[test]
fn the_invariants_hold_in_the_last_histories() {
    live(3);
}
