//! Blocks of addresses.

use ipnet::Ipv4Net;

use crate::types::NodeName;
use crate::wire::{Fields, WireError, text, v1};

/// Addresses of a network that one host assigns without asking; for services, control itself holds such blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The host that may assign from it; `None` for the block of service addresses.
    pub node: Option<NodeName>,
    /// The addresses.
    pub range: Ipv4Net,
}

impl TryFrom<v1::Block> for Block {
    type Error = WireError;
    fn try_from(message: v1::Block) -> Result<Self, WireError> {
        let at = Fields("Block");
        Ok(Self { node: at.parse_option("node", &message.node)?, range: at.parse("range", &message.range)? })
    }
}

impl From<&Block> for v1::Block {
    fn from(block: &Block) -> Self {
        Self { node: text(&block.node), range: block.range.to_string() }
    }
}
