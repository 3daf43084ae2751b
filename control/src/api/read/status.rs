//! The state of the whole in one answer, with what is wrong in sentences.

use std::collections::BTreeMap;
use std::time::Duration;

use sealane_proto::identity::{Principal, SpiffeId};
use sealane_proto::resource::Node;
use sealane_proto::types::{Hosts, Mtu, NetworkName, NodeName};
use sealane_proto::wire::v1;

use super::{ReadApi, Standing, count, own_view};
use crate::VERSION;
use crate::address_rest;
use crate::core::{NodeRecord, Outdone, Span, Timestamp};
use crate::fellows::Fellows;
use crate::registry::{AgentPresence, Directory, PublishedNetwork, Registry, Takeover};
use crate::serve::Leader;

pub(super) fn status(api: &ReadApi, now: Timestamp) -> v1::StatusResponse {
    let directory = api.registry.directory();
    let seen = api.registry.seen();
    let connected = directory.nodes.keys().filter(|name| seen.get(name).is_some_and(|seen| seen.connected));
    let domain = api.authority.domain();
    let own = SpiffeId { trust_domain: domain.clone(), principal: Principal::Control };
    let networks = || directory.networks.values();
    let (too_short, short) = short_ways(&directory);
    v1::StatusResponse {
        role: role(&api.standing).to_owned(),
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
        leader: leader(&api.standing),
        nodes: count(directory.nodes.len()),
        nodes_connected: count(connected.count()),
        networks: count(directory.networks.len()),
        services: count(networks().map(|network| network.services().len()).sum()),
        workloads: count(networks().map(|network| network.workloads().len()).sum()),
        problems: match &api.standing {
            Standing::Standby(leader) => {
                leaderless(leader, api.fellows.as_ref()).into_iter().chain(of_controls(api)).collect()
            }
            Standing::Alone | Standing::Leading => problems(api, &directory, too_short, now),
        },
        notes: {
            let undecided = networks().filter_map(|published| published.network().undecided());
            let copied =
                api.registry.last_outdone().map(|(outdone, at)| copied_note(&outdone, now.since(at)));
            undecided.chain(unknown_hosts(&directory)).chain(short).chain(copied).collect()
        },
        ..v1::StatusResponse::default()
    }
}

/// Names what the process is.
fn role(standing: &Standing) -> &'static str {
    match standing {
        Standing::Alone | Standing::Leading => "control",
        Standing::Standby(_) => "standby",
    }
}

/// Returns the address of the control plane that leads, where that is another one.
fn leader(standing: &Standing) -> String {
    match standing {
        Standing::Alone | Standing::Leading => String::new(),
        Standing::Standby(leader) => leader.load().as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

/// Describes that nobody leads, if a standby knows of nobody.
fn leaderless(leader: &Leader, fellows: Option<&Fellows>) -> Vec<String> {
    let sentence = "no control plane is known to lead: nothing can be changed here, hosts go on by what they have; see that etcd answers \
                    this host, and the logs of the control planes";
    let is_known = leader.load().is_some() || fellows.and_then(Fellows::named_leader).is_some();
    if is_known { vec![] } else { vec![sentence.to_owned()] }
}

/// Describes control planes that are lost or cut off; of this one, whatever a leader's store says of it is said elsewhere.
fn of_controls(api: &ReadApi) -> Vec<String> {
    let leads = !matches!(api.standing, Standing::Standby(_));
    let views = api.fellows.as_ref().map(|fellows| fellows.views(own_view(api))).unwrap_or_default();
    let told = views.into_iter().filter(|view| !(leads && view.asked));
    told.map(|view| view.problem).filter(|problem| !problem.is_empty()).collect()
}

/// Names what is for hosts that are not there: these may join yet, or be misspelt.
fn unknown_hosts(directory: &Directory) -> Vec<String> {
    let missing = |hosts: &Hosts| hosts.missing(|name| directory.nodes.contains_key(name));
    let told = |what: String, hosts: &Hosts| {
        let missing = missing(hosts)?;
        Some(format!(
            "{what} names hosts that are not there: {missing}; they may join yet, and `sealane node ls` shows those that are there"
        ))
    };
    let of = |published: &PublishedNetwork| {
        let network = published.network();
        let services = published.services().filter_map(|service| {
            told(format!("service {} in network {}", service.name, network.name), &service.hosts)
        });
        told(format!("network {}", network.name), &network.hosts)
            .into_iter()
            .chain(services)
            .collect::<Vec<_>>()
    };
    directory.networks.values().flat_map(|published| of(published)).collect()
}

/// Describes a host without a connection: since when it has none, and what it has not heard of, as far as is known.
fn lost_problem(name: &NodeName, since: Option<Duration>, unconfirmed: &[NetworkName]) -> String {
    let (state, reaches) = match since {
        Some(since) => (format!("been disconnected for {}", Span(since)), "this control plane"),
        None => ("not connected since this control plane started".to_owned(), "it"),
    };
    let networks: Vec<&str> = unconfirmed.iter().map(NetworkName::as_str).collect();
    let networks = match &*networks {
        [] => String::new(),
        some => format!(
            "; it has not confirmed the newest state of {}, and may go on by an older one",
            some.join(", ")
        ),
    };
    format!(
        "node {name} has {state}{networks}; see that its agent runs and reaches {reaches}; if the host is dead, `sealane node drain \
         {name}` keeps new calls away from it and `sealane node rm {name}` ends it"
    )
}

/// Time before its end at which the authority becomes a problem: long enough to plan for.
const RUNWAY: Duration = Duration::from_secs(180 * 24 * 3_600);

/// Describes an authority that ends before long: it signs nothing that lives longer than itself.
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

/// Names the hosts whose ways are too short for a network's IPv6, which is a problem, and those whose ways make the packets of a
/// network without it short, which is none.
fn short_ways(directory: &Directory) -> (Vec<String>, Vec<String>) {
    let (mut problems, mut notes) = (Vec::new(), Vec::new());
    for published in directory.networks.values().filter(|published| published.network().mtu.is_none()) {
        let (network, with_ipv6) = (&published.network().name, published.network().subnet6.is_some());
        let told = |node: &Node| directory.nodes.get(&node.name).and_then(|record| record.node.mtu);
        let shortest = published.nodes().iter().filter_map(|node| Some((told(node)?, &node.name))).min();
        let Some((mtu, node)) = shortest.filter(|(mtu, _)| !mtu.carries_ipv6()) else { continue };
        if with_ipv6 {
            problems.push(format!(
                "node {node} has room for packets of {mtu} bytes in network {network}, whose IPv6 takes {}: large ones to and from \
                 it are lost; raise the MTU beneath it, or create the network again without a --subnet of IPv6",
                Mtu::MIN_IPV6
            ));
        } else {
            notes.push(format!(
                "packets of network {network} have {mtu} bytes at most, since node {node} has no room for longer ones; raise the \
                 MTU beneath it, or keep it out of the network, for longer ones"
            ));
        }
    }
    (problems, notes)
}

/// Hosts that do not work by what there is now.
fn late(registry: &Registry) -> Vec<String> {
    let behind = registry.lagging().into_iter().map(|(name, networks)| {
        let networks: Vec<&str> = networks.iter().map(NetworkName::as_str).collect();
        let networks = networks.join(", ");
        format!(
            "node {name} has not applied the newest state of {networks} for 5 s or more; `sealane status` on it, or its log, says \
             what it waits for"
        )
    });
    let given_up = registry.given_up().into_iter().map(|(name, networks)| {
        let networks: Vec<&str> = networks.iter().map(NetworkName::as_str).collect();
        let networks = networks.join(", ");
        format!(
            "node {name} is connected, but has not come closer to the newest state of {networks} for {} or more: nobody \
             waits for it any longer; see its log",
            Span(address_rest::PATIENCE)
        )
    });
    behind.chain(given_up).collect()
}

/// Describes a host whose address another one has.
fn displaced_problem(record: &NodeRecord) -> Option<String> {
    let (name, underlay, other) = (&record.node.name, record.node.underlay, record.displaced.as_ref()?);
    Some(format!(
        "node {name} is unreachable: node {other} came with its underlay address {underlay} while it was disconnected, and \
         nothing is sent to it until it comes with its own; start its agent with --underlay and the address that it has now"
    ))
}

/// Hosts that two agents claim to be.
fn contests(seen: &BTreeMap<NodeName, AgentPresence>, now: Timestamp) -> Vec<String> {
    let contested = seen.iter().filter_map(|(name, seen)| {
        let Takeover { peers: [one, other], times, .. } = seen.claims.contest(now)?;
        Some(format!(
            "two agents are node {name}, at {one} and at {other}, and have taken its place from each other {times} times: \
             one host is a copy of the other; run `sealane clean` on the copy and let it join by a token of its own"
        ))
    });
    contested.collect()
}

fn problems(api: &ReadApi, directory: &Directory, too_short: Vec<String>, now: Timestamp) -> Vec<String> {
    let seen = api.registry.seen();
    let (store, unconfirmed) = (api.writes.problem(), api.registry.unconfirmed());
    // Who has not come yet to a control plane that has just started is on the way.
    let lost = api.registry.lost(now);
    let nodes = directory.nodes.iter().filter_map(|(name, record)| match seen.get(name) {
        Some(seen) if seen.connected => None,
        Some(_) | None if record.displaced.is_some() => displaced_problem(record),
        None if !lost.contains_key(name) => None,
        seen => {
            let since = seen.map(|seen| now.since(seen.last));
            Some(lost_problem(name, since, unconfirmed.get(name).map_or(&[], Vec::as_slice)))
        }
    });
    let alone = |name: &NodeName| directory.nodes.len() == 1 && directory.nodes.contains_key(name);
    let unreachable = directory.nodes.values().map(|record| &record.node);
    let unreachable =
        unreachable.filter(|node| node.underlay.first().to_ip().is_loopback() && !alone(&node.name));
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
    let ahead = seen.iter().find_map(|(name, seen)| Some(copied_problem(name, seen.ahead?)));
    store
        .into_iter()
        .chain(nodes)
        .chain(unreachable)
        .chain(late(&api.registry))
        .chain(too_short)
        .chain(directory.networks.values().filter_map(|known| known.space().shortage(known.network())))
        .chain(api.registry.shortages.problems(directory, now))
        .chain(clocks)
        .chain(contests(&seen, now))
        .chain(expired)
        .chain(root)
        .chain(ahead)
        .chain(of_controls(api))
        .collect()
}

/// Describes a store that was put in the place of a later one, and has become the mesh's again.
fn copied_note(Outdone { node, heard, from, .. }: &Outdone, since: Duration) -> String {
    format!(
        "the store of this control plane was an earlier copy: {} ago, node {node} came with state {heard}, and the store was at \
         {from}; a new lifetime has begun, and hosts have told what they have: the log names what was taken over, and what was \
         changed or removed since the copy is to be changed or removed again",
        Span(since)
    )
}

/// Describes a store that was put in the place of a later one, by a host of a version that proves nothing.
fn copied_problem(node: &NodeName, (heard, known): (u64, u64)) -> String {
    format!(
        "node {node} came with revision {heard} of the mesh's state, when this control plane was at {known}: its store is an \
         earlier copy, and hosts may go on by what it does not know; take a backup (`sealane backup FILE`), stop this control plane, type \
         `sealane restore FILE --force` and start it: hosts then tell it what they have"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_host_is_named_with_what_it_has_not_heard_of() {
        let name = "host-3".parse().unwrap();
        let shop = ["shop".parse().unwrap()];
        let said = lost_problem(&name, Some(Duration::from_secs(40)), &[]);
        assert!(said.starts_with("node host-3 has been disconnected for 40 s; see that"), "{said}");
        let said = lost_problem(&name, None, &shop);
        let expected = "node host-3 has not connected since this control plane started; it has not confirmed the newest state of \
                        shop, and may go on by an older one; see that its agent runs";
        assert!(said.starts_with(expected) && said.contains("`sealane node drain host-3`"), "{said}");
    }

    #[test]
    fn a_store_that_is_an_earlier_copy_is_named_with_what_to_type() {
        let said = copied_problem(&"host-3".parse().unwrap(), (120, 97));
        assert!(said.starts_with(
            "node host-3 came with revision 120 of the mesh's state, when this control plane was at 97"
        ));
        assert!(said.contains("`sealane restore FILE --force`"));
    }

    #[test]
    fn an_authority_near_its_end_is_named_with_its_runway() {
        let now = Timestamp::from_unix(1_000_000_000);
        let in_days = |days: u64| now.after(Duration::from_secs(days * 24 * 3_600));
        assert_eq!(authority_problem(in_days(181), now), None);
        assert!(authority_problem(in_days(180), now).unwrap().contains("authority ends in 180 days"));
        assert!(authority_problem(now, in_days(3)).unwrap().contains("authority ended 3 days ago"));
    }
}
