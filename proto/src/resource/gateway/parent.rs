//! The objects that a route attaches to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::place::Place;
use super::text::{Group, Kind, SectionName};
use crate::resource::document::FieldError;
use crate::types::{NetworkName, ObjectName, Port};

/// The number of parents that a route may have.
const PARENTS: usize = 32;

/// A reference to an object that a route attaches to: a Service, whose callers it is for, or a Gateway.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParentRef {
    /// Group of the parent; a Service has none: write `group: ""`.
    #[serde(default = "Group::gateway")]
    pub group: Group,
    /// Kind of the parent.
    #[serde(default = "Kind::gateway")]
    pub kind: Kind,
    /// Network of the parent; the route's own when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::resource::document::schema::Label>")]
    pub namespace: Option<NetworkName>,
    /// Name of the parent.
    #[schemars(with = "crate::resource::document::schema::Subdomain")]
    pub name: ObjectName,
    /// Part of the parent: a Service's port or a Gateway's listener by name; all of it when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<SectionName>,
    /// Part of the parent by port; all of it when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::resource::document::schema::PortNumber>")]
    pub port: Option<Port>,
}

impl ParentRef {
    /// Returns true if the parent is a Service.
    #[must_use]
    pub fn is_service(&self) -> bool {
        self.group == Group::core() && self.kind == Kind::service()
    }

    /// The network of the parent of a route in `own`.
    #[must_use]
    pub fn network<'a>(&'a self, own: &'a NetworkName) -> &'a NetworkName {
        self.namespace.as_ref().unwrap_or(own)
    }

    fn names_what(&self, other: &Self) -> bool {
        (&self.group, &self.kind, &self.namespace, &self.name)
            == (&other.group, &other.kind, &other.namespace, &other.name)
    }
}

/// Checks that no two references mean the same part of a parent, and that none means a part where another means all.
pub(super) fn check(parents: &[ParentRef], spec: &Place<'_>) -> Result<(), FieldError> {
    let place = spec.field("parentRefs");
    place.at_most(PARENTS, parents.len())?;
    for (at, parent) in parents.iter().enumerate() {
        let Some(first) = parents[..at].iter().position(|other| other.names_what(parent)) else { continue };
        let other = &parents[first];
        let parts = |parent: &ParentRef| (parent.section_name.is_some(), parent.port.is_some());
        if parts(other) != parts(parent) {
            return Err(place.item(at).wrong(format!(
                "{} is {} too: where a parent is named several times, each reference needs a sectionName or a port, and all of them \
                 the same ones of these two",
                parent.name,
                place.item(first)
            )));
        }
        let same = |other: &&ParentRef| {
            other.names_what(parent)
                && (&other.section_name, other.port) == (&parent.section_name, parent.port)
        };
        if parents[..at].iter().find(same).is_some() {
            return Err(place.item(at).wrong(format!(
                "{} is named twice; give each reference a sectionName or port of its own, or leave one of them out",
                parent.name
            )));
        }
    }
    Ok(())
}
