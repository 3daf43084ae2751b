//! Answers of a workload's nameserver.

use sealane_lab::isolated;
use sealane_tests::names::{A, AAAA, Answer};
use sealane_tests::{Mesh, testapp};

#[test]
fn services_and_workloads_have_names_and_nothing_is_said_that_is_not_so() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = Mesh::serving(2, 1);
    let client = mesh.site(2).run(&["--network", "shop", "--name", "client"], &["sleep", "1000"]);
    let client = client.entered();
    let service = mesh.json(&["service", "ls"])[0]["vip"].as_str().unwrap().parse().unwrap();
    let workload = mesh.json(&["workload", "ls"]);
    let workload = workload.as_array().unwrap().iter().find(|view| view["name"] == "api-1").unwrap();
    let workload = workload["address"].as_str().unwrap().parse().unwrap();
    let nothing = |code| Answer { code, addresses: vec![] };
    let table = [
        ("api", A, Answer { code: 0, addresses: vec![service] }),
        ("api.shop", A, Answer { code: 0, addresses: vec![service] }),
        ("API.Shop", A, Answer { code: 0, addresses: vec![service] }),
        ("api-1", A, Answer { code: 0, addresses: vec![workload] }),
        ("api-1.shop", A, Answer { code: 0, addresses: vec![workload] }),
        ("api", AAAA, nothing(0)),
        ("api.shop", AAAA, nothing(0)),
        ("api-7.shop", A, nothing(3)),
        ("api-7.shop", AAAA, nothing(3)),
        ("x.api.shop", A, nothing(3)),
    ];
    for (name, kind, expected) in table {
        assert_eq!(client.ask(name, kind), expected, "{name} {kind}");
    }
    let dig = |words: &[&str]| mesh.site(2).exec("client", &[&["dig", "+short"], words].concat()).ok().stdout;
    assert_eq!(dig(&["+tcp", "api.shop"]).trim(), format!("{service}"));
    assert_eq!(dig(&["+search", "api"]).trim(), format!("{service}"));
    let found = mesh.site(2).exec("client", &["getent", "ahostsv4", "api"]).ok();
    assert!(found.stdout.contains(&format!("{service}")), "{found}");
}

#[test]
fn an_alias_is_a_name_of_all_who_have_it_on_every_host() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(2);
    let start = |site: usize, name: &str| {
        let words = ["--network", "shop", "--name", name, "--alias", "cache", "--alias", "demo_cache_1"];
        mesh.site(site).run(&words, &["sleep", "1000"]).entered()
    };
    let (first, second) = (start(1, "red"), start(2, "blue"));
    let address = |site: usize, name: &str| {
        mesh.site(site).workload(name).unwrap()["address"]
            .as_str()
            .unwrap()
            .parse::<std::net::Ipv4Addr>()
            .unwrap()
    };
    let mut both = vec![address(1, "red"), address(2, "blue")];
    both.sort();
    for client in [&first, &second] {
        for name in ["cache", "cache.shop", "demo_cache_1"] {
            sealane_tests::eventually(sealane_tests::PATIENCE, "both are found", || {
                let mut answer = client.ask(name, A);
                answer.addresses.sort();
                (answer == Answer { code: 0, addresses: both.clone() }).then_some(())
            });
        }
    }
    let shown = mesh.json(&["workload", "inspect", "red"]);
    assert_eq!(shown["aliases"], serde_json::json!(["cache", "demo_cache_1"]), "{shown}");
    let refused = mesh.site(1).run(&["--network", "shop", "--alias", "a.b"], &["true"]).wait();
    assert!(refused.code() == 125 && refused.stderr.contains("alias \"a.b\" must have"), "{refused}");
    drop(second);
    sealane_tests::eventually(sealane_tests::PATIENCE, "who has ended is not found", || {
        (first.ask("cache", A) == Answer { code: 0, addresses: vec![address(1, "red")] }).then_some(())
    });
}

#[test]
fn dns_query_shows_what_a_workload_is_told() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = Mesh::serving(2, 1);
    let _client = mesh.site(2).run(&["--network", "shop", "--name", "client"], &["sleep", "1000"]).entered();
    let query = |name: &str, more: &[&str]| {
        mesh.site(2).sealane(&[&["dns", "query", name, "--from", "client"], more].concat())
    };
    let vip = mesh.json(&["service", "ls"])[0]["vip"].as_str().unwrap().to_owned();
    let instance = mesh.site(1).workload("api-1").unwrap()["address"].as_str().unwrap().to_owned();
    let reverse = instance.split('.').rev().collect::<Vec<_>>().join(".") + ".in-addr.arpa";
    let table: [(&str, &str, &str); 6] = [
        ("api", "A", &vip),
        ("api.shop", "a", &vip),
        ("tasks.api", "A", &instance),
        ("_8080._tcp.api", "SRV", "8080 api.shop."),
        (&reverse, "PTR", "api-1.shop."),
        (&instance, "PTR", "api-1.shop."),
    ];
    for (name, kind, expected) in table {
        let records = query(name, &["--type", kind, "-o", "json"]).ok().json();
        let records = records.as_array().unwrap();
        assert_eq!(records.len(), 1, "{name}: {records:?}");
        assert_eq!(records[0]["type"], kind.to_uppercase(), "{records:?}");
        assert!(records[0]["data"].as_str().unwrap().ends_with(expected), "{records:?}");
        assert!(records[0]["ttl_seconds"].as_u64().unwrap() <= 5, "{records:?}");
    }
    let shown = query("api", &[]).ok().stdout;
    assert!(shown.starts_with("NAME") && shown.contains(&vip), "{shown}");
    let table: [(&str, &[&str], i32, &str); 4] = [
        ("nobody", &[], 1, "there is no name nobody for workload client (NXDOMAIN)"),
        ("api", &["--type", "MX"], 1, "api has no MX records for workload client"),
        ("api", &["--type", "B"], 2, "--type \"B\" is no type of records"),
        ("a..b", &[], 2, "name \"a..b\""),
    ];
    for (name, more, code, expected) in table {
        let said = query(name, more);
        assert!(said.code() == code && said.stderr.contains(expected), "{said}");
    }
    let elsewhere = mesh.site(1).sealane(&["dns", "query", "api", "--from", "client"]);
    assert!(
        elsewhere.code() == 1 && elsewhere.stderr.contains("on host host-1\nhint: see `sealane workload ls`"),
        "{elsewhere}"
    );
}

#[test]
fn what_is_not_ours_is_asked_of_the_hosts_nameservers() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(1);
    let site = mesh.site(1);
    let mut upstream = site.start(testapp().to_str().unwrap(), &["nameserver", "192.0.2.11"], "listening");
    site.host.set_nameservers(&["192.0.2.11".parse().unwrap()]).unwrap();
    let client = site.run(&["--network", "shop", "--name", "client"], &["sleep", "1000"]).entered();
    let expected = Answer { code: 0, addresses: vec!["198.51.100.7".parse().unwrap()] };
    sealane_tests::eventually(sealane_tests::PATIENCE, "the new nameserver is asked", || {
        (client.ask("www.example.com", A) == expected).then_some(())
    });
    assert_eq!(client.ask("api-7.shop", A).code, 3, "names of the network are never asked elsewhere");

    upstream.kill9();
    assert_eq!(
        client.ask("other.example.com", A).code,
        2,
        "nobody answers: said at once, and never NXDOMAIN"
    );
}
