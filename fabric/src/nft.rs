//! Rules of nf_tables: redirects in the namespaces of workloads with a sidecar, the guard and the border of every network, the
//! gate of tunnels, the host's border.
//!
//! Tables are values (`ruleset`, `rule`, `datum`), which functions of a state make. `client` commits changes of them as one
//! transaction by netlink, so that no packet passes between old rules and new, and reads tables back as values (`content`),
//! by which one that is there already is recognised. `lowering` says what the kernel's interpreter does for a rule. Text, in
//! nft's language, is for people: the values' `Display`. Rules of others are read from the `nft` program's list (`listing`).

mod border;
pub(crate) mod change;
pub(crate) mod client;
pub(crate) mod content;
pub(crate) mod datum;
mod echo;
mod echo_door;
pub(crate) mod expression;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
pub(crate) mod gate;
#[cfg(test)]
mod golden_tests;
mod guard;
pub(crate) mod listing;
mod lowering;
mod names;
mod network;
mod program;
pub(crate) mod rows;
pub(crate) mod rule;
pub(crate) mod ruleset;
pub(crate) mod selector;
mod sidecar;
mod wire;

use std::net::Ipv4Addr;
use std::sync::Arc;

use sealane_base::task;
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;

pub use border::HOST_LINK;
pub(crate) use border::{MeshPorts, NETWORK_LINK, Surroundings};
use change::Changes;
use client::Tables;
pub(crate) use gate::lengths::LENGTHS;
pub(crate) use guard::{Sender, Tunnel};
pub use listing::Listing;
pub(crate) use network::{
    KnownHost, NetworkRules, RulesCache, Senders, Told, counted, ensure_host_rules, ensure_network_rules,
    generation, remove_host_rules, ruleset,
};
pub use program::NftError;
use ruleset::{Family, Table, TableName};
pub use sidecar::Redirect;

use crate::netlink::{NetlinkError, Socket};
use crate::seat::Seat;

/// Purpose of transactions, for their errors.
const REDIRECT: &str = "redirect calls to a sidecar";
const NAMES: &str = "keep questions for names";
const WIRE: &str = "join two devices";
const ECHO: &str = "mark echoes and let them in alone";
const REMOVE: &str = "remove rules";

/// Installs the rules that lead the workload's TCP calls to the network, and calls to the workload, through its
/// sidecar, by one transaction for its families. Answers whether some were not there already.
///
/// # Errors
/// When the kernel refuses.
///
/// # Cancel safety
/// A change that has begun runs to its end.
pub async fn ensure_sidecar_rules(
    hopper: &Arc<Hopper>,
    netns: &NetNs,
    redirects: impl IntoIterator<Item = Redirect>,
) -> Result<bool, NftError> {
    let wanted: Vec<Table> = redirects.into_iter().map(|redirect| redirect.table()).collect();
    blocking(hopper, netns, move |hopper, netns| ensure(hopper, netns, wanted, REDIRECT)).await
}

/// Removes the rules; none there is no error.
///
/// # Errors
/// When the kernel refuses.
pub async fn remove_sidecar_rules(hopper: &Arc<Hopper>, netns: &NetNs, seat: Seat) -> Result<(), NftError> {
    blocking(hopper, netns, move |hopper, netns| remove(hopper, netns, sidecar::names(seat))).await
}

/// Lets questions to our resolver at `address` reach it, whoever else puts one there by rules. Reads nothing.
///
/// # Errors
/// When the kernel refuses.
pub fn put_names(hopper: &Hopper, netns: &NetNs, address: Ipv4Addr) -> Result<(), NftError> {
    let mut changes = Changes::default();
    changes.replace(names::table(address));
    client::commit(hopper, netns, &changes, NAMES).map_err(NftError::of_change)
}

/// As [`put_names`], unless the rules are there. Answers whether they were not.
///
/// # Errors
/// When the kernel refuses.
///
/// # Cancel safety
/// A change that has begun runs to its end.
pub async fn ensure_names(hopper: &Arc<Hopper>, netns: &NetNs, address: Ipv4Addr) -> Result<bool, NftError> {
    blocking(hopper, netns, move |hopper, netns| ensure(hopper, netns, [names::table(address)], NAMES)).await
}

/// Undoes [`put_names`]; no rules there is no error.
///
/// # Errors
/// As [`put_names`].
pub fn remove_names(hopper: &Hopper, netns: &NetNs) -> Result<(), NftError> {
    remove(hopper, netns, [names::name()])
}

/// Lets nothing but echoes into `netns`, which is theirs, and gives this mark to everything that is sent there; returns true if that was
/// not so. Blocks.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn ensure_echo_rules(hopper: &Hopper, netns: &NetNs, mark: u32) -> Result<bool, NftError> {
    ensure(hopper, netns, [echo_door::table(), echo::table(mark)], ECHO)
}

/// Joins two devices of `netns` by a wire of this name; `answered`: questions to DHCP servers from the first one go no further.
/// Blocks.
///
/// # Errors
/// When a device is not there, or the kernel refuses.
pub fn ensure_wire(
    hopper: &Hopper,
    netns: &NetNs,
    name: &str,
    ends: [&str; 2],
    answered: bool,
) -> Result<(), NftError> {
    let mut socket = Socket::open(hopper, netns).map_err(NftError::Kernel)?;
    let mut device = |name| {
        let link = socket.link(name).map_err(NftError::Kernel)?;
        let index = link.map(|link| link.index);
        index.ok_or_else(|| NftError::NoDevice(name.to_owned())).map(|index| (name, index))
    };
    let ends = [device(ends[0])?, device(ends[1])?];
    let mut changes = Changes::default();
    changes.replace(wire::table(name, ends, answered));
    client::commit(hopper, netns, &changes, WIRE).map_err(NftError::of_change)
}

/// Undoes [`ensure_wire`]; none there is no error. Blocks.
///
/// # Errors
/// When the kernel refuses.
pub fn remove_wire(hopper: &Hopper, netns: &NetNs, name: &str) -> Result<(), NftError> {
    remove(hopper, netns, [wire::name(name)])
}

/// Removes all that this module ever puts into a workload's namespace. Blocks.
///
/// # Errors
/// When the kernel refuses.
pub fn clear(netns: &NetNs) -> Result<(), NftError> {
    let hopper = Hopper::start().map_err(NftError::Process)?;
    let mut tables = Tables::open(&hopper, netns).map_err(NftError::Kernel)?;
    let mut changes = Changes::default();
    for family in [Family::Inet, Family::Ip6, Family::Ip] {
        let names = tables.names(family).map_err(NftError::Kernel)?;
        names
            .into_iter()
            .filter(|table| sidecar::is_ours(&table.name))
            .for_each(|table| changes.remove(table));
    }
    tables.commit(&changes, REMOVE).map_err(NftError::of_change)
}

/// Tries in `netns`, which has no rules, whether everything that the rules use is there; leaves nothing behind.
///
/// # Errors
/// With what is missing.
pub(crate) fn probe(hopper: &Hopper, netns: &NetNs) -> Result<(), NftError> {
    let tried = || -> Result<(), NetlinkError> {
        let mut tables = Tables::open(hopper, netns)?;
        let redirect = Redirect::example(Seat::default()).table();
        let mut first = Changes::default();
        let name = redirect.name.clone();
        first.add(redirect);
        tables.commit(&first, REDIRECT)?;
        let mut last = Changes::default();
        last.remove(name);
        tables.commit(&last, REMOVE)?;
        network::examples()
            .iter()
            .try_for_each(|changes| tables.commit(changes, "make a network's rules"))?;
        tables.generation().map(drop)
    };
    tried().map_err(|error| match &error {
        NetlinkError::Refused { refusal, .. } if refusal.is_of_the_request() => NftError::Unsupported(error),
        NetlinkError::Refused { .. } | NetlinkError::Socket(_) => NftError::Kernel(error),
    })
}

/// Puts in, by one transaction, those of the tables that are not there as they are wanted. Answers whether there were any.
fn ensure(
    hopper: &Hopper,
    netns: &NetNs,
    wanted: impl IntoIterator<Item = Table>,
    purpose: &str,
) -> Result<bool, NftError> {
    let open = || Tables::open_foreign(hopper, netns).map_err(NftError::Kernel);
    let (mut tables, mut changes) = (open()?, Changes::default());
    for table in wanted {
        let there = tables.read(&table.name).map_err(NftError::Kernel)?;
        if tables.is_spent() {
            tables = open()?;
        }
        match there {
            Some(there) if there == table.content() => {}
            Some(_) => changes.replace(table),
            None => changes.add(table),
        }
    }
    if changes.is_empty() {
        return Ok(false);
    }
    tables.commit(&changes, purpose).map_err(NftError::of_change).map(|()| true)
}

fn remove(
    hopper: &Hopper,
    netns: &NetNs,
    names: impl IntoIterator<Item = TableName>,
) -> Result<(), NftError> {
    let mut changes = Changes::default();
    names.into_iter().for_each(|name| changes.remove(name));
    client::commit(hopper, netns, &changes, REMOVE).map_err(NftError::of_change)
}

async fn blocking<T: Send + 'static>(
    hopper: &Arc<Hopper>,
    netns: &NetNs,
    work: impl FnOnce(&Hopper, &NetNs) -> Result<T, NftError> + Send + 'static,
) -> Result<T, NftError> {
    let hopper = hopper.clone();
    let netns = netns.try_clone().map_err(NftError::Process)?;
    task::blocking(move || work(&hopper, &netns)).await.map_err(NftError::Process)?
}
