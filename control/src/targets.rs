//! Targets for Prometheus: every host, in the form of its HTTP service discovery
//! (<https://prometheus.io/docs/prometheus/latest/http_sd/>). Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use sealane_proto::types::{NodeName, UnderlayAddr};
use serde::Serialize;

use crate::core::{NodeRecord, misfit};
use crate::registry::AgentPresence;

/// Port of an agent's metrics as long as it has not said otherwise.
const USUAL_PORT: u16 = 9464;

/// Ports below are for other services than a metrics listener, which hosts could otherwise have called.
const FIRST_PORT: u16 = 1_024;

/// A target group of one host; labels that Prometheus drops unless they are relabelled begin with `__meta_`.
#[derive(Debug, Serialize)]
struct TargetGroup {
    targets: [String; 1],
    labels: Labels,
}

#[derive(Debug, Serialize)]
struct Labels {
    node: String,
    #[serde(rename = "__meta_sealane_connected")]
    connected: String,
    #[serde(rename = "__meta_sealane_version")]
    version: String,
}

/// The target groups, as JSON.
pub(crate) fn json(
    nodes: &BTreeMap<NodeName, NodeRecord>,
    seen: &BTreeMap<NodeName, AgentPresence>,
) -> String {
    let nodes = nodes
        .iter()
        .filter(|(_, record)| record.displaced.is_none() && is_a_hosts(record.node.underlay.first()));
    let targets = nodes.map(|(name, record)| {
        let seen = seen.get(name).cloned().unwrap_or_default();
        let port = seen.metrics_port.filter(|&port| port >= FIRST_PORT).unwrap_or(USUAL_PORT);
        TargetGroup {
            targets: [SocketAddr::new(record.node.underlay.first().to_ip(), port).to_string()],
            labels: Labels {
                node: name.to_string(),
                connected: seen.connected.to_string(),
                version: seen.version,
            },
        }
    });
    // Names and addresses always have a JSON form.
    serde_json::to_string(&targets.collect::<Vec<_>>()).unwrap_or_else(|_| "[]".to_owned())
}

/// Returns true if an address can be one that a host has beneath its networks: hosts say what theirs is, and who scrapes
/// it must not be led to itself, nor to the metadata service of its cloud.
fn is_a_hosts(underlay: UnderlayAddr) -> bool {
    let address = underlay.to_ip();
    !address.is_loopback() && misfit(address).is_none()
}

#[cfg(test)]
mod tests {
    use sealane_proto::resource::Node;

    use super::*;

    fn node(name: &str, underlay: &str) -> (NodeName, NodeRecord) {
        let node = Node { name: name.parse().unwrap(), underlay: underlay.parse().unwrap(), mtu: None };
        (node.name.clone(), NodeRecord::new(node, [0; 32], Default::default()))
    }

    #[test]
    fn every_host_is_a_target_at_the_port_it_told() {
        let nodes = BTreeMap::from([node("host-1", "192.0.2.11"), node("host-2", "2001:db8::2")]);
        let told = AgentPresence {
            version: "1.2.3".into(),
            metrics_port: Some(9999),
            connected: true,
            ..AgentPresence::default()
        };
        let seen = BTreeMap::from([("host-1".parse().unwrap(), told)]);
        let json: serde_json::Value = serde_json::from_str(&json(&nodes, &seen)).unwrap();
        assert_eq!(json[0]["targets"], serde_json::json!(["192.0.2.11:9999"]));
        assert_eq!(json[0]["labels"]["node"], "host-1");
        assert_eq!(json[0]["labels"]["__meta_sealane_version"], "1.2.3");
        assert_eq!(json[0]["labels"]["__meta_sealane_connected"], "true");
        assert_eq!(json[1]["targets"], serde_json::json!(["[2001:db8::2]:9464"]));
    }

    #[test]
    fn nobody_is_sent_anywhere_but_to_hosts() {
        let nodes = BTreeMap::from([
            node("host-1", "127.0.0.1"),
            node("host-2", "169.254.169.254"),
            node("host-3", "ff02::1"),
            node("host-4", "192.0.2.4"),
        ]);
        let told = AgentPresence { metrics_port: Some(22), ..AgentPresence::default() };
        let seen = BTreeMap::from([("host-4".parse().unwrap(), told)]);
        let json: serde_json::Value = serde_json::from_str(&json(&nodes, &seen)).unwrap();
        assert_eq!(json.as_array().unwrap().len(), 1);
        assert_eq!(json[0]["targets"], serde_json::json!(["192.0.2.4:9464"]));
    }
}
