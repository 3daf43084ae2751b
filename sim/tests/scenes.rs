//! Meshes in trouble: some among a few hosts, and one among so many that hosts tell each other whom to ask.

/// Scenes of each part.
const EACH: u64 = 20;

fn live(part: u64) {
    for seed in part * EACH..(part + 1) * EACH {
        if let Err(failure) = sealane_sim::run_scene(seed) {
            panic!("{failure}");
        }
    }
}

#[test]
fn hosts_know_of_each_other_in_the_first_scenes() {
    live(0);
}

#[test]
fn hosts_know_of_each_other_in_further_scenes() {
    live(1);
}

#[test]
fn hosts_that_ask_some_of_the_others_at_a_time_know_of_all() {
    match sealane_sim::run_large_scene(0) {
        Ok(tally) => println!("{tally:?}"),
        Err(failure) => panic!("{failure}"),
    }
}
