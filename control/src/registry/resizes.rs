//! Paces at which a host tells other lengths of packets. Pure.

use std::time::Duration;

use sealane_proto::types::Mtu;
use tokio::time::Instant;

use crate::pace::Pace;

/// The pace at which a host's packets may become longer: all workloads of its networks, on all hosts, change theirs.
const GROWTHS: Pace = Pace::new(Duration::from_secs(30), 2);
/// The pace at which they may become shorter: longer ones are lost meanwhile, so no network beneath comes up against it, only a host
/// that makes them shorter by a few bytes again and again.
const SHRINKS: Pace = Pace::new(Duration::from_secs(1), 16);

/// The paces of one host.
#[derive(Debug)]
pub(super) struct Resizes {
    growths: Pace,
    shrinks: Pace,
}

impl Resizes {
    /// Says whether the length that a host tells is another one than is known, and may be taken over right now.
    pub(super) fn may(&mut self, (known, told): (Option<Mtu>, Mtu), now: Instant) -> bool {
        match known {
            Some(known) if known == told => false,
            Some(known) if known < told => self.growths.may(now),
            // Whose length was not known made nobody's packets shorter.
            Some(_) | None => self.shrinks.may(now),
        }
    }
}

impl Default for Resizes {
    fn default() -> Self {
        Self { growths: GROWTHS, shrinks: SHRINKS }
    }
}
