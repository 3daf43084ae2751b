//! Sessions: requests of one client that go to one instance (GEP-1619).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::GatewayDuration;
use super::matching::check_length;
use super::place::Place;
use crate::resource::document::FieldError;

/// The longest name of a session, bytes.
const LONGEST: usize = 128;

/// Settings of sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionPersistence {
    /// Name of the cookie or header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub session_name: Option<String>,
    /// Time after which a session ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absolute_timeout: Option<GatewayDuration>,
    /// Time without a request after which a session ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<GatewayDuration>,
    /// The way in which a client says of which session it is.
    #[serde(default, rename = "type")]
    pub kind: SessionType,
    /// Settings of the cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie_config: Option<CookieConfig>,
}

/// The way in which a client says of which session it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SessionType {
    /// By a cookie.
    #[default]
    Cookie,
    /// By a header.
    Header,
}

/// Settings of a session's cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CookieConfig {
    /// Time for which clients keep it.
    #[serde(default)]
    pub lifetime_type: CookieLifetime,
}

/// Time for which clients keep a cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CookieLifetime {
    /// Until the absolute timeout.
    Permanent,
    /// Until the client ends.
    #[default]
    Session,
}

impl SessionPersistence {
    /// Refuses it, in the words of what is wrong in it first: sidecars keep no sessions yet.
    pub(super) fn refuse(&self, place: &Place<'_>) -> Result<(), FieldError> {
        self.check(place)?;
        Err(place.wrong("sessions are not supported yet; leave it out"))
    }

    fn check(&self, place: &Place<'_>) -> Result<(), FieldError> {
        if let Some(name) = &self.session_name {
            check_length(name, LONGEST, &place.field("sessionName"))?;
        }
        let permanent =
            self.cookie_config.is_some_and(|cookie| cookie.lifetime_type == CookieLifetime::Permanent);
        if permanent && self.absolute_timeout.is_none() {
            return Err(place
                .field("absoluteTimeout")
                .wrong("it is missing, and a Permanent cookie ends by it"));
        }
        Ok(())
    }
}
