//! Hosts whose underlay addresses change while control is away: they tell each other.

use std::time::{Duration, Instant, SystemTime};

use sealane_lab::isolated;
use sealane_tests::{Load, Mesh, PATIENCE, Running, eventually};

use crate::liveness::{all_are_answered_by, plain};
use crate::moves::{await_places, await_row, give};

/// Hosts with an instance each that all of them call, and no control.
struct Alone {
    mesh: Mesh,
    _servers: Vec<Running>,
    loads: Vec<Load>,
}

impl Alone {
    fn of(hosts: usize) -> Self {
        let (mesh, servers) = Mesh::serving(hosts, hosts);
        let mut mesh = mesh.permissive();
        let load = |from| mesh.site(from).load(&format!("caller-{from}"), &["http://api:8080/"]);
        let loads: Vec<Load> = (1..=hosts).map(load).collect();
        for site in mesh.sites() {
            eventually(PATIENCE, "the channels to the others stand", || {
                (site.json(&["status"])["peers_connected"] == hosts - 1).then_some(())
            });
        }
        mesh.control.kill9();
        Self { mesh, _servers: servers, loads }
    }

    /// Waits until these hosts send to these instances at these addresses; returns the time that it took.
    #[track_caller]
    fn await_rows(&self, rows: &[(usize, &str, &str)]) -> Duration {
        let since = Instant::now();
        for (on, instance, address) in rows {
            let _ = await_row(&self.mesh, *on, instance, address);
        }
        since.elapsed()
    }

    /// Waits until every host reaches every instance; returns that moment.
    #[track_caller]
    fn await_calls(&self) -> SystemTime {
        for from in 1..=self.loads.len() {
            for instance in 1..=self.loads.len() {
                let url = format!("http://api-{instance}:8080/");
                eventually(PATIENCE, &format!("host {from} reaches api-{instance}"), || {
                    let called = self.mesh.site(from).curl_as(&format!("caller-{from}"), &url);
                    called.status.success().then_some(())
                });
            }
        }
        let reached = SystemTime::now();
        self.loads.iter().for_each(|load| load.await_further(100));
        reached
    }

    /// Starts control, and waits until it knows the hosts at these addresses: no call has failed since all hosts reached each other.
    #[track_caller]
    fn await_control_back(mut self, places: &[&str]) {
        let reached = self.await_calls();
        self.mesh.control.start();
        self.mesh.await_control();
        let _ = await_places(&self.mesh, places);
        self.await_calls();
        for site in self.mesh.sites() {
            eventually(PATIENCE, "nothing is wrong any more", || (site.problems() == "[]").then_some(()));
        }
        for load in self.loads {
            let report = load.stop();
            assert!(report.failed.is_none_or(|failed| failed < reached), "{report:#?}");
        }
    }
}

#[test]
fn a_host_whose_address_changes_without_control_tells_the_others_and_is_reached_at_the_new_one() {
    if !isolated() {
        return;
    }
    let mut alone = Alone::of(3);
    let sidecars = alone.mesh.site(2).processes("proxy");
    give(&alone.mesh, 2, "192.0.2.52");
    let took = alone.await_rows(&[(1, "api-2", "192.0.2.52"), (3, "api-2", "192.0.2.52")]);
    println!("both others send to the new address after {took:?}");
    alone.await_calls();
    let now = alone.mesh.site(2).processes("proxy");
    assert!(sidecars.iter().all(|sidecar| now.contains(sidecar)), "{sidecars:?} {now:?}");
    // Agents that start again go by what they have heard.
    alone.mesh.site_mut(1).agent.kill9();
    alone.mesh.site_mut(1).agent.start();
    alone.mesh.site_mut(1).await_ready();
    alone.await_rows(&[(1, "api-2", "192.0.2.52")]);
    alone.await_control_back(&["192.0.2.11", "192.0.2.52", "192.0.2.13"]);
}

#[test]
fn hosts_that_move_at_once_or_swap_without_control_find_each_other_by_a_third_one() {
    if !isolated() {
        return;
    }
    let alone = Alone::of(3);
    give(&alone.mesh, 2, "192.0.2.52");
    give(&alone.mesh, 3, "192.0.2.53");
    let mut new = vec![(1, "api-2", "192.0.2.52"), (1, "api-3", "192.0.2.53")];
    new.extend([(2, "api-3", "192.0.2.53"), (3, "api-2", "192.0.2.52")]);
    println!("two hosts that move at once are found after {:?}", alone.await_rows(&new));
    alone.await_calls();
    give(&alone.mesh, 2, "192.0.2.53");
    give(&alone.mesh, 3, "192.0.2.52");
    let mut swapped = vec![(1, "api-2", "192.0.2.53"), (1, "api-3", "192.0.2.52")];
    swapped.extend([(2, "api-3", "192.0.2.52"), (3, "api-2", "192.0.2.53")]);
    println!("two hosts that swap are found after {:?}", alone.await_rows(&swapped));
    alone.await_control_back(&["192.0.2.11", "192.0.2.53", "192.0.2.52"]);
}

#[test]
fn two_hosts_alone_that_swap_without_control_look_for_each_other_where_they_were() {
    if !isolated() {
        return;
    }
    let alone = Alone::of(2);
    give(&alone.mesh, 1, "192.0.2.12");
    give(&alone.mesh, 2, "192.0.2.11");
    let took = alone.await_rows(&[(1, "api-2", "192.0.2.11"), (2, "api-1", "192.0.2.12")]);
    println!("two hosts that swap are found after {took:?}");
    alone.await_calls();
}

#[test]
fn an_agent_that_starts_again_with_another_address_without_control_tells_the_others() {
    if !isolated() {
        return;
    }
    let mut alone = Alone::of(3);
    alone.mesh.site_mut(2).agent.kill9();
    give(&alone.mesh, 2, "192.0.2.62");
    alone.mesh.site_mut(2).agent.start();
    let took = alone.await_rows(&[(1, "api-2", "192.0.2.62"), (3, "api-2", "192.0.2.62")]);
    println!("both others send to the new address {took:?} after the agent's start");
    alone.await_control_back(&["192.0.2.11", "192.0.2.62", "192.0.2.13"]);
}

/// Time without a channel after which a dead host yields its address.
const LOST: Duration = Duration::from_secs(5);

/// A host dies, and after so long another one gets its address, as leases are given anew: it is found there within `bound`, and the
/// dead host's instance does not come back. Returns the time that it took.
#[track_caller]
fn a_dead_hosts_address_is_taken(after: Duration, bound: Duration) -> Duration {
    let mut alone = Alone::of(3);
    let _plain = plain(alone.mesh.site(1));
    alone.mesh.site(3).host.cut().unwrap();
    let cut = Instant::now();
    alone.mesh.site(1).await_instances("api", 2);
    eventually(PATIENCE, "the host is dead for a while", || (cut.elapsed() >= after).then_some(()));
    give(&alone.mesh, 2, "192.0.2.13");
    let took = alone.await_rows(&[(1, "api-2", "192.0.2.13")]);
    assert!(took < bound, "{took:?}");
    let is_right = |mesh: &Mesh| {
        let one = mesh.site(1);
        for caller in ["plain", "caller-1"] {
            all_are_answered_by(one, caller, &["api-1", "api-2"]);
            assert_eq!(one.curl_as(caller, "http://api-2:8080/").ok().stdout, "api-2");
        }
        assert_eq!(one.instances("api"), 2);
        eventually(PATIENCE, "the dead one alone is out of reach", || {
            let nodes = one.json(&["node", "ls"]);
            let reach = |number: usize| nodes[number - 1]["reach"].clone();
            (reach(2) == "reachable" && reach(3) == "unreachable").then_some(())
        });
    };
    is_right(&alone.mesh);
    let said = alone.mesh.site(1).problems();
    assert!(
        said.contains(
            "node host-3 cannot be reached from this host, and node host-2 is at its address 192.0.2.13 now"
        ),
        "{said}"
    );

    // An agent that starts again goes by what it has heard, and by who had yielded.
    alone.mesh.site_mut(1).agent.kill9();
    alone.mesh.site_mut(1).agent.start();
    alone.mesh.site_mut(1).await_ready();
    is_right(&alone.mesh);
    is_right(&alone.mesh);

    // The dead one comes back elsewhere.
    give(&alone.mesh, 3, "192.0.2.63");
    alone.mesh.site(3).host.heal().unwrap();
    alone.await_rows(&[(1, "api-3", "192.0.2.63"), (1, "api-2", "192.0.2.13")]);
    alone.await_control_back(&["192.0.2.11", "192.0.2.13", "192.0.2.63"]);
    took
}

#[test]
fn a_host_that_gets_the_address_of_one_that_has_just_died_is_found_there_without_control() {
    if isolated() {
        let took = a_dead_hosts_address_is_taken(Duration::from_secs(1), LOST + LOST);
        println!("found at the address of one that died a second ago after {took:?}");
    }
}

#[test]
fn a_host_that_gets_the_address_of_one_that_is_long_dead_is_found_there_without_control() {
    if isolated() {
        let took = a_dead_hosts_address_is_taken(LOST * 2 + Duration::from_secs(1), LOST);
        println!("found at the address of one that died long ago after {took:?}");
    }
}
