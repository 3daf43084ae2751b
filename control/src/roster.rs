//! Control planes that share a store, as one of them knows them, for hosts and for people. Pure.

use std::collections::BTreeMap;

use sealane_proto::resource::ControlAddr;
use sealane_proto::wire::v1;

/// Control planes that share a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Roster {
    /// Control planes on the roll, by their addresses.
    pub(crate) members: BTreeMap<String, RosterMember>,
    /// Address of the one that leads, as far as is known.
    pub(crate) leader: Option<ControlAddr>,
    /// Number of the newest term that was heard of.
    pub(crate) term: u64,
    /// True if this one leads.
    pub(crate) leads: bool,
    /// The reason for which the store does not tell who leads, if it does not.
    pub(crate) store_problem: Option<String>,
    /// True if the store has told who leads, or has not answered, since this one stands by.
    pub(crate) is_known: bool,
    /// Where the mesh is not in the store any more: what is lost, and what to do.
    pub(crate) mesh_lost: Option<String>,
}

/// A control plane of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RosterMember {
    pub(crate) version: String,
    pub(crate) life: Life,
}

/// Sign of life of a control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Life {
    /// The control plane renews its lease in the store.
    Running,
    /// The control plane renews no lease, and has not said why.
    Lost,
    /// The control plane was ended in order.
    Stopped,
}

impl Roster {
    /// The addresses at which a host may find a control plane, in the order in which they are worth trying.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let leader = self.leader.as_ref().map(ToString::to_string);
        let mut others: Vec<_> =
            self.members.iter().map(|(address, member)| (member.life, address)).collect();
        others.retain(|(life, address)| *life != Life::Stopped && Some(*address) != leader.as_ref());
        others.sort();
        let others: Vec<String> = others.into_iter().map(|(_, address)| address.clone()).collect();
        leader.into_iter().chain(others).collect()
    }

    /// Another control plane leads, or nobody that is known.
    pub(crate) fn is_led_by(&mut self, leader: Option<ControlAddr>, term: u64) {
        (self.is_known, self.leads) = (true, false);
        (self.leader, self.term) = (leader, term.max(self.term));
    }

    /// Notes that this control plane leads.
    pub(crate) fn leads(&mut self, own: ControlAddr, term: u64) {
        (self.leader, self.term, self.leads, self.store_problem) = (Some(own), term, true, None);
    }

    /// Notes that this control plane leads no more, and has not heard who does.
    pub(crate) fn leads_no_more(&mut self) {
        (self.leader, self.leads, self.is_known) = (None, false, false);
    }

    /// Returns true if the control plane at this address leads, and is another one.
    pub(crate) fn has_leader_at(&self, address: &str) -> bool {
        !self.leads && self.leader.as_ref().is_some_and(|leader| leader.to_string() == address)
    }

    /// The addresses of those that may run, but for this one at `own`.
    pub(crate) fn others(&self, own: &str) -> Vec<String> {
        self.addresses().into_iter().filter(|address| address != own).collect()
    }
}

impl From<&Roster> for v1::Controls {
    fn from(roster: &Roster) -> Self {
        let leader = roster.leader.as_ref().map(ToString::to_string).unwrap_or_default();
        Self { addresses: roster.addresses(), leader, term: roster.term, leads: roster.leads }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_try_the_leader_first_then_who_runs_then_who_is_lost_and_nobody_who_was_stopped() {
        let member = |life| RosterMember { version: "1".to_owned(), life };
        let lives =
            [("a:1", Life::Lost), ("b:1", Life::Running), ("c:1", Life::Stopped), ("d:1", Life::Running)];
        let members = lives.map(|(address, life)| (address.to_owned(), member(life))).into();
        let mut roster = Roster { members, ..Roster::default() };
        assert_eq!(roster.addresses(), ["b:1", "d:1", "a:1"]);
        roster.leads("d:1".parse().unwrap(), 7);
        assert_eq!(roster.addresses(), ["d:1", "b:1", "a:1"]);
        roster.is_led_by(None, 0);
        assert_eq!((roster.addresses().len(), roster.term, roster.leads), (3, 7, false));
        roster.leads_no_more();
        assert!(!roster.is_known, "it has to ask the store who leads");
    }
}
