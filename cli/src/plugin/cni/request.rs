//! Request to the agent: a configuration and an environment, translated.

use sealane_proto::types::Alias;
use sealane_proto::wire::v1;
use serde_json::Value;

use super::call::{Arguments, Place};
use super::config::{Basics, Config};
use super::failure::{CniError, Code};
use crate::plugin::as_called;
use crate::plugin::holding::{self, LONGEST};
use crate::plugin::json::Object;

/// Returns the prefix of the names of all attachments of a network.
pub(super) fn prefix(name: &str) -> String {
    format!("cni/{name}/")
}

/// The name by which an attachment is held: a runtime tells attachments apart by these three.
pub(super) fn holder(name: &str, container: &str, interface: &str) -> Result<String, CniError> {
    let holder = format!("{}{container}/{interface}", prefix(name));
    if holder.len() > LONGEST {
        return Err(CniError::new(Code::Environment, "the names of network and container are too long")
            .hint(format!("together with the interface's they have {} bytes of {LONGEST}", holder.len())));
    }
    Ok(holder)
}

/// The request for ADD.
pub(super) fn translate(
    basics: &Basics,
    config: &Config,
    place: &Place,
    arguments: &Arguments,
) -> Result<v1::AttachRequest, CniError> {
    let given = |what: &str, text: &Option<String>| match text {
        Some(text) => {
            text.split_once('/').map_or(text.as_str(), |(bare, _)| bare).parse().map(Some).map_err(|_| {
                CniError::new(Code::Environment, format!("CNI_ARGS: {what}={text:?} is no IPv4 address"))
            })
        }
        None => Ok(None),
    };
    let address = config.asked.ip.map_or_else(|| given("IP", &arguments.ip), |ip| Ok(Some(ip)))?;
    let mac = config.asked.mac.map(|mac| mac.to_string()).or_else(|| arguments.mac.clone());
    let mut aliases: Vec<String> = config.asked.aliases.iter().map(ToString::to_string).collect();
    aliases.extend(in_namespace(arguments));
    aliases.extend(arguments.pod.as_deref().and_then(as_called));
    let choice = v1::NetworkChoice {
        network: config.network.to_string(),
        address: address.map(|address| address.to_string()).unwrap_or_default(),
        mac: mac.unwrap_or_default(),
        interface: interface(place, config.previous.as_ref()),
        aliases,
    };
    let name = arguments.pod.clone().unwrap_or_else(|| short(&place.container));
    let holder = holder(&basics.name, &place.container, &place.interface)?;
    Ok(holding::request(holder, place.netns.as_deref(), name, choice, &config.instance))
}

/// All plugins of a list are called with one name for the container's interface. Where one before has made that, ours gets the
/// usual name of one that comes to others.
fn interface(place: &Place, previous: Option<&Object>) -> String {
    let made = previous.and_then(|previous| previous.get("interfaces")).and_then(Value::as_array);
    let text = |link: &Value, key: &str| link.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let is_it = |link: &Value| text(link, "name") == place.interface && !text(link, "sandbox").is_empty();
    if made.into_iter().flatten().any(is_it) { String::new() } else { place.interface.clone() }
}

/// A container's id as people know it.
fn short(id: &str) -> String {
    let hash = id.len() == 64 && id.bytes().all(|c| c.is_ascii_hexdigit());
    id.chars().take(if hash { 12 } else { id.len() }).collect()
}

/// Pods of several namespaces may have one name; `POD-NAMESPACE` is one pod's. podman gives the container's name for both.
fn in_namespace(arguments: &Arguments) -> Option<String> {
    let (pod, namespace) = (arguments.pod.as_ref()?, arguments.namespace.as_ref()?);
    let alias: Alias = format!("{pod}-{namespace}").parse().ok().filter(|_| pod != namespace)?;
    Some(alias.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugin::cni::config::object;

    fn translated(conf: &serde_json::Value, container: &str, arguments: &str) -> v1::AttachRequest {
        let mut whole =
            json!({ "cniVersion": "1.0.0", "name": "mesh", "type": "sealane", "network": "shop" });
        whole.as_object_mut().unwrap().extend(conf.as_object().unwrap().clone());
        let conf = object(whole.to_string().as_bytes()).unwrap();
        let place = Place {
            container: container.to_owned(),
            interface: "eth0".to_owned(),
            netns: Some("/run/netns/pod".into()),
        };
        let (basics, config) = (Basics::of(&conf).unwrap(), Config::of(&conf).unwrap());
        translate(&basics, &config, &place, &Arguments::parse(arguments).unwrap()).unwrap()
    }

    #[test]
    fn a_pod_gives_its_name() {
        let pod = "K8S_POD_NAMESPACE=prod;K8S_POD_NAME=web-0;IP=10.42.0.7;K8S_POD_UID=1";
        let request =
            translated(&json!({ "service": "web", "ports": [8080], "sidecar": false }), "4f1c", pod);
        assert_eq!(
            (request.holder.as_str(), request.netns.as_str()),
            ("cni/mesh/4f1c/eth0", "/run/netns/pod")
        );
        let workload = request.workload.unwrap();
        assert_eq!((workload.preferred.as_str(), workload.service.as_str()), ("web-0", "web"));
        assert!(workload.no_sidecar && workload.ports.len() == 1);
        let choice = &workload.networks[0];
        assert_eq!((choice.interface.as_str(), choice.address.as_str()), ("eth0", "10.42.0.7"));
        assert_eq!(choice.aliases, ["web-0-prod"]);
        let podman = translated(&json!({}), "4f1c", "K8S_POD_NAME=Web_1;K8S_POD_NAMESPACE=Web_1");
        assert_eq!(podman.workload.unwrap().networks[0].aliases, ["web_1"]);
    }

    #[test]
    fn without_a_pod_the_container_gives_its_name() {
        let name = |container: &str| translated(&json!({}), container, "").workload.unwrap().preferred;
        assert_eq!(name("default-k1"), "default-k1");
        assert_eq!(name(&"3f2a".repeat(16)), "3f2a3f2a3f2a");
        let podman = translated(&json!({}), "4f1c", "K8S_POD_NAME=web;K8S_POD_NAMESPACE=web;IgnoreUnknown=1");
        assert!(podman.workload.unwrap().networks[0].aliases.is_empty());
    }

    #[test]
    fn an_interface_that_a_plugin_before_has_made_is_left_to_it() {
        let interface = |previous: serde_json::Value| {
            let conf = json!({ "prevResult": { "interfaces": previous } });
            translated(&conf, "a", "").workload.unwrap().networks.remove(0).interface
        };
        assert_eq!(interface(json!([{ "name": "eth0", "sandbox": "/run/netns/pod" }])), "");
        assert_eq!(interface(json!([{ "name": "eth0" }, { "name": "net1", "sandbox": "/n" }, 7])), "eth0");
    }

    #[test]
    fn a_pod_s_annotations_decide_what_it_is_an_instance_of() {
        let pod = |annotations: serde_json::Value| {
            let conf = json!({
                "service": "web", "ports": [80],
                "runtimeConfig": { "io.kubernetes.cri.pod-annotations": annotations },
            });
            translated(&conf, "a", "").workload.unwrap()
        };
        assert_eq!(pod(json!({ "kubernetes.io/config.source": "api" })).service, "web");
        let own = pod(json!({ "sealane.service": "api", "sealane.port": "8080,9090/udp" }));
        assert_eq!((own.service.as_str(), own.ports.len()), ("api", 2));
    }

    #[test]
    fn what_the_network_s_configuration_asks_for_goes_before_arguments() {
        let conf = json!({ "runtimeConfig": { "ips": ["10.42.0.9/16"], "mac": "02:42:0a:00:00:01" } });
        let choice =
            translated(&conf, "a", "IP=10.42.0.7;MAC=02:42:0a:00:00:02").workload.unwrap().networks.remove(0);
        assert_eq!((choice.address.as_str(), choice.mac.as_str()), ("10.42.0.9", "02:42:0a:00:00:01"));
    }
}
