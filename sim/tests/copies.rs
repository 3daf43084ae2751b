//! Stores that are put back while hosts are ahead of them: whatever hosts and control do then, they end in equal states.

use sealane_sim::{Step, World};

/// Hosts of one network that all know the same, with a copy of the store as it was before the changes of `lost`.
fn ahead(lost: &[Step]) -> Vec<Step> {
    let mut steps = vec![Step::CreateNetwork(0)];
    steps.extend((0..3).map(Step::Join));
    steps.extend((0..3).map(|host| Step::Attach(host, 0, host, 1, 0)));
    steps.extend([Step::Calm, Step::Backup]);
    steps.extend_from_slice(lost);
    steps.extend([Step::Calm, Step::PutBack]);
    steps
}

fn live(steps: &[Step]) {
    if let Err(reason) = World::live(steps) {
        panic!("{reason}");
    }
}

/// Changes that the copy does not know.
fn lost() -> [Step; 3] {
    [Step::Drain(1, true), Step::Attach(2, 0, 7, 2, 0), Step::Drain(2, true)]
}

#[test]
fn hosts_that_are_ahead_come_back_to_what_the_store_says() {
    live(&ahead(&lost()));
}

#[test]
fn numbers_that_come_again_with_other_content_are_told_apart() {
    for others in 0..12_u8 {
        let mut steps = ahead(&lost());
        steps.extend((0..others).map(|turn| Step::Drain(0, turn % 2 == 0)));
        live(&steps);
        // As often as before, and a host comes when control has started once more.
        steps.extend([Step::KillControl, Step::Connect(1), Step::Down(1, 5), Step::Up(1, 5)]);
        live(&steps);
    }
}

#[test]
fn a_host_that_is_not_ahead_may_come_first() {
    let mut steps = vec![Step::CreateNetwork(0), Step::CreateNetwork(1)];
    steps.extend((0..3).map(Step::Join));
    steps.extend([Step::Attach(0, 0, 0, 1, 0), Step::Attach(1, 1, 1, 1, 0), Step::Attach(2, 0, 2, 1, 0)]);
    steps.extend([Step::Calm, Step::Backup, Step::Attach(0, 0, 5, 2, 0), Step::Calm, Step::PutBack]);
    steps.extend([
        Step::Connect(1),
        Step::Down(1, 9),
        Step::Up(1, 9),
        Step::Drain(2, true),
        Step::Drain(0, true),
    ]);
    live(&steps);
}

#[test]
fn hosts_and_networks_that_the_copy_does_not_know_are_taken_over() {
    let lost =
        [Step::Join(3), Step::CreateNetwork(1), Step::Attach(3, 1, 3, 1, 0), Step::Attach(0, 1, 4, 1, 0)];
    live(&ahead(&lost));
    // Again: the store that is put back knows nothing of the lifetime that has begun.
    let mut steps = ahead(&lost);
    steps.extend([Step::Calm, Step::Drain(0, true), Step::Calm, Step::PutBack, Step::Drain(1, true)]);
    live(&steps);
}
