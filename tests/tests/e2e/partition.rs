//! The underlay is cut and healed.

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, eventually};

#[test]
fn a_host_that_is_cut_off_goes_on_by_itself_and_comes_back_as_if_nothing_was() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = Mesh::serving(3, 3);
    let inside = mesh.site(3).load("inside", &["http://api:8080/"]);
    let outside = mesh.site(2).load("outside", &["http://api:8080/"]);

    mesh.site(3).host.cut().unwrap();
    eventually(PATIENCE, "control notices", || {
        let nodes = mesh.json(&["node", "ls"]);
        let cut = nodes.as_array().unwrap().iter().find(|node| node["name"] == "host-3").unwrap();
        (cut["connected"] == false).then_some(())
    });
    let known = mesh.site(2).json(&["service", "ls"]);
    assert_eq!(known[0]["instances"], 3, "a partition removes nobody");
    inside.await_further(300);
    outside.await_further(300);
    let local = mesh.site(3).exec("inside", &["curl", "-sS", "--max-time", "15", "http://api:8080/"]);
    assert_eq!(local.ok().stdout, "api-3");

    mesh.site(3).host.heal().unwrap();
    mesh.await_connected();
    let (inside, outside) = (inside.stop(), outside.stop());
    println!("slowest inside {} ms, outside {} ms", inside.max_ms, outside.max_ms);
    let (_, _) = (inside.ok(), outside.ok());
    let mut again = mesh.site(2).load("again", &["http://api:8080/"]);
    for instance in ["api-1", "api-2", "api-3"] {
        again.await_answer(instance);
    }
    let _ = again.stop().ok();
}

#[test]
fn what_changed_on_both_sides_of_a_cut_is_known_on_both_after_it() {
    if !isolated() {
        return;
    }
    let (mesh, mut servers) = Mesh::serving(3, 3);
    mesh.site(3).host.cut().unwrap();
    servers[1].kill9();
    servers[2].kill9();
    let _fourth = mesh.site(3).serve("api", "api-4");
    let _fifth = mesh.site(1).serve("api", "api-5");
    mesh.site(3).host.heal().unwrap();
    mesh.await_connected();
    mesh.await_instances("api", 3);
    for site in [1, 3] {
        let mut load = mesh.site(site).load(&format!("web-{site}"), &["http://api:8080/"]);
        for instance in ["api-1", "api-4", "api-5"] {
            load.await_answer(instance);
        }
        let _ = load.stop().ok();
    }
}
