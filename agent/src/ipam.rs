//! Addresses of new workloads: pure, from this host's own leased blocks, without asking anybody.
//!
//! Addresses are given in turn through the blocks, and one that became free rests before it is given again, so
//! that no cache anywhere still means its last owner. Where nothing else is free, a workload gets an address that rests after a
//! workload of its own name, or after one of its service that no cache of names means any more: whoever still sends
//! there means it. The first usable address of a host's first block is kept
//! for the host itself, unless that block is smaller than 16 addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use sealane_proto::resource::Block;
use sealane_proto::types::{OverlayIp, ServiceName, Subnet, WorkloadName, overlap};

/// Rest of a freed address: twice the 30 s after which Linux asks again for a neighbour.
pub(crate) const REST: Duration = Duration::from_secs(60);
/// Time after which no cache of names has an address: the longest life of what the host's DNS says.
const NAMES: Duration = Duration::from_secs(5);
/// The largest block of which the host needs no address for itself has a longer prefix than this.
const ROOMY: u8 = 28;

/// The addresses of one network on one host.
#[derive(Clone, Debug)]
pub(crate) struct Ipam {
    subnet: Subnet,
    /// This host's blocks, without what it gives back.
    blocks: BTreeSet<Ipv4Net>,
    /// Ranges of its blocks that it gives back: nothing is there, and nothing comes there any more.
    offered: BTreeSet<Ipv4Net>,
    resting: BTreeMap<OverlayIp, Rest>,
    last: Option<OverlayIp>,
}

/// Rest of an address.
#[derive(Clone, Debug)]
struct Rest {
    until: Instant,
    /// The workload that had it.
    after: Option<Tenant>,
}

/// Workload as far as it matters who has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tenant {
    /// Name of the workload.
    pub(crate) name: WorkloadName,
    /// Service of which it is an instance.
    pub(crate) service: Option<ServiceName>,
}

/// Reasons for which there is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IpamError {
    /// Every address of the blocks is taken or rests.
    #[error("this host's addresses are used up ({used} in use, {resting} resting)")]
    Exhausted {
        /// Addresses in use.
        used: usize,
        /// Addresses that were in use until a moment ago.
        resting: usize,
    },
    /// The address asked for is not of this network, or nobody's.
    #[error(
        "address {address} is not a workload address of subnet {subnet}{}; hint: {}",
        owner(*.address, *.subnet), range(*.subnet)
    )]
    Outside {
        /// Address that was asked for.
        address: OverlayIp,
        /// The network's subnet.
        subnet: Subnet,
    },
    /// The address asked for is taken.
    #[error("address {0} is in use")]
    InUse(OverlayIp),
    /// The address asked for is in a block that this host gives back.
    #[error(
        "this host gives the block of address {0} back; hint: choose another one, or try again in two minutes"
    )]
    Leaving(OverlayIp),
}

impl Ipam {
    /// No blocks yet.
    #[must_use]
    pub(crate) fn new(subnet: Subnet) -> Self {
        Self {
            subnet,
            blocks: BTreeSet::new(),
            offered: BTreeSet::new(),
            resting: BTreeMap::new(),
            last: None,
        }
    }

    /// This host's blocks of the network, which has this subnet, are exactly these. What it gives back it does so until that is
    /// no part of them.
    pub(crate) fn lease(&mut self, subnet: Subnet, blocks: impl IntoIterator<Item = Ipv4Net>) {
        let own: Vec<Ipv4Net> = blocks.into_iter().collect();
        self.subnet = subnet;
        self.offered.retain(|range| own.iter().any(|block| overlap(*block, *range)));
        self.blocks = own.into_iter().flat_map(|block| without(block, &self.offered)).collect();
    }

    /// These ranges are given back, beside those that are already.
    pub(crate) fn offer(&mut self, ranges: &BTreeSet<Ipv4Net>) {
        self.offered.extend(ranges);
        self.blocks = self.blocks.iter().flat_map(|block| without(*block, &self.offered)).collect();
    }

    /// The ranges that are given back.
    #[must_use]
    pub(crate) fn offered(&self) -> &BTreeSet<Ipv4Net> {
        &self.offered
    }

    /// The blocks that addresses are assigned from.
    #[must_use]
    pub(crate) fn blocks(&self) -> &BTreeSet<Ipv4Net> {
        &self.blocks
    }

    /// The address that the host itself would use in the network.
    #[must_use]
    pub(crate) fn node_address(&self) -> Option<OverlayIp> {
        let first = self.blocks.first().filter(|block| block.prefix_len() <= ROOMY)?;
        self.usable(*first).next()
    }

    /// The number of addresses that are free, when `used` are in use here.
    #[must_use]
    pub(crate) fn free(&self, used: &BTreeSet<OverlayIp>, now: Instant) -> usize {
        let is_own =
            |address: &&OverlayIp| self.blocks.iter().any(|block| block.contains(&address.to_ipv4()));
        let resting = self.resting.iter().filter(|&(_, rest)| rest.until > now).map(|(address, _)| address);
        let resting = resting.filter(|address| !used.contains(address));
        let taken = used.iter().chain(resting).filter(is_own).count();
        let reserved = self.subnet.reserved();
        let reserved = reserved.iter().filter(is_own).count() + usize::from(self.node_address().is_some());
        let all: usize = self.blocks.iter().map(|block| 1 << (32 - block.prefix_len())).sum();
        all.saturating_sub(taken + reserved)
    }

    /// The next free address for `tenant`; `used` says what is taken in the whole network as far as this host knows.
    ///
    /// # Errors
    /// [`IpamError::Exhausted`]: lease another block.
    pub(crate) fn next(
        &mut self,
        used: &BTreeSet<OverlayIp>,
        tenant: Option<&Tenant>,
        now: Instant,
    ) -> Result<OverlayIp, IpamError> {
        self.resting.retain(|_, rest| rest.until > now);
        let node = self.node_address();
        let nobodys = |address: &OverlayIp| Some(*address) != node && !used.contains(address);
        let free = |address: &OverlayIp| nobodys(address) && !self.resting.contains_key(address);
        let all = || self.blocks.iter().flat_map(|block| self.usable(*block));
        let after = all().filter(|address| Some(*address) > self.last).find(free);
        let found = after.or_else(|| all().find(free));
        let found = found.or_else(|| self.former(tenant?, all().filter(nobodys), now));
        let address = found.ok_or_else(|| IpamError::Exhausted {
            used: all().filter(|address| used.contains(address)).count(),
            resting: self.resting.len(),
        })?;
        self.last = Some(address);
        Ok(address)
    }

    /// Returns the address of these that has rested longest after a workload of the same name or service.
    fn former(
        &self,
        tenant: &Tenant,
        of: impl Iterator<Item = OverlayIp>,
        now: Instant,
    ) -> Option<OverlayIp> {
        let until = |address: OverlayIp| {
            let rest = self.resting.get(&address)?;
            let after = rest.after.as_ref()?;
            let same_service = after.service.is_some() && after.service == tenant.service;
            let is_former = after.name == tenant.name || same_service && rest.until <= now + REST - NAMES;
            is_former.then_some((rest.until, address))
        };
        of.filter_map(until).min().map(|(_, address)| address)
    }

    /// Checks that a workload may have this very address. It may rest: whoever names an address wants that one.
    ///
    /// # Errors
    /// When it is taken or not an address for workloads.
    pub(crate) fn claim(&self, address: OverlayIp, used: &BTreeSet<OverlayIp>) -> Result<(), IpamError> {
        let net = self.subnet.to_net();
        let reserved = [net.network(), self.subnet.gateway().to_ipv4(), net.broadcast()];
        if !self.subnet.contains(address) || reserved.contains(&address.to_ipv4()) {
            return Err(IpamError::Outside { address, subnet: self.subnet });
        }
        if used.contains(&address) || Some(address) == self.node_address() {
            return Err(IpamError::InUse(address));
        }
        if self.offered.iter().any(|range| range.contains(&address.to_ipv4())) {
            return Err(IpamError::Leaving(address));
        }
        Ok(())
    }

    /// The address, which the workload `after` had, is free again and rests from now on.
    pub(crate) fn release(&mut self, address: OverlayIp, after: Option<Tenant>, now: Instant) {
        self.resting.insert(address, Rest { until: now + REST, after });
    }

    /// The addresses of a block that interfaces may have.
    fn usable(&self, block: Ipv4Net) -> impl Iterator<Item = OverlayIp> + use<> {
        let (net, gateway) = (self.subnet.to_net(), self.subnet.gateway());
        let (first, last) = (block.network().to_bits(), block.broadcast().to_bits());
        (first..=last).map(|bits| OverlayIp::from(Ipv4Addr::from_bits(bits))).filter(move |address| {
            let inner = address.to_ipv4();
            inner != net.network() && inner != net.broadcast() && *address != gateway
        })
    }
}

/// The ranges that are left of a block when all of these go.
pub(crate) fn without(block: Ipv4Net, parts: &BTreeSet<Ipv4Net>) -> Vec<Ipv4Net> {
    if parts.iter().any(|part| part.contains(&block)) {
        return vec![];
    }
    parts.iter().filter(|part| block.contains(*part)).fold(vec![block], |left, part| {
        let piece = |range| Block { node: None, range }.without(*part);
        left.into_iter().flat_map(piece).collect()
    })
}

/// Says who has an address of the subnet that no workload may have.
fn owner(address: OverlayIp, subnet: Subnet) -> &'static str {
    let (net, inner) = (subnet.to_net(), address.to_ipv4());
    if address == subnet.gateway() {
        ": it is the gateway's"
    } else if inner == net.network() {
        ": it is the network's own"
    } else if inner == net.broadcast() {
        ": it is the broadcast address"
    } else {
        ""
    }
}

/// Says which addresses workloads may have.
fn range(subnet: Subnet) -> String {
    let (gateway, last) = (subnet.gateway().to_ipv4(), subnet.to_net().broadcast());
    let (first, last) = (Ipv4Addr::from_bits(gateway.to_bits() + 1), Ipv4Addr::from_bits(last.to_bits() - 1));
    format!("workloads have addresses from {first} to {last}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subnet() -> Subnet {
        "10.42.0.0/16".parse().unwrap()
    }

    fn ipam() -> Ipam {
        let mut ipam = Ipam::new(subnet());
        ipam.lease(subnet(), ["10.42.0.0/28".parse().unwrap()]);
        ipam
    }

    #[test]
    fn the_gateway_and_the_host_keep_their_addresses() {
        let mut ipam = ipam();
        assert_eq!(ipam.node_address().unwrap().to_string(), "10.42.0.2");
        assert_eq!(ipam.next(&BTreeSet::new(), None, Instant::now()).unwrap().to_string(), "10.42.0.3");
        for taken in ["10.42.0.1", "10.42.0.0", "10.42.255.255", "10.43.0.1"] {
            let error = ipam.claim(taken.parse().unwrap(), &BTreeSet::new()).unwrap_err();
            assert!(matches!(error, IpamError::Outside { .. }), "{error}");
        }
        let said = ipam.claim("10.42.0.1".parse().unwrap(), &BTreeSet::new()).unwrap_err().to_string();
        assert!(
            said.contains(
                "it is the gateway's; hint: workloads have addresses from 10.42.0.2 to 10.42.255.254"
            ),
            "{said}"
        );
        let own = ipam.claim("10.42.0.2".parse().unwrap(), &BTreeSet::new());
        assert!(matches!(own, Err(IpamError::InUse(_))));
    }

    #[test]
    fn free_addresses_are_those_that_would_be_given() {
        let (mut ipam, mut used, now) = (ipam(), BTreeSet::new(), Instant::now());
        ipam.lease(subnet(), ["10.42.0.0/28", "10.42.0.32/30"].map(|block| block.parse().unwrap()));
        for left in (0..17).rev() {
            used.insert(ipam.next(&used, None, now).unwrap());
            assert_eq!(ipam.free(&used, now), left);
        }
        assert!(ipam.next(&used, None, now).is_err());
        let freed = used.pop_last().unwrap();
        ipam.release(freed, None, now);
        used.insert("10.42.7.7".parse().unwrap());
        assert_eq!([now, now + REST].map(|now| ipam.free(&used, now)), [0, 1]);
    }

    #[test]
    fn a_small_block_has_no_address_for_the_host_itself() {
        let mut ipam = ipam();
        ipam.lease(subnet(), ["10.42.0.32/32".parse().unwrap()]);
        assert_eq!(ipam.node_address(), None);
        assert_eq!(ipam.next(&BTreeSet::new(), None, Instant::now()).unwrap().to_string(), "10.42.0.32");
    }

    #[test]
    fn what_is_given_back_is_assigned_no_more_until_it_was_gone() {
        let block = |text: &str| text.parse::<Ipv4Net>().unwrap();
        let (mut ipam, now) = (ipam(), Instant::now());
        let own = [block("10.42.0.0/28"), block("10.42.0.16/28")];
        ipam.lease(subnet(), own);
        ipam.offer(&[block("10.42.0.8/29"), block("10.42.0.16/28")].into());
        let mut given = BTreeSet::new();
        while let Ok(address) = ipam.next(&given, None, now) {
            given.insert(address);
        }
        let last = given.last().unwrap().to_string();
        assert_eq!((given.len(), last.as_str()), (6, "10.42.0.7"));
        for address in ["10.42.0.9", "10.42.0.20"] {
            let claimed = ipam.claim(address.parse().unwrap(), &given);
            assert!(matches!(claimed, Err(IpamError::Leaving(_))), "{claimed:?}");
        }
        // Another state that still says so, or a part of it.
        ipam.lease(subnet(), own);
        assert_eq!(ipam.blocks().iter().copied().collect::<Vec<_>>(), [block("10.42.0.0/29")]);
        ipam.lease(subnet(), [block("10.42.0.0/29"), block("10.42.0.16/28")]);
        assert_eq!(ipam.offered().iter().copied().collect::<Vec<_>>(), [block("10.42.0.16/28")]);
        // Gone, and leased anew.
        ipam.lease(subnet(), [block("10.42.0.0/29")]);
        ipam.lease(subnet(), own);
        assert!(ipam.offered().is_empty() && ipam.blocks().len() == 2);
    }

    #[test]
    fn a_freed_address_rests_before_it_is_given_again() {
        let (mut ipam, mut used, now) = (ipam(), BTreeSet::new(), Instant::now());
        while let Ok(address) = ipam.next(&used, None, now) {
            used.insert(address);
        }
        let freed = "10.42.0.5".parse().unwrap();
        used.remove(&freed);
        ipam.release(freed, None, now);
        let early = ipam.next(&used, None, now + REST - Duration::from_millis(1));
        assert!(matches!(early, Err(IpamError::Exhausted { used: 12, resting: 1 })), "{early:?}");
        assert_eq!(ipam.next(&used, None, now + REST), Ok(freed));
    }

    #[test]
    fn where_nothing_else_is_free_a_workload_gets_what_its_name_had_or_a_while_ago_its_service() {
        let (mut ipam, mut used, now) = (ipam(), BTreeSet::new(), Instant::now());
        let of = |name: &str, service: Option<&str>| Tenant {
            name: name.parse().unwrap(),
            service: service.map(|service| service.parse().unwrap()),
        };
        while let Ok(address) = ipam.next(&used, None, now) {
            used.insert(address);
        }
        let [first, second, lone] = ["10.42.0.5", "10.42.0.6", "10.42.0.7"].map(|text| text.parse().unwrap());
        let formers =
            [(first, of("api-1", Some("api"))), (second, of("api-2", Some("api"))), (lone, of("job", None))];
        for (address, tenant) in formers {
            used.remove(&address);
            ipam.release(address, Some(tenant), now);
        }
        let mut ask = |tenant: Tenant, after: Duration| ipam.next(&used, Some(&tenant), now + after).ok();
        let (soon, later) = (Duration::ZERO, NAMES);
        assert_eq!(ask(of("api-2", None), soon), Some(second));
        assert_eq!(ask(of("job", Some("api")), soon), Some(lone));
        assert_eq!(ask(of("api-3", Some("api")), later - Duration::from_millis(1)), None);
        assert_eq!(ask(of("api-3", Some("api")), later), Some(first));
        assert_eq!(ask(of("other", Some("web")), later), None);
        assert_eq!(ask(of("other", None), later), None);
        // Whoever asks for the host itself has no name.
        assert!(ipam.next(&used, None, now + later).is_err());
    }

    proptest! {
        #[test]
        fn no_address_is_given_twice(releases in prop::collection::vec(any::<prop::sample::Index>(), 0..64)) {
            let (mut ipam, mut used, mut now) = (ipam(), BTreeSet::new(), Instant::now());
            for release in releases {
                if let Ok(address) = ipam.next(&used, None, now) {
                    prop_assert!(used.insert(address));
                    prop_assert!(ipam.claim(address, &BTreeSet::new()).is_ok());
                }
                if let Some(&address) = used.iter().nth(release.index(used.len().max(1))) {
                    used.remove(&address);
                    ipam.release(address, None, now);
                }
                now += Duration::from_secs(9);
            }
        }
    }
}
