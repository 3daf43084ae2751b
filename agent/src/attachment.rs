//! The vocabulary of a workload's attachment: what is wanted, where, what comes of it, and why it failed.
//!
//! Every door (gRPC, and what container runtimes speak) translates into it and out of it; nothing here knows one.

mod attached;
mod condition;
mod failure;
mod hold;
mod progress;
mod reservation;
mod spec;
mod target;
mod weight;
mod wire;

pub(crate) use sealane_fabric::{Attachment, AttachmentId};

pub(crate) use attached::{Attached, Seated};
pub(crate) use condition::{ContainerCondition, RuntimeReport};
pub(crate) use failure::{FailureKind, RequestFailure};
pub(crate) use hold::{Hold, HoldError};
pub(crate) use progress::{Event, Progress, Waits};
pub(crate) use reservation::{Claim, Reservation};
pub(crate) use spec::{AttachRequest, AttachSpec, AttachmentSpec, Field, NetworkSeat, SpecError, label};
pub(crate) use target::{Netns, NetnsTarget};
pub(crate) use weight::WeightChange;
