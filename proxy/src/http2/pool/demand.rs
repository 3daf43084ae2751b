//! Demand for connections by the requests that wait. Pure.

use crate::http2::{CONNECTIONS_PER_ENDPOINT, STREAMS_PER_CONNECTION};

/// Number of connections to one endpoint that come up at the same time, once it has shown that it takes any.
const AT_ONCE: usize = 4;

/// Supply and demand of the requests that wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    /// Requests that wait.
    pub(super) waiting: usize,
    /// Connections that are up.
    pub(super) up: usize,
    /// Connections that are coming up.
    pub(super) connecting: usize,
    /// Places on connections that are up, but whose peer has not said yet how many it takes.
    pub(super) expected: usize,
    /// Number of requests that a connection to this endpoint has carried so far as its peer knows.
    pub(super) per_connection: usize,
}

impl Demand {
    /// Returns the number of further connections to begin.
    pub(super) fn missing(self) -> usize {
        let each = self.per_connection.clamp(1, STREAMS_PER_CONNECTION);
        let coming = self.expected + self.connecting * each;
        let wanted = self.waiting.saturating_sub(coming).div_ceil(each);
        let at_once = if self.up == 0 { 1 } else { AT_ONCE };
        let room = CONNECTIONS_PER_ENDPOINT.saturating_sub(self.up + self.connecting);
        wanted.min(room).min(at_once.saturating_sub(self.connecting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_begun_for_as_many_requests_as_wait_and_not_too_many_at_once() {
        let none = Demand { waiting: 0, up: 0, connecting: 0, expected: 0, per_connection: 64 };
        let table = [
            (none, 0),
            (Demand { waiting: 1, ..none }, 1),
            // An endpoint that has shown nothing yet is tried once.
            (Demand { waiting: 1000, ..none }, 1),
            (Demand { waiting: 1000, connecting: 1, ..none }, 0),
            (Demand { waiting: 1000, up: 1, ..none }, 4),
            (Demand { waiting: 1000, up: 1, connecting: 3, ..none }, 1),
            (Demand { waiting: 65, up: 1, ..none }, 2),
            // What is coming up is enough.
            (Demand { waiting: 64, up: 1, connecting: 1, ..none }, 0),
            (Demand { waiting: 63, up: 1, expected: 63, ..none }, 0),
            (Demand { waiting: 1000, up: 15, ..none }, 1),
            (Demand { waiting: 1000, up: 16, ..none }, 0),
            // One request at a time.
            (Demand { waiting: 3, up: 1, per_connection: 1, ..none }, 3),
            (Demand { waiting: 3, up: 1, per_connection: 0, ..none }, 3),
        ];
        for (demand, expected) in table {
            assert_eq!(demand.missing(), expected, "{demand:?}");
        }
    }
}
