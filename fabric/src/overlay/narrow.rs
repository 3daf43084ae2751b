//! Ways to other hosts that take shorter packets than the devices that they leave by.
//!
//! The kernel tells senders inside the workloads how long their packets may be (ICMP "fragmentation needed", "packet too big"),
//! when the host's route to the other host has an MTU. So there is a route to each such host, alone, in a table of this agent's
//! own. Each repeats what the host's other rules and routes say; a rule leads packets of tunnels there before them, and no others:
//! what the host says otherwise does not depend on an agent. Echoes carry a mark and do not look there, so that they find out
//! when the way has grown.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use sealane_proto::types::IpFamily;
use sealane_sys::hop::Hopper;
use sealane_sys::{NetNs, RunDir};

use super::{KernelAccess, Overlay, OverlayError, blocking, lock};
use crate::netlink::{NarrowRoute, NarrowTable, NetlinkError, NetlinkRequest, Socket};

/// Mark of echoes.
pub(super) const ECHO_MARK: u32 = 0x5ea1_a4e0;
/// Number of the first table that may be an agent's.
const FIRST_TABLE: u32 = 478_900_000;

/// Lengths of packets to other hosts, with all headers, in bytes.
pub type NarrowHosts = BTreeMap<IpAddr, u32>;

/// The ways of one agent.
#[derive(Debug)]
pub(super) struct NarrowWays {
    table: NarrowTable,
    /// The hosts whose ways are narrow; `None` until somebody has said so, and nothing is touched.
    wanted: Option<NarrowHosts>,
    /// The routes as they were left here.
    made: BTreeSet<NarrowRoute>,
    /// True once the remains of an agent before this one were seen.
    seen: bool,
}

impl NarrowWays {
    pub(super) fn new(run_dir: &RunDir, port: u16) -> Self {
        Self { table: table_of(run_dir, port), wanted: None, made: BTreeSet::new(), seen: false }
    }

    /// Returns true if there is nothing, and there was nothing before.
    fn is_idle(&self) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.is_empty() && self.made.is_empty() && self.seen)
    }
}

impl Overlay {
    /// Lets packets to these hosts be no longer than the way takes, and those to others as long as they are.
    ///
    /// # Errors
    /// When the kernel refuses; the next look at the host takes up the rest.
    ///
    /// # Cancel safety
    /// A change that has begun runs to its end.
    pub async fn ensure_narrow_ways(&self, hosts: NarrowHosts) -> Result<(), OverlayError> {
        let kernel = self.kernel.clone();
        blocking(move || kernel.ensure_narrow_ways(Some(hosts)).map(drop)).await
    }

    /// Returns what is in force, as an agent before this one may have left it.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn narrow_ways(&self) -> Result<NarrowHosts, OverlayError> {
        let kernel = self.kernel.clone();
        blocking(move || {
            let mut socket = Socket::open(&kernel.hopper, &kernel.host)?;
            let table = lock(&kernel.narrow).table;
            let mut hosts = NarrowHosts::new();
            for family in IpFamily::ALL {
                let routes = socket.narrow_routes(family, table)?;
                hosts.extend(routes.into_iter().map(|route| (route.to, route.mtu)));
            }
            Ok(hosts)
        })
        .await
    }
}

impl KernelAccess {
    /// Makes the routes what they should be, for other hosts than before if so; answers how much somebody else had changed.
    pub(super) fn ensure_narrow_ways(&self, hosts: Option<NarrowHosts>) -> Result<usize, OverlayError> {
        let mut ways = lock(&self.narrow);
        if hosts.is_some() {
            ways.wanted = hosts;
        }
        if ways.is_idle() {
            return Ok(0);
        }
        let mut socket = Socket::open(&self.hopper, &self.host)?;
        let known = std::mem::take(&mut ways.seen).then(|| std::mem::take(&mut ways.made));
        let (mut made, mut drifted) = (BTreeSet::new(), 0);
        for family in IpFamily::ALL {
            let of_family = |to: &IpAddr| IpFamily::of(*to) == family;
            let wanted = ways.wanted.iter().flatten().filter(|(to, _)| of_family(to));
            let wanted = routes(&mut socket, wanted, ways.table)?;
            let there = match There::read(&mut socket, family, ways.table) {
                // A host may be without a family.
                Err(NetlinkError::Refused { .. }) if wanted.is_empty() => continue,
                there => there?,
            };
            if let Some(known) = &known {
                drifted +=
                    there.differs(known.iter().filter(|route| of_family(&route.to)).copied().collect());
            }
            there.bring(&mut socket, &wanted)?;
            made.extend(wanted);
        }
        (ways.made, ways.seen) = (made, true);
        Ok(drifted)
    }
}

/// The routes to these hosts: as the host's packets go there without the table.
fn routes<'a>(
    socket: &mut Socket,
    wanted: impl Iterator<Item = (&'a IpAddr, &'a u32)>,
    table: NarrowTable,
) -> Result<BTreeSet<NarrowRoute>, NetlinkError> {
    let mut routes = BTreeSet::new();
    for (&to, &mtu) in wanted {
        // Without a way there is nothing to repeat, and nothing to be lost on it.
        let Some(way) = socket.way_to(to, Some(table.except))?.filter(|way| way.unicast) else { continue };
        let mtu = way.mtu.map_or(mtu, |own| own.min(mtu));
        routes.insert(NarrowRoute { to, device: way.device, gateway: way.gateway, source: way.source, mtu });
    }
    Ok(routes)
}

/// Routes and rules of a family as the kernel has them.
struct There {
    family: IpFamily,
    table: NarrowTable,
    routes: BTreeSet<NarrowRoute>,
    /// For each rule, whether it is as it should be.
    rules: Vec<bool>,
}

impl There {
    fn read(socket: &mut Socket, family: IpFamily, table: NarrowTable) -> Result<Self, NetlinkError> {
        let routes = socket.narrow_routes(family, table)?.into_iter().collect();
        Ok(Self { family, table, routes, rules: socket.narrow_rules(family, table)? })
    }

    fn is_empty(&self) -> bool {
        self.routes.is_empty() && self.rules.is_empty()
    }

    /// Number of things that are not as these routes were left.
    fn differs(&self, left: BTreeSet<NarrowRoute>) -> usize {
        let changed = self.routes.symmetric_difference(&left).map(|route| route.to);
        let rules: &[bool] = if left.is_empty() { &[] } else { &[true] };
        changed.collect::<BTreeSet<IpAddr>>().len() + usize::from(self.rules != rules)
    }

    /// Makes them what they should be for these routes: nothing leads to the table before it is complete.
    fn bring(&self, socket: &mut Socket, wanted: &BTreeSet<NarrowRoute>) -> Result<(), NetlinkError> {
        let table = self.table;
        let stays = !wanted.is_empty() && self.rules == [true];
        if !stays {
            let remove = self.rules.iter().map(|_| table.mislead(self.family));
            mend(socket, remove, "remove the rule of narrow ways")?;
        }
        let kept: BTreeSet<IpAddr> = wanted.iter().map(|route| route.to).collect();
        let gone = self.routes.iter().filter(|route| !kept.contains(&route.to));
        mend(socket, gone.map(|route| route.remove(table)), "remove the route of a narrow way")?;
        let new = wanted.difference(&self.routes);
        mend(socket, new.map(|route| route.set(table)), "set the route of a narrow way")?;
        if !stays && !wanted.is_empty() {
            mend(socket, [table.lead(self.family)], "set the rule of narrow ways")?;
        }
        Ok(())
    }
}

/// Makes these requests; what is gone already is no error.
fn mend(
    socket: &mut Socket,
    requests: impl IntoIterator<Item = NetlinkRequest>,
    what: &str,
) -> Result<(), NetlinkError> {
    let refused = socket.batch(requests)?.into_iter().find(|(_, refusal)| !refusal.is_gone());
    refused.map_or(Ok(()), |(_, refusal)| Err(NetlinkError::Refused { what: what.to_owned(), refusal }))
}

/// The table of the agent with this run directory: every agent of a host has its own. `port` is that of its tunnels.
fn table_of(run_dir: &RunDir, port: u16) -> NarrowTable {
    let run_dir: std::path::PathBuf = run_dir.path().components().collect();
    let hash = crc32fast::hash(run_dir.as_os_str().as_encoded_bytes());
    NarrowTable { number: FIRST_TABLE + hash % 100_000, port, except: ECHO_MARK }
}

/// Removes the routes and rules of the agent with this run directory from the host whose namespace the calling thread is in;
/// answers whether there were any.
///
/// # Errors
/// When the kernel refuses.
pub fn remove_narrow_ways(run_dir: &RunDir) -> Result<bool, NetlinkError> {
    let hopper = Hopper::start()?;
    let host = NetNs::current().map_err(io::Error::other)?;
    // Rules are removed whatever port they are for.
    let (table, mut socket, mut any) = (table_of(run_dir, 0), Socket::open(&hopper, &host)?, false);
    for family in IpFamily::ALL {
        let there = match There::read(&mut socket, family, table) {
            // A host may be without a family.
            Err(NetlinkError::Refused { .. }) => continue,
            there => there?,
        };
        any |= !there.is_empty();
        there.bring(&mut socket, &BTreeSet::new())?;
    }
    Ok(any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_with_different_run_directories_have_different_tables() {
        let table = |path: &str| table_of(&RunDir::from(path), 4789);
        assert_eq!(table("/run/sealane"), table("/run//sealane/"));
        assert_ne!(table("/run/sealane"), table("/run/sealane-2"));
    }
}
