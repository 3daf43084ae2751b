//! Rules in nft's language: redirects in the namespaces of workloads with a sidecar, the guard and the
//! border of every network, the host's border. What every start needs is put in by netlink (`script`), the rest by the `nft`
//! program, which also lists what is there.
//!
//! A whole table is replaced in one transaction, so that no packet passes between old rules and new. The
//! table's comment is a fingerprint of its text, by which one that is there already is recognised.

mod border;
pub(crate) mod expression;
pub(crate) mod gate;
mod guard;
pub(crate) mod kernel;
pub(crate) mod listing;
mod names;
mod network;
mod program;
mod rules;
mod rules6;
mod script;
mod table;
mod wire;
pub(crate) mod writer;

use std::net::Ipv4Addr;
use std::sync::Arc;

use sealane_base::task;
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;

pub use border::HOST_LINK;
pub(crate) use border::{MeshPorts, NETWORK_LINK, Surroundings};
pub(crate) use guard::{Sender, Tunnel};
pub use listing::Listing;
pub(crate) use network::{
    KnownHost, NetworkRules, RulesCache, Senders, Told, counted, ensure_host_rules, ensure_network_rules,
    generation, remove_host_rules, ruleset,
};
pub use program::NftError;
use program::{list, list_table, run, tables};
pub use rules::Redirect;
pub use rules6::Redirect6;

use crate::seat::Seat;

/// Installs the rules that lead the workload's TCP calls to the network, and calls to the workload, through its
/// sidecar. Answers whether they were not there already.
///
/// # Errors
/// When nft is not installed or the kernel refuses.
///
/// # Cancel safety
/// A change that has begun runs to its end.
pub async fn ensure_sidecar_rules(
    hopper: &Arc<Hopper>,
    netns: &NetNs,
    redirect: Redirect,
) -> Result<bool, NftError> {
    let (seat, table) = (redirect.seat, rules::sidecar(&redirect));
    blocking(hopper, netns, move |hopper, netns| {
        let there = list(hopper, netns, seat)?;
        if there.as_ref().is_some_and(|there| rules::same(there, &table)) {
            return Ok(false);
        }
        let script = table::putting("inet", &seat.table(), &table, there.is_some());
        run(hopper, netns, script).map(|()| true)
    })
    .await
}

/// The same for calls over IPv6.
///
/// # Errors
/// As [`ensure_sidecar_rules`].
///
/// # Cancel safety
/// As [`ensure_sidecar_rules`].
pub async fn ensure_sidecar_rules6(
    hopper: &Arc<Hopper>,
    netns: &NetNs,
    redirect: Redirect6,
) -> Result<bool, NftError> {
    blocking(hopper, netns, move |hopper, netns| {
        let table = redirect.table();
        let name = redirect.seat.table();
        let there = list_table(hopper, netns, rules6::FAMILY, &name)?;
        if there.as_ref().is_some_and(|there| rules::same(there, &table)) {
            return Ok(false);
        }
        run(hopper, netns, table::putting(rules6::FAMILY, &name, &table, there.is_some())).map(|()| true)
    })
    .await
}

/// Removes the rules; none there is no error.
///
/// # Errors
/// When nft is not installed or the kernel refuses.
pub async fn remove_sidecar_rules(hopper: &Arc<Hopper>, netns: &NetNs, seat: Seat) -> Result<(), NftError> {
    blocking(hopper, netns, move |hopper, netns| {
        let ipv6 = table::removal(rules6::FAMILY, &seat.table());
        run(hopper, netns, rules::removal(seat) + &ipv6)
    })
    .await
}

/// Lets questions to our resolver at `address` reach it, whoever else puts one there by rules.
///
/// # Errors
/// When nft is not installed or the kernel refuses.
pub fn ensure_names(hopper: &Hopper, netns: &NetNs, address: Ipv4Addr) -> Result<(), NftError> {
    let is_there = kernel::has_table(hopper, netns, names::NAME).unwrap_or(true);
    run(hopper, netns, table::putting(names::FAMILY, names::NAME, &names::table(address), is_there))
}

/// Undoes [`ensure_names`]; no rules there is no error.
///
/// # Errors
/// As [`ensure_names`].
pub fn remove_names(hopper: &Hopper, netns: &NetNs) -> Result<(), NftError> {
    run(hopper, netns, table::removal(names::FAMILY, names::NAME))
}

/// Joins two devices of `netns` by a wire of this name; `answered`: questions to DHCP servers from the first one go no further.
/// Blocks.
///
/// # Errors
/// When nft is not installed or the kernel refuses.
pub fn ensure_wire(
    hopper: &Hopper,
    netns: &NetNs,
    name: &str,
    ends: [&str; 2],
    answered: bool,
) -> Result<(), NftError> {
    run(hopper, netns, table::replacing(wire::FAMILY, name, &wire::table(name, ends, answered)))
}

/// Undoes [`ensure_wire`]; none there is no error. Blocks.
///
/// # Errors
/// As [`ensure_wire`].
pub fn remove_wire(hopper: &Hopper, netns: &NetNs, name: &str) -> Result<(), NftError> {
    run(hopper, netns, table::removal(wire::FAMILY, name))
}

/// Removes all that this module ever puts into a workload's namespace. Blocks.
///
/// # Errors
/// When nft is not installed or the kernel refuses.
pub fn clear(netns: &NetNs) -> Result<(), NftError> {
    let hopper = Hopper::start().map_err(NftError::Process)?;
    let ours = rules::ours(&tables(&hopper, netns)?);
    if ours.is_empty() { Ok(()) } else { run(&hopper, netns, ours) }
}

/// Tries in `netns` whether everything that the rules use is there; leaves nothing behind.
///
/// # Errors
/// With what is missing.
pub(crate) fn probe(hopper: &Hopper, netns: &NetNs) -> Result<(), NftError> {
    let seat = Seat::default();
    run(hopper, netns, rules::replacing(seat, &rules::example(seat)))?;
    run(hopper, netns, rules::removal(seat))?;
    network::probe(hopper, netns)
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
