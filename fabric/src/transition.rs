//! Steps of a network from one content to the next, for those who keep something that follows from it: they do as much as has changed,
//! however large the network is. Pure.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::sync::Arc;

use sealane_base::shared_map::SharedMap;
use sealane_proto::resource::{NetworkChange, NetworkContent, Service, Workload};
use sealane_proto::types::{ServiceName, WorkloadName};

/// Workloads by something that several may have, as the instances of services. A copy shares with the one before what has not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members<K: Eq + Hash + Clone>(SharedMap<K, Arc<[WorkloadName]>>);

/// The instances of each service.
pub type Instances = Members<ServiceName>;

/// A change of a network, with the contents that it leads from and to.
#[derive(Clone, Copy, Debug)]
pub struct Transition<'a> {
    /// The content before.
    pub before: &'a NetworkContent,
    /// The content that it leads to.
    pub after: &'a NetworkContent,
    /// The difference.
    pub change: &'a NetworkChange,
    /// The instances in the content that it leads to.
    pub instances: &'a Instances,
}

impl<K: Ord + Hash + Clone> Members<K> {
    /// Workloads, each with what it has.
    #[must_use]
    pub fn of<'a>(all: impl Iterator<Item = (K, &'a WorkloadName)>) -> Self {
        let mut of: BTreeMap<K, Vec<WorkloadName>> = BTreeMap::new();
        all.for_each(|(key, name)| of.entry(key).or_default().push(name.clone()));
        let sorted = of.into_iter().map(|(key, mut names)| {
            names.sort_unstable();
            (key, names.into())
        });
        Self(sorted.collect())
    }

    /// The workloads that have it, sorted.
    #[must_use]
    pub fn names<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> &[WorkloadName]
    where
        K: Borrow<Q>,
    {
        self.0.get(key).map_or(&[], |names| names)
    }

    /// Takes in what workloads had before a change, and then what they have since.
    pub fn alter<'a>(
        &mut self,
        before: impl Iterator<Item = (K, &'a WorkloadName)>,
        since: impl Iterator<Item = (K, &'a WorkloadName)>,
    ) {
        let mut others: BTreeMap<K, BTreeMap<&WorkloadName, bool>> = BTreeMap::new();
        for (key, name, has) in
            before.map(|(key, name)| (key, name, false)).chain(since.map(|(key, name)| (key, name, true)))
        {
            others.entry(key).or_default().insert(name, has);
        }
        for (key, others) in others {
            self.alter_one(key, &others);
        }
    }

    fn alter_one(&mut self, key: K, others: &BTreeMap<&WorkloadName, bool>) {
        let known = self.names(&key);
        if others.iter().all(|(name, has)| known.binary_search(name).is_ok() == *has) {
            return;
        }
        let stays = known.iter().filter(|name| !others.contains_key(name));
        let come = others.iter().filter(|(_, has)| **has).map(|(name, _)| *name);
        let mut names: Vec<WorkloadName> = stays.chain(come).cloned().collect();
        names.sort_unstable();
        if names.is_empty() {
            self.0.remove(&key);
        } else {
            self.0.insert(key, names.into());
        }
    }
}

impl<K: Eq + Hash + Clone> Default for Members<K> {
    fn default() -> Self {
        Self(SharedMap::default())
    }
}

impl Instances {
    /// The instances in a network.
    #[must_use]
    pub fn in_network(content: &NetworkContent) -> Self {
        Self::of(content.workloads.iter().filter_map(as_instance))
    }

    /// The instances after a change of the network that was `before`.
    #[must_use]
    pub fn after(&self, before: &NetworkContent, change: &NetworkChange) -> Self {
        let names = change.workloads.iter().map(|workload| &workload.name).chain(&change.workloads_gone);
        let known = names.filter_map(|name| workload(before, name));
        let mut after = self.clone();
        after.alter(known.filter_map(as_instance), change.workloads.iter().filter_map(as_instance));
        after
    }
}

fn as_instance(workload: &Workload) -> Option<(ServiceName, &WorkloadName)> {
    Some((workload.service.clone()?, &workload.name))
}

impl<'a> Transition<'a> {
    /// The workloads that are new, other or gone, each as it was before and as it is now.
    pub fn workloads(self) -> impl Iterator<Item = (Option<&'a Workload>, Option<&'a Workload>)> {
        let Self { before, change, .. } = self;
        let there = change.workloads.iter().map(move |other| (workload(before, &other.name), Some(other)));
        there.chain(change.workloads_gone.iter().map(move |name| (workload(before, name), None)))
    }

    /// The services that are new, other or gone, or have an instance that is; each as it was before and as it is now.
    pub fn services(self) -> impl Iterator<Item = (Option<&'a Service>, Option<&'a Service>)> {
        let both = self.workloads().flat_map(|(before, after)| before.into_iter().chain(after));
        let of_instances = both.filter_map(|workload| workload.service.as_ref());
        let NetworkChange { services, services_gone, .. } = self.change;
        let own = services.iter().map(|service| &service.name).chain(services_gone);
        let names: BTreeSet<&ServiceName> = of_instances.chain(own).collect();
        names.into_iter().map(move |name| (service(self.before, name), service(self.after, name)))
    }

    /// The instances of a service in the content that it leads to, in the order of their names.
    pub fn instances_of(self, service: &ServiceName) -> impl Iterator<Item = &'a Workload> {
        self.instances.names(service).iter().filter_map(move |name| workload(self.after, name))
    }
}

/// Finds a workload in a network by its name.
#[must_use]
pub fn workload<'a>(content: &'a NetworkContent, name: &WorkloadName) -> Option<&'a Workload> {
    content.workloads.find_by(|workload| workload.name.cmp(name))
}

/// Finds a service in a network by its name.
#[must_use]
pub fn service<'a>(content: &'a NetworkContent, name: &ServiceName) -> Option<&'a Service> {
    content.services.find_by(|service| service.name.cmp(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Chance, random_network};

    #[test]
    fn instances_after_a_change_are_those_of_the_network() {
        let mut chance = Chance::of(7);
        for _ in 0..100 {
            let mut before = random_network(&mut chance, 20);
            let mut instances = Instances::in_network(&before);
            for _ in 0..5 {
                let after = random_network(&mut chance, 20);
                let change = NetworkChange::between(&before, &after).unwrap();
                instances = instances.after(&before, &change);
                assert_eq!(instances, Instances::in_network(&after));
                let transition =
                    Transition { before: &before, after: &after, change: &change, instances: &instances };
                for service in &after.services {
                    let of = |workload: &&Workload| workload.service.as_ref() == Some(&service.name);
                    let expected: Vec<&Workload> = after.workloads.iter().filter(of).collect();
                    assert_eq!(transition.instances_of(&service.name).collect::<Vec<_>>(), expected);
                }
                before = after;
            }
        }
    }

    #[test]
    fn a_transition_names_services_that_are_other_or_have_another_instance() {
        let service = |name: &str| crate::testing::service(name, "10.42.255.1", std::iter::once("80"));
        let of = |name: &str, service: Option<&str>| Workload {
            service: service.map(|service| service.parse().unwrap()),
            ..crate::testing::workload(name, &format!("10.42.0.{}", name.len()))
        };
        let mut before = crate::testing::snapshot();
        before.services = ["a", "b", "c", "d"].map(service).into();
        before.workloads =
            [of("w", Some("a")), of("ww", Some("b")), of("www", Some("c")), of("wwww", None)].into();
        let mut after = before.clone();
        after.services[3].declared = true;
        after.workloads[0].ready = false;
        after.workloads[1].service = None;
        after.workloads[3].ready = false;
        let change = NetworkChange::between(&before, &after).unwrap();
        let instances = Instances::in_network(&before).after(&before, &change);
        let transition =
            Transition { before: &before, after: &after, change: &change, instances: &instances };
        let names: Vec<_> = transition.services().map(|(_, after)| after.unwrap().name.to_string()).collect();
        assert_eq!(names, ["a", "b", "d"]);
        assert_eq!(transition.workloads().count(), 3);
        assert!(transition.workloads().all(|(before, after)| before.is_some() && after.is_some()));
    }
}
