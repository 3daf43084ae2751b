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

impl Block {
    /// The number of addresses in it.
    #[must_use]
    pub fn size(&self) -> usize {
        1 << (32 - self.range.prefix_len())
    }

    /// The ranges that are left of this block's when `part` of it goes; all of it, if that is no part of it.
    #[must_use]
    pub fn without(&self, part: Ipv4Net) -> Vec<Ipv4Net> {
        let mut left = vec![];
        let mut rest = self.range;
        if !rest.contains(&part) {
            return vec![rest];
        }
        while rest.prefix_len() < part.prefix_len() {
            let Some(half) = Ipv4Net::new(rest.network(), rest.prefix_len() + 1).ok() else { break };
            let other_bits = half.broadcast().to_bits() + 1;
            let Some(other) = Ipv4Net::new(other_bits.into(), half.prefix_len()).ok() else { break };
            let (on, off) = if half.contains(&part) { (half, other) } else { (other, half) };
            left.push(off);
            rest = on;
        }
        left.sort_unstable();
        left
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_block_are_the_ranges_around_the_part_that_goes() {
        let block = Block { node: None, range: "10.42.0.0/28".parse().unwrap() };
        for (part, left) in [
            ("10.42.0.0/28", &[] as &[&str]),
            ("10.42.0.0/29", &["10.42.0.8/29"]),
            ("10.42.0.12/30", &["10.42.0.0/29", "10.42.0.8/30"]),
            ("10.42.0.5/32", &["10.42.0.0/30", "10.42.0.4/32", "10.42.0.6/31", "10.42.0.8/29"]),
            ("10.42.0.16/30", &["10.42.0.0/28"]),
            ("10.42.0.0/27", &["10.42.0.0/28"]),
        ] {
            let found: Vec<String> =
                block.without(part.parse().unwrap()).iter().map(ToString::to_string).collect();
            assert_eq!(found, left, "{part}");
        }
    }
}
