//! Resources for tests: the network `shop` (10.42.0.0/16), of which each test says what matters to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sealane_proto::identity::{Principal, SpiffeId};
use sealane_proto::resource::{Block, Network, NetworkContent, NetworkSnapshot, Service, Workload};
use sealane_proto::types::{Generation, MacAddr, Vni};

use crate::certs::WorkloadIdentity;
use crate::certs::key::Validity;

/// The network with nothing in it.
pub(crate) fn snapshot() -> NetworkSnapshot {
    NetworkSnapshot {
        generation: Generation { epoch: 1, revision: 1 },
        content: NetworkContent {
            network: Network {
                name: "shop".parse().unwrap(),
                hosts: Default::default(),
                subnet: "10.42.0.0/16".parse().unwrap(),
                vni: Vni::FIRST,
                mtu: None,
                egress: Default::default(),
                subnet6: None,
                mtls: None,
            },
            nodes: vec![],
            blocks: vec![],
            services: vec![],
            workloads: vec![],
            revoked: vec![],
            drained: vec![],
        },
    }
}

/// A block of addresses of `node`, or of services.
pub(crate) fn block(node: Option<&str>, range: &str) -> Block {
    Block { node: node.map(|node| node.parse().unwrap()), range: range.parse().unwrap() }
}

/// A service with these ports.
pub(crate) fn service<'a>(name: &str, vip: &str, ports: impl Iterator<Item = &'a str>) -> Service {
    let ports = ports.map(|port| port.parse().unwrap()).collect();
    Service {
        name: name.parse().unwrap(),
        hosts: Default::default(),
        vip: vip.parse().unwrap(),
        ports,
        declared: false,
        mtls: None,
        external: Default::default(),
    }
}

/// A ready workload of no service, with a sidecar, on `host-1`; its MAC address ends as its IP address does.
pub(crate) fn workload(name: &str, address: &str) -> Workload {
    let address: std::net::Ipv4Addr = address.parse().unwrap();
    let [a, b, c, d] = address.octets();
    Workload {
        name: name.parse().unwrap(),
        network: "shop".parse().unwrap(),
        node: "host-1".parse().unwrap(),
        address: address.into(),
        mac: MacAddr::new([2, 0, a, b, c, d]),
        service: None,
        ports: vec![],
        sidecar: true,
        ready: true,
        weight: Default::default(),
        aliases: Default::default(),
    }
}

/// A container's labels.
pub(crate) fn labels(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// An identity of the network that nobody would believe.
pub(crate) fn identity() -> Arc<WorkloadIdentity> {
    let principal = Principal::Service("shop".parse().unwrap(), "api".parse().unwrap());
    let now = SystemTime::now();
    Arc::new(WorkloadIdentity {
        spiffe_id: SpiffeId { trust_domain: "sealane".parse().unwrap(), principal },
        chain: vec![],
        roots: vec![],
        key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(vec![0])),
        validity: Validity { not_before: now, not_after: now + Duration::from_secs(3600) },
    })
}
