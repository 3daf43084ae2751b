//! Words of hosts about their underlay addresses.

use std::collections::BTreeMap;

use super::Edition;
use crate::types::{NodeName, UnderlayAddrs};
use crate::wire::{Fields, WireError, v1};

/// A host's word about where it is: of two, the one of the greater edition is newer.
///
/// The edition is that of the moment at which the host came there: an agent that starts again at the same addresses says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whereabouts {
    /// Underlay addresses of the host.
    pub underlay: UnderlayAddrs,
    /// Age of the word.
    pub edition: Edition,
}

/// Whereabouts of hosts by their names.
pub type HostPlaces = BTreeMap<NodeName, Whereabouts>;

impl TryFrom<v1::PeerPlace> for (NodeName, Whereabouts) {
    type Error = WireError;
    fn try_from(message: v1::PeerPlace) -> Result<Self, WireError> {
        let at = Fields("PeerPlace");
        let underlay = UnderlayAddrs::of_wire(&message.underlay, &message.underlay_other)
            .map_err(|error| at.invalid("underlay", &error))?;
        let edition = Edition::said("PeerPlace", message.incarnation, message.revision)?;
        Ok((at.parse("node", &message.node)?, Whereabouts { underlay, edition }))
    }
}

impl From<(&NodeName, &Whereabouts)> for v1::PeerPlace {
    fn from((node, place): (&NodeName, &Whereabouts)) -> Self {
        let (underlay, underlay_other) = place.underlay.to_wire();
        let Edition { incarnation, revision } = place.edition;
        Self { node: node.to_string(), underlay, underlay_other, incarnation, revision }
    }
}
