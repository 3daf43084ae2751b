//! Hosts whose clocks do not agree.

use sealane_lab::isolated;
use sealane_tests::{Finished, Mesh, PATIENCE, Running, eventually, sealane};

/// The command line of an agent whose clock is off by so much.
fn skewed<'a>(offset: &'a str, program: &'a str, token: &'a str) -> Vec<&'a str> {
    // Clocks that only count go right: timers are not what is tested.
    let fake = [
        "LD_PRELOAD=/usr/$LIB/faketime/libfaketime.so.1",
        "FAKETIME_DISABLE_SHM=1",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
        "DONT_FAKE_MONOTONIC=1",
    ];
    [&fake[..], &[offset, program, "agent", "--control", "192.0.2.11:7443", "--token", token]].concat()
}

fn join(mesh: &Mesh, offset: &str) -> Finished {
    let (program, token) = (sealane(), mesh.token());
    mesh.site(2).command("env", &skewed(offset, program.to_str().unwrap(), &token))
}

#[test]
fn a_host_whose_clock_is_off_does_not_join_and_hears_both_times() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::hosts(2).up_to(0);
    // Behind by more than control's certificate is old; ahead; both named with the fix.
    for (offset, word) in [("FAKETIME=-3h", "begins at"), ("FAKETIME=+3h", "ahead (it says ")] {
        let refused = join(&mesh, offset);
        assert_eq!(refused.code(), 1, "{refused}");
        for word in [word, "Z", "hint:", "NTP"] {
            assert!(refused.stderr.contains(word), "{word:?} is not in {refused}");
        }
    }
    assert_eq!(mesh.json(&["node", "ls"]).as_array().unwrap().len(), 0);
}

#[test]
fn a_clock_that_is_a_little_off_is_named_on_both_sides() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::hosts(2).up_to(0);
    let (program, token) = (sealane(), mesh.token());
    let mut command = mesh.site(2).host.command("env");
    command.args(skewed("FAKETIME=-100s", program.to_str().unwrap(), &token));
    let mut agent = Running::start(command);
    let problems = |number: usize, socket: &str| {
        let asked = ["status", "-o", "json", "--socket", socket];
        let status = mesh.site(number).sealane(&asked);
        // What is wrong is told with 1; 3 is that nobody is there yet.
        if matches!(status.code(), 0 | 1) { status.json()["problems"].to_string() } else { String::new() }
    };
    eventually(PATIENCE, "both name the clock", || {
        assert!(agent.runs());
        let here = problems(2, "/run/sealane/agent.sock").contains("this host's clock is 1m ");
        let there = problems(1, "/run/sealane/control.sock").contains("the clock of node host-2 is 1m ");
        (here && there).then_some(())
    });
    let ahead = mesh.site(2).metrics().sum("sealane_clock_ahead_seconds", &[]);
    assert!((-110.0..-90.0).contains(&ahead), "{ahead}");
}
