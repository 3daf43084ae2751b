//! A host as another one sees it: a cell of the matrix that `sealane check --peers` prints.

use std::time::Duration;

use crate::types::{Finding, NodeName};
use crate::wire::{Fields, WireError, v1};

/// Reachability of a host, as another one sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// The host has never answered: its agent may be older than echoes. It counts as reachable.
    #[default]
    Unknown,
    /// The host answers.
    Reachable,
    /// The host owes an answer. It counts as reachable.
    Suspect,
    /// The host does not answer.
    Unreachable,
}

impl Reach {
    /// Every reachability.
    pub const ALL: [Self; 4] = [Self::Unknown, Self::Reachable, Self::Suspect, Self::Unreachable];

    /// The word for people, messages and metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Reachable => "reachable",
            Self::Suspect => "suspect",
            Self::Unreachable => "unreachable",
        }
    }

    /// The word in a cell, which is empty for what is not known.
    fn cell_word(self) -> &'static str {
        if self == Self::Unknown { "" } else { self.word() }
    }

    fn of(word: &str) -> Self {
        Self::ALL.into_iter().find(|one| one.cell_word() == word).unwrap_or_default()
    }
}

/// A host as another one sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCell {
    /// The host that is seen.
    pub node: NodeName,
    /// Reachability of the host.
    pub reach: Reach,
    /// Time of an echo to it and back.
    pub round_trip: Option<Duration>,
    /// The share of the last echoes that got no answer, in a thousand.
    pub loss_permille: Option<u32>,
    /// The longest packets that pass, in bytes with the outer headers, as far as that was looked for.
    pub path_mtu: Option<u32>,
    /// True if long packets are lost on the way, and short ones are not.
    pub loses_long: bool,
    /// True if packets are lost on the way whose checksums a device of the observer makes, and others are not.
    pub loses_checksums: bool,
    /// The obstacle to the channel; `None` while that stands.
    pub channel_problem: Option<Finding>,
    /// Echoes of that host that came while its observer looked; `None` when it did not, or that host may not have sent any.
    pub heard: Option<u32>,
}

impl From<&PeerCell> for v1::PeerCell {
    fn from(cell: &PeerCell) -> Self {
        let micros = cell.round_trip.map_or(0, |round_trip| round_trip.as_micros());
        Self {
            node: cell.node.to_string(),
            reach: cell.reach.cell_word().to_owned(),
            rtt_micros: u64::try_from(micros).unwrap_or(u64::MAX),
            loss_permille: cell.loss_permille,
            path_mtu: cell.path_mtu.unwrap_or_default(),
            loses_long: cell.loses_long,
            loses_checksums: cell.loses_checksums,
            channel_problem: cell.channel_problem.as_ref().map(ToString::to_string).unwrap_or_default(),
            heard: cell.heard,
        }
    }
}

impl TryFrom<v1::PeerCell> for PeerCell {
    type Error = WireError;
    fn try_from(message: v1::PeerCell) -> Result<Self, WireError> {
        Ok(Self {
            node: Fields("PeerCell").parse("node", &message.node)?,
            reach: Reach::of(&message.reach),
            round_trip: Some(message.rtt_micros).filter(|&micros| micros > 0).map(Duration::from_micros),
            loss_permille: message.loss_permille.map(|loss| loss.min(1_000)),
            path_mtu: Some(message.path_mtu).filter(|&mtu| mtu > 0),
            loses_long: message.loses_long,
            loses_checksums: message.loses_checksums,
            channel_problem: Some(Finding::new(&message.channel_problem)).filter(|words| !words.is_empty()),
            heard: message.heard,
        })
    }
}
