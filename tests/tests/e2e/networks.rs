//! Networks come and go.

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, eventually};

#[test]
fn a_network_in_use_stays_and_an_unused_one_leaves_no_namespace_and_may_come_back() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(2);
    let namespaces = || -> Vec<String> {
        mesh.sites().map(|site| site.command("ls", &["/run/sealane/netns"]).stdout).collect()
    };
    for round in 1..=2 {
        let mut server = mesh.site(1).serve("api", "api-1");
        mesh.await_instances("api", 1);
        let answer = mesh.site(2).curl("http://api:8080/").ok();
        assert_eq!(answer.stdout, "api-1", "round {round}");
        let refused = mesh.sealane(&["network", "rm", "shop"]);
        assert_eq!(refused.code(), 1, "{refused}");
        assert!(refused.stderr.contains("shop") && refused.stderr.contains("workload"), "{refused}");

        server.kill9();
        eventually(PATIENCE, "the network can be removed", || {
            mesh.sealane(&["network", "rm", "shop"]).status.success().then_some(())
        });
        eventually(PATIENCE, "no namespace is left on any host", || {
            namespaces().iter().all(String::is_empty).then_some(())
        });
        let _ = mesh.sealane(&["network", "create", "shop", "--subnet", "10.43.0.0/16"]).ok();
    }
}

#[test]
fn a_network_that_is_made_again_at_once_is_waited_for_and_nothing_of_that_is_an_error() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(1);
    for round in 1..=6 {
        let _ = mesh.sealane(&["network", "create", "brief", "--subnet", "10.80.0.0/16"]).ok();
        let done = mesh.site(1).run(&["--network", "brief"], &["true"]).wait();
        assert_eq!(done.code(), 0, "round {round}: {done}");
        eventually(PATIENCE, "the network can be removed", || {
            mesh.sealane(&["network", "rm", "brief"]).status.success().then_some(())
        });
    }
    for _ in 0..20 {
        let _ = mesh.site(1).shop(&["true"]).wait().ok();
    }
    eventually(PATIENCE, "all workloads are gone", || {
        mesh.site(1).json(&["workload", "ls"]).as_array().unwrap().is_empty().then_some(())
    });
    let log = mesh.site(1).agent.log();
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn networks_do_not_hear_of_each_other() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(2);
    let _ = mesh.sealane(&["network", "create", "office", "--subnet", "10.44.0.0/16"]).ok();
    let _server = mesh.site(1).serve("api", "api-1");
    mesh.await_instances("api", 1);
    let address = mesh.site(1).workload("api-1").unwrap()["address"].as_str().unwrap().to_owned();
    for site in [1, 2] {
        for flag in [&["--no-sidecar"][..], &[]] {
            let flags = [&["--network", "office"], flag].concat();
            for host in ["api", "api.shop", &address] {
                let url = format!("http://{host}:8080/");
                let answer = mesh.site(site).run(&flags, &["curl", "-sS", "--max-time", "3", &url]).wait();
                assert!(!answer.status.success(), "{answer}");
            }
        }
    }
}
