//! Workloads whose addresses control gives to others: the network was removed and made again, or a block has another holder, while this
//! host did not hear of it.

use std::fmt;

use sealane_proto::resource::{NetworkSnapshot, Workload};
use sealane_proto::types::{NetworkName, NodeName, Subnet, WorkloadName};

use super::Mesh;
#[cfg(feature = "simulation")]
use crate::attachment::AttachmentId;

/// Number of workloads that are named in a sentence.
const NAMED: usize = 8;

/// A reason for which an address is no workload's of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Eviction {
    /// The network has other addresses now.
    Outside(Subnet),
    /// Another host gives it to its workloads.
    OfHost(NodeName),
    /// The block of services has it.
    OfServices,
}

impl fmt::Display for Eviction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside(subnet) => write!(f, "is outside {subnet}"),
            Self::OfHost(node) => write!(f, "lies in a block of host {node}"),
            Self::OfServices => f.write_str("lies in the block of services"),
        }
    }
}

impl Eviction {
    /// The reason by what control says of a workload's network; `None` if the workload may have its address. Addresses outside all blocks
    /// are given by control as it hears of them, and it may not have heard of the end of the last holder.
    fn of(workload: &Workload, known: &NetworkSnapshot) -> Option<Self> {
        let subnet = known.network.subnet;
        let address = workload.address.to_ipv4();
        if !subnet.to_net().contains(&address) {
            return Some(Self::Outside(subnet));
        }
        let is_this = |known: &&Workload| {
            known.name == workload.name && known.node == workload.node && known.address == workload.address
        };
        // In the order of their ranges, which do not overlap.
        let next = known.blocks.partition_point(|block| block.range.network() <= address);
        let block = known.blocks.get(next.checked_sub(1)?).filter(|block| block.range.contains(&address))?;
        if block.node.as_ref() == Some(&workload.node) || known.workloads.iter().any(|it| is_this(&it)) {
            return None;
        }
        Some(block.node.clone().map_or(Self::OfServices, Self::OfHost))
    }
}

impl Mesh {
    /// Cuts off the workloads of this host in the network whose addresses control's newest word gives to others; returns true if there are
    /// further ones. They have no port, and nobody is told of them, until they end.
    ///
    /// In a later lifetime of control's state than that in which its address was its own, a workload stays: control has taken over there what
    /// hosts have said, and another one may have said that the address is its.
    pub(crate) fn evict(&mut self, network: &NetworkName) -> bool {
        let Some(carried) = self.networks.get(network) else { return false };
        let known = &carried.snapshot;
        let mut news = false;
        let hosted =
            self.hosted.iter_mut().filter(|(id, hosted)| id.network == *network && !hosted.is_evicted());
        let epoch = Some(known.generation.epoch);
        for (_, hosted) in hosted {
            match Eviction::of(&hosted.workload, known) {
                None => hosted.epoch = epoch,
                Some(eviction) if hosted.epoch == epoch => {
                    hosted.evicted = Some(eviction);
                    news = true;
                }
                Some(_) => {}
            }
        }
        if news {
            self.version += 1;
        }
        news
    }

    /// The workloads that are cut off since others have their addresses.
    #[cfg(feature = "simulation")]
    pub(crate) fn all_evicted(&self) -> impl Iterator<Item = &AttachmentId> {
        self.hosted.iter().filter(|(_, hosted)| hosted.is_evicted()).map(|(id, _)| id)
    }

    /// Names the workloads of this host in the network that are cut off since others have their addresses, for a sentence.
    pub(crate) fn evicted(&self, network: &NetworkName) -> Option<String> {
        let evicted = self.hosted.iter().filter(|(id, _)| id.network == *network);
        let evicted: Vec<(&WorkloadName, &Workload, &Eviction)> = evicted
            .filter_map(|(id, hosted)| Some((&id.workload, &hosted.workload, hosted.evicted.as_ref()?)))
            .collect();
        let named = evicted.iter().take(NAMED);
        let named = named.map(|(name, workload, reason)| format!("{name} ({} {reason})", workload.address));
        let more =
            evicted.len().checked_sub(NAMED).filter(|more| *more > 0).map(|more| format!("{more} more"));
        (!evicted.is_empty()).then(|| named.chain(more).collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use sealane_fabric::seat::Seat;
    use sealane_proto::resource::Node;

    use super::*;
    use crate::attachment::{Attachment, AttachmentId};
    use crate::testing::{block, workload};

    fn shop(subnet: &str, blocks: &[(Option<&str>, &str)]) -> NetworkSnapshot {
        let mut shop = crate::testing::snapshot();
        shop.network.subnet = subnet.parse().unwrap();
        shop.blocks = blocks.iter().map(|(node, range)| block(*node, range)).collect();
        shop
    }

    fn reason(address: &str, known: &NetworkSnapshot) -> Option<String> {
        let own = Workload { node: "host-1".parse().unwrap(), ..workload("api-1", address) };
        Eviction::of(&own, known).map(|eviction| eviction.to_string())
    }

    #[test]
    fn an_address_is_anothers_outside_the_network_and_in_the_blocks_of_others() {
        let own =
            [(Some("host-1"), "10.42.0.0/28"), (Some("host-2"), "10.42.0.16/28"), (None, "10.42.255.0/28")];
        let known = shop("10.42.0.0/16", &own);
        assert_eq!(reason("10.42.0.5", &known), None);
        assert_eq!(reason("10.42.9.5", &known), None, "nobody's block: control decides when it is told");
        assert_eq!(reason("10.42.0.18", &known).unwrap(), "lies in a block of host host-2");
        assert_eq!(reason("10.42.255.3", &known).unwrap(), "lies in the block of services");
        let other = shop("10.43.0.0/16", &[(Some("host-1"), "10.43.0.0/28")]);
        assert_eq!(reason("10.42.0.5", &other).unwrap(), "is outside 10.43.0.0/16");
    }

    #[test]
    fn an_address_that_control_knows_as_this_workloads_stays_although_a_block_was_laid_around_it() {
        let mut known = shop("10.42.0.0/16", &[(Some("host-2"), "10.42.0.16/28")]);
        let own = Workload { node: "host-1".parse().unwrap(), ..workload("api-1", "10.42.0.18") };
        known.workloads = [own].into();
        assert_eq!(reason("10.42.0.18", &known), None);
        assert!(reason("10.42.0.19", &known).is_some());
        let other = Workload { node: "host-2".parse().unwrap(), ..workload("web-1", "10.42.9.9") };
        known.workloads = [other].into();
        assert_eq!(reason("10.42.9.9", &known), None, "which may have ended, as its host has said");
    }

    #[test]
    fn in_a_later_lifetime_nobody_takes_the_place_of_a_workload_by_saying_so_first() {
        let node =
            Node { name: "host-1".parse().unwrap(), underlay: "192.0.2.1".parse().unwrap(), mtu: None };
        let mut mesh = Mesh::new(node, 1);
        let own = [(Some("host-1"), "10.42.0.0/28")];
        let first = shop("10.42.0.0/16", &own);
        let (network, epoch) = (first.network.name.clone(), first.generation.epoch);
        mesh.accept(first);
        let workload = Workload { node: "host-1".parse().unwrap(), ..workload("web-1", "10.42.0.5") };
        mesh.host(Attachment { workload, seat: Seat::default(), ending: false });
        let mut tell = |blocks: &[(Option<&str>, &str)], epoch, revision| {
            let mut state = shop("10.42.0.0/16", blocks);
            state.generation = sealane_proto::types::Generation { epoch, revision };
            assert!(mesh.accept(state));
            mesh.evict(&network)
        };
        let others = [(Some("host-2"), "10.42.0.0/28")];
        assert!(!tell(&others, epoch + 1, 1), "as host-2 has said, which came first");
        assert!(!tell(&own, epoch + 1, 2));
        assert!(tell(&others, epoch + 1, 3), "it was its own in this lifetime, and is not any more");
    }

    #[test]
    fn who_is_evicted_has_no_port_and_nobody_is_told_of_it_until_it_ends() {
        let node =
            Node { name: "host-1".parse().unwrap(), underlay: "192.0.2.1".parse().unwrap(), mtu: None };
        let (mut mesh, now) = (Mesh::new(node, 1), Instant::now());
        let first = shop("10.42.0.0/16", &[(Some("host-1"), "10.42.0.0/28")]);
        let network = first.network.name.clone();
        mesh.accept(first);
        for (name, address) in [("stays", "10.42.0.5"), ("goes", "10.42.0.18")] {
            let workload = Workload { node: "host-1".parse().unwrap(), ..workload(name, address) };
            mesh.host(Attachment { workload, seat: Seat::default(), ending: false });
        }
        assert!(!mesh.evict(&network) && mesh.evicted(&network).is_none());
        let mut second =
            shop("10.42.0.0/16", &[(Some("host-1"), "10.42.0.0/28"), (Some("host-2"), "10.42.0.16/28")]);
        second.generation.revision += 1;
        mesh.accept(second.clone());
        assert!(mesh.evict(&network) && !mesh.evict(&network), "once");
        let said = mesh.evicted(&network).unwrap();
        assert_eq!(said, "goes (10.42.0.18 lies in a block of host host-2)");
        mesh.refresh_facts(&[]);
        let names =
            |workloads: &[Workload]| workloads.iter().map(|own| own.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(&mesh.facts()[&network].workloads), ["stays"]);
        assert_eq!(names(&mesh.report().workloads), ["stays"]);
        let attached: Vec<Workload> = mesh.attached(&network).into_iter().map(|it| it.workload).collect();
        assert_eq!(names(&attached), ["stays"]);
        let seen = mesh.overlaid(&network).unwrap();
        assert!(seen.workloads.iter().all(|known| known.name.as_str() != "goes"));
        // Its port is gone, and its namespace with it as good as: it does not come back by itself.
        second.generation.revision += 1;
        second.blocks.pop();
        mesh.accept(second);
        assert!(!mesh.evict(&network) && mesh.evicted(&network).is_some());
        mesh.remove(&AttachmentId { network: network.clone(), workload: "goes".parse().unwrap() }, now);
        assert_eq!(mesh.evicted(&network), None);
    }
}
