//! The desired state of the kernel as it follows the states of a network: it does as much as has changed, however large the network is. Pure.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use sealane_base::shared_list::SharedList;
use sealane_proto::resource::{NetworkContent, NetworkSnapshot, Workload};
use sealane_proto::types::{MacAddr, NodeName, OverlayIp, UnderlayAddrs};

use super::plan::{self, Desired, FdbRow, NeighbourRow, Port, Whole};
use crate::Attachment;

/// The desired state of the kernel for one state of a network, with what it was made of.
#[derive(Clone, Debug)]
pub struct Planned {
    snapshot: Arc<NetworkSnapshot>,
    node: NodeName,
    own: UnderlayAddrs,
    mtu: u32,
    /// Addresses of the hosts that this one has a way to.
    ways: HashMap<NodeName, IpAddr>,
    /// Number of workloads behind each of them.
    behind: HashMap<IpAddr, usize>,
    /// True if a workload elsewhere has no rows as another one has its address.
    leaves_out: bool,
    desired: Desired,
}

/// Lists of rows in the making.
struct Rows {
    fdb: SharedList<FdbRow>,
    neighbours: SharedList<NeighbourRow>,
    behind: HashMap<IpAddr, usize>,
}

impl Planned {
    /// Plans for a state, looking at all of it: as [`plan::desired`].
    #[must_use]
    pub fn new(
        snapshot: Arc<NetworkSnapshot>,
        (node, own): (&NodeName, UnderlayAddrs),
        attachments: &[Attachment],
        mtu: u32,
    ) -> Self {
        let Whole { desired, ways, behind, leaves_out } =
            plan::whole(&snapshot, (node, own), attachments, mtu);
        let ways = ways.into_iter().map(|(name, peer)| (name.clone(), peer)).collect();
        Self { node: node.clone(), own, mtu, ways, behind, leaves_out, desired, snapshot }
    }

    /// Goes on to another state, by what is other in it.
    pub fn follow(
        &mut self,
        snapshot: Arc<NetworkSnapshot>,
        (node, own): (&NodeName, UnderlayAddrs),
        attachments: &[Attachment],
        mtu: u32,
    ) {
        let same_place = (&self.node, self.own, self.mtu) == (node, own, mtu);
        if !(same_place && self.has_hosts_of(&snapshot) && self.take(&snapshot, attachments)) {
            *self = Self::new(snapshot, (node, own), attachments, mtu);
        }
    }

    /// The desired state.
    #[must_use]
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// Returns true if nothing but services and workloads is other in a state.
    fn has_hosts_of(&self, snapshot: &NetworkContent) -> bool {
        let NetworkContent { network, nodes, blocks, .. } = &self.snapshot.content;
        (network, nodes, blocks) == (&snapshot.network, &snapshot.nodes, &snapshot.blocks)
    }

    /// Takes in the workloads of a state; false, and nothing has happened, where somebody is in the way of another.
    fn take(&mut self, snapshot: &Arc<NetworkSnapshot>, attachments: &[Attachment]) -> bool {
        if self.leaves_out {
            return false;
        }
        let (ports, ending) = plan::ports(snapshot, attachments);
        let (fdb, neighbours) = (self.desired.fdb.clone(), self.desired.neighbours.clone());
        let mut rows = Rows { fdb, neighbours, behind: self.behind.clone() };
        let pairs = self.snapshot.workloads.differences(&snapshot.workloads, |a, b| a.name.cmp(&b.name));
        let pairs: Vec<_> = pairs.collect();
        for (row, addresses) in pairs.iter().filter_map(|(before, _)| self.rows(&self.snapshot, (*before)?)) {
            rows.remove(row, addresses);
        }
        let base = &self.desired.base;
        let taken: HashSet<OverlayIp> = ports.iter().map(|port| port.address).chain([base.gateway]).collect();
        let taken_macs: HashSet<MacAddr> =
            ports.iter().map(|port| port.mac).chain([base.gateway_mac]).collect();
        let is_in_the_way =
            |workload: &Workload| taken.contains(&workload.address) || taken_macs.contains(&workload.mac);
        for workload in pairs.iter().filter_map(|(_, after)| *after) {
            let Some((row, addresses)) = self.rows(snapshot, workload) else { continue };
            if is_in_the_way(workload) || !rows.add(row, addresses) {
                return false;
            }
        }
        let news = ports.difference(&self.desired.ports);
        if news.into_iter().any(|port| rows.have_any_of(port, snapshot)) {
            return false;
        }
        let Rows { fdb, neighbours, behind } = rows;
        (self.desired.ports, self.desired.ending) = (ports, ending);
        (self.desired.fdb, self.desired.neighbours, self.desired.peers) = (fdb, neighbours, behind.len());
        (self.behind, self.snapshot) = (behind, snapshot.clone());
        true
    }

    /// The rows of a workload, if it is elsewhere and there is a way to it.
    fn rows(&self, snapshot: &NetworkContent, workload: &Workload) -> Option<(FdbRow, Vec<NeighbourRow>)> {
        let peer = *self.ways.get(&workload.node).filter(|_| workload.node != self.node)?;
        let addresses = snapshot.network.addresses(workload.address);
        let addresses = addresses.map(|own| NeighbourRow { address: own.addr(), mac: workload.mac });
        Some((FdbRow { mac: workload.mac, peer }, addresses.collect()))
    }
}

impl Rows {
    fn remove(&mut self, row: FdbRow, addresses: Vec<NeighbourRow>) {
        self.fdb.set_by(|known| known.cmp(&row), None);
        for address in addresses {
            self.neighbours.set_by(|known| known.cmp(&address), None);
        }
        if let Some(count) = self.behind.get_mut(&row.peer) {
            *count -= 1;
            if *count == 0 {
                self.behind.remove(&row.peer);
            }
        }
    }

    /// Adds the rows of a workload; false if another one has its address.
    fn add(&mut self, row: FdbRow, addresses: Vec<NeighbourRow>) -> bool {
        if self.fdb.find_by(|known| known.mac.cmp(&row.mac)).is_some() {
            return false;
        }
        for address in addresses {
            if self.neighbours.find_by(|known| known.address.cmp(&address.address)).is_some() {
                return false;
            }
            self.neighbours.set_by(|known| known.cmp(&address), Some(address));
        }
        self.fdb.set_by(|known| known.cmp(&row), Some(row));
        *self.behind.entry(row.peer).or_default() += 1;
        true
    }

    /// Returns true if a workload elsewhere has an address of a port.
    fn have_any_of(&self, port: &Port, snapshot: &NetworkContent) -> bool {
        let has = |address: IpAddr| self.neighbours.find_by(|known| known.address.cmp(&address)).is_some();
        self.fdb.find_by(|known| known.mac.cmp(&port.mac)).is_some()
            || snapshot.network.addresses(port.address).any(|own| has(own.addr()))
    }
}

#[cfg(test)]
mod tests {
    use sealane_proto::resource::Node;

    use super::*;
    use crate::seat::Seat;
    use crate::testing::{self, Chance, block, random_network};

    const MTU: u32 = 1450;

    fn host(number: u8) -> NodeName {
        format!("host-{number}").parse().unwrap()
    }

    fn node(number: u8, underlay: &str) -> Node {
        Node { name: host(number), underlay: underlay.parse().unwrap(), mtu: None }
    }

    fn workload(chance: &mut Chance, known: &Workload) -> Workload {
        let mut workload = Workload { node: host(1 + chance.below(4)), ..known.clone() };
        if chance.one_in(50) {
            workload.address = "10.42.0.7".parse().unwrap();
        }
        if chance.one_in(50) {
            workload.mac = MacAddr::new([2, 0, 0, 0, 0, chance.below(3)]);
        }
        workload
    }

    /// A network on three hosts, of which one has IPv6 alone, and one that is no member.
    fn any_network(chance: &mut Chance) -> NetworkSnapshot {
        let mut shop = random_network(chance, 40);
        let last = if chance.one_in(2) { "fd00::3" } else { "192.0.2.3,fd00::3" };
        shop.content.nodes = vec![node(1, "192.0.2.1,fd00::1"), node(2, "192.0.2.2"), node(3, last)];
        if chance.one_in(5) {
            shop.content.blocks.push(block(Some("host-2"), "10.42.9.0/24"));
        }
        shop.content.network.subnet6 = chance.one_in(2).then(|| "fd42::/64".parse().unwrap());
        let workloads: Vec<Workload> = shop.workloads.iter().map(|known| workload(chance, known)).collect();
        shop.content.workloads = workloads.into();
        shop
    }

    /// Few workloads are others than before.
    fn step(chance: &mut Chance, shop: &mut NetworkSnapshot) {
        for known in &random_network(chance, 40).workloads {
            if chance.one_in(12) {
                let item = (!chance.one_in(3)).then(|| workload(chance, known));
                shop.content.workloads.set_by(|other| other.name.cmp(&known.name), item);
            }
        }
    }

    /// Somebody comes to this host, leaves it or begins to end.
    fn attach(chance: &mut Chance, attachments: &mut Vec<Attachment>) {
        let number = chance.below(40);
        match chance.below(3) {
            0 => {
                let last = if chance.one_in(4) { number } else { 100 + number };
                let own = testing::workload(&format!("own-{number}"), &format!("10.42.0.{last}"));
                attachments.retain(|known| known.workload.name != own.name);
                let workload = Workload { node: host(1), ..own };
                attachments.push(Attachment { workload, seat: Seat::default(), ending: false });
            }
            1 => drop(attachments.pop()),
            _ => attachments.iter_mut().for_each(|known| known.ending = chance.one_in(3)),
        }
    }

    #[test]
    fn a_plan_that_follows_is_the_one_that_is_made_anew_whatever_has_happened() {
        let (mut followed, here) = (0, host(1));
        for seed in 0..30 {
            let mut chance = Chance::of(seed);
            let mut shop = any_network(&mut chance);
            let mut attachments = Vec::new();
            let own: UnderlayAddrs = "192.0.2.1,fd00::1".parse().unwrap();
            let mut planned = Planned::new(Arc::new(shop.clone()), (&here, own), &attachments, MTU);
            for _ in 0..60 {
                match chance.below(12) {
                    0 => shop = any_network(&mut chance),
                    1..4 => attach(&mut chance, &mut attachments),
                    _ => step(&mut chance, &mut shop),
                }
                planned.follow(Arc::new(shop.clone()), (&here, own), &attachments, MTU);
                assert_eq!(*planned.desired(), plan::desired(&shop, (&here, own), &attachments, MTU));
                followed += usize::from(!planned.leaves_out);
            }
        }
        assert!(followed > 100, "{followed} of the plans could be followed");
    }

    #[test]
    fn a_plan_leads_to_the_next_by_the_rows_that_are_other() {
        let mut chance = Chance::of(7);
        let mut shop = random_network(&mut chance, 200);
        shop.content.nodes = vec![node(1, "192.0.2.1"), node(2, "192.0.2.2")];
        let far = |known: &Workload| Workload { node: host(2), ..known.clone() };
        shop.content.workloads = shop.workloads.iter().map(far).collect::<Vec<_>>().into();
        let (here, own) = (host(1), "192.0.2.1".parse().unwrap());
        let mut planned = Planned::new(Arc::new(shop.clone()), (&here, own), &[], MTU);
        let before = planned.desired().clone();
        let gone = shop.workloads[60].clone();
        shop.content.workloads.set_by(|known| known.name.cmp(&gone.name), None);
        planned.follow(Arc::new(shop), (&here, own), &[], MTU);
        let changes = plan::difference(&planned.desired().fdb, &before.fdb);
        assert_eq!(changes.remove.iter().map(|row| row.mac).collect::<Vec<_>>(), [gone.mac]);
        assert!(changes.add.is_empty());
    }
}
