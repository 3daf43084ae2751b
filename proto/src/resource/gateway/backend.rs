//! The objects that requests are sent to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::place::Place;
use super::text::{Group, Kind};
use crate::resource::document::FieldError;
use crate::types::{NetworkName, ObjectName, Port};

/// The number of backends that a rule may have.
pub(super) const BACKENDS: usize = 16;
/// Largest weight of a backend.
const HEAVIEST: u32 = 1_000_000;
/// Largest number of the API's 32-bit integers.
const LARGEST: u32 = i32::MAX as u32;

/// A reference to an object that requests can be sent to: a Service, with the port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendObjectRef {
    /// Group of the backend; a Service has none.
    #[serde(default = "Group::core")]
    pub group: Group,
    /// Kind of the backend.
    #[serde(default = "Kind::service")]
    pub kind: Kind,
    /// Name of the backend.
    #[schemars(with = "crate::resource::document::schema::Subdomain")]
    pub name: ObjectName,
    /// Network of the backend; the route's own when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::resource::document::schema::Label>")]
    pub namespace: Option<NetworkName>,
    /// Port of the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::resource::document::schema::PortNumber>")]
    pub port: Option<Port>,
}

/// A reference to a backend of a rule, with its share of the requests and filters (`F`) of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendRef<F> {
    /// Group of the backend; a Service has none.
    #[serde(default = "Group::core")]
    pub group: Group,
    /// Kind of the backend.
    #[serde(default = "Kind::service")]
    pub kind: Kind,
    /// Name of the backend.
    #[schemars(with = "crate::resource::document::schema::Subdomain")]
    pub name: ObjectName,
    /// Network of the backend; the route's own when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::resource::document::schema::Label>")]
    pub namespace: Option<NetworkName>,
    /// Port of the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::resource::document::schema::PortNumber>")]
    pub port: Option<Port>,
    /// Share of the rule's requests, of the sum of all its backends' weights; 0 for none.
    #[serde(default = "usual_weight")]
    #[schemars(range(max = 1_000_000))]
    pub weight: u32,
    /// Filters of the requests that go to this backend.
    #[serde(default = "no_filters::<F>", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub filters: Vec<F>,
}

/// A function of its own: serde would ask of every filter that it has a default.
fn no_filters<F>() -> Vec<F> {
    vec![]
}

fn usual_weight() -> u32 {
    1
}

/// A backend of a rule, whatever kind of route it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weighted {
    /// The object.
    pub object: BackendObjectRef,
    /// Share of the rule's requests.
    pub weight: u32,
}

/// Settings of a filter that also sends requests to another backend, whose responses nobody sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestMirror {
    /// Backend that gets copies.
    pub backend_ref: BackendObjectRef,
    /// Requests of a hundred that are copied; all when neither this nor a fraction is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub percent: Option<u32>,
    /// Part of the requests that is copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<Fraction>,
}

/// A part of a whole, from nothing to all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fraction {
    /// Above the line.
    pub numerator: u32,
    /// Below the line.
    #[serde(default = "Fraction::hundred")]
    #[schemars(range(min = 1))]
    pub denominator: u32,
}

impl Fraction {
    fn hundred() -> u32 {
        100
    }
}

impl RequestMirror {
    /// The part of requests that is copied.
    #[must_use]
    pub fn share(&self) -> Fraction {
        let percent = Fraction { numerator: self.percent.unwrap_or(100), denominator: 100 };
        self.fraction.unwrap_or(percent)
    }

    pub(super) fn check(&self, place: &Place<'_>) -> Result<(), FieldError> {
        self.backend_ref.check(&place.field("backendRef"))?;
        match (self.percent, self.fraction) {
            (Some(_), Some(_)) => {
                Err(place.field("fraction").wrong("percent says the same; leave one of them out"))
            }
            (Some(percent), None) if percent > 100 => {
                Err(place.field("percent").wrong(format!("{percent} is more than 100")))
            }
            (None, Some(Fraction { denominator: 0, .. })) => {
                Err(place.field("fraction").field("denominator").wrong("it must be 1 at least"))
            }
            (None, Some(Fraction { numerator, denominator }))
                if numerator > denominator || denominator > LARGEST =>
            {
                let fraction = place.field("fraction");
                Err(fraction.wrong(format!(
                    "{numerator}/{denominator} is no part of a whole: the numerator may be as large as the denominator at most, and \
                     this {LARGEST}"
                )))
            }
            (Some(_) | None, None) | (None, Some(_)) => Ok(()),
        }
    }
}

impl BackendObjectRef {
    /// Returns true if the backend is a Service.
    #[must_use]
    pub fn is_service(&self) -> bool {
        self.group == Group::core() && self.kind == Kind::service()
    }

    /// The network of the backend of a route in `own`.
    #[must_use]
    pub fn network<'a>(&'a self, own: &'a NetworkName) -> &'a NetworkName {
        self.namespace.as_ref().unwrap_or(own)
    }

    pub(super) fn check(&self, place: &Place<'_>) -> Result<(), FieldError> {
        if self.is_service() && self.port.is_none() {
            return Err(place.field("port").wrong(format!("the port of Service {} is missing", self.name)));
        }
        Ok(())
    }
}

impl<F> BackendRef<F> {
    /// The object that it refers to.
    #[must_use]
    pub fn object(&self) -> BackendObjectRef {
        let Self { group, kind, name, namespace, port, weight: _, filters: _ } = self;
        BackendObjectRef {
            group: group.clone(),
            kind: kind.clone(),
            name: name.clone(),
            namespace: namespace.clone(),
            port: *port,
        }
    }

    /// The object that it refers to, and its share.
    #[must_use]
    pub fn weighted(&self) -> Weighted {
        Weighted { object: self.object(), weight: self.weight }
    }

    pub(super) fn check(&self, place: &Place<'_>) -> Result<(), FieldError> {
        self.object().check(place)?;
        if self.weight > HEAVIEST {
            return Err(place.field("weight").wrong(format!("{} is more than {HEAVIEST}", self.weight)));
        }
        Ok(())
    }
}
