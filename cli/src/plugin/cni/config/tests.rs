use serde_json::json;

use super::*;

fn read(conf: &Value) -> Result<(Basics, Config), CniError> {
    let conf = object(conf.to_string().as_bytes())?;
    Ok((Basics::of(&conf)?, Config::of(&conf)?))
}

fn shop(more: Value) -> Value {
    let mut conf = json!({ "cniVersion": "1.1.0", "name": "mesh", "type": "sealane", "network": "shop" });
    let Value::Object(more) = more else { return conf };
    conf.as_object_mut().unwrap().extend(more);
    conf
}

#[test]
fn a_configuration_is_read_whole() {
    let conf = shop(json!({
        "service": "web", "ports": ["web=8080/http", 9090], "sidecar": false, "weight": 5, "socket": "/s",
        "capabilities": { "ips": true }, "cni.dev/valid-attachments": [], "aliases": ["front"],
        "runtimeConfig": {
            "ips": ["10.42.0.9/16"], "mac": "02:42:0A:00:00:01", "aliases": { "mesh": ["db_1"], "other": ["x"] },
            "portMappings": [],
            "dns": { "Servers": ["192.0.2.1"], "Searches": null, "Options": ["ndots:5"] },
        },
    }));
    let (basics, config) = read(&conf).unwrap();
    assert_eq!((basics.name.as_str(), basics.socket), ("mesh", Some("/s".into())));
    let instance = &config.instance;
    assert_eq!((instance.ports.len(), instance.sidecar, instance.weight.get()), (2, false, 5));
    assert_eq!(config.asked.ip, Some([10, 42, 0, 9].into()));
    let aliases: Vec<String> = config.asked.aliases.iter().map(ToString::to_string).collect();
    assert_eq!(aliases, ["db_1", "front"]);
    assert_eq!(config.asked.dns.section(), json!({ "nameservers": ["192.0.2.1"], "options": ["ndots:5"] }));
}

/// Additions of Mesos for a task with these labels.
fn mesos(labels: Value) -> Value {
    let network = json!({ "name": "mesh", "labels": { "labels": labels } });
    json!({ "args": { "org.apache.mesos": { "network_info": network } } })
}

#[test]
fn a_task_of_mesos_is_what_its_labels_say_and_a_configuration_without_a_version_is_of_before() {
    let labels = json!([
        { "key": "sealane.service", "value": "web" },
        { "key": "sealane.port", "value": "8080/http" },
        { "key": "rack" },
    ]);
    let mut conf = shop(mesos(labels));
    conf["cniVersion"] = Value::Null;
    let (basics, config) = read(&conf).unwrap();
    assert_eq!(basics.version.number(), "0.1.0");
    assert_eq!(config.instance.service.as_ref().map(ServiceName::as_str), Some("web"));
    assert_eq!(config.instance.ports.len(), 1);
    for (labels, expected) in [
        (json!([{ "key": "sealane.prot", "value": "80" }]), "there is no label"),
        (json!([{ "key": 7 }]), "network_info.labels.labels.key: 7"),
    ] {
        let error = read(&shop(mesos(labels))).unwrap_err();
        assert!(error.code == Code::Configuration && error.told.message.contains(expected), "{error:?}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_code() {
    let table = [
        (shop(json!({ "netwrok": "shop" })), Code::Unsupported, "\"netwrok\""),
        (shop(json!({ "ipam": { "type": "host-local" } })), Code::Unsupported, "host-local"),
        (shop(json!({ "network": null })), Code::Configuration, "network: it is missing"),
        (shop(json!({ "network": "Shop" })), Code::Configuration, "network"),
        (shop(json!({ "network": 7 })), Code::Configuration, "7 is no text"),
        (shop(json!({ "ports": [80] })), Code::Configuration, "needs a service"),
        (shop(json!({ "service": "a", "ports": "80" })), Code::Configuration, "is no list"),
        (shop(json!({ "service": "a", "ports": [0] })), Code::Configuration, "ports"),
        (shop(json!({ "sidecar": "yes" })), Code::Configuration, "neither true nor false"),
        (shop(json!({ "weight": 1001 })), Code::Configuration, "weight"),
        (shop(json!({ "weight": -1 })), Code::Configuration, "weight"),
        (
            shop(json!({ "runtimeConfig": { "ips": ["fd42::9/64"] } })),
            Code::Configuration,
            "follows from the IPv4",
        ),
        (
            shop(json!({ "runtimeConfig": { "ips": ["10.0.0.1", "10.0.0.2"] } })),
            Code::Configuration,
            "second",
        ),
        (shop(json!({ "runtimeConfig": { "mac": "no" } })), Code::Configuration, "mac"),
        (shop(json!({ "aliases": ["A b"] })), Code::Configuration, "aliases"),
        (shop(json!({ "capabilities": { "portMappings": true } })), Code::Unsupported, "\"portMappings\""),
        (
            shop(json!({ "capabilities": { "ips": "yes", "cgroupPath": true } })),
            Code::Unsupported,
            "cgroupPath",
        ),
        (
            shop(json!({ "runtimeConfig": { "bandwidth": { "ingressRate": 1 } } })),
            Code::Unsupported,
            "\"bandwidth\" with value {\"ingressRate\":1}",
        ),
        (
            shop(json!({ "runtimeConfig": { "dns": { "Servers": "x" } } })),
            Code::Configuration,
            "runtimeConfig.dns.Servers",
        ),
        (
            shop(
                json!({ "runtimeConfig": { "io.kubernetes.cri.pod-annotations": { "sealane.port": "x" } } }),
            ),
            Code::Configuration,
            "annotation sealane.port",
        ),
        (shop(json!({ "cniVersion": "0.0.9" })), Code::Version, "0.0.9"),
        (shop(json!({ "cniVersion": 1 })), Code::Version, "cniVersion 1"),
        (shop(json!({ "name": "a/b" })), Code::Configuration, "name"),
        (json!([]), Code::Decode, "no JSON object"),
    ];
    for (conf, code, expected) in table {
        let error = read(&conf).unwrap_err();
        assert!(error.code == code && error.told.message.contains(expected), "{conf}: {error:?}");
    }
    assert_eq!(object(b"{").unwrap_err().code, Code::Decode);
    assert!(read(&shop(json!({ "ipam": {} }))).is_ok(), "an empty section asks for nothing");
    assert!(read(&shop(json!({ "capabilities": { "portMappings": false, "ips": true } }))).is_ok());
}
