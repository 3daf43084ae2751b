//! Desired state of the mesh, and the changes that a command makes of it. Pure: no clock, no I/O, no random source.
//!
//! A [`Command`] is decided against a [`State`] and yields [`Change`]s, each the put or the removal of one
//! record. The writer commits them, then everybody sees them; a state is the sum of its changes in any process
//! that applies them in order.

mod batch;
mod carry;
mod change;
mod declare;
mod echoes;
mod edition;
mod external;
mod grow;
mod history;
mod hosts;
mod idle;
mod ipam;
mod join;
mod network;
mod offer;
mod packets;
mod record;
mod recovery;
mod relocate;
mod removal;
mod report;
mod rest;
mod rollback;
mod room;
mod route;
mod service;
mod state;
mod table;
mod tables;
mod timestamp;
mod token;
mod underlay;
mod vip;
mod withdraw;

#[cfg(test)]
pub(crate) mod model;

use std::error::Error;

pub use carry::{CarryNetwork, CarryOutcome, CarryRefusal, LeaseAhead, MayCarry};
pub use change::{Affected, Touched};
pub use declare::{Apply, DocumentRefusal, Effect};
pub use echoes::TellEchoes;
pub use edition::Told;
pub use external::{ExternalRefusal, NoSuchNode, Register};
pub use grow::{GrowNetwork, GrowRefusal};
pub use history::{
    Actor, Declared, Deed, Entry, Former, LONGEST_DOCUMENT, Operator, Subject, documents_after, entries,
};
pub use hosts::{HostInUse, NotForHost};
pub use idle::{Idle, PurgeIdle};
pub use join::{JoinNode, JoinRefusal, Joined};
pub use network::{CreateNetwork, CreateNetworkRefusal, RemoveNetwork, RemoveNetworkRefusal};
pub use offer::OfferingReport;
pub use packets::{ForgetMtu, TellMtu};
pub use record::{
    BlockIndex, Edit, Home, Kept, Mesh, NetworkRecord, NodeRecord, Record, RowError, TokenRecord,
    WorkloadIndex,
};
pub use recovery::{
    Outdone, Readmit, ReadmitRefusal, Readmitted, Recall, RecallRefusal, Recovery, Removal, TakenOver,
};
pub use relocate::{Relocate, RelocateRefusal, Relocated, ToldPlace};
pub use removal::{DrainNode, NodeRemoved, PurgeRemoved, RemoveNode, RemoveNodeRefusal, RemovedNode};
pub use report::{AddressRefusal, Bound, RefusedWorkload, Report, ReportRefusal, Reported, WorkloadRefusal};
pub use rest::{EndRests, Rest};
pub use rollback::{Rollback, RollbackRefusal, RolledBack};
pub use route::{RouteRefusal, Services, observed};
pub use service::{RemoveService, RemoveServiceRefusal};
pub use state::{Change, NetworkHosts, NetworkState, State};
pub use table::{Index, Table};
pub use timestamp::{Span, Timestamp};
pub use token::{
    CreateToken, CreateTokenRefusal, PurgeTokens, RevokeToken, RevokeTokenRefusal, TokenStanding,
};
pub use underlay::{UnfitUnderlay, misfit};
pub use vip::NoServiceAddress;
pub use withdraw::{Withdraw, WithdrawRefusal, Withdrawn};

/// Something that may change the state.
pub trait Command: Send + 'static {
    /// Result that its sender learns when the changes are durable.
    type Outcome: Send + 'static;
    /// Refusal: names the object, the field and the fix.
    type Refusal: Error + Send + 'static;

    /// Decides on the command in this state.
    ///
    /// # Errors
    /// When the state does not allow it; then nothing changes.
    fn decide(self, state: &State, now: Timestamp) -> Result<Decision<Self::Outcome>, Self::Refusal>;
}

/// Decision on a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<T> {
    /// In the order in which they apply.
    pub changes: Vec<Change>,
    /// For the sender, once the changes are durable.
    pub outcome: T,
}
