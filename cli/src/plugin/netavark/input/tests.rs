use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::plugin::json::arbitrary::{anything, mutated, names};

fn network(more: &Value) -> Object {
    let mut network = json!({
        "name": "shop", "id": "2f25", "driver": "sealane", "network_interface": "", "subnets": null, "ipv6_enabled": false,
        "internal": false, "dns_enabled": true, "ipam_options": { "driver": "host-local" },
        "options": { "sealane.network": "mesh" },
    });
    let network = network.as_object_mut().unwrap();
    network.extend(more.as_object().unwrap().clone());
    network.clone()
}

fn container(more: &Value, own: &Value) -> Object {
    let mut container = json!({
        "container_id": "7529", "container_name": "Web_1", "port_mappings": null, "network": network(&json!({})),
        "network_options": {
            "aliases": ["front", "752947ff91f9"], "interface_name": "eth0", "static_ips": null, "static_mac": null,
        },
    });
    container["network_options"].as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
    let container = container.as_object_mut().unwrap();
    container.extend(more.as_object().unwrap().clone());
    container.clone()
}

#[test]
fn a_container_is_attached_by_podman_s_names_for_it() {
    let own = json!({
        "static_ips": ["10.42.0.9"], "static_mac": "02:42:0A:00:00:01",
        "options": { "sealane.service": "web", "sealane.port": "8080/http", "sealane.sidecar": "off" },
    });
    let found = Container::of(&container(&json!({}), &own)).unwrap();
    assert!(!found.publishes);
    let request = found.request(Path::new("/run/netns/netns-1"));
    assert_eq!(
        (request.holder.as_str(), request.netns.as_str()),
        ("netavark/7529/shop", "/run/netns/netns-1")
    );
    let workload = request.workload.unwrap();
    assert_eq!((workload.preferred.as_str(), workload.service.as_str()), ("Web_1", "web"));
    assert!(workload.no_sidecar && workload.ports.len() == 1);
    let choice = &workload.networks[0];
    assert_eq!((choice.network.as_str(), choice.interface.as_str()), ("mesh", "eth0"));
    assert_eq!((choice.address.as_str(), choice.mac.as_str()), ("10.42.0.9", "02:42:0a:00:00:01"));
    assert_eq!(choice.aliases, ["752947ff91f9", "front", "web_1"]);
    let ports = json!({ "port_mappings": [{ "host_port": 80 }] });
    assert!(Container::of(&container(&ports, &json!({}))).unwrap().publishes);
}

#[test]
fn what_podman_asks_wrongly_is_named_with_the_line_to_type() {
    let check = |asked: Result<Object, Failure>, expected: &str| {
        let told = asked.and_then(|asked| {
            let network = Network::of(&asked)?;
            refuse_subnets(&asked, &network)?;
            network.check(&v1::Network::default()).map(|()| network)
        });
        let told = told.unwrap_err().sentence();
        assert!(told.contains(expected), "{told}");
    };
    let of = |more: Value| Ok(network(&more));
    check(
        of(json!({ "options": null })),
        "podman network create -d sealane --opt sealane.network=NETWORK shop",
    );
    check(of(json!({ "options": { "sealane.network": "No" } })), "option sealane.network: ");
    check(of(json!({ "options": { "sealane.network": "mesh", "mtu": "1400" } })), "option mtu is not one");
    check(
        of(json!({ "options": { "sealane.network": "mesh", "sealane.prot": "1" } })),
        "no option sealane.prot",
    );
    check(of(json!({ "options": { "sealane.network": 7 } })), "options.sealane.network: 7 is no text");
    check(
        of(json!({ "subnets": [{ "subnet": "10.89.0.0/24" }] })),
        "podman network create -d sealane --opt sealane.network=mesh shop",
    );
    check(of(json!({ "internal": true })), "--internal");
    check(of(json!({ "ipv6_enabled": true })), "--ipv6");
    check(of(json!({ "internal": "yes" })), "internal: \"yes\" is neither true nor false");
    check(json::object("podman's request", b"[]"), "no JSON object");
    check(json::object("podman's request", b"{"), "no JSON: ");
}

#[test]
fn what_a_container_asks_wrongly_is_named() {
    let check = |more: Value, own: Value, expected: &str| {
        let told = Container::of(&container(&more, &own)).unwrap_err().sentence();
        assert!(told.contains(expected), "{told}");
    };
    check(
        json!({}),
        json!({ "static_ips": ["fd42::9"] }),
        "network_options.static_ips: \"fd42::9\" cannot be asked for",
    );
    check(json!({}), json!({ "static_ips": ["10.0.0.1", "10.0.0.2"] }), "second IPv4 address");
    check(json!({}), json!({ "static_mac": "x" }), "network_options.static_mac");
    check(json!({}), json!({ "aliases": ["A b"] }), "network_options.aliases");
    check(json!({}), json!({ "options": { "mode": "x" } }), "option mode");
    check(json!({ "container_id": "" }), json!({}), "container_id");
    check(json!({ "container_id": "x".repeat(200) }), json!({}), "200 bytes");
    check(json!({ "network": [] }), json!({}), "network: [] is no object");
}

#[test]
fn the_end_of_a_container_needs_its_names_alone() {
    let broken =
        container(&json!({ "network": { "name": "shop" }, "port_mappings": 7 }), &json!({ "aliases": 7 }));
    assert_eq!(Container::holder(&broken).unwrap(), "netavark/7529/shop");
}

const KEYS: [&str; 8] =
    ["name", "options", "sealane.network", "sealane.port", "aliases", "static_ips", "subnets", "network"];

/// All that is read of what podman writes.
fn read(asked: &Object) -> Result<(), Failure> {
    let container = Container::of(asked)?;
    refuse_subnets(asked, &container.network)?;
    let _ = (container.network.check(&v1::Network::default()), container.request(Path::new("/n")));
    Ok(())
}

proptest! {
    #[test]
    fn whatever_podman_writes_is_read_or_refused(more in anything(&KEYS), bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = json::object("podman's request", &bytes);
        if let Some(asked) = more.as_object() {
            let _ = read(asked);
        }
    }

    #[test]
    fn what_is_wrong_of_a_container_is_named(
        (path, asked) in mutated(&Value::Object(container(&json!({}), &json!({ "options": { "sealane.port": "80" } }))), &KEYS)
    ) {
        if let Err(failure) = read(asked.as_object().unwrap()) {
            let told = failure.sentence();
            prop_assert!(names(&told, &path, &asked), "{path:?}: {told}");
        }
    }
}
