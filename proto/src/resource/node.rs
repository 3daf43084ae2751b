//! Hosts.

use crate::types::{Mtu, NodeName, UnderlayAddr};
use crate::wire::{Fields, WireError, v1};

/// A host of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name, unique in the mesh.
    pub name: NodeName,
    /// Destination address of its VXLAN packets.
    pub underlay: UnderlayAddr,
    /// Largest packet that its ways to the other hosts allow inside a tunnel, as far as that is known.
    pub mtu: Option<Mtu>,
}

impl TryFrom<v1::Node> for Node {
    type Error = WireError;
    fn try_from(message: v1::Node) -> Result<Self, WireError> {
        let at = Fields("Node");
        Ok(Self {
            name: at.parse("name", &message.name)?,
            underlay: at.parse("underlay", &message.underlay)?,
            // What is no sensible one says as much as none.
            mtu: Mtu::try_from(message.mtu).ok(),
        })
    }
}

impl From<&Node> for v1::Node {
    fn from(node: &Node) -> Self {
        let mtu = node.mtu.map_or(0, Into::into);
        Self { name: node.name.to_string(), underlay: node.underlay.to_string(), mtu }
    }
}
