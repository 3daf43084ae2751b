//! Refusals as gRPC statuses: the text is the refusal's own, the code says what kind of answer it is.

use std::time::SystemTime;

use sealane_base::text::one_line;
use sealane_proto::types::NodeName;
use tonic::{Code, Status};

use crate::core::{
    CarryRefusal, CreateNetworkRefusal, CreateTokenRefusal, GrowRefusal, JoinRefusal, NoSuchNode,
    ReadmitRefusal, RecallRefusal, RelocateRefusal, RemoveNetworkRefusal, RemoveNodeRefusal,
    RemoveServiceRefusal, ReportRefusal, RevokeTokenRefusal, Span, Timestamp,
};
use crate::registry::Directory;
use crate::store::SubmitError;

/// The longest text of an answer, which travels as a header: what is refused may be part of it.
const LONGEST: usize = 2_048;

/// Refusal with a gRPC code.
pub(crate) trait Coded: std::error::Error {
    fn code(&self) -> Code;
}

/// The status of a command that did nothing.
#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
pub(crate) fn status_of<R: Coded>(error: SubmitError<R>) -> Status {
    let code = match &error {
        SubmitError::Refused(refusal) => refusal.code(),
        SubmitError::Commit(commit) if commit.is_full() || commit.is_too_large() => Code::ResourceExhausted,
        SubmitError::Commit(_) | SubmitError::Busy | SubmitError::Stopped => Code::Unavailable,
    };
    Status::new(code, one_line(&error.to_string(), LONGEST))
}

/// The status of a request that does not say what it should.
#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
pub(crate) fn invalid(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(one_line(&error.to_string(), LONGEST))
}

/// The status for a host whose address another one came with while it was coming itself.
pub(crate) fn displaced(directory: &Directory, name: &NodeName) -> Status {
    let record = directory.nodes.get(name);
    let other = record.and_then(|record| Some((record.node.underlay, record.displaced.clone()?)));
    match other {
        Some((underlay, other)) => {
            let refusal = RelocateRefusal::Displaced { underlay, name: name.clone(), other };
            status_of(SubmitError::Refused(refusal))
        }
        // It has come with another one since.
        None => Status::unavailable("the host's underlay address has changed; say hello again"),
    }
}

/// Tells somebody whose certificate is good that they are no host of the mesh (any more).
pub(crate) fn not_a_node(directory: &Directory, node: &NodeName, key: Option<[u8; 32]>) -> Status {
    let removed = directory.removed.values().find(|removed| match key {
        Some(key) => removed.key == key,
        None => removed.name == *node,
    });
    Status::permission_denied(match removed {
        Some(removed) => format!(
            "node {node} was removed from the mesh {} ago; run `sealane clean` on it, then join again with a new token",
            Span(Timestamp::from(SystemTime::now()).since(removed.removed))
        ),
        None => format!(
            "node {node} is not known to this control plane; run `sealane clean` on it, then let it join with a new token"
        ),
    })
}

impl Coded for std::convert::Infallible {
    fn code(&self) -> Code {
        match *self {}
    }
}

impl Coded for CreateNetworkRefusal {
    fn code(&self) -> Code {
        match self {
            Self::Exists { .. } => Code::AlreadyExists,
            Self::Underlay { .. } | Self::Underlay6 { .. } | Self::Reserved { .. } | Self::Mtu(_) => {
                Code::InvalidArgument
            }
            Self::NoVni => Code::ResourceExhausted,
        }
    }
}

impl Coded for GrowRefusal {
    fn code(&self) -> Code {
        match self {
            Self::NotFound(_) => Code::NotFound,
            Self::NotContained { .. } | Self::Gateway { .. } => Code::InvalidArgument,
            Self::Overlap { .. } | Self::Underlay { .. } | Self::External { .. } => Code::FailedPrecondition,
        }
    }
}

impl Coded for RemoveNetworkRefusal {
    fn code(&self) -> Code {
        match self {
            Self::NotFound(_) => Code::NotFound,
            Self::InUse { .. } => Code::FailedPrecondition,
        }
    }
}

impl Coded for CreateTokenRefusal {
    fn code(&self) -> Code {
        match self {
            Self::Lifetime(_) | Self::NoUses => Code::InvalidArgument,
            Self::NoNetwork(_) => Code::NotFound,
            Self::Exists(_) => Code::Unavailable,
        }
    }
}

impl Coded for RemoveNodeRefusal {
    fn code(&self) -> Code {
        match self {
            Self::NotFound(_) => Code::NotFound,
            Self::InUse { .. } => Code::FailedPrecondition,
        }
    }
}

impl Coded for NoSuchNode {
    fn code(&self) -> Code {
        Code::NotFound
    }
}

impl Coded for RemoveServiceRefusal {
    fn code(&self) -> Code {
        match self {
            Self::NoNetwork(_) | Self::NotFound { .. } => Code::NotFound,
            Self::InUse { .. } | Self::Registered { .. } | Self::External { .. } => Code::FailedPrecondition,
        }
    }
}

impl Coded for RevokeTokenRefusal {
    fn code(&self) -> Code {
        match self {
            Self::NotFound(_) => Code::NotFound,
        }
    }
}

impl Coded for JoinRefusal {
    fn code(&self) -> Code {
        match self {
            Self::UnknownToken(_)
            | Self::WrongSecret(_)
            | Self::Expired { .. }
            | Self::Revoked { .. }
            | Self::UsedUp { .. }
            | Self::OtherNode { .. } => Code::Unauthenticated,
            Self::Removed { .. } => Code::PermissionDenied,
            Self::NameInUse { .. } | Self::UnderlayInUse { .. } => Code::AlreadyExists,
            Self::NoFamily { .. } | Self::Loopback { .. } | Self::LoopbackOf { .. } | Self::Unfit(_) => {
                Code::FailedPrecondition
            }
        }
    }
}

impl Coded for RelocateRefusal {
    fn code(&self) -> Code {
        match self {
            Self::InUse { .. } | Self::Displaced { .. } => Code::AlreadyExists,
            Self::Loopback { .. } | Self::Unfit(_) => Code::FailedPrecondition,
        }
    }
}

impl Coded for CarryRefusal {
    fn code(&self) -> Code {
        match self {
            Self::UnknownNode(_) => Code::PermissionDenied,
            Self::NotFound { .. } => Code::NotFound,
            Self::Host(_) | Self::Underlay(_) => Code::FailedPrecondition,
            // What the host has started is reported in a moment.
            Self::Unused { .. } => Code::Aborted,
            Self::Short(..) | Self::Kept { .. } | Self::Exhausted { .. } => Code::ResourceExhausted,
        }
    }
}

impl Coded for ReadmitRefusal {
    fn code(&self) -> Code {
        match self {
            Self::Unknown(_) => Code::PermissionDenied,
            Self::UnderlayInUse { .. } => Code::AlreadyExists,
            Self::Unfit(_) => Code::FailedPrecondition,
        }
    }
}

impl Coded for RecallRefusal {
    fn code(&self) -> Code {
        match self {
            Self::UnknownNode(_) => Code::PermissionDenied,
        }
    }
}

impl Coded for ReportRefusal {
    fn code(&self) -> Code {
        match self {
            Self::UnknownNode(_) => Code::PermissionDenied,
            Self::Ahead { .. } => Code::InvalidArgument,
        }
    }
}
