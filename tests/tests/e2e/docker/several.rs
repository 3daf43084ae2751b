//! Containers in several networks, and what a container can be given by hand.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, SERVE, eventually};

use super::{await_answer, await_nothing_left, inspect};

#[test]
fn a_container_in_several_networks_finds_the_names_of_all_whichever_come_and_go() {
    if !isolated() {
        return;
    }
    let (mesh, _engines) = Mesh::shop(1).permissive().with_docker(1);
    let site = mesh.site(1);
    let office = ["network", "create", "office", "--subnet", "10.43.0.0/16", "--subnet", "fd43::/64"];
    let _ = mesh.sealane(&[&office[..], &["--mtls", "permissive"]].concat()).ok();
    let create = |network: &str, more: &[&str]| {
        let option = format!("sealane.network={network}");
        let line = ["network", "create", "-d", "sealane", "--ipam-driver", "sealane", "-o", &option];
        let _ = site.docker(&[&line[..], more, &[network]].concat()).ok();
    };
    create("shop", &["--subnet", "10.42.0.0/16", "--ipam-opt", "sealane.network=shop"]);
    create("office", &["--ipv6"]);
    let serve = |name: &str, network: &str, more: &[&str]| {
        let line = ["run", "-d", "--network", network, "--name", name];
        let script = SERVE.replace("hello", name);
        let _ = site.docker(&[&line[..], more, &["bb:1", "sh", "-c", &script]].concat()).ok();
    };
    serve("web", "shop", &["--ip", "10.42.0.77", "--mac-address", "02:00:00:00:00:77", "-p", "8088:8080"]);
    serve("desk", "office", &["--network-alias", "table"]);
    assert_eq!(inspect(site, "web", "{{.NetworkSettings.Networks.shop.IPAddress}}"), "10.42.0.77");
    let workload = eventually(PATIENCE, "it is a workload", || site.workload("web"));
    assert_eq!((&workload["address"], &workload["mac"]), (&"10.42.0.77".into(), &"02:00:00:00:00:77".into()));
    eventually(PATIENCE, "its port is published", || {
        let got = site.command("curl", &["-sS", "--max-time", "2", "http://192.0.2.11:8088/"]);
        (got.stdout == "web\n").then_some(())
    });

    // It is its own, whatever others ask for, and after a restart.
    let other = ["run", "--rm", "--network", "shop", "--ip", "10.42.0.77", "bb:1", "true"];
    let refused = site.docker(&other);
    assert!(
        refused.stderr.contains("address 10.42.0.77 of network shop is in use by container web"),
        "{refused}"
    );
    let _ = site.docker(&["restart", "-t", "0", "web"]).ok();

    serve("client", "shop", &[]);
    await_answer(site, "client", "http://web:8080/", "web\n");
    let _ = site.docker(&["network", "connect", "--alias", "second", "office", "client"]).ok();
    await_answer(site, "client", "http://table:8080/", "desk\n");
    await_answer(site, "client", "http://web:8080/", "web\n");
    await_answer(site, "desk", "http://second:8080/", "client\n");
    let address =
        |field: &str| inspect(site, "desk", &format!("{{{{.NetworkSettings.Networks.office.{field}}}}}"));
    let six = Ipv4Addr::from_str(&address("IPAddress")).unwrap().to_bits();
    let six = Ipv6Addr::from_bits(0xfd43 << 112 | u128::from(six)).to_string();
    assert_eq!(address("GlobalIPv6Address"), six, "what follows from the address of IPv4");
    await_answer(site, "client", &format!("http://[{six}]:8080/"), "desk\n");
    // The one that answered is left, and the other one answers.
    let _ = site.docker(&["network", "disconnect", "shop", "client"]).ok();
    await_answer(site, "client", "http://desk:8080/", "desk\n");
    assert!(site.fetch("client", "http://web:8080/").stdout.is_empty());
    let _ = site.docker(&["network", "connect", "shop", "client"]).ok();
    await_answer(site, "client", "http://web:8080/", "web\n");
    await_answer(site, "client", "http://desk:8080/", "desk\n");
    // The next one has it at once.
    let _ = site.docker(&["rm", "-f", "web"]).ok();
    serve("web", "shop", &["--ip", "10.42.0.77"]);
    await_answer(site, "client", "http://web:8080/", "web\n");
    let _ = site.docker(&["rm", "-f", "client", "web", "desk"]).ok();
    await_nothing_left(site);
}
