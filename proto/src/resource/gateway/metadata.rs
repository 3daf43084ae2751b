//! Names and notes of documents of the Gateway API, as kubectl writes them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::dropped::Dropped;
use super::place::Place;
use crate::resource::document::FieldError;
use crate::types::{NetworkName, ObjectName};

/// The annotation in which kubectl keeps what it has applied.
const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The most bytes that labels and annotations may have together.
const NOTES: usize = 64 * 1024;

/// The version of a route's document. Those before `v1` had the same fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RouteVersion {
    /// The one that is written.
    #[default]
    #[serde(
        rename = "gateway.networking.k8s.io/v1",
        alias = "gateway.networking.k8s.io/v1beta1",
        alias = "gateway.networking.k8s.io/v1alpha2"
    )]
    V1,
}

impl RouteVersion {
    /// All versions that are read, the newest first.
    pub(super) const NAMES: [&'static str; 3] = [
        "gateway.networking.k8s.io/v1",
        "gateway.networking.k8s.io/v1beta1",
        "gateway.networking.k8s.io/v1alpha2",
    ];
}

/// Identity of an object, and notes about it. Anything else that a cluster's server says here is dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectMetadata {
    /// Name, unique among the objects of its kind in the network.
    #[schemars(with = "crate::resource::document::schema::Subdomain")]
    pub name: ObjectName,
    /// The network that it belongs to.
    #[schemars(with = "crate::resource::document::schema::Label")]
    pub namespace: NetworkName,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "notes")]
    pub labels: BTreeMap<String, String>,
    /// Notes, which nothing here reads.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "annotations")]
    pub annotations: BTreeMap<String, String>,
    #[doc(hidden)]
    #[serde(default, skip_serializing)]
    pub uid: Dropped,
    #[doc(hidden)]
    #[serde(default, skip_serializing)]
    pub resource_version: Dropped,
    #[doc(hidden)]
    #[serde(default, skip_serializing)]
    pub generation: Dropped,
    #[doc(hidden)]
    #[serde(default, skip_serializing)]
    pub creation_timestamp: Dropped,
    #[doc(hidden)]
    #[serde(default, skip_serializing)]
    pub deletion_timestamp: Dropped,
    #[doc(hidden)]
    #[serde(default, skip_serializing)]
    pub deletion_grace_period_seconds: Dropped,
    #[doc(hidden)]
    #[serde(default, skip_serializing)]
    pub managed_fields: Dropped,
    #[doc(hidden)]
    #[serde(default, skip_serializing)]
    pub self_link: Dropped,
    #[doc(hidden)]
    #[serde(default, skip_serializing)]
    pub finalizers: Dropped,
    #[doc(hidden)]
    #[serde(default, skip_serializing)]
    pub owner_references: Dropped,
}

/// Labels or annotations; kubectl writes `null` where there are none.
fn notes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn annotations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let mut annotations = notes(deserializer)?;
    annotations.remove(APPLIED);
    Ok(annotations)
}

impl ObjectMetadata {
    /// The identity alone, without notes.
    #[must_use]
    pub fn new(name: ObjectName, namespace: NetworkName) -> Self {
        Self {
            name,
            namespace,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            uid: Dropped,
            resource_version: Dropped,
            generation: Dropped,
            creation_timestamp: Dropped,
            deletion_timestamp: Dropped,
            deletion_grace_period_seconds: Dropped,
            managed_fields: Dropped,
            self_link: Dropped,
            finalizers: Dropped,
            owner_references: Dropped,
        }
    }

    /// The network that it belongs to.
    #[must_use]
    pub fn network(&self) -> &NetworkName {
        &self.namespace
    }

    /// Forgets labels and annotations.
    pub(in crate::resource) fn forget_notes(&mut self) {
        (self.labels, self.annotations) = (BTreeMap::new(), BTreeMap::new());
    }

    pub(super) fn check(&self) -> Result<(), FieldError> {
        let bytes =
            |notes: &BTreeMap<String, String>| notes.iter().map(|(key, value)| key.len() + value.len()).sum();
        let (labels, annotations): (usize, usize) = (bytes(&self.labels), bytes(&self.annotations));
        let (field, more) =
            if labels > annotations { ("labels", labels) } else { ("annotations", annotations) };
        if labels + annotations <= NOTES {
            return Ok(());
        }
        Err(Place::METADATA.field(field).wrong(format!(
            "they have {more} bytes; labels and annotations may have {NOTES} together: leave some out"
        )))
    }
}
