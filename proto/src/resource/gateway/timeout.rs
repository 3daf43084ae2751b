//! Times within which requests are answered, and attempts after a failure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::GatewayDuration;
use super::place::Place;
use crate::resource::document::FieldError;

/// Most attempts after the first one.
const ATTEMPTS: u32 = i32::MAX as u32;
/// The number of statuses: each there is.
const CODES: usize = 200;

/// Times of a rule's requests; zero is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpTimeouts {
    /// Time within which a request is answered, all attempts together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<GatewayDuration>,
    /// Time within which a backend answers one attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<GatewayDuration>,
}

/// Attempts of a request after one has failed (GEP-1731).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retry {
    /// Statuses after which a request is tried again, besides connections that fail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<crate::resource::document::schema::RetryCode>")]
    pub codes: Vec<RetryStatus>,
    /// Attempts after the first one at most; 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// Time before the next attempt, from which it grows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<GatewayDuration>,
}

/// A status of a failure: 400 to 599.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u16")]
pub struct RetryStatus(u16);

impl RetryStatus {
    /// The status.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u32> for RetryStatus {
    type Error = String;
    fn try_from(status: u32) -> Result<Self, String> {
        match u16::try_from(status) {
            Ok(status @ 400..=599) => Ok(Self(status)),
            Ok(_) | Err(_) => {
                Err(format!("{status} is no status to try again after: it must be from 400 to 599"))
            }
        }
    }
}

impl From<RetryStatus> for u16 {
    fn from(status: RetryStatus) -> Self {
        status.get()
    }
}

impl HttpTimeouts {
    pub(super) fn check(&self, place: &Place<'_>) -> Result<(), FieldError> {
        let (Some(request), Some(backend)) = (&self.request, &self.backend_request) else { return Ok(()) };
        if request.limit().is_some_and(|limit| backend.get() > limit) {
            return Err(place.field("backendRequest").wrong(format!(
                "{backend} is longer than {request}, which all attempts have together; make it shorter"
            )));
        }
        Ok(())
    }
}

impl Retry {
    pub(super) fn check(&self, place: &Place<'_>) -> Result<(), FieldError> {
        let codes = place.field("codes");
        codes.at_most(CODES, self.codes.len())?;
        codes.distinct(&self.codes, None, |code| Some(code.get()))?;
        match self.attempts {
            Some(attempts) if attempts > ATTEMPTS => {
                Err(place.field("attempts").wrong(format!("{attempts} is more than {ATTEMPTS}")))
            }
            Some(_) | None => Ok(()),
        }
    }
}
