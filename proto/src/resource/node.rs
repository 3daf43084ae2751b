//! Hosts.

use crate::types::{Mtu, NodeName, UnderlayAddrs};
use crate::wire::{Fields, WireError, v1};

/// A host of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name, unique in the mesh.
    pub name: NodeName,
    /// Destination addresses of its VXLAN packets.
    pub underlay: UnderlayAddrs,
    /// Largest packet that its ways to the other hosts allow inside a tunnel, as far as that is known.
    pub mtu: Option<Mtu>,
}

impl TryFrom<v1::Node> for Node {
    type Error = WireError;
    fn try_from(message: v1::Node) -> Result<Self, WireError> {
        let at = Fields("Node");
        Ok(Self {
            name: at.parse("name", &message.name)?,
            underlay: UnderlayAddrs::of_wire(&message.underlay, &message.underlay_other)
                .map_err(|error| at.invalid("underlay", &error))?,
            // What is no sensible one says as much as none.
            mtu: Mtu::try_from(message.mtu).ok(),
        })
    }
}

impl From<&Node> for v1::Node {
    fn from(node: &Node) -> Self {
        let mtu = node.mtu.map_or(0, Into::into);
        let (underlay, underlay_other) = node.underlay.to_wire();
        Self { name: node.name.to_string(), underlay, mtu, underlay_other }
    }
}
