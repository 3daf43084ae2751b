//! Round trips: each resource's message is read as it was written, and so is its document.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use prost::Message;
use sealane_base::shared_list::SharedList;
use sealane_proto::document::{Document, ServiceDocument};
use sealane_proto::identity::SerialPrefix;
use sealane_proto::resource::{
    Astray, Block, Difference, Digest, Edition, Egress, External, Network, NetworkChange, NetworkContent,
    NetworkDelta, NetworkSnapshot, Node, OwnerFacts, Route, Service, Totals, Voucher, Workload,
};
use sealane_proto::types::{
    Aliases, Check, ExternalAddr, Finding, Generation, Hosts, Interval, MacAddr, Mtls, Mtu, NetworkName,
    Port, Probe, Protocol, ServiceName, ServicePort, StatusRange, Threshold, Vni, Weight,
};
use sealane_proto::wire::{WireError, v1};

fn label<T: FromStr<Err: Debug> + Debug>() -> impl Strategy<Value = T> + Clone {
    "[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?".prop_map(|text| text.parse().unwrap())
}

fn mtls() -> impl Strategy<Value = Option<Mtls>> {
    of(prop::sample::select(Mtls::NAMES.map(|(_, mode)| mode).to_vec()))
}

fn hosts() -> impl Strategy<Value = Hosts> {
    vec(label(), 0..3).prop_map(|names| names.into_iter().collect())
}

fn address() -> impl Strategy<Value = Ipv4Addr> {
    any::<u16>().prop_map(|low| Ipv4Addr::from_bits(0x0a2a_0000 | u32::from(low)))
}

fn port() -> impl Strategy<Value = ServicePort> {
    let protocol = prop::sample::select(Protocol::NAMES.map(|(_, protocol)| protocol).to_vec());
    let name = of("[a-z]{1,15}".prop_map(|text| text.parse().unwrap()));
    (name, 1..=u16::MAX, protocol, mtls()).prop_map(|(name, port, protocol, mtls)| ServicePort {
        name,
        port: Port::try_from(port).unwrap(),
        protocol,
        mtls,
    })
}

fn mtu() -> impl Strategy<Value = Option<Mtu>> {
    of((u32::from(Mtu::MIN)..=u32::from(Mtu::MAX)).prop_map(|bytes| Mtu::try_from(bytes).unwrap()))
}

fn network() -> impl Strategy<Value = Network> {
    let vni = (Vni::FIRST.get()..1 << 24).prop_map(|vni| Vni::try_from(vni).unwrap());
    let egress = any::<bool>().prop_map(Egress::from_denied);
    let subnets = (any::<u8>(), any::<bool>());
    (label(), hosts(), subnets, vni, mtu(), egress, mtls()).prop_map(
        |(name, hosts, (third, ipv6), vni, mtu, egress, mtls)| Network {
            name,
            hosts,
            subnet: format!("10.{third}.0.0/16").parse().unwrap(),
            vni,
            mtu,
            egress,
            subnet6: ipv6.then(|| format!("fd{third:02x}::/64").parse().unwrap()),
            mtls,
        },
    )
}

fn node() -> impl Strategy<Value = Node> {
    (label(), any::<u8>(), any::<bool>(), mtu()).prop_map(|(name, last, four, mtu)| {
        let underlay = if four { format!("192.0.2.{last}") } else { format!("2001:db8::{last:x}") };
        Node { name, underlay: underlay.parse().unwrap(), mtu }
    })
}

fn block() -> impl Strategy<Value = Block> {
    (of(label()), any::<u8>())
        .prop_map(|(node, third)| Block { node, range: format!("10.42.{third}.0/24").parse().unwrap() })
}

fn check() -> impl Strategy<Value = Check> {
    let time = || {
        (100..=3_600_000_u64).prop_map(|millis| Interval::try_from(Duration::from_millis(millis)).unwrap())
    };
    let count = || of((1..=100_u32).prop_map(|count| Threshold::try_from(count).unwrap()));
    let status = (100..600_u16, 100..600_u16).prop_map(|(one, other)| {
        format!("{}-{}", one.min(other), one.max(other)).parse::<StatusRange>().unwrap()
    });
    let probe = prop_oneof![
        Just(Probe::Tcp),
        ("/[a-z?=&%/]{0,20}", status).prop_map(|(path, status)| Probe::Http(path.parse().unwrap(), status)),
        "[a-z.]{0,20}".prop_map(|service| Probe::Grpc(service.parse().unwrap())),
    ];
    let port = of((1..=u16::MAX).prop_map(|port| Port::try_from(port).unwrap()));
    (probe, port, time(), of(time()), count(), count(), of(time())).prop_map(
        |(probe, port, interval, timeout, healthy, unhealthy, start_period)| Check {
            probe,
            port,
            interval,
            timeout,
            healthy,
            unhealthy,
            start_period,
        },
    )
}

fn external() -> impl Strategy<Value = External> {
    let place = (any::<u8>(), of(1..=u16::MAX)).prop_map(|(last, port)| {
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("198.51.100.{last}{port}").parse::<ExternalAddr>().unwrap()
    });
    let places = btree_set(place, 0..4).prop_map(|places| places.into_iter().collect());
    (places, of(check()), of(label())).prop_map(|(instances, check, registrar)| External {
        instances,
        check,
        registrar,
    })
}

fn service() -> impl Strategy<Value = Service> {
    (label(), hosts(), address(), vec(port(), 0..4), any::<bool>(), mtls(), external()).prop_map(
        |(name, hosts, vip, ports, declared, mtls, external)| Service {
            name,
            hosts,
            vip: vip.into(),
            ports,
            declared,
            mtls,
            external,
        },
    )
}

fn workload() -> impl Strategy<Value = Workload> {
    let mac = any::<[u8; 5]>().prop_map(|[a, b, c, d, e]| MacAddr::new([2, a, b, c, d, e]));
    let weight = (0..=1_000_u32, any::<bool>()).prop_map(|(share, drained)| {
        let weight = Weight::try_from(share).unwrap();
        if drained { weight.drain() } else { weight }
    });
    let flags = (any::<bool>(), any::<[bool; 2]>(), weight);
    let names = (vec(label(), 0..4), of(label()), of(label())).prop_map(|(aliases, called, group)| {
        Aliases::new(aliases).unwrap().with_called(called).with_group(group)
    });
    let names = (names, "[ -~]{0,40}").prop_map(|(names, finding)| (names, Finding::new(&finding)));
    (label(), label(), label(), address(), mac, of(label()), vec(port(), 0..3), flags, names).prop_map(
        |(
            name,
            network,
            node,
            address,
            mac,
            service,
            ports,
            (sidecar, [ready, ready6], weight),
            (aliases, finding),
        )| {
            Workload {
                name,
                network,
                node,
                address: address.into(),
                mac,
                service,
                ports,
                sidecar,
                ready,
                ready6,
                weight,
                aliases,
                finding,
            }
        },
    )
}

/// A route, understood or not.
fn route() -> impl Strategy<Value = Route> {
    (label::<ServiceName>(), any::<bool>(), any::<bool>(), 1..=9_u64).prop_map(|(name, grpc, understood, number)| {
        let kind = if grpc { "GRPCRoute" } else { "HTTPRoute" };
        let json = format!(
            r#"{{"apiVersion":"gateway.networking.k8s.io/v1","kind":"{kind}","metadata":{{"name":"{name}","namespace":"shop"}},"spec":{{{}}}}}"#,
            if understood { "" } else { r#""ofTomorrow":1"# }
        );
        let id = format!("{}/{name}", kind.to_lowercase());
        v1::Route { id, json, generation: number, created: number, changed: number + 1 }.try_into().unwrap()
    })
}

/// Contents in which services and workloads are sorted, and each name is one's.
fn content() -> impl Strategy<Value = NetworkContent> {
    let services =
        vec(service(), 0..4).prop_map(|services| by_name(services, |service| service.name.clone()));
    let workloads =
        vec(workload(), 0..4).prop_map(|workloads| by_name(workloads, |workload| workload.name.clone()));
    let revoked = vec(any::<[u8; 32]>(), 0..3)
        .prop_map(|keys| keys.iter().map(SerialPrefix::of_key).collect::<Vec<_>>());
    let edition = (0..=1_u64 << 62, 0..=1_u64 << 62)
        .prop_map(|(incarnation, revision)| Edition { incarnation, revision });
    let routes = vec(route(), 0..3).prop_map(|routes| by_name(routes, |route| route.id.clone()));
    let editions = || of(btree_map(label(), edition.clone(), 0..3));
    let hosts = (vec(label(), 0..3), editions(), of(vec(label(), 0..3)), editions());
    (network(), vec(node(), 0..3), vec(block(), 0..3), services, workloads, (revoked, routes), hosts)
        .prop_map(
            |(
                network,
                nodes,
                blocks,
                services,
                workloads,
                (revoked, routes),
                (drained, reported, mute, placed),
            )| {
                NetworkContent {
                    network,
                    nodes,
                    blocks,
                    services: services.into(),
                    workloads: workloads.into(),
                    revoked,
                    drained,
                    reported,
                    mute,
                    placed,
                    routes: routes.into(),
                }
            },
        )
}

/// States as control tells them, sorted and with nothing left out, one after another of one network.
fn states() -> impl Strategy<Value = Vec<NetworkSnapshot>> {
    vec(content(), 3).prop_map(|contents| {
        let name = contents[0].network.name.clone();
        let told = |(index, content): (u64, NetworkContent)| {
            let content = NetworkContent {
                network: Network { name: name.clone(), ..content.network.clone() },
                nodes: by_name(content.nodes, |node| node.name.clone()),
                blocks: by_name(content.blocks, |block| block.range),
                revoked: by_name(content.revoked, |serial| *serial),
                drained: by_name(content.drained, Clone::clone),
                mute: Some(by_name(content.mute.unwrap_or_default(), Clone::clone)),
                reported: Some(content.reported.unwrap_or_default()),
                placed: Some(content.placed.unwrap_or_default()),
                ..content
            };
            let voucher = Some(Voucher { digest: Digest::of(&content), code: [7; 16] });
            let generation = Generation { epoch: 1, revision: 3 + 2 * index };
            NetworkSnapshot { generation, content, voucher }
        };
        (0..).zip(contents).map(told).collect()
    })
}

/// The way from one state to another.
fn way(before: &NetworkSnapshot, after: &NetworkSnapshot) -> NetworkDelta {
    let maps = |content: &NetworkContent| {
        [&content.reported, &content.placed].map(|told| told.clone().unwrap_or_default())
    };
    let ([reported, placed], [newly_reported, newly_placed]) = (maps(before), maps(after));
    let mute = |content: &NetworkContent| content.mute.clone().unwrap_or_default();
    NetworkDelta {
        network: (before.network != after.network).then(|| after.network.clone()),
        nodes: Difference::between(&before.nodes, &after.nodes, |node| &node.name),
        blocks: Difference::between(&before.blocks, &after.blocks, |block| &block.range),
        services: Difference::between(&list(&before.services), &list(&after.services), |service| {
            &service.name
        }),
        workloads: Difference::between(&list(&before.workloads), &list(&after.workloads), |one| &one.name),
        revoked: Difference::between(&before.revoked, &after.revoked, |serial| serial),
        drained: Difference::between(&before.drained, &after.drained, |node| node),
        reported: Difference::of_maps(&reported, &newly_reported),
        mute: Difference::between(&mute(before), &mute(after), |node| node),
        placed: Difference::of_maps(&placed, &newly_placed),
        routes: Difference::between(&list(&before.routes), &list(&after.routes), |route| &route.id),
        voucher: after.voucher,
        ..NetworkDelta::new(
            after.network.name.clone(),
            before.generation.revision,
            after.generation,
            Totals::of(&after.content),
        )
    }
}

fn list<T: Clone>(shared: &SharedList<T>) -> Vec<T> {
    shared.iter().cloned().collect()
}

fn by_name<T, N: Ord>(all: Vec<T>, name: impl Fn(&T) -> N) -> Vec<T> {
    let named: BTreeMap<N, T> = all.into_iter().map(|one| (name(&one), one)).collect();
    named.into_values().collect()
}

fn assert_carried<M, T>(value: &T)
where
    M: Message + Default + for<'a> From<&'a T>,
    T: TryFrom<M, Error = WireError> + PartialEq + Debug,
{
    let bytes = M::from(value).encode_to_vec();
    assert_eq!(T::try_from(M::decode(&*bytes).unwrap()).as_ref(), Ok(value));
}

/// Makes a change, as whoever follows does.
fn changed<T: Clone, N: Ord>(before: &[T], news: &[T], gone: &[N], name: impl Fn(&T) -> N) -> Vec<T> {
    let mut named: BTreeMap<N, T> = before.iter().map(|one| (name(one), one.clone())).collect();
    gone.iter().for_each(|name| drop(named.remove(name)));
    named.extend(news.iter().map(|one| (name(one), one.clone())));
    named.into_values().collect()
}

proptest! {
    #[test]
    fn messages_of_resources_are_read_as_they_were_written(
        epoch in any::<u64>(),
        revision in any::<u64>(),
        content in content(),
    ) {
        content.nodes.iter().for_each(assert_carried::<v1::Node, Node>);
        content.blocks.iter().for_each(assert_carried::<v1::Block, Block>);
        content.services.iter().for_each(assert_carried::<v1::Service, Service>);
        content.workloads.iter().for_each(assert_carried::<v1::Workload, Workload>);
        content.routes.iter().for_each(assert_carried::<v1::Route, Route>);
        assert_carried::<v1::Network, Network>(&content.network);
        let (network, workloads) = (content.network.name.clone(), content.workloads.clone());
        assert_carried::<v1::OwnerFacts, OwnerFacts>(&OwnerFacts {
            network,
            incarnation: epoch,
            revision,
            workloads: list(&workloads),
        });
        let voucher = Voucher { digest: Digest::of(&content), code: [7; 16] };
        let snapshot =
            NetworkSnapshot { generation: Generation { epoch, revision }, content, voucher: Some(voucher) };
        assert_carried::<v1::NetworkState, NetworkSnapshot>(&snapshot);
    }

    #[test]
    fn a_change_leads_from_one_content_of_a_network_to_the_other(before in content(), other in content()) {
        let after =
            NetworkContent { services: other.services, workloads: other.workloads, ..before.clone() };
        if let Some(change) = NetworkChange::between(&before, &after) {
            assert_carried::<v1::NetworkChange, NetworkChange>(&change);
            let NetworkChange { services, services_gone, workloads, workloads_gone } = change;
            let services = changed(&list(&before.services), &services, &services_gone, |one| one.name.clone());
            let workloads = changed(&list(&before.workloads), &workloads, &workloads_gone, |one| one.name.clone());
            prop_assert_eq!((services, workloads), (list(&after.services), list(&after.workloads)));
        }
    }

    #[test]
    fn a_delta_leads_to_its_end_from_every_state_on_its_way(states in states()) {
        let [first, second, third] = &*states else { panic!("three states") };
        let (mut delta, next) = (way(first, second), way(second, third));
        for step in [&delta, &next] {
            assert_carried::<v1::NetworkDelta, NetworkDelta>(step);
        }
        prop_assert_eq!(delta.applied(first), Ok(second.clone()));
        prop_assert_eq!(next.applied(second), Ok(third.clone()));
        delta.extend(&next);
        assert_carried::<v1::NetworkDelta, NetworkDelta>(&delta);
        for state in &states {
            prop_assert_eq!(delta.applied(state), Ok(third.clone()));
        }
        let generation = |epoch, revision| Generation { epoch, revision };
        for elsewhere in [generation(1, 2), generation(1, 8), generation(2, 5)] {
            let state = NetworkSnapshot { generation: elsewhere, ..first.clone() };
            prop_assert_eq!(delta.applied(&state), Err(Astray));
        }
        let mut silent = first.clone();
        silent.placed = None;
        prop_assert_eq!(delta.applied(&silent), Err(Astray));
        let mut astray = first.clone();
        astray.content.network.name = "elsewhere".parse().unwrap();
        prop_assert_eq!(delta.applied(&astray), Err(Astray));
        let mut other = delta.clone();
        other.totals.workloads += 1;
        prop_assert_eq!(other.applied(first), Err(Astray));
        // As a control plane tells whose store was put back: the numbers are the same, and nothing else is.
        let mut other = first.clone();
        other.content.network.egress = Egress::from_denied(first.network.egress != Egress::Deny);
        other.voucher = Some(Voucher { digest: Digest::of(&other.content), code: [7; 16] });
        let led = delta.applied(&other);
        prop_assert!(led == Err(Astray) || led == Ok(third.clone()), "{:?}", led);
        delta.voucher = None;
        let led = delta.applied(&other).unwrap();
        prop_assert_eq!(led.voucher, None, "of an older control plane nothing is known");
    }

    #[test]
    fn digests_are_of_contents_and_follow_changes(states in states()) {
        let [first, second, _] = &*states else { panic!("three states") };
        let delta = way(first, second);
        prop_assert_eq!(delta.turned(Digest::of(&first.content), &first.content), Digest::of(&second.content));
        let back = way(second, first);
        prop_assert_eq!(back.turned(Digest::of(&second.content), &second.content), Digest::of(&first.content));
        prop_assert_eq!(first.content == second.content, Digest::of(&first.content) == Digest::of(&second.content));
        prop_assert_eq!(&first.clone().checked(), first);
        let foreign = NetworkSnapshot { voucher: second.voucher, ..first.clone() }.checked();
        prop_assert_eq!(foreign.voucher.is_some(), first.content == second.content);
    }

    #[test]
    fn whatever_else_is_new_in_a_network_is_no_change_to_follow(before in content(), other in content()) {
        let nets = [
            NetworkContent { network: other.network, ..before.clone() },
            NetworkContent { nodes: other.nodes, ..before.clone() },
            NetworkContent { blocks: other.blocks, ..before.clone() },
            NetworkContent { revoked: other.revoked, ..before.clone() },
            NetworkContent { drained: other.drained, ..before.clone() },
            NetworkContent { routes: other.routes, ..before.clone() },
        ];
        for after in nets {
            prop_assert!(after == before || NetworkChange::between(&before, &after).is_none());
        }
    }

    #[test]
    fn documents_of_resources_are_read_as_they_were_written(
        network in network(),
        name in label::<NetworkName>(),
        service in service(),
    ) {
        let documents = [(&network).into(), Document::Service(ServiceDocument::of(&name, &service))];
        for document in documents {
            let text = document.to_json().unwrap();
            match Document::from_json(&text) {
                Ok(read) => prop_assert_eq!(read, document),
                // A service has ports, each once, and more rules that none of these was made by.
                Err(_) => prop_assert!(document.check().is_err()),
            }
        }
    }
}
