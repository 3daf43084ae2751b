//! The difference between two states of a network: as long as what has changed, however large the network is. Pure.

use std::cmp::Ordering;
use std::collections::HashSet;

use sealane_base::shared_list::SharedList;

use super::{NetworkContent, Service, Workload};
use crate::types::{ServiceName, WorkloadName};
use crate::wire::{Fields, WireError, all, each, texts, v1};

/// A change of services and workloads in a network of which all else is as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkChange {
    /// Services that are new, or other than they were.
    pub services: Vec<Service>,
    /// Services that are no more.
    pub services_gone: Vec<ServiceName>,
    /// Workloads that are new, or other than they were.
    pub workloads: Vec<Workload>,
    /// Workloads that are no more.
    pub workloads_gone: Vec<WorkloadName>,
}

impl NetworkChange {
    /// Finds the change that leads from one state to another; `None` when more than services and workloads has changed, or
    /// while an address is that of two workloads, as it may be for a moment: whoever follows tells them apart by it.
    #[must_use]
    pub fn between(before: &NetworkContent, after: &NetworkContent) -> Option<Self> {
        let is_clear = |state: &NetworkContent| {
            let addresses: HashSet<_> = state.workloads.iter().map(|workload| workload.address).collect();
            addresses.len() == state.workloads.len()
        };
        Self::between_clear(before, after).filter(|_| is_clear(before) && is_clear(after))
    }

    /// The same where it is known that no address is that of two workloads. What the lists of both states share is not looked at.
    #[must_use]
    pub fn between_clear(before: &NetworkContent, after: &NetworkContent) -> Option<Self> {
        // A field that neither is compared nor has its place in the change does not compile.
        // Nobody who follows needs to know who has reported what, who answers echoes, and how new their
        // addresses are.
        let NetworkContent {
            network,
            nodes,
            blocks,
            services: _,
            workloads: _,
            revoked,
            drained,
            reported: _,
            mute: _,
            placed: _,
            routes,
        } = before;
        let same = (network, nodes, blocks) == (&after.network, &after.nodes, &after.blocks)
            && (revoked, drained, routes) == (&after.revoked, &after.drained, &after.routes);
        same.then(|| {
            let (services, services_gone) =
                difference_of_lists(&before.services, &after.services, |service| &service.name);
            let (workloads, workloads_gone) =
                difference_of_lists(&before.workloads, &after.workloads, |workload| &workload.name);
            Self { services, services_gone, workloads, workloads_gone }
        })
    }

    /// The number of services and workloads that it is about.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is asked how long it is")]
    pub fn len(&self) -> usize {
        self.services.len() + self.services_gone.len() + self.workloads.len() + self.workloads_gone.len()
    }

    /// The names of the services that it is about.
    pub fn service_names(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.iter().map(|service| &service.name).chain(&self.services_gone)
    }

    /// The names of the workloads that it is about.
    pub fn workload_names(&self) -> impl Iterator<Item = &WorkloadName> {
        self.workloads.iter().map(|workload| &workload.name).chain(&self.workloads_gone)
    }

    /// Says whether the workload or its service is in it: what may be called there, and by whom, may be other than before.
    #[must_use]
    pub fn concerns(&self, workload: &Workload) -> bool {
        let of_service = |name: &ServiceName| workload.service.as_ref() == Some(name);
        self.workloads.iter().any(|other| other.name == workload.name)
            || self.workloads_gone.contains(&workload.name)
            || self.services.iter().any(|service| of_service(&service.name))
            || self.services_gone.iter().any(of_service)
    }
}

impl TryFrom<v1::NetworkChange> for NetworkChange {
    type Error = WireError;
    fn try_from(message: v1::NetworkChange) -> Result<Self, WireError> {
        let at = Fields("NetworkChange");
        Ok(Self {
            services: all(message.services)?,
            services_gone: at.names("services_gone", &message.services_gone)?,
            workloads: all(message.workloads)?,
            workloads_gone: at.names("workloads_gone", &message.workloads_gone)?,
        })
    }
}

impl From<&NetworkChange> for v1::NetworkChange {
    fn from(change: &NetworkChange) -> Self {
        Self {
            services: each(&change.services),
            services_gone: texts(&change.services_gone),
            workloads: each(&change.workloads),
            workloads_gone: texts(&change.workloads_gone),
        }
    }
}

/// The same of lists that may share.
fn difference_of_lists<T: Clone + PartialEq, N: Clone + Ord>(
    before: &SharedList<T>,
    after: &SharedList<T>,
    name: impl Fn(&T) -> &N,
) -> (Vec<T>, Vec<N>) {
    let (mut news, mut gone) = (Vec::new(), Vec::new());
    for pair in before.differences(after, |one, other| name(one).cmp(name(other))) {
        match pair {
            (_, Some(new)) => news.push(new.clone()),
            (Some(old), None) => gone.push(name(old).clone()),
            (None, None) => {}
        }
    }
    (news, gone)
}

/// Finds what of `after` is not in `before`, and the names of what is in `before` alone; both are sorted by name.
pub(super) fn difference<T: Clone + PartialEq, N: Clone + Ord>(
    before: &[T],
    after: &[T],
    name: impl Fn(&T) -> &N,
) -> (Vec<T>, Vec<N>) {
    let (mut news, mut gone) = (Vec::new(), Vec::new());
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let order = match (before.peek(), after.peek()) {
            (Some(old), Some(new)) => name(old).cmp(name(new)),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return (news, gone),
        };
        // What is in order before the other side's next is on its own side alone.
        let old = if order.is_le() { before.next() } else { None };
        let new = if order.is_ge() { after.next() } else { None };
        match (old, new) {
            (Some(old), None) => gone.push(name(old).clone()),
            (old, Some(new)) if old != Some(new) => news.push(new.clone()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<(String, u32)> {
        names.iter().map(|name| ((*name).to_owned(), 1)).collect()
    }

    #[test]
    fn a_difference_has_what_is_new_or_other_and_the_names_of_what_is_gone() {
        let check = |before: &[&str], after: &[&str], news: &[&str], gone: &[&str]| {
            let (found, lost) = difference(&names(before), &names(after), |(name, _)| name);
            assert_eq!(
                (found, lost),
                (names(news), gone.iter().map(ToString::to_string).collect::<Vec<_>>())
            );
        };
        check(&[], &[], &[], &[]);
        check(&["a", "b", "c"], &["a", "b", "c"], &[], &[]);
        check(&["a", "c"], &["a", "b", "c", "d"], &["b", "d"], &[]);
        check(&["a", "b", "c", "d"], &["b", "d"], &[], &["a", "c"]);
        check(&["a", "c"], &["b"], &["b"], &["a", "c"]);
        let other = vec![("a".to_owned(), 2), ("b".to_owned(), 1)];
        let (news, gone) = difference(&names(&["a", "b"]), &other, |(name, _)| name);
        assert_eq!((news, gone), (vec![("a".to_owned(), 2)], vec![]));
    }
}
