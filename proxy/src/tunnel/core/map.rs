//! Streams by id, with a hash that costs nothing: ids are consecutive and our own.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::state::State;
use crate::tunnel::frame::StreamId;

pub(super) type StreamMap = HashMap<StreamId, State, BuildHasherDefault<IdHasher>>;

/// Fibonacci hashing (Knuth, TAOCP vol. 3, 6.4) of one `u32`.
///
/// A peer that picks its ids to collide slows only its own tunnel, of at most `max_streams` entries.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u32(byte.into()));
    }

    fn write_u32(&mut self, id: u32) {
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
