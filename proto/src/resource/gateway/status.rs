//! Status of a route, as the Gateway API has it.

use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::parent::ParentRef;

/// The controller of routes that attach to services.
pub const MESH_CONTROLLER: &str = "sealane.dev/mesh";

/// State of a route at each of its parents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// The parents, in the order in which the route names them.
    pub parents: Vec<RouteParentStatus>,
}

/// State of a route at one parent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteParentStatus {
    /// The parent, as the route names it.
    pub parent_ref: ParentRef,
    /// The controller that says so.
    pub controller_name: String,
    /// `Accepted` and `ResolvedRefs`.
    pub conditions: Vec<Condition>,
}

/// A condition that holds or does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// The thing.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True` or `False`.
    pub status: String,
    /// The API's word for the cause.
    pub reason: String,
    /// The cause in words.
    pub message: String,
    /// The generation of the route that it is about.
    pub observed_generation: u64,
    /// Time since which it may be so.
    pub last_transition_time: String,
}

/// An instant in RFC 3339's form, from seconds since 1970.
#[must_use]
pub fn instant(seconds: u64) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH);
    humantime::format_rfc3339_seconds(time).to_string()
}
