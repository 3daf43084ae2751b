//! A tunnel's place among those of one worker to the same peer: who speaks on one of them lives, though another one is silent.

use std::cell::Cell;
use std::rc::{Rc, Weak};

use super::pool::{self, PeerKey, Pool};

/// Payload of a narrow tunnel's packets, in bytes: with headers and those of the network around them they pass every way that carries
/// networks.
const NARROW: u32 = 512;

/// Length of a tunnel's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Width {
    /// As long as the kernel makes them.
    #[default]
    Full,
    /// So short that they pass where longer ones are lost.
    Narrow,
}

impl Width {
    /// The greatest segment that TCP may send and is to be sent, if it is not the kernel's choice.
    pub(super) fn segment(self) -> Option<u32> {
        match self {
            Self::Full => None,
            Self::Narrow => Some(NARROW),
        }
    }
}

/// The tunnels of one worker to one peer.
#[derive(Clone, Debug, Default)]
pub(super) struct Family {
    /// Number of times that the peer has spoken, on whichever.
    words: Rc<Cell<u64>>,
    /// The pool that they are in, and the peer.
    place: Option<Rc<(Weak<Pool>, PeerKey)>>,
}

impl Family {
    /// The family in a pool whose tunnels count the peer's `words`.
    pub(super) fn new(words: Rc<Cell<u64>>, pool: Weak<Pool>, key: PeerKey) -> Self {
        Self { words, place: Some(Rc::new((pool, key))) }
    }
}

/// Place of one tunnel among its family. The default is that of one without relatives.
#[derive(Debug, Default)]
pub(super) struct Kin {
    family: Family,
    width: Width,
    /// The number of words at the last look.
    known: u64,
}

impl Kin {
    /// A tunnel of this width among `family`.
    pub(super) fn new(family: Family, width: Width) -> Self {
        let known = family.words.get();
        Self { family, width, known }
    }

    /// Returns true if its packets are short.
    pub(super) fn is_narrow(&self) -> bool {
        self.width == Width::Narrow
    }

    /// The peer has spoken here.
    pub(super) fn note(&self) {
        self.family.words.set(self.family.words.get().wrapping_add(1));
    }

    /// Returns true if the peer has spoken since the last time, here or on another tunnel.
    pub(super) fn take_news(&mut self) -> bool {
        let words = self.family.words.get();
        std::mem::replace(&mut self.known, words) != words
    }

    /// Has the peer asked on a narrow tunnel, unless this is one.
    pub(super) fn ask(&self) {
        if let Some(place) = self.family.place.as_ref().filter(|_| !self.is_narrow()) {
            let (pool, key) = &**place;
            pool::ask_elsewhere(pool, key);
        }
    }
}
