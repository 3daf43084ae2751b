//! The rules of one workload's namespace in the kernel: read, compared, changed. Each call is one conversation by
//! netlink of well under a millisecond; no program is started.

use std::collections::BTreeMap;
use std::sync::Arc;

use sealane_proto::types::{NetworkName, Transport};
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;

use super::ruleset;
use super::table::{Mapped, ServiceTable};
use crate::netlink::netfilter::NetfilterSocket;
use crate::netlink::{Flow, FlowState, NetlinkError};
use crate::nft::change::Changes;
use crate::nft::client::{self, Tables};
use crate::nft::rows::Row;
use crate::nft::ruleset::TableName;

/// Purpose of a transaction, for its errors.
const BALANCE: &str = "balance service addresses";

/// The table of one network in one namespace.
#[derive(Debug)]
pub(super) struct Namespace<'a> {
    pub(super) hopper: &'a Hopper,
    pub(super) netns: &'a NetNs,
    pub(super) network: &'a NetworkName,
}

/// Content of a table in the kernel: the comments of its chains' rules, which say what they do, the targets of its ports, its
/// addresses. The maps of endpoints are as many as ports; they are not read.
#[derive(Debug, PartialEq, Eq)]
struct TableContent {
    chains: BTreeMap<String, Vec<String>>,
    services: BTreeMap<Vec<u8>, Row>,
    vips: BTreeMap<Vec<u8>, Row>,
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
        let (services, vips) = (ruleset::services(), ruleset::vips());
        Self {
            chains: ruleset::comments(table),
            services: ruleset::ports(table.ports.iter()).iter().map(|port| port.row(&services)).collect(),
            vips: ruleset::addresses(table.vips.iter()).iter().map(|address| address.row(&vips)).collect(),
        }
    }
}

impl Namespace<'_> {
    fn table(&self) -> TableName {
        ruleset::table_name(self.network)
    }

    fn commit(&self, changes: &Changes) -> Result<(), NetlinkError> {
        client::commit(self.hopper, self.netns, changes, BALANCE)
    }

    /// Reads the state of the kernel where this table is wanted.
    pub(super) fn look(&self, wanted: &ServiceTable) -> Result<Present, NetlinkError> {
        let (mut tables, name) = (Tables::open(self.hopper, self.netns)?, self.table());
        match read(&mut tables, &name) {
            Ok(found) if found == TableContent::of(wanted) => Ok(Present::Right),
            Ok(_) => Ok(Present::Other),
            Err(NetlinkError::Refused { refusal, .. }) if refusal.is_gone() && wanted.is_idle() => {
                Ok(Present::Right)
            }
            // Its sets are not there. It may be, without them.
            Err(NetlinkError::Refused { refusal, .. }) if refusal.is_gone() => {
                let is_there = tables.has(&name).unwrap_or(true);
                Ok(if is_there { Present::Other } else { Present::Nothing })
            }
            Err(error) => Err(error),
        }
    }

    /// Puts the table where there is none. Nothing is removed, and so nothing waited for.
    pub(super) fn begin(&self, wanted: &ServiceTable) -> Result<(), NetlinkError> {
        self.commit(&ruleset::creation(&self.table(), wanted))
    }

    /// Leads from `known` to `wanted`; without one that is known, or when that turns out to be wrong, anew.
    pub(super) fn put(
        &self,
        known: Option<&ServiceTable>,
        wanted: &ServiceTable,
    ) -> Result<(), NetlinkError> {
        let name = self.table();
        if let Some(known) = known {
            let [first, second] = ruleset::difference(&name, known, wanted);
            match self.commit(&first).and_then(|()| self.commit(&second)) {
                Err(NetlinkError::Refused { refusal, .. }) => {
                    tracing::debug!(%refusal, network = %self.network, "service rules are made anew");
                }
                outcome => return outcome,
            }
        }
        self.commit(&ruleset::replacement(&name, wanted))
    }

    /// Takes the table away; one that is gone already is no error.
    pub(super) fn remove(&self) -> Result<(), NetlinkError> {
        let mut changes = Changes::default();
        changes.remove(self.table());
        client::commit(self.hopper, self.netns, &changes, "remove the rules of service addresses")
    }

    /// Lets flows leave whoever does not serve them any more, by the table that `newest` returns: those of datagrams, and connections
    /// that were reset. Returns how many, and the connections to such an instance that nobody has answered so far.
    pub(super) fn free_flows(
        &self,
        newest: impl Fn() -> Arc<ServiceTable>,
    ) -> Result<(usize, Vec<Flow>), NetlinkError> {
        let mut socket = NetfilterSocket::open(self.hopper, self.netns)?;
        if !socket.tracks_flows()? {
            return Ok((0, Vec::new()));
        }
        let table = newest();
        let flows = socket.flows(libc::NFPROTO_IPV4 as u8, |flow| is_stranded(&table, flow))?;
        let (begun, others): (Vec<_>, Vec<_>) =
            flows.into_iter().partition(|flow| flow.state == FlowState::Begun);
        Ok((forget(&mut socket, &others, newest)?, begun))
    }

    /// Lets those of `begun` leave that nobody has answered since. Returns how many.
    pub(super) fn free_unanswered(
        &self,
        begun: &[Flow],
        newest: impl Fn() -> Arc<ServiceTable>,
    ) -> Result<usize, NetlinkError> {
        forget(&mut NetfilterSocket::open(self.hopper, self.netns)?, begun, newest)
    }
}

/// Returns true if a flow may not go on by this table and can be forgotten. A connection that is established is never.
fn is_stranded(table: &ServiceTable, flow: &Flow) -> bool {
    let transport = match (i32::from(flow.protocol), flow.state) {
        (libc::IPPROTO_UDP, _) => Transport::Udp,
        // What is redirected to a sidecar is not the kernel's to balance.
        (libc::IPPROTO_TCP, FlowState::Begun | FlowState::Reset) if !flow.answerer.ip().is_loopback() => {
            Transport::Tcp
        }
        _ => return false,
    };
    !table.serves(Mapped { vip: flow.destination, transport, port: flow.port }, flow.answerer)
}

/// Forgets flows of a walk that has taken its time: one that has gone on since, or whose instance has come meanwhile, stays.
fn forget(
    socket: &mut NetfilterSocket,
    flows: &[Flow],
    newest: impl Fn() -> Arc<ServiceTable>,
) -> Result<usize, NetlinkError> {
    let mut forgotten = 0;
    for flow in flows {
        let is_as_before = flow.state == FlowState::Other || socket.state_of(flow)? == Some(flow.state);
        if is_as_before && is_stranded(&newest(), flow) {
            socket.forget_flow(flow)?;
            forgotten += 1;
        }
    }
    Ok(forgotten)
}

fn read(tables: &mut Tables, name: &TableName) -> Result<TableContent, NetlinkError> {
    let services = tables.rows(name, &ruleset::services())?;
    let vips = tables.rows(name, &ruleset::vips())?;
    Ok(TableContent { chains: tables.comments(name)?, services, vips })
}
