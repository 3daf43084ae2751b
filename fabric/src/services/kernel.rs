//! The rules of one workload's namespace in the kernel: read, compared, changed. Each call is one conversation by
//! netlink of well under a millisecond; no program is started.

use std::collections::BTreeMap;

use sealane_proto::types::{NetworkName, Transport};
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;

use super::ruleset::{self, SERVICES, VIPS};
use super::table::{Mapped, ServiceTable};
use crate::netlink::NetlinkError;
use crate::netlink::netfilter::NetfilterSocket;
use crate::nft::expression::{Family, octets};
use crate::nft::kernel;
use crate::nft::writer::{self, elements};

/// Purpose of a transaction, for its errors.
const BALANCE: &str = "balance service addresses";

/// The table of one network in one namespace.
#[derive(Debug)]
pub(super) struct Namespace<'a> {
    pub(super) hopper: &'a Hopper,
    pub(super) netns: &'a NetNs,
    pub(super) network: &'a NetworkName,
}

/// Content of a table in the kernel: the rules of its chains by their names, the targets of its ports, its addresses.
#[derive(Debug, PartialEq, Eq)]
struct TableContent {
    chains: BTreeMap<String, Vec<String>>,
    services: BTreeMap<Vec<u8>, String>,
    vips: BTreeMap<Vec<u8>, String>,
}

/// State of the kernel where a table is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Present {
    /// Just this table, or none where none is needed: with the first table of its kind the kernel begins to track every
    /// flow of the namespace.
    Right,
    /// No table.
    Nothing,
    /// Another one, or nobody knows.
    Other,
}

impl TableContent {
    /// Renders a table as it looks when it is there.
    fn of(table: &ServiceTable) -> Self {
        let services = table.ports.iter();
        Self {
            chains: ruleset::fingerprints(table),
            services: services
                .map(|(&mapped, backends)| (ruleset::key(mapped), backends.chain.clone()))
                .collect(),
            vips: table.vips.iter().map(|&vip| (octets(vip), String::new())).collect(),
        }
    }
}

impl Namespace<'_> {
    fn open(&self) -> Result<NetfilterSocket, NetlinkError> {
        NetfilterSocket::open(self.hopper, self.netns)
    }

    /// Reads the state of the kernel where this table is wanted.
    pub(super) fn look(&self, wanted: &ServiceTable) -> Result<Present, NetlinkError> {
        let name = ruleset::table_name(self.network);
        match read(&mut self.open()?, &name) {
            Ok(found) if found == TableContent::of(wanted) => Ok(Present::Right),
            Ok(_) => Ok(Present::Other),
            Err(NetlinkError::Refused { refusal, .. }) if refusal.is_gone() && wanted.is_idle() => {
                Ok(Present::Right)
            }
            // Its sets are not there. It may be, without them.
            Err(NetlinkError::Refused { refusal, .. }) if refusal.is_gone() => {
                let is_there = kernel::has_table(self.hopper, self.netns, &name).unwrap_or(true);
                Ok(if is_there { Present::Other } else { Present::Nothing })
            }
            Err(error) => Err(error),
        }
    }

    /// Puts the table where there is none. Nothing is removed, and so nothing waited for.
    pub(super) fn begin(&self, wanted: &ServiceTable) -> Result<(), NetlinkError> {
        let creation = ruleset::creation(&ruleset::table_name(self.network), wanted);
        self.open()?.commit(&creation, BALANCE)
    }

    /// Leads from `known` to `wanted`; without one that is known, or when that turns out to be wrong, anew.
    pub(super) fn put(
        &self,
        known: Option<&ServiceTable>,
        wanted: &ServiceTable,
    ) -> Result<(), NetlinkError> {
        let name = ruleset::table_name(self.network);
        let mut socket = self.open()?;
        if let Some(known) = known {
            let change = ruleset::difference(&name, known, wanted);
            match socket.commit(&change, BALANCE) {
                Err(NetlinkError::Refused { refusal, .. }) => {
                    tracing::debug!(%refusal, network = %self.network, "service rules are made anew");
                }
                outcome => return outcome,
            }
        }
        self.open()?.commit(&ruleset::replacement(&name, wanted), BALANCE)
    }

    /// Takes the table away; one that is gone already is no error.
    pub(super) fn remove(&self) -> Result<(), NetlinkError> {
        let removal = writer::removal(&ruleset::table_name(self.network));
        self.open()?.commit(&removal, "remove the rules of service addresses")
    }

    /// Lets flows of datagrams to a service leave whoever does not serve them any more. Returns how many.
    pub(super) fn free_flows(&self, table: &ServiceTable) -> Result<usize, NetlinkError> {
        let mut socket = self.open()?;
        if !socket.tracks_flows()? {
            return Ok(0);
        }
        let mut flows = socket.flows(Family::V4.nfproto, libc::IPPROTO_UDP as u8)?;
        flows.retain(|flow| {
            let mapped = Mapped { vip: flow.destination, transport: Transport::Udp, port: flow.port };
            !table.serves(mapped, flow.answerer)
        });
        for flow in &flows {
            socket.forget_flow(flow)?;
        }
        Ok(flows.len())
    }
}

fn read(socket: &mut NetfilterSocket, name: &str) -> Result<TableContent, NetlinkError> {
    let services = elements(socket, name, SERVICES)?;
    let vips = elements(socket, name, VIPS)?;
    let chains = writer::rules(socket, name)?;
    Ok(TableContent { chains, services, vips })
}
