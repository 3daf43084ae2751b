//! `kind: GRPCRoute`.

mod filter;
mod rule;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::dropped::Dropped;
use super::http::{HOSTNAMES, RULES, check_all_matches};
use super::metadata::{ObjectMetadata, RouteVersion};
use super::parent::{self, ParentRef};
use super::place::Place;
use super::text::Hostname;
use crate::resource::document::{DocumentType, FieldError};
pub use filter::{GrpcAction, GrpcFilter, GrpcFilterType};
pub use rule::{GrpcBackendRef, GrpcMatch, GrpcMethodMatch, GrpcRule};

/// Rules for the gRPC calls that callers of a service make, or that come in by a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "GRPCRoute")]
pub struct GrpcRouteDocument {
    /// The version of the document's shape.
    pub api_version: RouteVersion,
    /// Kind of the document's object.
    pub kind: GrpcRouteKind,
    /// Identity of the route.
    pub metadata: ObjectMetadata,
    /// Desired state of the route.
    pub spec: GrpcRouteSpec,
    #[doc(hidden)]
    #[serde(default, skip_serializing)]
    pub status: Dropped,
}

/// The kind of a gRPC route's document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GrpcRouteKind {
    /// The only one.
    #[default]
    #[serde(rename = "GRPCRoute")]
    GrpcRoute,
}

/// Desired state of a gRPC route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcRouteSpec {
    /// Objects that it attaches to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub parent_refs: Vec<ParentRef>,
    /// Hosts whose calls it is for, at gateways; all when none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub hostnames: Vec<Hostname>,
    /// Rules; the one whose match is the closest counts, and of several such ones the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub rules: Vec<GrpcRule>,
}

impl DocumentType for GrpcRouteDocument {
    const KIND: &'static str = "GRPCRoute";
    const WORDS: [&'static str; 3] = ["grpcroute", "grpcroutes", "grpcroute"];
    const API_VERSIONS: &'static [&'static str] = &RouteVersion::NAMES;

    fn check(&self) -> Result<(), FieldError> {
        self.metadata.check()?;
        let GrpcRouteSpec { parent_refs, hostnames, rules } = &self.spec;
        parent::check(parent_refs, &Place::SPEC)?;
        Place::SPEC.field("hostnames").at_most(HOSTNAMES, hostnames.len())?;
        let place = Place::SPEC.field("rules");
        place.at_most(RULES, rules.len())?;
        place.distinct(rules, Some("name"), |rule| rule.name.as_ref())?;
        check_all_matches(rules.iter().map(|rule| rule.matches.len()).sum(), &place)?;
        rules.iter().enumerate().try_for_each(|(at, rule)| rule.check(&place.item(at)))
    }
}
