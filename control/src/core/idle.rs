//! Services that nobody declared and nobody serves: they keep name and address for those that come back, not for ever, and
//! no host leaves so many behind that none is left for others.

use std::collections::BTreeMap;
use std::time::Duration;

use sealane_proto::resource::Service;
use sealane_proto::types::{NetworkName, NodeName, ServiceName};

use super::{Change, Command, Decision, NetworkState, State, Timestamp, ipam, room};

/// The time that an idle service is kept.
const KEPT: Duration = Duration::from_secs(24 * 3_600);
/// The time that an idle service is kept at least, however many there are.
const AT_LEAST: Duration = Duration::from_secs(60);

/// Since when a service without a document has had no instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idle {
    /// The service.
    pub service: ServiceName,
    /// The moment from which on it has had none.
    pub since: Timestamp,
    /// The host whose instance was the last, as far as that is known.
    pub by: Option<NodeName>,
    /// True if it is new and no instance of it has ever been ready: it ends with the last of them.
    pub fresh: bool,
}

/// Ends services that have been idle for too long, the oldest of hosts that have left too many, and where a network is
/// short of addresses the oldest of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurgeIdle;

impl Command for PurgeIdle {
    type Outcome = ();
    type Refusal = std::convert::Infallible;

    fn decide(self, state: &State, now: Timestamp) -> Result<Decision<()>, Self::Refusal> {
        let changes = state.networks.iter().flat_map(|(name, network)| {
            let mut changes = noted(name, network, now);
            changes.extend(network.outlived(now).into_iter().flat_map(|service| network.end(service, now)));
            changes
        });
        Ok(Decision { changes: changes.collect(), outcome: () })
    }
}

/// Brings what is noted to what is so, whatever has led there.
fn noted(name: &NetworkName, network: &NetworkState, now: Timestamp) -> Vec<Change> {
    let idle = |service: &ServiceName| network.is_idle(service, None);
    let is_over = |service: &ServiceName, note: &Idle| match note.fresh {
        true => {
            let declared = network.services.get(service).is_none_or(|known| known.declared);
            declared || network.instances_of(service).any(|instance| instance.ready)
        }
        false => !idle(service),
    };
    let over =
        network.idle.iter().filter(|(service, note)| is_over(service, note)).map(|(service, _)| service);
    let over = over.map(|service| Change::remove_in::<Idle>(name, service.clone()));
    let new = network.services.keys().filter(|service| idle(service) && !network.idle.contains_key(*service));
    let new = new.map(|service| {
        Change::put_in(name, Idle { service: service.clone(), since: now, by: None, fresh: false })
    });
    over.chain(new).collect()
}

impl NetworkState {
    /// The number of services that one host may leave without instances.
    pub(super) fn most_idle(&self) -> usize {
        let addresses = 1_usize << (32 - self.network.subnet.to_net().prefix_len());
        (addresses / 8).clamp(16, 256)
    }

    /// Says whether a service has neither a document nor an instance, leaving aside those of one host.
    pub(super) fn is_idle(&self, service: &ServiceName, but_for: Option<&NodeName>) -> bool {
        let undeclared = self.services.get(service).is_some_and(|known| !known.declared);
        undeclared && self.instances_of(service).all(|instance| Some(&instance.node) == but_for)
    }

    /// The services that a host has left without instances.
    pub(super) fn idle_of<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = &'a ServiceName> {
        let left = self.idle.iter().filter(move |(_, idle)| idle.by.as_ref() == Some(node));
        left.map(|(name, _)| name).filter(|name| self.is_idle(name, None))
    }

    /// Says whether a service ends with its last instance: none has ever been ready, and there is room for its address to rest.
    pub(super) fn ends_at_once(&self, service: &ServiceName) -> bool {
        let fresh = self.idle.get(service).is_some_and(|note| note.fresh);
        fresh && self.resting_addresses() < self.most_idle() / 2
    }

    /// A service is no more; its address rests until every host has forgotten it.
    pub(super) fn end(&self, name: &ServiceName, now: Timestamp) -> Vec<Change> {
        let Some(service) = self.services.get(name) else { return vec![] };
        let network = &self.network.name;
        let note = self.idle.contains_key(name);
        let note = note.then(|| Change::remove_in::<Idle>(network, name.clone()));
        let removed = Change::remove_in::<Service>(network, name.clone());
        note.into_iter().chain([removed, self.rest(service.vip.to_ipv4().into(), now)]).collect()
    }

    /// The idle services that end now.
    fn outlived(&self, now: Timestamp) -> Vec<&ServiceName> {
        let still = self.idle.iter().filter(|(name, _)| self.is_idle(name, None));
        let mut idle: Vec<(&ServiceName, &Idle)> = still.collect();
        // The newest first.
        idle.sort_by_key(|(_, idle)| std::cmp::Reverse(idle.since));
        let mut left: BTreeMap<&NodeName, usize> = BTreeMap::new();
        let short = if self.is_short() { idle.len().div_ceil(2) } else { idle.len() };
        let ends = idle.iter().enumerate().filter(|(place, (_, idle))| {
            let count = idle.by.as_ref().map_or(0, |by| {
                let count = left.entry(by).or_default();
                *count += 1;
                *count
            });
            let too_many = count > self.most_idle() / 2 || *place >= short;
            idle.fresh || idle.since.after(KEPT) <= now || (too_many && idle.since.after(AT_LEAST) <= now)
        });
        ends.map(|(_, (name, _))| *name).collect()
    }

    /// Says whether there is hardly an address for one more service.
    fn is_short(&self) -> bool {
        let subnet = self.network.subnet;
        let held: usize = self.blocks.keys().map(|&block| ipam::size(block)).sum();
        let own: usize = self.blocks.index().own().map(ipam::size).sum();
        room::are_last(subnet, ipam::size(subnet.to_net()).saturating_sub(held))
            && self.services.len() + self.resting_addresses() + own.div_ceil(4) >= own
    }
}

#[cfg(test)]
mod tests {
    use sealane_proto::resource::{Egress, Node, Workload};
    use sealane_proto::types::MacAddr;

    use super::*;
    use crate::core::{CarryNetwork, CreateNetwork, EndRests, NodeRecord, Report, model};

    fn take<C: Command>(state: &mut State, command: C, at: u64) -> C::Outcome {
        model::run(state, command, Timestamp::from_unix(at)).unwrap()
    }

    fn create(state: &mut State, subnet: &str) {
        let create = CreateNetwork {
            name: "shop".parse().unwrap(),
            hosts: Default::default(),
            subnet: subnet.parse().unwrap(),
            mtu: None,
            egress: Egress::Allow,
            subnet6: None,
            mtls: None,
        };
        take(state, create, 0);
    }

    /// Two hosts of a network with 1,024 addresses, with 32 each.
    fn state() -> State {
        let mut state = State::default();
        create(&mut state, "10.42.0.0/22");
        for (name, last) in [("host-1", 1), ("host-2", 2)] {
            let name: NodeName = name.parse().unwrap();
            let node =
                Node { name: name.clone(), underlay: format!("192.0.2.{last}").parse().unwrap(), mtu: None };
            state.apply(&Change::put(NodeRecord::new(node, [last; 32], Timestamp::default())));
            for blocks_held in 0..2 {
                let (node, network) = (name.clone(), "shop".parse().unwrap());
                take(&mut state, CarryNetwork { node, network, blocks_held }, 0);
            }
        }
        state
    }

    /// Reports one ready instance of each of these services; answers what is refused.
    fn run(state: &mut State, host: u8, services: &[String], at: u64) -> Vec<String> {
        report(state, host, services, true, at)
    }

    fn report(state: &mut State, host: u8, services: &[String], ready: bool, at: u64) -> Vec<String> {
        let workload = |(index, service): (usize, &String)| {
            let last = u8::try_from(index).unwrap() + 2 + (host - 1) * 32;
            Workload {
                name: format!("w-{host}-{index}").parse().unwrap(),
                network: "shop".parse().unwrap(),
                node: format!("host-{host}").parse().unwrap(),
                address: format!("10.42.0.{last}").parse().unwrap(),
                mac: MacAddr::new([2, 0, 10, 42, 0, last]),
                service: Some(service.parse().unwrap()),
                ports: vec![],
                sidecar: true,
                ready,
                ready6: ready,
                weight: Default::default(),
                aliases: Default::default(),
                finding: Default::default(),
            }
        };
        let workloads = services.iter().enumerate().map(workload).collect();
        let report =
            Report { node: format!("host-{host}").parse().unwrap(), workloads, editions: Default::default() };
        take(state, report, at).refused.iter().map(|refused| refused.reason.to_string()).collect()
    }

    /// Reports another service of host 1's one workload ten times a second; answers the most addresses that services and rests
    /// had, and how often it was refused.
    fn rename(state: &mut State, times: u64, ready: bool) -> (usize, usize) {
        let (mut most, mut refused) = (0, 0);
        for step in 0..times {
            let at = 10 + step / 10;
            refused += report(state, 1, &[format!("s-{step}")], ready, at).len();
            if step % 600 == 0 {
                take(state, PurgeIdle, at);
            }
            if step % 50 == 0 {
                take(state, EndRests { known: [("shop".parse().unwrap(), u64::MAX)].into() }, at);
            }
            let network = state.networks.values().next().unwrap();
            most = most.max(network.services.len() + network.resting.len());
        }
        (most, refused)
    }

    fn vip(state: &State, name: &str) -> Option<String> {
        let services = &state.networks.values().next().unwrap().services;
        services.get(&name.parse::<ServiceName>().unwrap()).map(|service| service.vip.to_string())
    }

    #[test]
    fn a_service_keeps_its_address_for_a_day_without_instances() {
        let mut state = state();
        assert!(run(&mut state, 1, &["api".to_owned()], 0).is_empty());
        let before = vip(&state, "api");
        run(&mut state, 1, &[], 100);
        take(&mut state, PurgeIdle, 100 + 24 * 3_600 - 1);
        assert_eq!(vip(&state, "api"), before);
        run(&mut state, 1, &["api".to_owned()], 100 + 24 * 3_600 - 1);
        take(&mut state, PurgeIdle, 900_000);
        assert_eq!(vip(&state, "api"), before, "it has an instance");
        run(&mut state, 1, &[], 900_000);
        take(&mut state, PurgeIdle, 900_000 + 24 * 3_600);
        assert_eq!(vip(&state, "api"), None);
        let network = state.networks.values().next().unwrap();
        assert!(network.idle.is_empty() && network.resting.len() == 1);
    }

    #[test]
    fn a_service_of_which_no_instance_was_ever_ready_ends_with_the_last_one() {
        let mut state = state();
        let api = ["api".to_owned()];
        report(&mut state, 1, &api, false, 0);
        report(&mut state, 2, &api, false, 1);
        take(&mut state, PurgeIdle, 1);
        report(&mut state, 1, &[], false, 2);
        assert!(vip(&state, "api").is_some(), "another host's instance may still come to work");
        report(&mut state, 2, &[], false, 3);
        assert_eq!(vip(&state, "api"), None);
        let network = state.networks.values().next().unwrap();
        assert!(network.idle.is_empty() && network.resting.len() == 1);

        report(&mut state, 1, &api, false, 4);
        report(&mut state, 1, &api, true, 5);
        report(&mut state, 1, &api, false, 6);
        report(&mut state, 1, &[], false, 7);
        assert!(vip(&state, "api").is_some(), "it worked once");
    }

    #[test]
    fn where_addresses_are_short_the_older_half_of_idle_services_ends_after_a_minute() {
        let mut state = state();
        let all: Vec<String> = (10..34).map(|number| format!("s-{number}")).collect();
        assert!(run(&mut state, 1, &all, 0).is_empty());
        run(&mut state, 1, &all[12..], 100);
        run(&mut state, 1, &[], 101);
        let left = |state: &State, at: u64| {
            let mut state = state.clone();
            take(&mut state, PurgeIdle, at);
            let services = &state.networks.values().next().unwrap().services;
            services.keys().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(left(&state, 10_000), all, "there is room");
        // All but a quarter of the addresses are leased, and a quarter of those of services is free.
        for index in 2..23_u8 {
            let range = format!("10.42.{}.{}/27", index / 8, index % 8 * 32).parse().unwrap();
            let block = sealane_proto::resource::Block { node: Some("host-2".parse().unwrap()), range };
            state.apply(&Change::put_in(&"shop".parse().unwrap(), block));
        }
        assert_eq!(left(&state, 159), all, "they have just become idle");
        assert_eq!(left(&state, 160), all[12..]);
    }

    #[test]
    fn a_host_leaves_an_eighth_of_a_networks_addresses_behind_within_bounds() {
        for (subnet, most) in
            [("10.42.0.0/28", 16), ("10.42.0.0/24", 32), ("10.42.0.0/22", 128), ("10.42.0.0/20", 256)]
        {
            let mut state = State::default();
            create(&mut state, subnet);
            assert_eq!(state.networks.values().next().unwrap().most_idle(), most, "{subnet}");
        }
    }

    #[test]
    fn half_of_what_a_host_may_leave_behind_is_kept_and_who_has_left_all_gets_no_further_service() {
        let mut state = state();
        let shop: NetworkName = "shop".parse().unwrap();
        // The oldest one is the last.
        let leave = |state: &mut State, number: u8| {
            let name: ServiceName = format!("left-{number}").parse().unwrap();
            let vip = std::net::Ipv4Addr::new(10, 42, 2, number).into();
            let service = Service {
                name: name.clone(),
                hosts: Default::default(),
                vip,
                ports: vec![],
                declared: false,
                mtls: None,
                external: Default::default(),
            };
            state.apply(&Change::put_in(&shop, service));
            let since = Timestamp::from_unix(1_000 - u64::from(number));
            let by = Some("host-1".parse().unwrap());
            state.apply(&Change::put_in(&shop, Idle { service: name, since, by, fresh: false }));
        };
        let left = |state: &State, at: u64| {
            let mut state = state.clone();
            take(&mut state, PurgeIdle, at);
            state.networks.values().next().unwrap().services.len()
        };
        (0..64).for_each(|number| leave(&mut state, number));
        assert_eq!(left(&state, 10_000), 64);
        leave(&mut state, 64);
        assert_eq!(
            (left(&state, 995), left(&state, 996)),
            (65, 64),
            "the oldest one, a minute after it was left"
        );
        (65..127).for_each(|number| leave(&mut state, number));
        assert!(run(&mut state.clone(), 1, &["one-more".to_owned()], 1_001).is_empty());
        leave(&mut state, 127);
        assert!(run(&mut state.clone(), 1, &["left-3".to_owned()], 1_001).is_empty(), "it comes back");
        let refused = run(&mut state.clone(), 1, &["one-more".to_owned()], 1_001);
        assert!(refused[0].contains("services without instances"), "{refused:?}");
        assert!(run(&mut state, 2, &["one-more".to_owned()], 1_001).is_empty(), "another host has left none");
    }

    #[test]
    fn a_note_of_a_new_service_is_kept_while_none_of_its_instances_is_ready_and_nobody_declares_it() {
        let name: ServiceName = "api".parse().unwrap();
        let noted = |ready: [bool; 2], declared: bool| {
            let mut state = state();
            for (host, ready) in [(1, ready[0]), (2, ready[1])] {
                report(&mut state, host, &["api".to_owned()], ready, 0);
            }
            let network = state.networks.values().next().unwrap();
            let service = Service { declared, ..network.services[&name].clone() };
            let since = Timestamp::from_unix(0);
            let note = Idle { service: name.clone(), since, by: None, fresh: true };
            let shop = network.network.name.clone();
            state.apply(&Change::put_in(&shop, service));
            state.apply(&Change::put_in(&shop, note));
            take(&mut state, PurgeIdle, 1);
            state.networks.values().next().unwrap().idle.contains_key(&name)
        };
        assert!(noted([false, false], false));
        assert!(!noted([true, false], false) && !noted([false, true], false) && !noted([false, false], true));
    }

    #[test]
    fn notes_of_services_that_are_not_there_are_forgotten() {
        for fresh in [false, true] {
            let mut state = state();
            let since = Timestamp::from_unix(0);
            let note = Idle { service: "lost".parse().unwrap(), since, by: None, fresh };
            state.apply(&Change::put_in(&"shop".parse().unwrap(), note));
            take(&mut state, PurgeIdle, 1);
            assert!(state.networks.values().next().unwrap().idle.is_empty(), "{fresh}");
        }
    }

    #[test]
    fn a_new_service_ends_at_once_while_fewer_addresses_rest_than_half_of_what_a_host_may_leave() {
        let ends = |resting: u8| {
            let mut state = state();
            report(&mut state, 1, &["api".to_owned()], false, 0);
            for last in 0..resting {
                let range = std::net::Ipv4Addr::new(10, 42, 2, last).into();
                let rest = state.networks.values().next().unwrap().rest(range, Timestamp::from_unix(0));
                state.apply(&rest);
            }
            report(&mut state, 1, &[], false, 1);
            vip(&state, "api").is_none()
        };
        assert!(ends(63) && !ends(64));
    }

    #[test]
    fn addresses_that_rest_are_short_as_those_of_services_are() {
        let mut state = state();
        let all: Vec<String> = (10..33).map(|number| format!("s-{number}")).collect();
        assert!(run(&mut state, 1, &all, 0).is_empty());
        for index in 2..23_u8 {
            let range = format!("10.42.{}.{}/27", index / 8, index % 8 * 32).parse().unwrap();
            let block = sealane_proto::resource::Block { node: Some("host-2".parse().unwrap()), range };
            state.apply(&Change::put_in(&"shop".parse().unwrap(), block));
        }
        let network = state.networks.values().next().unwrap().clone();
        assert!(!network.is_short());
        let rest = network.rest("10.42.2.254/32".parse().unwrap(), Timestamp::from_unix(0));
        state.apply(&rest);
        assert!(state.networks.values().next().unwrap().is_short());
    }

    #[test]
    fn services_that_end_at_once_leave_addresses_to_others() {
        let mut state = state();
        let (most, _) = rename(&mut state, 6_000, false);
        assert!(most < 400, "{most} addresses");
        assert!(run(&mut state, 2, &["fresh".to_owned()], 700).is_empty());
    }

    #[test]
    fn what_is_idle_without_a_note_is_noted_and_what_is_none_any_more_forgotten() {
        let mut state = state();
        run(&mut state, 1, &["api".to_owned()], 0);
        run(&mut state, 1, &[], 1);
        let name: ServiceName = "api".parse().unwrap();
        let network = state.networks.values_mut().next().unwrap();
        assert_eq!(network.idle[&name].by, Some("host-1".parse().unwrap()));
        network.idle = Default::default();
        take(&mut state, PurgeIdle, 2);
        let network = state.networks.values_mut().next().unwrap();
        assert_eq!(
            network.idle[&name],
            Idle { service: name.clone(), since: Timestamp::from_unix(2), by: None, fresh: false }
        );
        let declared = Service { declared: true, ..network.services[&name].clone() };
        let shop = network.network.name.clone();
        state.apply(&Change::put_in(&shop, declared));
        take(&mut state, PurgeIdle, 900_000);
        assert!(state.networks.values().next().unwrap().idle.is_empty() && vip(&state, "api").is_some());
    }

    #[test]
    fn a_workload_that_changes_its_services_name_again_and_again_leaves_addresses_to_others() {
        let mut state = state();
        run(&mut state, 2, &["honest".to_owned()], 0);
        let honest = vip(&state, "honest");
        run(&mut state, 2, &[], 1);
        // For an hour.
        let (most, refused) = rename(&mut state, 36_000, true);
        assert!(most < 400 && refused > 30_000, "{most} addresses, {refused} refused");
        assert_eq!(vip(&state, "honest"), honest);
        let said = run(&mut state, 1, &["last".to_owned()], 3_700);
        assert!(said.is_empty() || said[0].contains("services without instances"), "{said:?}");
        assert!(run(&mut state, 2, &["fresh".to_owned()], 3_700).is_empty());
    }
}
