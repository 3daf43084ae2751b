//! Workloads of several networks, and networks with the same addresses.

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, Running, Site, eventually, testapp};

/// `shop` and `twin` with the same addresses, `office` with others.
fn mesh() -> Mesh {
    let mesh = Mesh::shop(2);
    for (network, subnet) in [("twin", "10.42.0.0/16"), ("office", "10.44.0.0/16")] {
        let _ = mesh.sealane(&["network", "create", network, "--subnet", subnet]).ok();
    }
    mesh
}

/// An instance of `service` that answers with its name, in these networks.
fn serve(site: &Site, networks: &[&str], service: &str, name: &str) -> Running {
    let mut flags = vec!["--service", service, "--port", "8080", "--name", name];
    flags.extend(networks.iter().flat_map(|network| ["--network", network]));
    let mut server = site.run(&flags, &[testapp().to_str().unwrap(), "http", "8080", name]);
    server.wait_for("listening");
    server
}

fn await_ready(mesh: &Mesh, network: &str, service: &str, site: &Site) {
    let ready = |services: &serde_json::Value| {
        let mut services = services.as_array().unwrap().iter();
        services.any(|view| view["name"] == service && view["ready"].as_u64().unwrap() > 0)
    };
    eventually(PATIENCE, "the service is ready", || {
        let own = ready(&mesh.json(&["service", "ls", "--network", network]));
        (own && ready(&site.json(&["service", "ls", "--network", network]))).then_some(())
    });
}

fn call(site: &Site, networks: &[&str], url: &str) -> String {
    let flags: Vec<&str> = networks.iter().flat_map(|network| ["--network", network]).collect();
    site.run(&flags, &["curl", "-sS", "--max-time", "10", url]).wait().ok().stdout
}

#[test]
fn a_workload_of_two_networks_calls_and_is_called_in_both() {
    if !isolated() {
        return;
    }
    let mut mesh = mesh();
    let _servers = [
        serve(mesh.site(1), &["shop"], "api", "api-shop"),
        serve(mesh.site(1), &["office"], "api", "api-office"),
        serve(mesh.site(1), &["office"], "files", "files-1"),
        serve(mesh.site(2), &["shop", "office"], "gate", "gate-1"),
    ];
    for (network, service) in [("shop", "api"), ("office", "api"), ("office", "files"), ("shop", "gate")] {
        await_ready(&mesh, network, service, mesh.site(2));
    }
    let check = |mesh: &Mesh| {
        let curl = |url: &str| mesh.site(2).curl_as("gate-1", url).ok().stdout;
        assert_eq!(curl("http://api:8080/"), "api-shop", "a bare name is the first network's");
        assert_eq!(curl("http://api.office:8080/"), "api-office");
        assert_eq!(curl("http://files:8080/"), "files-1", "then the second one's");
        for network in ["shop", "office"] {
            assert_eq!(call(mesh.site(1), &[network], "http://gate:8080/"), "gate-1", "{network}");
        }
        assert_eq!(call(mesh.site(1), &["office", "shop"], "http://api:8080/"), "api-office");
    };
    await_ready(&mesh, "office", "gate", mesh.site(1));
    check(&mesh);
    let links = mesh.site(2).exec("gate-1", &["ip", "-4", "-br", "addr"]).ok().stdout;
    assert!(links.contains("eth0") && links.contains("eth1"), "{links}");
    let routes = mesh.site(2).exec("gate-1", &["ip", "route", "show", "default"]).ok().stdout;
    for way in
        ["via 10.42.0.1 dev eth0 proto static metric 1000", "via 10.44.0.1 dev eth1 proto static metric 1001"]
    {
        assert!(routes.contains(way), "the first network's way comes first: {routes}");
    }
    assert_eq!(mesh.site(2).processes("proxy").len(), 2, "a sidecar per network, with its identity alone");

    mesh.site_mut(2).agent.kill9();
    mesh.site_mut(2).agent.start();
    mesh.site_mut(2).await_ready();
    for network in ["shop", "office"] {
        await_ready(&mesh, network, "gate", mesh.site(2));
    }
    check(&mesh);
    drop(_servers);
    eventually(PATIENCE, "nothing of them stays", || {
        let idle = |site: &Site| {
            site.processes("proxy").is_empty()
                && site.json(&["workload", "ls"]).as_array().unwrap().is_empty()
        };
        mesh.sites().all(idle).then_some(())
    });
}

#[test]
fn networks_of_the_same_addresses_do_not_meet() {
    if !isolated() {
        return;
    }
    let mesh = mesh();
    let mut servers = Vec::new();
    for network in ["shop", "twin"] {
        for number in [1, 2] {
            servers.push(serve(mesh.site(number), &[network], "api", &format!("{network}-{number}")));
        }
    }
    let addresses = |network: &str| {
        let workloads = mesh.json(&["workload", "ls", "--network", network]);
        let mut all: Vec<String> =
            workloads.as_array().unwrap().iter().map(|view| view["address"].to_string()).collect();
        all.sort();
        all
    };
    assert_eq!(addresses("shop"), addresses("twin"));
    for (number, network) in [(1, "shop"), (2, "shop"), (1, "twin"), (2, "twin")] {
        let site = mesh.site(number);
        await_ready(&mesh, network, "api", site);
        let script = "for i in 1 2 3 4 5 6; do curl -sS --max-time 10 http://api:8080/; echo; done";
        let answers = site.run(&["--network", network], &["sh", "-c", script]).wait().ok().stdout;
        assert!(
            answers.lines().count() == 6 && answers.lines().all(|line| line.starts_with(network)),
            "{answers}"
        );
    }
    let both = mesh.site(1).run(&["--network", "shop", "--network", "twin"], &["true"]).wait();
    assert_eq!(both.code(), 125, "{both}");
    for words in ["network shop (10.42.0.0/16)", "network twin (10.42.0.0/16)", "overlap"] {
        assert!(both.stderr.contains(words), "{both}");
    }
}

#[test]
fn a_name_of_two_networks_is_told_apart_by_its_network() {
    if !isolated() {
        return;
    }
    let mesh = mesh();
    let site = mesh.site(1);
    let start = |network: &str| {
        let mut started =
            site.run(&["--network", network, "--name", "same"], &["sh", "-c", "echo up; exec cat"]);
        started.wait_for("up");
        started
    };
    let _both = [start("shop"), start("office")];
    let exec = site.exec("same", &["true"]);
    assert_eq!(exec.code(), 125, "{exec}");
    assert!(exec.stderr.contains("same.office or same.shop"), "{exec}");
    let address = site.exec("same.office", &["ip", "-4", "-br", "addr", "show", "eth0"]).ok().stdout;
    assert!(address.contains("10.44."), "{address}");
}

#[test]
fn an_address_that_is_asked_for_is_kept_and_a_conflict_names_its_holder() {
    if !isolated() {
        return;
    }
    let mut mesh = mesh();
    let flags = ["--network", "shop", "--network", "office", "--name", "fixed"];
    let ips = ["--ip", "office=10.44.77.7", "--ip", "shop=10.42.77.7"];
    let mut fixed = mesh.site(1).run(&[&flags[..], &ips[..]].concat(), &["sh", "-c", "echo up; exec cat"]);
    fixed.wait_for("up");
    let addresses = |mesh: &Mesh| mesh.site(1).exec("fixed", &["ip", "-4", "-br", "addr"]).ok().stdout;
    let before = addresses(&mesh);
    assert!(before.contains("10.42.77.7/16") && before.contains("10.44.77.7/16"), "{before}");
    mesh.site_mut(1).agent.kill9();
    mesh.site_mut(1).agent.start();
    mesh.site_mut(1).await_ready();
    assert_eq!(addresses(&mesh), before);
    for number in [1, 2] {
        let taken = mesh.site(number).run(&["--network", "shop", "--ip", "10.42.77.7"], &["true"]).wait();
        assert_eq!(taken.code(), 125, "{taken}");
        assert!(taken.stderr.contains("10.42.77.7") && taken.stderr.contains("in use"), "{taken}");
    }
    let outside = mesh.site(2).run(&["--network", "shop", "--ip", "10.44.0.9"], &["true"]).wait();
    assert!(
        outside.stderr.contains("10.44.0.9 is not a workload address of subnet 10.42.0.0/16"),
        "{outside}"
    );
    let unclear = mesh.site(2).run(&[&flags[..4], &["--ip", "10.42.9.9"]].concat(), &["true"]).wait();
    assert!(unclear.stderr.contains("does not say in which network"), "{unclear}");
}
