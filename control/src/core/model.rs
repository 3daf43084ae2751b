//! Random histories: whatever is asked in whatever order, the invariants hold, and changes replay and undo.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use sealane_proto::document::Document;
use sealane_proto::resource::{Egress, Node, Workload};
use sealane_proto::token::TokenSecret;
use sealane_proto::types::{MacAddr, OverlayIp, UnderlayAddrs};

use super::*;

/// Something that is asked, with small numbers for names so that they meet.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    CreateNetwork(u8, u8),
    RemoveNetwork(u8),
    /// The last says whether the host that has the address yields it; so it does for `Relocate`.
    Join(u8, u8, bool),
    Relocate(u8, u8, bool),
    Carry(u8, u8, usize),
    Report(u8, Vec<(u8, u8, u8, u8)>),
    Purge,
    RemoveNode(u8),
    Drain(u8, bool),
    RemoveService(u8, u8),
    EndRests(u8),
    PurgeIdle,
    /// A network and a service with one port of this protocol.
    Apply(u8, u8, u8),
    Withdraw(u8, u8),
    /// A block is wanted ahead of its use.
    Ahead(u8, u8, usize),
    /// The report of before with an offer of ranges: an address of each, and the length of its prefix.
    GiveBack(u8, u8, Vec<(u8, u8)>),
    Grow(u8, u8),
}

/// Any step.
pub(crate) fn step() -> impl Strategy<Value = Step> {
    let workload = (0_u8..3, 0_u8..8, 0_u8..64, 0_u8..6);
    prop_oneof![
        1 => (0_u8..3, 0_u8..4).prop_map(|(name, subnet)| Step::CreateNetwork(name, subnet)),
        1 => (0_u8..3).prop_map(Step::RemoveNetwork),
        1 => (0_u8..4, 0_u8..4, any::<bool>()).prop_map(|(name, at, gone)| Step::Join(name, at, gone)),
        1 => (0_u8..4, 0_u8..4, any::<bool>()).prop_map(|(name, at, gone)| Step::Relocate(name, at, gone)),
        2 => (0_u8..4, 0_u8..3, 0_usize..3).prop_map(|(node, network, held)| Step::Carry(node, network, held)),
        4 => (0_u8..4, prop::collection::vec(workload, 0..8)).prop_map(|(node, all)| Step::Report(node, all)),
        1 => Just(Step::Purge),
        1 => (0_u8..4).prop_map(Step::RemoveNode),
        1 => (0_u8..4, any::<bool>()).prop_map(|(node, drained)| Step::Drain(node, drained)),
        1 => (0_u8..3, 1_u8..6).prop_map(|(network, service)| Step::RemoveService(network, service)),
        1 => (0_u8..3).prop_map(Step::EndRests),
        1 => Just(Step::PurgeIdle),
        2 => (0_u8..3, 0_u8..6, 0_u8..3).prop_map(|(net, service, port)| Step::Apply(net, service, port)),
        1 => (0_u8..3, 0_u8..6).prop_map(|(net, service)| Step::Withdraw(net, service)),
        2 => (0_u8..4, 0_u8..3, 0_usize..6).prop_map(|(node, network, held)| Step::Ahead(node, network, held)),
        2 => (0_u8..4, 0_u8..3, prop::collection::vec((0_u8..64, 26_u8..=32), 1..12))
            .prop_map(|(node, network, ranges)| Step::GiveBack(node, network, ranges)),
        1 => (0_u8..3, 22_u8..28).prop_map(|(network, prefix)| Step::Grow(network, prefix)),
    ]
}

/// Decides a command at this time, and makes what it changes.
pub(crate) fn run<C: Command>(
    state: &mut State,
    command: C,
    now: Timestamp,
) -> Result<C::Outcome, C::Refusal> {
    let decision = command.decide(state, now)?;
    decision.changes.iter().for_each(|change| state.apply(change));
    Ok(decision.outcome)
}

/// A restored state with one token, which every joining host has.
pub(crate) fn beginning() -> State {
    let token = CreateToken {
        id: "abcd2345".into(),
        hash: TokenSecret::new([7; 20]).hash(),
        ttl: Duration::from_secs(3_600),
        uses: None,
        node: None,
        networks: BTreeSet::new(),
    };
    let mut state = State::default();
    run(&mut state, token, Timestamp::default()).unwrap();
    state.recovery = Some(Recovery { restored: Timestamp::from_unix(50), ..Recovery::default() });
    state
}

/// A workload of host-1 at this address of network shop.
pub(crate) fn workload(address: OverlayIp) -> Workload {
    let [_, b, c, d] = address.to_ipv4().octets();
    Workload {
        name: format!("w-{d}").parse().unwrap(),
        network: "shop".parse().unwrap(),
        node: "host-1".parse().unwrap(),
        address,
        mac: MacAddr::new([2, 0, 10, b, c, d]),
        service: None,
        ports: vec![],
        sidecar: true,
        ready: true,
        ready6: true,
        weight: Default::default(),
        aliases: Default::default(),
        finding: Default::default(),
    }
}

/// The decision's changes; a refusal has none.
#[allow(clippy::too_many_lines, reason = "an arm per command")]
pub(crate) fn decide(state: &State, step: &Step) -> Vec<Change> {
    fn changes<C: Command>(command: C, state: &State) -> Vec<Change> {
        command.decide(state, Timestamp::from_unix(100)).map(|decision| decision.changes).unwrap_or_default()
    }
    let network = |name: u8| format!("net-{name}").parse().unwrap();
    let node = |name: u8| format!("host-{name}").parse().unwrap();
    let place = |at: u8, gone: bool| {
        let underlay: UnderlayAddrs = format!("192.0.2.{at}").parse().unwrap();
        let holder = state.nodes.values().find(|record| gone && record.holds(underlay));
        (underlay, holder.map(|record| record.node.name.clone()))
    };
    match step {
        Step::CreateNetwork(name, subnet) => {
            let subnet = format!("10.0.0.{}/26", subnet * 64).parse().unwrap();
            changes(
                CreateNetwork {
                    name: network(*name),
                    hosts: Default::default(),
                    subnet,
                    mtu: None,
                    egress: Egress::Allow,
                    subnet6: None,
                    mtls: None,
                },
                state,
            )
        }
        Step::RemoveNetwork(name) => changes(RemoveNetwork(network(*name)), state),
        Step::Relocate(name, at, gone) => {
            let (underlay, gone) = place(*at, *gone);
            let (told, meant) = (ToldPlace { underlay, placed: None }, None);
            changes(Relocate { name: node(*name), told, gone, meant }, state)
        }
        Step::Join(name, at, gone) => {
            let (underlay, gone) = place(*at, *gone);
            let (token, secret) = ("abcd2345".to_owned(), TokenSecret::new([7; 20]));
            let node = Node { name: node(*name), underlay, mtu: None };
            changes(JoinNode { token, secret, node, key: [*name + 1; 32], gone }, state)
        }
        Step::Carry(name, net, blocks_held) => {
            let command =
                CarryNetwork { node: node(*name), network: network(*net), blocks_held: *blocks_held };
            changes(command, state)
        }
        Step::Ahead(name, net, blocks_held) => {
            let carry = CarryNetwork { node: node(*name), network: network(*net), blocks_held: *blocks_held };
            changes(LeaseAhead(carry), state)
        }
        Step::Grow(name, prefix) => {
            let Some(known) = state.networks.get(&network(*name)) else { return vec![] };
            let subnet = format!("{}/{prefix}", known.network.subnet.to_net().network()).parse();
            subnet
                .map(|subnet| changes(GrowNetwork { name: network(*name), subnet }, state))
                .unwrap_or_default()
        }
        Step::GiveBack(name, net, ranges) => {
            let Some(known) = state.networks.get(&network(*net)) else { return vec![] };
            let first = known.network.subnet.to_net().network().to_bits();
            let range = |&(last, prefix): &(u8, u8)| {
                let address = std::net::Ipv4Addr::from_bits(first + u32::from(last));
                ipnet::Ipv4Net::new_assert(address, prefix).trunc()
            };
            let workloads = state
                .networks
                .values()
                .flat_map(|known| known.workloads_of(&node(*name)).cloned().collect::<Vec<_>>());
            let report =
                Report { node: node(*name), workloads: workloads.collect(), editions: Default::default() };
            let offers = [(network(*net), ranges.iter().map(range).collect())].into();
            changes(OfferingReport { report, offers }, state)
        }
        Step::Report(name, all) => {
            let workloads = all.iter().map(|&(net, workload, last, service)| {
                let name_of = network(net);
                let subnet = state
                    .networks
                    .get(&name_of)
                    .map_or("10.0.0.0/26".parse().unwrap(), |found| found.network.subnet);
                let first = subnet.to_net().network().to_bits();
                let address = OverlayIp::from(std::net::Ipv4Addr::from_bits(first + u32::from(last)));
                let service = (service > 0).then(|| format!("svc-{service}").parse().unwrap());
                let port = ["80", "80/http", "80/tcp"][usize::from(workload) % 3].parse().unwrap();
                Workload {
                    name: format!("wl-{workload}").parse().unwrap(),
                    network: name_of,
                    node: node(*name),
                    address,
                    mac: MacAddr::new([2, 0, 0, 0, 0, last / 2]),
                    ports: if service.is_some() { vec![port] } else { vec![] },
                    service,
                    sidecar: true,
                    ready: true,
                    ready6: true,
                    weight: Default::default(),
                    aliases: Default::default(),
                    finding: Default::default(),
                }
            });
            changes(
                Report { node: node(*name), workloads: workloads.collect(), editions: Default::default() },
                state,
            )
        }
        Step::Purge => changes(PurgeTokens, state),
        Step::PurgeIdle => changes(PurgeIdle, state),
        Step::RemoveNode(name) => {
            changes(RemoveNode { name: node(*name), connected: false, force: false }, state)
        }
        Step::Drain(name, drained) => changes(DrainNode { name: node(*name), drained: *drained }, state),
        Step::RemoveService(net, service) => {
            let name = format!("svc-{service}").parse().unwrap();
            changes(RemoveService { network: network(*net), name }, state)
        }
        Step::EndRests(name) => changes(EndRests { known: [(network(*name), u64::MAX)].into() }, state),
        Step::Apply(net, service, port) => {
            changes(Apply { documents: documents(*net, *service, *port), dry_run: false }, state)
        }
        Step::Withdraw(net, service) => {
            let document = documents(*net, *service, 0).pop().unwrap().id();
            changes(Withdraw { documents: vec![document], dry_run: false, ignore_not_found: true }, state)
        }
    }
}

fn documents(net: u8, service: u8, port: u8) -> Vec<Document> {
    let head = r#""apiVersion":"sealane.dev/v1""#;
    let subnet = format!("10.0.0.{}/26", net * 64);
    let protocol = ["auto", "http", "tcp"][usize::from(port)];
    let texts = [
        format!(
            r#"{{{head},"kind":"Network","metadata":{{"name":"net-{net}"}},"spec":{{"subnets":["{subnet}"]}}}}"#
        ),
        format!(
            r#"{{{head},"kind":"Service","metadata":{{"name":"svc-{service}","network":"net-{net}"}},"spec":{{"ports":[{{"port":80,"protocol":"{protocol}"}}]}}}}"#
        ),
    ];
    texts.map(|text| Document::from_json(&text).unwrap()).to_vec()
}

fn distinct<T: Ord>(items: impl Iterator<Item = T>) -> bool {
    let mut seen = BTreeSet::new();
    items.into_iter().all(|item| seen.insert(item))
}

/// The same rows in a new table.
fn rebuilt<R: Record>(table: &Table<R>) -> Table<R> {
    let mut again = Table::default();
    table.iter().for_each(|(name, record)| again.set(name, Some(record)));
    again
}

fn check(state: &State) {
    let networks = || state.networks.values();
    assert!(distinct(networks().map(|network| network.network.vni)));
    let placed = state.nodes.values().filter(|record| record.displaced.is_none());
    assert!(distinct(placed.map(|record| record.node.underlay)), "two hosts are told to be at one place");
    for network in networks() {
        let subnet = network.network.subnet;
        assert!(network.blocks.keys().all(|block| subnet.to_net().contains(block)));
        let pairs = network.blocks.keys().zip(network.blocks.keys().skip(1));
        assert!(pairs.clone().all(|(block, next)| block.broadcast() < next.network()), "blocks overlap");
        let held =
            |range| network.blocks.values().any(|held| held.node.is_some() && held.range.contains(range));
        assert!(!network.resting.keys().any(held), "a block that a host holds rests");
        assert_eq!(network.workloads, rebuilt(&network.workloads), "an index is what its rows make of it");
        assert_eq!(network.blocks, rebuilt(&network.blocks));
        let vips = network.services.values().map(|service| service.vip);
        let addresses = network.workloads.values().map(|workload| workload.address);
        assert!(distinct(vips.clone().chain(addresses.clone())));
        let mut given = vips.clone().chain(addresses);
        assert!(
            !given.any(|address| network.resting_at(address).is_some()),
            "an address is given while it rests"
        );
        assert!(distinct(network.workloads.values().map(|workload| workload.mac)));
        let holder = |address| network.holder(address).map(|held| &held.node);
        assert!(vips.into_iter().all(|vip| ipam::is_assignable(subnet, vip) && holder(vip) == Some(&None)));
        for workload in network.workloads.values() {
            assert!(ipam::is_assignable(subnet, workload.address) && network.carried_by(&workload.node));
            let holder = holder(workload.address);
            assert!(holder.is_none() || holder == Some(&Some(workload.node.clone())));
            let Some(service) = &workload.service else { continue };
            let service = &network.services[service];
            assert!(
                workload.ports.iter().all(|port| service.ports.iter().any(|union| union.key() == port.key()))
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]
    #[test]
    fn whatever_is_asked_the_invariants_hold_and_every_change_can_be_undone(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut state = beginning();
        for step in &steps {
            let before = state.clone();
            let mut undo = vec![];
            let changes = decide(&state, step);
            for change in &changes {
                undo.push(state.inverse(change));
                state.apply(change);
            }
            check(&state);
            let again = matches!(step, Step::Carry(..) | Step::Ahead(..) | Step::GiveBack(..));
            prop_assert!(decide(&state, step).is_empty() || again, "{:?} is not level-triggered", step);
            let after = state.clone();
            undo.iter().rev().for_each(|change| state.apply(change));
            prop_assert_eq!(&state, &before);
            state = after;
        }
    }
}
