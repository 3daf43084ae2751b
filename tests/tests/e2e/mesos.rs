//! Mesos' `network/cni` isolator, which calls plugins by itself: with the configuration of our document, in the task's namespace as it binds
//! that, with nothing in the environment but what a plugin is to know, from files that it keeps until the task has ended.

use sealane_lab::isolated;
use sealane_tests::{Mesh, Running, Site, sealane};
use serde_json::{Value, json};

const DOCUMENT: &str = include_str!("../../../docs/mesos.md");
/// A container's id, and the folder in which the isolator keeps what is of it.
const ID: &str = "b3a2c1de-7f44-4c3a-9d0e-2f6b1c8a9e70";
const FOLDER: &str = "/var/run/mesos/isolators/network/cni/b3a2c1de-7f44-4c3a-9d0e-2f6b1c8a9e70";

/// The example of the document that begins with this line, without its indentation.
fn example(first: &str) -> String {
    let lines = DOCUMENT.lines().skip_while(|line| *line != format!("    {first}"));
    lines.map_while(|line| line.strip_prefix("    ")).collect::<Vec<_>>().join("\n")
}

/// Writes what the isolator gives the plugin for a network: the configuration, with the task's part of it.
fn keep(site: &Site, network: &str, task: &Value) {
    let mut conf: Value = serde_json::from_str(&example("{")).unwrap();
    conf["name"] = network.into();
    conf["network"] = network.into();
    conf["args"] = json!({ "org.apache.mesos": { "network_info": task } });
    let _ = site.command("sh", &["-c", &format!("printf '%s' '{conf}' >{FOLDER}/{network}.conf")]).ok();
}

/// Calls the plugin for a network, by the file that was written.
fn begin(site: &Site, command: &str, network: &str, interface: &str) -> Running {
    let script = format!(
        "exec env -i PATH=$PATH CNI_COMMAND={command} CNI_CONTAINERID={ID} CNI_PATH=/run/plugins CNI_IFNAME={interface} \
         CNI_NETNS={FOLDER}/ns /run/plugins/sealane <{FOLDER}/{network}.conf"
    );
    site.begin("sh", &["-c", &script])
}

#[test]
fn a_task_of_mesos_is_in_its_networks_by_the_calls_of_the_isolator() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(2);
    let _ = mesh.sealane(&["network", "create", "office", "--subnet", "10.43.0.0/16"]).ok();
    let site = mesh.site(1);
    let script = format!(
        "mkdir -p /run/plugins {FOLDER} && ln -s {} /run/plugins/sealane && touch {FOLDER}/ns && unshare --net={FOLDER}/ns true",
        sealane().display()
    );
    let _ = site.command("sh", &["-c", &script]).ok();
    let asked: Value = serde_json::from_str(&format!("{{{}}}", example("\"network_infos\": [ {"))).unwrap();
    let networks = [("shop", "eth0", asked["network_infos"][0].clone()), ("office", "eth1", json!({}))];
    for (network, _, task) in &networks {
        keep(site, network, task);
    }
    // The isolator waits for all at once.
    let calls = networks.each_ref().map(|(network, interface, _)| begin(site, "ADD", network, interface));
    let [shop, office] = calls.map(|call| call.wait().ok().json());
    let subnets = [("10.42.", &shop), ("10.43.", &office)];
    for (subnet, result) in subnets {
        let address = result["ip4"]["ip"].as_str().unwrap_or_default();
        assert!(address.starts_with(subnet) && address.ends_with("/16"), "{result}");
    }
    let mut servers =
        [&shop, &office].map(|result| result["dns"]["nameservers"][0].as_str().unwrap_or_default());
    servers.sort_unstable();
    assert_eq!(servers, ["127.0.0.11", "127.0.0.12"], "each network has its own, whichever came first");

    let _server = site.serve_in(&format!("{FOLDER}/ns"), "8080", "task");
    mesh.await_instances("api", 1);
    assert_eq!(mesh.site(2).curl("http://api:8080/").ok().stdout, "task");
    for (network, interface, _) in &networks {
        for _ in 0..2 {
            assert_eq!(begin(site, "DEL", network, interface).wait().ok().stdout, "");
        }
    }
    // The isolator removes the namespace then, or complains of a container that it cannot clean up.
    let _ = site.command("umount", &[&format!("{FOLDER}/ns")]).ok();
    site.await_gone(ID);
}
