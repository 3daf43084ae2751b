//! `sealane check --peers`: the ways between hosts as each sees its own, and the direction in which a port is blocked.

use sealane_lab::isolated;
use sealane_tests::{Finished, Mesh, PATIENCE, Site, eventually};

/// Prints the matrix as one host finds it.
fn matrix(site: &Site) -> Finished {
    site.sealane(&["check", "--peers"])
}

/// Waits until the matrix, asked for on a host, has these words, and says that something is bad.
#[track_caller]
fn await_problem(site: &Site, words: &str) {
    eventually(PATIENCE, &format!("the matrix says: {words}"), || {
        let seen = matrix(site);
        (seen.stdout.contains(words) && seen.code() == 1).then_some(())
    });
}

#[track_caller]
fn await_well(site: &Site, words: &str) {
    eventually(PATIENCE, &format!("all ways are well: {words}"), || {
        let seen = matrix(site);
        (seen.stdout.contains(words) && seen.code() == 0).then_some(())
    });
}

/// Drops what `rules` match on a host, in these hooks.
fn block(site: &Site, rules: &[(&str, &str)]) {
    for (hook, rule) in rules {
        let script = format!(
            "add table ip shut; add chain ip shut {hook} {{ type filter hook {hook} priority -400; }}; \
             add rule ip shut {hook} {rule} drop"
        );
        let _ = site.command("nft", &[&script]).ok();
    }
}

fn open(site: &Site) {
    let _ = site.command("nft", &["delete table ip shut"]).ok();
}

#[test]
fn the_matrix_tells_a_blocked_direction_a_blocked_channel_and_a_host_that_is_down() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(4, 4);
    await_well(mesh.site(1), "4 of 4 hosts were asked: 0 of 12 ways are bad");
    let json = mesh.json(&["check", "--peers"]);
    let rows = json["rows"].as_array().unwrap();
    assert!(rows.iter().all(|row| row["ways"].as_array().unwrap().len() == 3), "{json}");
    assert!(rows[2]["ways"][0]["rtt_micros"].as_u64().is_some_and(|micros| micros > 0), "{json}");

    // Control is away: hosts ask each other.
    mesh.control.kill9();
    let (one, two, three) = (mesh.site(1), mesh.site(2), mesh.site(3));
    block(three, &[("input", "ip saddr 192.0.2.12 udp dport 4789")]);
    await_problem(one, "UDP port 4789 is blocked from host-2 to host-3: echoes of host-3 come to host-2");
    for site in [two, three] {
        eventually(PATIENCE, "status names the direction", || {
            site.problems().contains("UDP port 4789 is blocked from host-2 to host-3").then_some(())
        });
    }
    open(three);
    await_well(one, "0 of 12 ways are bad");
    block(three, &[("output", "ip daddr 192.0.2.12 udp dport 4789")]);
    await_problem(one, "UDP port 4789 is blocked from host-3 to host-2: echoes of host-2 come to host-3");
    block(three, &[("input", "ip saddr 192.0.2.12 udp dport 4789")]);
    await_problem(one, "UDP port 4789 is blocked between host-2 and host-3 in both directions");
    open(three);
    await_well(one, "0 of 12 ways are bad");

    who_reaches_nobody_is_told_the_direction(three);
    await_well(one, "0 of 12 ways are bad");

    let channel = ["tcp dport 7444", "tcp sport 7444"].map(|port| format!("ip saddr 192.0.2.12 {port}"));
    block(three, &[("input", &channel[0]), ("input", &channel[1])]);
    await_problem(one, "there is no channel between host-2 and host-3, which answer each other's echoes");
    open(three);
    await_well(one, "0 of 12 ways are bad");

    mesh.site(4).host.cut().unwrap();
    await_problem(one, "host host-4 is down or cut off");
    let seen = matrix(one).stdout;
    assert!(seen.contains("host-4 could not be asked: there is no channel to it"), "{seen}");
    eventually(PATIENCE, "status says that nothing answers", || {
        one.problems().contains("its TCP port 7444 does not answer either").then_some(())
    });
    mesh.site(4).host.heal().unwrap();
    await_well(one, "4 of 4 hosts were asked: 0 of 12 ways are bad");
}

/// The host whose own firewall drops the port of all others reads the direction where its administrator looks.
#[track_caller]
fn who_reaches_nobody_is_told_the_direction(site: &Site) {
    let directions = [
        (
            "input",
            "UDP port 4789 is blocked from host-1, host-2, host-4 to this host: its echoes come to them",
        ),
        (
            "output",
            "UDP port 4789 is blocked from this host to host-1, host-2, host-4: their echoes come here",
        ),
    ];
    for (hook, words) in directions {
        block(site, &[(hook, "udp dport 4789")]);
        eventually(PATIENCE, "status names the direction to or from all", || {
            let problems = site.problems();
            (problems.contains("reaches none of the 3 hosts") && problems.contains(words)).then_some(())
        });
        let checked = site.sealane(&["check"]);
        assert!(checked.code() == 1 && checked.stdout.contains(words), "{checked}");
        open(site);
    }
}
