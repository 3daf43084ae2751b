//! The state of the whole in one answer, with what is wrong in sentences.

use sealane_proto::identity::{Principal, SpiffeId};
use sealane_proto::types::NetworkName;
use sealane_proto::wire::v1;

use super::{ReadApi, count};
use crate::VERSION;
use crate::core::{Span, Timestamp};
use crate::registry::Directory;

pub(super) fn status(api: &ReadApi, now: Timestamp) -> v1::StatusResponse {
    let directory = api.registry.directory();
    let seen = api.registry.seen();
    let connected = directory.nodes.keys().filter(|name| seen.get(name).is_some_and(|seen| seen.connected));
    let domain = api.authority.domain();
    let own = SpiffeId { trust_domain: domain.clone(), principal: Principal::Control };
    let snapshots = || directory.networks.values();
    v1::StatusResponse {
        role: "control".to_owned(),
        version: VERSION.to_owned(),
        uptime_seconds: api.started.elapsed().as_secs(),
        trust_domain: domain.to_string(),
        generation: Some(directory.generation.into()),
        certificates: vec![v1::CertificateView {
            identity: own.to_string(),
            expires_unix_seconds: api.own.expires().unix(),
        }],
        nodes: count(directory.nodes.len()),
        nodes_connected: count(connected.count()),
        networks: count(directory.networks.len()),
        services: count(snapshots().map(|snapshot| snapshot.services.len()).sum()),
        workloads: count(snapshots().map(|snapshot| snapshot.workloads.len()).sum()),
        problems: problems(api, &directory, now),
        ..v1::StatusResponse::default()
    }
}

fn problems(api: &ReadApi, directory: &Directory, now: Timestamp) -> Vec<String> {
    let seen = api.registry.seen();
    let store = api.health.problem().map(|problem| problem.to_string());
    let nodes = directory.nodes.keys().filter_map(|name| match seen.get(name) {
        Some(seen) if seen.connected => None,
        Some(seen) => Some(format!(
            "node {name} has been disconnected for {}; see that its agent runs and reaches this control plane",
            Span(now.since(seen.last))
        )),
        None => Some(format!(
            "node {name} has not connected since this control plane started; see that its agent runs and reaches it"
        )),
    });
    let behind = api.registry.behind().into_iter().map(|(name, networks)| {
        let networks: Vec<&str> = networks.iter().map(NetworkName::as_str).collect();
        let networks = networks.join(", ");
        format!("node {name} has not applied the newest state of {networks} yet; if it stays so, see its log")
    });
    let own = api.own.expires();
    let expired = (own <= now).then(|| {
        format!(
            "control's own certificate ended {} ago; set the clock right or restart",
            Span(now.since(own))
        )
    });
    store.into_iter().chain(nodes).chain(behind).chain(expired).collect()
}
