//! The channel between hosts: each says what it owns, in frames behind their length.
//!
//! Both sides begin with a [`PeerHello`] and a digest of what they have heard of the other one. Then each says its facts, network by
//! network: whole, or the difference to what the other has acknowledged, in parts of bounded size. What is said of one workload
//! travels as octets, so that both sides compute the same digest whatever fields they know.

mod cell;

use std::collections::BTreeSet;

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;
use sha2::{Digest as _, Sha256};

use crate::resource::{Edition, HostPlaces};
use crate::types::{NetworkName, NodeName};
use crate::wire::{Fields, WireError, all, each, v1};
pub use cell::{PeerCell, Reach};

/// The newest protocol between hosts that this version speaks.
pub const PEER_PROTOCOL: u32 = 1;
/// The oldest.
pub const OLDEST_PEER_PROTOCOL: u32 = 1;

/// TCP port of the channel, unless somebody chose another one.
pub const PEER_PORT: u16 = 7444;

/// Size of the largest frame, in octets, without its length.
pub const LARGEST_FRAME: usize = 64 << 10;
/// Octets of the length in front of a frame.
const LENGTH: usize = 4;

/// A frame of the channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerFrame {
    /// A sign of life, or something that this version does not know.
    Alive,
    /// The beginning.
    Hello(PeerHello),
    /// A part of the sender's facts.
    Facts(FactsPart),
    /// The answer to the last part.
    Held(HeldFacts),
    /// A part of all that the sender has heard.
    Digest {
        /// Networks of which something was heard.
        held: Vec<HeldFacts>,
        /// True if no part follows.
        last: bool,
    },
    /// Hosts that the sender has found changed: the receiver may want to ask each of them itself.
    Hint(BTreeSet<NodeName>),
    /// A question how the receiver sees its own peers, with a token that the answer repeats.
    Ask(u64),
    /// A part of the answer.
    Row {
        /// The question's.
        token: u64,
        /// Hosts as the sender sees them.
        cells: Vec<PeerCell>,
        /// True if no part follows.
        last: bool,
    },
    /// The underlay addresses of the sender, and of others as it has found them.
    Places(HostPlaces),
    /// An edition of the receiver's words about a network by which the sender works: kernel, names, rules and sidecars.
    Works(NetworkName, Edition),
}

/// First words of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerHello {
    /// The newest protocol that it speaks.
    pub protocol: u32,
    /// The oldest.
    pub oldest: u32,
    /// Version of its program.
    pub version: String,
    /// True if it says by which words it works.
    pub tells_works: bool,
}

/// A part of what a host says of its workloads in one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactsPart {
    /// The network.
    pub network: NetworkName,
    /// The edition that all parts together make.
    pub edition: Edition,
    /// The revision that they change; without one, they are all there is.
    pub base: Option<u64>,
    /// Messages of workloads, encoded.
    pub workloads: Vec<Bytes>,
    /// Names of workloads that are no more.
    pub gone: Vec<String>,
    /// True if no part follows.
    pub last: bool,
}

/// Report of a host about what it has heard of another one's workloads in one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldFacts {
    /// The network.
    pub network: NetworkName,
    /// The edition that it has; the default is none.
    pub edition: Edition,
    /// Sum of the digests of the workloads' messages, modulo 2^64.
    pub digest: u64,
}

/// Octets that are no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The frame is larger than may be.
    #[error("a frame of {0} octets is larger than {LARGEST_FRAME}")]
    TooLarge(usize),
    /// The octets are no message of this kind.
    #[error("a frame cannot be read")]
    Malformed,
    /// A field of it does not say what it should.
    #[error(transparent)]
    Field(#[from] WireError),
}

/// Digest of the message of one workload.
#[must_use]
pub fn row_digest(encoded: &[u8]) -> u64 {
    let hash: [u8; 32] = Sha256::digest(encoded).into();
    hash.iter().take(8).fold(0, |sum, octet| sum << 8 | u64::from(*octet))
}

impl PeerHello {
    /// The first words of this version.
    #[must_use]
    pub fn own(version: &str) -> Self {
        Self {
            protocol: PEER_PROTOCOL,
            oldest: OLDEST_PEER_PROTOCOL,
            version: version.to_owned(),
            tells_works: true,
        }
    }

    /// Returns true if there is a protocol that both speak.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.oldest <= PEER_PROTOCOL && self.protocol >= OLDEST_PEER_PROTOCOL
    }
}

impl PeerFrame {
    /// Appends the frame behind its length.
    pub fn encode(&self, out: &mut BytesMut) {
        let message = v1::PeerFrame::from(self);
        let length = message.encoded_len();
        out.reserve(LENGTH + length);
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        // A buffer that grows has room.
        let _ = message.encode(out);
    }

    /// Takes the next frame from the front of `buffer`; `None` as long as it is not all there.
    ///
    /// # Errors
    /// When what comes is no frame: nothing after it can be read either.
    pub fn take(buffer: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        let Some(length) = buffer.first_chunk::<LENGTH>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > LARGEST_FRAME {
            return Err(FrameError::TooLarge(length));
        }
        if buffer.len() < LENGTH + length {
            return Ok(None);
        }
        buffer.advance(LENGTH);
        let message =
            v1::PeerFrame::decode(buffer.split_to(length).freeze()).map_err(|_| FrameError::Malformed)?;
        Ok(Some(message.try_into()?))
    }
}

impl From<&PeerFrame> for v1::PeerFrame {
    fn from(frame: &PeerFrame) -> Self {
        use v1::peer_frame::Frame;
        let frame = match frame {
            PeerFrame::Alive => None,
            PeerFrame::Hello(hello) => Some(Frame::Hello(v1::PeerHello {
                protocol: hello.protocol,
                oldest_protocol: hello.oldest,
                version: hello.version.clone(),
                tells_works: hello.tells_works,
            })),
            PeerFrame::Facts(part) => Some(Frame::Facts(v1::PeerFacts {
                network: part.network.to_string(),
                incarnation: part.edition.incarnation,
                revision: part.edition.revision,
                base: part.base.unwrap_or_default(),
                workloads: part.workloads.clone(),
                gone: part.gone.clone(),
                last: part.last,
            })),
            PeerFrame::Held(held) => Some(Frame::Held(held.into())),
            PeerFrame::Digest { held, last } => Some(Frame::Digest(v1::PeerDigest {
                held: held.iter().map(Into::into).collect(),
                last: *last,
            })),
            PeerFrame::Hint(nodes) => {
                Some(Frame::Hint(v1::PeerHint { nodes: nodes.iter().map(ToString::to_string).collect() }))
            }
            PeerFrame::Ask(token) => Some(Frame::Ask(v1::PeerAsk { token: *token })),
            PeerFrame::Row { token, cells, last } => {
                Some(Frame::Row(v1::PeerRow { token: *token, cells: each(cells), last: *last }))
            }
            PeerFrame::Places(places) => {
                Some(Frame::Places(v1::PeerPlaces { places: places.iter().map(Into::into).collect() }))
            }
            PeerFrame::Works(network, edition) => Some(Frame::Works(v1::PeerWorks {
                network: network.to_string(),
                incarnation: edition.incarnation,
                revision: edition.revision,
            })),
        };
        Self { frame }
    }
}

impl TryFrom<v1::PeerFrame> for PeerFrame {
    type Error = WireError;
    fn try_from(message: v1::PeerFrame) -> Result<Self, WireError> {
        use v1::peer_frame::Frame;
        Ok(match message.frame {
            None => Self::Alive,
            Some(Frame::Hello(hello)) => Self::Hello(PeerHello {
                protocol: hello.protocol,
                oldest: hello.oldest_protocol,
                version: hello.version,
                tells_works: hello.tells_works,
            }),
            Some(Frame::Facts(part)) => Self::Facts(FactsPart {
                network: Fields("PeerFacts").parse("network", &part.network)?,
                edition: Edition::said("PeerFacts", part.incarnation, part.revision)?,
                base: Some(part.base).filter(|base| *base > 0),
                workloads: part.workloads,
                gone: part.gone,
                last: part.last,
            }),
            Some(Frame::Held(held)) => Self::Held(held.try_into()?),
            Some(Frame::Digest(digest)) => {
                let held = digest.held.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
                Self::Digest { held, last: digest.last }
            }
            Some(Frame::Hint(hint)) => {
                let nodes = hint.nodes.iter().map(|name| Fields("PeerHint").parse("nodes", name));
                Self::Hint(nodes.collect::<Result<_, _>>()?)
            }
            Some(Frame::Ask(ask)) => Self::Ask(ask.token),
            Some(Frame::Row(row)) => Self::Row { token: row.token, cells: all(row.cells)?, last: row.last },
            Some(Frame::Places(told)) => {
                let places = told.places.into_iter().map(TryInto::try_into);
                Self::Places(places.collect::<Result<_, _>>()?)
            }
            Some(Frame::Works(works)) => Self::Works(
                Fields("PeerWorks").parse("network", &works.network)?,
                Edition::said("PeerWorks", works.incarnation, works.revision)?,
            ),
        })
    }
}

impl From<&HeldFacts> for v1::PeerHeld {
    fn from(held: &HeldFacts) -> Self {
        Self {
            network: held.network.to_string(),
            incarnation: held.edition.incarnation,
            revision: held.edition.revision,
            digest: held.digest,
        }
    }
}

impl TryFrom<v1::PeerHeld> for HeldFacts {
    type Error = WireError;
    fn try_from(message: v1::PeerHeld) -> Result<Self, WireError> {
        Ok(Self {
            network: Fields("PeerHeld").parse("network", &message.network)?,
            edition: Edition { incarnation: message.incarnation, revision: message.revision },
            digest: message.digest,
        })
    }
}

#[cfg(test)]
mod tests;
