//! Readiness of a workload of this host, as it says it.

use sealane_fabric::health::Families;
use sealane_proto::types::Finding;

/// Addresses at which calls may be sent to a workload, and what keeps it from more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The addresses' families.
    pub(crate) ready: Families,
    /// Words about what keeps it, if that is known.
    pub(crate) finding: Finding,
}

impl From<Families> for Standing {
    fn from(ready: Families) -> Self {
        Self { ready, finding: Finding::default() }
    }
}
