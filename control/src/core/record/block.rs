//! Blocks of addresses, and who holds them.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use sealane_proto::resource::Block;
use sealane_proto::types::{NetworkName, NodeName};
use sealane_proto::wire::v1;

use super::{Record, RowError, fault};
use crate::core::table::{Index, remove_from};

/// The blocks of each holder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockIndex {
    hosts: BTreeMap<NodeName, BTreeSet<Ipv4Net>>,
    /// Control's own, for service addresses.
    own: BTreeSet<Ipv4Net>,
}

impl BlockIndex {
    /// Returns true if a host holds blocks.
    #[must_use]
    pub fn has(&self, node: &NodeName) -> bool {
        self.hosts.contains_key(node)
    }

    /// The hosts that hold blocks, sorted.
    pub fn hosts(&self) -> impl Iterator<Item = &NodeName> {
        self.hosts.keys()
    }

    /// The blocks of a host, sorted.
    pub fn of(&self, node: &NodeName) -> impl Iterator<Item = Ipv4Net> + use<'_> {
        self.hosts.get(node).into_iter().flatten().copied()
    }

    /// The blocks of service addresses, sorted.
    pub fn own(&self) -> impl DoubleEndedIterator<Item = Ipv4Net> + use<'_> {
        self.own.iter().copied()
    }
}

impl Record for Block {
    type Home = NetworkName;
    type Name = Ipv4Net;
    type Index = BlockIndex;
    type Row = v1::Block;
    const TABLE: &'static str = "blocks";

    fn name(&self) -> Ipv4Net {
        self.range
    }

    fn read(_: &str, row: v1::Block) -> Result<Self, RowError> {
        row.try_into().map_err(fault)
    }
}

impl Index<Block> for BlockIndex {
    fn enter(&mut self, block: &Block) {
        match &block.node {
            Some(node) => self.hosts.entry(node.clone()).or_default().insert(block.range),
            None => self.own.insert(block.range),
        };
    }

    fn leave(&mut self, block: &Block) {
        match &block.node {
            Some(node) => remove_from(&mut self.hosts, node, &block.range),
            None => drop(self.own.remove(&block.range)),
        }
    }
}
