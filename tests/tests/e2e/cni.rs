//! The CNI plugin, called as runtimes call it: a file named after the network's type, the environment, and standard input.

use sealane_lab::isolated;
use sealane_tests::{Finished, Mesh, PATIENCE, Site, eventually, sealane};
use serde_json::{Value, json};

/// Where the file is that a runtime starts.
const PLUGIN: &str = "/run/cni/sealane";

fn shop(more: &Value) -> Value {
    let mut conf = json!({ "cniVersion": "1.1.0", "name": "mesh", "type": "sealane", "network": "shop" });
    conf.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    conf
}

/// One call of the plugin on `site`, for the container `id`.
fn call(site: &Site, command: &str, id: &str, netns: &str, conf: &Value) -> Finished {
    let script = format!(
        "mkdir -p /run/cni && ln -sf {} {PLUGIN} && printf '%s' '{conf}' | env CNI_COMMAND={command} CNI_CONTAINERID={id} \
         CNI_IFNAME=eth0 CNI_NETNS={netns} CNI_PATH=/run/cni 'CNI_ARGS=K8S_POD_NAMESPACE=prod;IgnoreUnknown=1;K8S_POD_NAME={id}' \
         {PLUGIN}",
        sealane().display()
    );
    site.command("sh", &["-c", &script])
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
    let _ = site.command("ip", &["-n", "web-0", "link", "set", "eth0", "down"]).ok();
    let found = answer(&call(site, "CHECK", "web-0", "/run/netns/web-0", &told));
    assert_eq!((&found["code"], &found["msg"]), (&json!(103), &json!("sealane: interface eth0 is down")));

    let _ = call(site, "ADD", "web-1", "/run/netns/web-1", &shop(&json!({}))).ok();
    let valid = json!({ "cni.dev/valid-attachments": [{ "containerID": "web-1", "ifname": "eth0" }] });
    let _ = call(site, "GC", "", "", &shop(&valid)).ok();
    eventually(PATIENCE, "web-0 is gone", || site.workload("web-0").is_none().then_some(()));
    assert!(site.workload("web-1").is_some());

    for (id, netns) in [("web-1", ""), ("web-1", ""), ("never", "/run/netns/never")] {
        assert_eq!(call(site, "DEL", id, netns, &shop(&json!({ "unknown": 1 }))).ok().stdout, "", "{id}");
    }
    eventually(PATIENCE, "web-1 is gone", || site.workload("web-1").is_none().then_some(()));
}

#[test]
fn what_a_runtime_asks_wrongly_is_answered_by_code_and_hint() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::shop(1);
    let site = mesh.site(1);
    let _ = site.command("ip", &["netns", "add", "pod"]).ok();
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
    let versions = call(site, "VERSION", "", "", &json!({ "cniVersion": "0.4.0" })).ok();
    assert_eq!(answer(&versions)["supportedVersions"], json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
    mesh.site_mut(1).agent.kill9();
    check(mesh.site(1), "STATUS", json!({}), 50, "sealane agent");
}
