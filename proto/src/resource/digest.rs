//! Digests of what networks are: equal for equal contents, and kept up at the cost of what changes. Pure.

use ipnet::Ipv4Net;
use prost::Message;
use sha2::{Digest as _, Sha256};

use super::{Block, Edition, Network, NetworkContent, Node, Route, RouteId, Service, Workload};
use crate::identity::SerialPrefix;
use crate::types::{Generation, NetworkName, NodeName, ServiceName, WorkloadName};
use crate::wire::{Fields, WireError, v1};

/// Sum of the hashes of all rows of a network, modulo 2^128: it does not depend on their order, and what changes is taken off and
/// added. Of two that somebody chooses freely it proves nothing; what somebody says is vouched for by a [`Voucher`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(u128);

/// Control's word that a network was so at a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Voucher {
    /// Digest of the network's content.
    pub digest: Digest,
    /// Code over the network, the generation and the digest, by a key that control alone has.
    pub code: [u8; 16],
}

/// Something that a network's state says.
#[derive(Clone, Copy, Debug)]
pub enum Row<'a> {
    /// The network's own record.
    Network(&'a Network),
    /// A host.
    Node(&'a Node),
    /// A block.
    Block(&'a Block),
    /// A service.
    Service(&'a Service),
    /// A workload.
    Workload(&'a Workload),
    /// A certificate that nobody accepts any more.
    Revoked(&'a SerialPrefix),
    /// A host that is drained.
    Drained(&'a NodeName),
    /// The newest word of a host about its workloads.
    Reported(&'a NodeName, &'a Edition),
    /// A host that does not answer echoes.
    Mute(&'a NodeName),
    /// The newest word of a host about its underlay addresses.
    Placed(&'a NodeName, &'a Edition),
    /// A route.
    Route(&'a Route),
}

/// Rows by their names.
pub trait Rows {
    /// The network's own record.
    fn network(&self) -> &Network;
    /// The host of this name.
    fn node(&self, name: &NodeName) -> Option<&Node>;
    /// The block of this range.
    fn block(&self, range: &Ipv4Net) -> Option<&Block>;
    /// The service of this name.
    fn service(&self, name: &ServiceName) -> Option<&Service>;
    /// The workload of this name.
    fn workload(&self, name: &WorkloadName) -> Option<&Workload>;
    /// The certificate, if nobody accepts it any more.
    fn revoked(&self, serial: &SerialPrefix) -> Option<&SerialPrefix>;
    /// The host, if it is drained.
    fn drained(&self, name: &NodeName) -> Option<&NodeName>;
    /// The newest word of a host about its workloads.
    fn reported(&self, name: &NodeName) -> Option<&Edition>;
    /// The host, if it does not answer echoes.
    fn mute(&self, name: &NodeName) -> Option<&NodeName>;
    /// The newest word of a host about its underlay addresses.
    fn placed(&self, name: &NodeName) -> Option<&Edition>;
    /// The route of this name.
    fn route(&self, id: &RouteId) -> Option<&Route>;
}

impl Digest {
    /// Length in octets.
    pub const LENGTH: usize = 16;

    /// Digest of a content.
    #[must_use]
    pub fn of(content: &NetworkContent) -> Self {
        let NetworkContent { network, nodes, blocks, services, workloads, revoked, .. } = content;
        let NetworkContent { drained, reported, mute, placed, routes, .. } = content;
        let mut digest = Self::default();
        let rows = [Row::Network(network)].into_iter();
        let rows = rows.chain(nodes.iter().map(Row::Node)).chain(blocks.iter().map(Row::Block));
        let rows = rows.chain(services.iter().map(Row::Service));
        let rows = rows.chain(workloads.iter().map(Row::Workload));
        let rows = rows.chain(revoked.iter().map(Row::Revoked)).chain(drained.iter().map(Row::Drained));
        let rows = rows.chain(reported.iter().flatten().map(|(node, word)| Row::Reported(node, word)));
        let rows = rows.chain(mute.iter().flatten().map(Row::Mute));
        let rows = rows.chain(placed.iter().flatten().map(|(node, word)| Row::Placed(node, word)));
        let rows = rows.chain(routes.iter().map(Row::Route));
        rows.for_each(|row| digest.exchange(None, Some(row)));
        digest
    }

    /// Takes off what a row was, and adds what it is.
    pub fn exchange(&mut self, before: Option<Row<'_>>, after: Option<Row<'_>>) {
        self.0 = self.0.wrapping_sub(before.map_or(0, Row::hash)).wrapping_add(after.map_or(0, Row::hash));
    }

    /// The digest as octets.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LENGTH] {
        self.0.to_be_bytes()
    }
}

impl Row<'_> {
    /// The first half of the SHA-256 of the kind's number and the row's message.
    fn hash(self) -> u128 {
        let own = |name: &NodeName| name.as_str().as_bytes().to_vec();
        let (kind, octets) = match self {
            Self::Network(network) => (1, v1::Network::from(network).encode_to_vec()),
            Self::Node(node) => (2, v1::Node::from(node).encode_to_vec()),
            Self::Block(block) => (3, v1::Block::from(block).encode_to_vec()),
            Self::Service(service) => (4, v1::Service::from(service).encode_to_vec()),
            Self::Workload(workload) => (5, v1::Workload::from(workload).encode_to_vec()),
            Self::Revoked(serial) => (6, serial.to_bytes().to_vec()),
            Self::Drained(node) => (7, own(node)),
            Self::Reported(node, word) => (8, v1::OwnerEdition::from((node, word)).encode_to_vec()),
            Self::Mute(node) => (9, own(node)),
            Self::Placed(node, word) => (10, v1::OwnerEdition::from((node, word)).encode_to_vec()),
            Self::Route(route) => (11, v1::Route::from(route).encode_to_vec()),
        };
        let hash = Sha256::new().chain_update([kind]).chain_update(octets).finalize();
        hash.iter().take(Digest::LENGTH).fold(0, |sum, octet| sum << 8 | u128::from(*octet))
    }
}

impl Rows for NetworkContent {
    fn network(&self) -> &Network {
        &self.network
    }

    fn node(&self, name: &NodeName) -> Option<&Node> {
        find(&self.nodes, name, |node| &node.name)
    }

    fn block(&self, range: &Ipv4Net) -> Option<&Block> {
        find(&self.blocks, range, |block| &block.range)
    }

    fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services.find_by(|service| service.name.cmp(name))
    }

    fn workload(&self, name: &WorkloadName) -> Option<&Workload> {
        self.workloads.find_by(|workload| workload.name.cmp(name))
    }

    fn revoked(&self, serial: &SerialPrefix) -> Option<&SerialPrefix> {
        find(&self.revoked, serial, |serial| serial)
    }

    fn drained(&self, name: &NodeName) -> Option<&NodeName> {
        find(&self.drained, name, |node| node)
    }

    fn reported(&self, name: &NodeName) -> Option<&Edition> {
        self.reported.as_ref()?.get(name)
    }

    fn mute(&self, name: &NodeName) -> Option<&NodeName> {
        find(self.mute.as_deref()?, name, |node| node)
    }

    fn placed(&self, name: &NodeName) -> Option<&Edition> {
        self.placed.as_ref()?.get(name)
    }

    fn route(&self, id: &RouteId) -> Option<&Route> {
        self.routes.find_by(|route| route.id.cmp(id))
    }
}

/// Finds an item in a list that is sorted by name.
pub fn find<'a, T, N: Ord>(list: &'a [T], name: &N, named: impl Fn(&T) -> &N) -> Option<&'a T> {
    list.binary_search_by(|item| named(item).cmp(name)).ok().and_then(|place| list.get(place))
}

impl Voucher {
    /// The octets that the code of a network's state is over.
    #[must_use]
    pub fn text(network: &NetworkName, generation: Generation, digest: Digest) -> Vec<u8> {
        let Generation { epoch, revision } = generation;
        let mut text = b"sealane network state\0".to_vec();
        text.extend(epoch.to_be_bytes());
        text.extend(revision.to_be_bytes());
        text.extend(digest.to_bytes());
        text.extend(network.as_str().as_bytes());
        text
    }
}

impl From<Voucher> for v1::Voucher {
    fn from(Voucher { digest, code }: Voucher) -> Self {
        Self { digest: digest.to_bytes().to_vec(), code: code.to_vec() }
    }
}

impl TryFrom<v1::Voucher> for Voucher {
    type Error = WireError;
    fn try_from(message: v1::Voucher) -> Result<Self, WireError> {
        let at = Fields("Voucher");
        let octets = |field, octets: &[u8]| -> Result<[u8; 16], WireError> {
            octets.try_into().map_err(|_| at.invalid(field, &format!("{} octets, not 16", octets.len())))
        };
        let digest = Digest(u128::from_be_bytes(octets("digest", &message.digest)?));
        Ok(Self { digest, code: octets("code", &message.code)? })
    }
}
