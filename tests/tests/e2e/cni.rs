//! The CNI plugin, called as runtimes call it: a file named after the network's type, the environment, and standard input.

use sealane_lab::isolated;
use sealane_tests::{Finished, Mesh, PATIENCE, Site, eventually, sealane};
use serde_json::{Value, json};

/// The file that a runtime starts.
const PLUGIN: &str = "/run/cni/sealane";
/// The folder of the reference plugins.
const REFERENCE: &str = "/usr/lib/cni";

fn shop(more: &Value) -> Value {
    let mut conf = json!({ "cniVersion": "1.1.0", "name": "mesh", "type": "sealane", "network": "shop" });
    conf.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    conf
}

/// Calls the plugin on `site`, for the container `id`.
fn call(site: &Site, command: &str, id: &str, netns: &str, conf: &Value) -> Finished {
    plugin(site, PLUGIN, command, id, netns, conf)
}

/// The same with whatever plugin.
fn plugin(site: &Site, program: &str, command: &str, id: &str, netns: &str, conf: &Value) -> Finished {
    let script = format!(
        "mkdir -p /run/cni && ln -sf {} {PLUGIN} && printf '%s' '{conf}' | env CNI_COMMAND={command} CNI_CONTAINERID={id} \
         CNI_IFNAME=eth0 CNI_NETNS={netns} CNI_PATH=/run/cni:{REFERENCE} \
         'CNI_ARGS=K8S_POD_NAMESPACE=prod;IgnoreUnknown=1;K8S_POD_NAME={id}' {program}",
        sealane().display()
    );
    site.command("sh", &["-c", &script])
}

/// Calls a list of plugins as runtimes do: each gets the result of the one before, and of what is asked for the container those
/// capabilities that it declares. Answers the last result.
fn chain(site: &Site, command: &str, id: &str, list: &[Value], asked: &Value, last: Option<&Value>) -> Value {
    let mut result = last.cloned();
    let order: Vec<&Value> =
        if command == "DEL" { list.iter().rev().collect() } else { list.iter().collect() };
    for conf in order {
        let mut whole = json!({ "cniVersion": "1.0.0", "name": "chained" });
        whole.as_object_mut().unwrap().extend(conf.as_object().unwrap().clone());
        let declared = conf["capabilities"].as_object();
        let mut capable = asked.as_object().unwrap().clone();
        capable.retain(|key, _| declared.is_some_and(|declared| declared.contains_key(key)));
        whole["runtimeConfig"] = capable.into();
        if let Some(result) = &result {
            whole["prevResult"] = result.clone();
        }
        let name = conf["type"].as_str().unwrap();
        let program = if name == "sealane" { PLUGIN.to_owned() } else { format!("{REFERENCE}/{name}") };
        let called = plugin(site, &program, command, id, &format!("/run/netns/{id}"), &whole).ok();
        if command == "ADD" {
            result = Some(answer(&called));
        }
    }
    result.unwrap_or_default()
}

fn answer(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"))
}

#[test]
fn a_runtime_adds_checks_collects_and_deletes_containers() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(1);
    let site = mesh.site(1);
    for pod in ["web-0", "web-1"] {
        let _ = site.command("ip", &["netns", "add", pod]).ok();
    }
    assert!(call(site, "STATUS", "", "", &shop(&json!({}))).status.success());
    let added = call(site, "ADD", "web-0", "/run/netns/web-0", &shop(&json!({}))).ok();
    let result = answer(&added);
    assert_eq!(result["interfaces"][0]["name"], "eth0", "{result}");
    assert_eq!((&result["ips"][0]["gateway"], &result["cniVersion"]), (&json!("10.42.0.1"), &json!("1.1.0")));
    let again = call(site, "ADD", "web-0", "/run/netns/web-0", &shop(&json!({}))).ok();
    assert_eq!(answer(&again), result, "nobody heard the first answer");
    assert!(site.workload("web-0").is_some(), "the pod's name is the workload's");

    let told = shop(&json!({ "prevResult": result }));
    let _ = call(site, "CHECK", "web-0", "/run/netns/web-0", &told).ok();
    let never = answer(&call(site, "CHECK", "never", "/run/netns/web-1", &told));
    assert_eq!(never["code"], 3, "{never}");
    // What somebody takes away is mended at once; what the runtime was told otherwise, the check finds.
    let mut otherwise = told.clone();
    otherwise["prevResult"]["ips"][0]["address"] = json!("10.42.0.99/16");
    let found = answer(&call(site, "CHECK", "web-0", "/run/netns/web-0", &otherwise));
    assert_eq!(found["code"], 103, "{found}");
    let _ = call(site, "ADD", "web-1", "/run/netns/web-1", &shop(&json!({}))).ok();
    let valid = json!({ "cni.dev/valid-attachments": [{ "containerID": "web-1", "ifname": "eth0" }] });
    let _ = call(site, "GC", "", "", &shop(&valid)).ok();
    site.await_gone("web-0");
    assert!(site.workload("web-1").is_some());

    for (id, netns) in [("web-1", ""), ("web-1", ""), ("never", "/run/netns/never")] {
        assert_eq!(call(site, "DEL", id, netns, &shop(&json!({ "unknown": 1 }))).ok().stdout, "", "{id}");
    }
    site.await_gone("web-1");
}

#[test]
fn what_a_runtime_asks_wrongly_is_answered_by_code_and_hint() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::shop(1);
    let site = mesh.site(1);
    for pod in ["pod", "other"] {
        let _ = site.command("ip", &["netns", "add", pod]).ok();
    }
    let _ =
        mesh.sealane(&["network", "create", "vault", "--subnet", "10.43.0.0/16", "--egress", "deny"]).ok();
    let elsewhere = ["network", "create", "far", "--subnet", "10.44.0.0/16", "--hosts", "host-2"];
    let _ = mesh.sealane(&elsewhere).ok();
    let check = |site: &Site, command: &str, more: Value, code: u64, expected: &str| {
        let finished = call(site, command, "pod", "/run/netns/pod", &shop(&more));
        let error = answer(&finished);
        assert!(!finished.status.success() && error["code"] == code, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(site, "ADD", json!({ "netwrok": "shop" }), 2, "netwrok");
    check(site, "ADD", json!({ "ipam": { "type": "host-local" } }), 2, "leave");
    check(site, "ADD", json!({ "network": "nowhere" }), 100, "nowhere");
    check(site, "ADD", json!({ "cniVersion": "9.9.9" }), 1, "9.9.9");
    check(site, "CHECK", json!({}), 7, "prevResult");
    check(site, "ADD", json!({ "network": "far" }), 100, "far is for");
    check(site, "STATUS", json!({ "network": "nowhere" }), 50, "sealane network create nowhere");
    check(site, "STATUS", json!({ "network": "far" }), 50, "far is for");
    let _ = call(site, "STATUS", "", "", &shop(&json!({ "network": "vault" }))).ok();
    check(site, "ADD", json!({ "capabilities": { "portMappings": true } }), 2, "portmap");
    let added = call(site, "ADD", "other", "/run/netns/other", &shop(&json!({ "network": "vault" }))).ok();
    let added = answer(&added);
    assert_eq!(added["routes"], json!([]), "nothing leaves: {added}");
    let same = json!({ "network": "vault", "runtimeConfig": { "ips": [added["ips"][0]["address"]] } });
    check(site, "ADD", same, 11, "is in use");
    let versions = call(site, "VERSION", "", "", &json!({ "cniVersion": "0.4.0" })).ok();
    assert_eq!(
        answer(&versions)["supportedVersions"],
        json!(["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
    );
    let _ = mesh.sealane(&["node", "rm", "host-1", "--force"]).ok();
    eventually(PATIENCE, "who is attached may not reach others", || {
        let status = call(site, "STATUS", "", "", &shop(&json!({}))).stdout;
        status.contains("\"code\":51").then_some(())
    });
    mesh.site_mut(1).agent.kill9();
    check(mesh.site(1), "STATUS", json!({}), 50, "sealane agent");
}

fn web() -> Value {
    json!({ "type": "sealane", "network": "shop", "service": "web", "ports": ["8080/http"] })
}

/// Waits until a container serves the client of a host.
fn await_answer(site: &Site) {
    eventually(PATIENCE, "the service answers", || {
        site.curl_as("client", "http://web:8080/").stdout.contains("pod-").then_some(())
    });
}

#[test]
fn behind_a_bridge_and_before_reference_plugins_a_container_has_published_ports_and_the_mesh() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(2);
    let site = mesh.site(1);
    let _ = site.command("ip", &["netns", "add", "pod-0"]).ok();
    let bridge = json!({
        "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
        "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.88.0.0/16" }]], "routes": [{ "dst": "0.0.0.0/0" }] },
    });
    let list = [
        bridge,
        web(),
        json!({ "type": "portmap", "capabilities": { "portMappings": true } }),
        json!({ "type": "bandwidth", "capabilities": { "bandwidth": true } }),
    ];
    let asked = json!({
        "portMappings": [{ "hostPort": 18080, "containerPort": 8080, "protocol": "tcp" }],
        "bandwidth": { "ingressRate": 80_000_000, "ingressBurst": 8_000_000 },
    });
    let added = chain(site, "ADD", "pod-0", &list, &asked, None);
    let names: Vec<&str> =
        added["interfaces"].as_array().unwrap().iter().map(|link| link["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"eth0") && names.contains(&"sl0"), "{added}");
    let ways: Vec<&Value> =
        added["routes"].as_array().unwrap().iter().filter(|way| way["dst"] == "0.0.0.0/0").collect();
    assert_eq!(ways.len(), 1, "the bridge's: {added}");
    // `bridge` takes every address of a result for its own, and `portmap` looks for IPv6 that nobody has.
    for checked in [&list[1..2], &list[3..]] {
        let _ = chain(site, "CHECK", "pod-0", checked, &asked, Some(&added));
    }
    let _server = site.serve_in("/run/netns/pod-0", "8080", "pod-0");
    mesh.await_instances("web", 1);

    let client = mesh.site(2).run(&["--network", "shop", "--name", "client"], &["sleep", "100000"]);
    await_answer(mesh.site(2));
    let published = ["-s", "--max-time", "5", "http://192.0.2.11:18080/"];
    let got = mesh.site(2).command("curl", &published).ok().stdout;
    assert!(got.contains("pod-0"), "{got}");
    let limits = site.command("tc", &["qdisc"]).ok().stdout;
    assert!(limits.contains("tbf"), "{limits}");
    drop(client);

    for _ in 0..2 {
        let _ = chain(site, "DEL", "pod-0", &list, &asked, Some(&added));
    }
    site.await_gone("pod-0");
    assert!(!mesh.site(2).command("curl", &published).status.success());
}

#[test]
fn reference_plugins_that_follow_pass_on_what_the_network_gave() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(1);
    let site = mesh.site(1);
    let _ = site.command("ip", &["netns", "add", "pod-0"]).ok();
    let list = [
        web(),
        json!({ "type": "portmap", "capabilities": { "portMappings": true } }),
        json!({ "type": "bandwidth", "capabilities": { "bandwidth": true } }),
    ];
    let alone = chain(site, "ADD", "pod-0", &list[..1], &json!({}), None);
    let added = chain(site, "ADD", "pod-0", &list, &json!({}), None);
    assert_eq!((&added["ips"], &added["interfaces"]), (&alone["ips"], &alone["interfaces"]));
    let _server = site.serve_in("/run/netns/pod-0", "8080", "pod-0");
    mesh.await_instances("web", 1);
    let _client = site.run(&["--network", "shop", "--name", "client"], &["sleep", "100000"]);
    await_answer(site);
    // `bandwidth` wants the other end of the interface on the host, whether it limits anything or not.
    let _ = chain(site, "CHECK", "pod-0", &list[..2], &json!({}), Some(&added));
    let _ = chain(site, "DEL", "pod-0", &list, &json!({}), Some(&added));
    site.await_gone("pod-0");
}
