//! Decisions of an admission: which obstacle stands before a new workload, and what is worth waiting for. Pure.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use sealane_proto::resource::NetworkSnapshot;
use sealane_proto::types::{NetworkName, NodeName};

use super::super::AttachError;
use crate::attachment::{AttachmentId, AttachmentSpec};
use crate::host::{AdmitError, RequestError};
use crate::ipam::IpamError;

/// Time within which this host may not have heard yet that a workload has ended.
const HEARSAY: Duration = Duration::from_secs(1);
/// Time for which one that is not ready on another host is taken for one that ends: a bit more than its host waits for all
/// others.
const MOVING: Duration = Duration::from_secs(15);

/// Result of a try that did not take the workload in.
#[derive(Debug)]
pub(super) enum Setback {
    /// This host does not carry the network.
    Absent(NetworkName),
    /// This host cannot set the network up, for this reason.
    Hindered(NetworkName, String),
    /// The host refused.
    Refused {
        /// Reason of the refusal.
        error: RequestError,
        /// True if the request names the workload.
        named: bool,
        /// Workload that has the name or the address.
        holder: Option<Holder>,
        /// This host's blocks in the network that has no address left.
        blocks: BTreeSet<Ipv4Net>,
    },
}

/// Obstacle before the next try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// Nothing is free in these blocks of the network's addresses, which are this host's.
    Blocks(NetworkName, BTreeSet<Ipv4Net>),
    /// This host cannot set the network up, for this reason.
    Hindered(NetworkName, String),
    /// A workload of that name or address is still ending on this host.
    Ending(AttachmentId),
    /// A workload of another host has that name or address, and may be about to let go of it; or one of this host, of whose
    /// end the agent hears in a moment.
    Elsewhere(Holder),
    /// The made name was taken: make another.
    Name,
}

/// Event that makes another try worthwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing: try again at once.
    Nothing,
    /// Control leases another block of the network than these.
    Carry(NetworkName, BTreeSet<Ipv4Net>),
    /// The network is published anew, or gone, or this time has passed.
    Change(NetworkName, Option<Duration>),
}

/// Holder of a name or address that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    id: AttachmentId,
    /// Host of the workload; `None` for this one.
    node: Option<NodeName>,
    ready: bool,
}

/// Admission of one workload, from try to try.
#[derive(Debug, Default)]
pub(super) struct AdmissionCore {
    /// Time since which another host has what was asked for.
    elsewhere: Option<Instant>,
}

impl AdmissionCore {
    /// Handles a try that failed.
    ///
    /// # Errors
    /// When no further try helps.
    pub(super) fn handle_setback(&mut self, setback: Setback, now: Instant) -> Result<Obstacle, AttachError> {
        let (error, named, holder, blocks) = match setback {
            Setback::Absent(network) => return Ok(Obstacle::Blocks(network, BTreeSet::new())),
            Setback::Hindered(network, why) => return Ok(Obstacle::Hindered(network, why)),
            Setback::Refused { error, named, holder, blocks } => (error, named, holder, blocks),
        };
        match error {
            // It went between the two looks; there may be a new one of its name.
            RequestError::Admit(AdmitError::UnknownNetwork(network)) => {
                Ok(Obstacle::Blocks(network, BTreeSet::new()))
            }
            RequestError::Admit(AdmitError::NameInUse { .. }) if !named => Ok(Obstacle::Name),
            RequestError::Admit(AdmitError::Ending(id)) => Ok(Obstacle::Ending(id)),
            RequestError::Admit(AdmitError::Address { network, source: IpamError::Exhausted { .. } }) => {
                Ok(Obstacle::Blocks(network, blocks))
            }
            RequestError::Admit(error @ (AdmitError::NameInUse { .. } | AdmitError::AddressInUse { .. })) => {
                let holder = holder.ok_or_else(|| error.clone())?;
                let since = *self.elsewhere.get_or_insert(now);
                if now.saturating_duration_since(since) >= holder.patience() {
                    return Err(error.into());
                }
                Ok(Obstacle::Elsewhere(holder))
            }
            error @ (RequestError::Admit(_) | RequestError::Disk(_) | RequestError::Record(..)) => {
                Err(error.into())
            }
        }
    }
}

impl Obstacle {
    /// Returns what is waited for, in words for whoever asked, if that may take long.
    pub(super) fn words(&self) -> Option<String> {
        match self {
            Self::Hindered(network, why) => Some(super::hindered(network, why)),
            Self::Ending(id) => Some(format!("workload {id}, which is still ending")),
            Self::Elsewhere(Holder { id, node, ready: false }) => {
                let seconds = MOVING.as_secs();
                let node = node.as_ref()?;
                Some(format!("workload {id} on {node} to end, for {seconds} s at the longest"))
            }
            // Control's conversation has words of its own.
            Self::Blocks(..) | Self::Elsewhere(_) | Self::Name => None,
        }
    }

    /// Returns the event that is waited for.
    pub(super) fn wait(&self) -> Wait {
        match self {
            Self::Name => Wait::Nothing,
            Self::Blocks(network, held) => Wait::Carry(network.clone(), held.clone()),
            Self::Hindered(network, _) => Wait::Change(network.clone(), None),
            // The network changes when it is gone.
            Self::Ending(id) => Wait::Change(id.network.clone(), None),
            Self::Elsewhere(holder) => Wait::Change(holder.id.network.clone(), Some(holder.patience())),
        }
    }
}

impl Holder {
    /// The workload with the name or address of `spec`.
    pub(super) fn of(spec: &AttachmentSpec, snapshot: &NetworkSnapshot, own: &NodeName) -> Option<Self> {
        let mut known = snapshot.workloads.iter();
        let holder = known.find(|known| known.name == spec.name || spec.address == Some(known.address))?;
        let node = Some(&holder.node).filter(|node| *node != own).cloned();
        Some(Self { id: AttachmentId::of(holder), node, ready: holder.ready })
    }

    /// Returns the time for which its end is waited for. One that ends on another host is not ready any more, as this host hears
    /// in a moment.
    fn patience(&self) -> Duration {
        if self.ready || self.node.is_none() { HEARSAY } else { MOVING }
    }
}

#[cfg(test)]
mod tests;
