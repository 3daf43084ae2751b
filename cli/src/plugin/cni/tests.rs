//! Answers to anything that a runtime writes: faults are named.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::plugin::json::arbitrary::{anything, mutated, names};

const KEYS: [&str; 14] = [
    "network",
    "service",
    "ports",
    "sidecar",
    "aliases",
    "dns",
    "runtimeConfig",
    "prevResult",
    "cni",
    "ips",
    "mac",
    "interfaces",
    "Servers",
    "routes",
];

/// A configuration of everything that there is.
fn whole() -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "mesh", "type": "sealane", "network": "shop", "service": "web", "ports": ["web=8080/http", 90],
        "sidecar": false, "weight": 5, "socket": "/s", "aliases": ["front"], "dns": { "nameservers": ["192.0.2.1"], "domain": "a" },
        "capabilities": { "ips": true, "mac": true }, "args": { "cni": { "ips": ["10.42.0.9"] } },
        "runtimeConfig": {
            "ips": ["10.42.0.9/16"], "mac": "02:42:0a:00:00:01", "aliases": { "mesh": ["db_1"] }, "dns": { "Servers": ["192.0.2.2"] },
            "io.kubernetes.cri.pod-annotations": { "sealane.service": "api", "sealane.port": "8080" },
        },
        "prevResult": {
            "interfaces": [{ "name": "eth0", "sandbox": "/n", "mac": "02:00:00:00:00:09" }],
            "ips": [{ "address": "10.42.0.9/16", "interface": 0 }], "routes": [{ "dst": "0.0.0.0/0" }],
            "dns": { "nameservers": ["192.0.2.3"] },
        },
    })
}

/// All that is read of a configuration, and what becomes of it.
fn read(conf: &Value, arguments: &str) -> Result<(), CniError> {
    let conf = config::object(conf.to_string().as_bytes())?;
    let (basics, config) = (Basics::of(&conf)?, Config::of(&conf)?);
    let place = Place { container: "a".to_owned(), interface: "eth0".to_owned(), netns: Some("/n".into()) };
    let _ = valid(&conf, &basics.name);
    request::translate(&basics, &config, &place, &Arguments::parse(arguments)?)?;
    let seat = v1::Attachment { address: "10.42.0.9".into(), ..Default::default() };
    if let Some(previous) = &config.previous {
        let _ = answer::result(basics.version, &seat, "/n", &config.asked.dns, Some(previous));
        let _ = inside::compare(&seat, "127.0.0.11", &inside::InterfaceState::default(), previous);
    }
    Ok(())
}

#[test]
fn the_whole_configuration_is_read() {
    assert_eq!(read(&whole(), "IgnoreUnknown=1"), Ok(()));
}

proptest! {
    #[test]
    fn whatever_a_runtime_writes_is_read_or_refused(
        more in anything(&KEYS),
        arguments in "[A-Z0-9_=;]{0,24}",
        bytes in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let _ = (read(&more, &arguments), config::object(&bytes), spoken(&bytes));
        let mut conf = whole();
        if let (Some(conf), Value::Object(more)) = (conf.as_object_mut(), more) {
            conf.extend(more);
        }
        let _ = read(&conf, &arguments);
    }

    #[test]
    fn what_is_wrong_of_a_configuration_is_named((path, conf) in mutated(&whole(), &KEYS)) {
        if let Err(error) = read(&conf, "") {
            prop_assert!(names(&error.told.message, &path, &conf), "{path:?}: {}", error.told.message);
        }
    }
}
