//! The state of the whole in one answer, with what is wrong in sentences.

use std::collections::BTreeMap;
use std::time::Duration;

use sealane_proto::identity::{Principal, SpiffeId};
use sealane_proto::types::{NetworkName, NodeName};
use sealane_proto::wire::v1;

use super::{ReadApi, count};
use crate::VERSION;
use crate::core::{Span, Timestamp};
use crate::registry::{Directory, Registry, Seen, Takeover};
use crate::rests;

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
        certificates: vec![
            v1::CertificateView { identity: own.to_string(), expires_unix_seconds: api.own.expires().unix() },
            v1::CertificateView {
                identity: format!("spiffe://{domain}"),
                expires_unix_seconds: api.authority.expires().unix(),
            },
        ],
        nodes: count(directory.nodes.len()),
        nodes_connected: count(connected.count()),
        networks: count(directory.networks.len()),
        services: count(snapshots().map(|snapshot| snapshot.services.len()).sum()),
        workloads: count(snapshots().map(|snapshot| snapshot.workloads.len()).sum()),
        problems: problems(api, &directory, now),
        notes: snapshots().filter_map(|snapshot| snapshot.network.undecided()).collect(),
        ..v1::StatusResponse::default()
    }
}

/// How long before its end the authority is a problem: long enough to plan for.
const RUNWAY: Duration = Duration::from_secs(180 * 24 * 3_600);

/// What is said of an authority that ends before long: it signs nothing that lives longer than itself.
fn authority_problem(end: Timestamp, now: Timestamp) -> Option<String> {
    if end <= now {
        return Some(format!(
            "the certificate authority ended {} ago: no certificate is good any more; hosts must join a new mesh",
            Span(now.since(end))
        ));
    }
    (end <= now.after(RUNWAY)).then(|| {
        format!(
            "the certificate authority ends in {}, and every certificate with it; before then, set up a control plane \
             with a new data directory and let the hosts join it",
            Span(end.since(now))
        )
    })
}

/// Hosts that do not work by what there is now.
fn late(registry: &Registry) -> Vec<String> {
    let behind = registry.behind().into_iter().map(|(name, networks)| {
        let networks: Vec<&str> = networks.iter().map(NetworkName::as_str).collect();
        let networks = networks.join(", ");
        format!("node {name} has not applied the newest state of {networks} yet; if it stays so, see its log")
    });
    let given_up = registry.given_up().into_iter().map(|(name, networks)| {
        let networks: Vec<&str> = networks.iter().map(NetworkName::as_str).collect();
        let networks = networks.join(", ");
        format!(
            "node {name} is connected, but has not come closer to the newest state of {networks} for {} or more: nobody \
             waits for it any longer; see its log",
            Span(rests::PATIENCE)
        )
    });
    behind.chain(given_up).collect()
}

/// Hosts that two agents claim to be.
fn contests(seen: &BTreeMap<NodeName, Seen>, now: Timestamp) -> Vec<String> {
    let contested = seen.iter().filter_map(|(name, seen)| {
        let Takeover { peers: [one, other], times, .. } = seen.takeover.filter(|it| it.is_contest(now))?;
        Some(format!(
            "two agents are node {name}, at {one} and at {other}, and have taken its place from each other {times} times: \
             one host is a copy of the other; run `sealane clean` on the copy and let it join by a token of its own"
        ))
    });
    contested.collect()
}

fn problems(api: &ReadApi, directory: &Directory, now: Timestamp) -> Vec<String> {
    let seen = api.registry.seen();
    let store = api.health.problem().map(|problem| problem.to_string());
    let nodes = directory.nodes.keys().filter_map(|name| match seen.get(name) {
        Some(seen) if seen.connected => None,
        Some(seen) => Some(format!(
            "node {name} has been disconnected for {}; see that its agent runs and reaches this control plane; if the \
             host is dead, `sealane node drain {name}` keeps new calls away from it and `sealane node rm {name}` ends it",
            Span(now.since(seen.last))
        )),
        None => Some(format!(
            "node {name} has not connected since this control plane started; see that its agent runs and reaches it; if \
             the host is dead, `sealane node drain {name}` keeps new calls away from it and `sealane node rm {name}` ends it"
        )),
    });
    let alone = |name: &NodeName| directory.nodes.len() == 1 && directory.nodes.contains_key(name);
    let unreachable = directory.nodes.values().map(|record| &record.node);
    let unreachable = unreachable.filter(|node| node.underlay.to_ip().is_loopback() && !alone(&node.name));
    let unreachable = unreachable.map(|node| {
        format!(
            "node {} has the underlay address {}, where no other host reaches it; start its agent again with --underlay and an \
             address that others reach",
            node.name, node.underlay
        )
    });
    let own = api.own.expires();
    let expired = (own <= now).then(|| {
        format!(
            "control's own certificate ended {} ago; set the clock right or restart",
            Span(now.since(own))
        )
    });
    let clocks = seen.iter().filter_map(|(name, seen)| {
        let pair = seen.clocks.filter(|pair| seen.connected && pair.is_off())?;
        Some(format!("the clock of node {name} {pair}; set it right (NTP)"))
    });
    let root = authority_problem(api.authority.expires(), now);
    store
        .into_iter()
        .chain(nodes)
        .chain(unreachable)
        .chain(late(&api.registry))
        .chain(clocks)
        .chain(contests(&seen, now))
        .chain(expired)
        .chain(root)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_near_its_end_is_named_with_its_runway() {
        let now = Timestamp::from_unix(1_000_000_000);
        let in_days = |days: u64| now.after(Duration::from_secs(days * 24 * 3_600));
        assert_eq!(authority_problem(in_days(181), now), None);
        assert!(authority_problem(in_days(180), now).unwrap().contains("authority ends in 180 days"));
        assert!(authority_problem(now, in_days(3)).unwrap().contains("authority ended 3 days ago"));
    }
}
