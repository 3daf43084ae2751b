//! The state of one network.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use ipnet::Ipv4Net;
use sealane_base::shared_list::SharedList;

use super::{Block, Digest, Edition, Network, Node, Route, Service, Voucher, Workload};
use crate::identity::{SerialPrefix, SerialPrefixError};
use crate::types::{Generation, Mtls, NodeName, ServicePort};
use crate::wire::{Fields, WireError, all, each, texts, v1};

/// Everything that concerns one network at one generation. Immutable; published whole, and only if its content is another
/// than before. It reads as its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSnapshot {
    /// Position in the store's history.
    pub generation: Generation,
    /// All that it says.
    pub content: NetworkContent,
    /// Control's word for it, with the content's digest; `None` from a control plane that gives none, or reads contents otherwise.
    pub voucher: Option<Voucher>,
}

/// Everything that concerns one network, whenever that was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkContent {
    /// The network itself.
    pub network: Network,
    /// The hosts that carry the network, sorted by name.
    pub nodes: Vec<Node>,
    /// The leased blocks, sorted by range.
    pub blocks: Vec<Block>,
    /// The services, sorted by name.
    pub services: SharedList<Service>,
    /// The workloads, sorted by name.
    pub workloads: SharedList<Workload>,
    /// The certificates that nobody accepts any more: those of removed hosts, sorted.
    pub revoked: Vec<SerialPrefix>,
    /// The hosts whose services' instances get no new calls, sorted. Other hosts see these as not ready.
    pub drained: Vec<NodeName>,
    /// The newest of each host's words that control had heard, which is in `workloads`; `None` from a control plane that does not
    /// say, and to whoever needs not know.
    pub reported: Option<BTreeMap<NodeName, Edition>>,
    /// The hosts that do not answer echoes, sorted: their agents are of versions without; `None` from a control plane that does not
    /// say.
    pub mute: Option<Vec<NodeName>>,
    /// The newest of each host's words about its underlay addresses that control had heard, which is in `nodes` unless another host
    /// has come there; `None` from a control plane that does not say, and to whoever needs not know.
    pub placed: Option<BTreeMap<NodeName, Edition>>,
    /// The routes, sorted by kind and name.
    pub routes: SharedList<Route>,
}

impl NetworkSnapshot {
    /// A state that nobody vouches for.
    #[must_use]
    pub fn new(generation: Generation, content: NetworkContent) -> Self {
        Self { generation, content, voucher: None }
    }

    /// Returns true if it takes the place of `known`: its generation does, or control says at the same one that the network is otherwise.
    #[must_use]
    pub fn replaces(&self, known: &Self) -> bool {
        let digests = self.voucher.zip(known.voucher).map(|(own, known)| (own.digest, known.digest));
        let corrects =
            self.generation == known.generation && digests.is_some_and(|(own, known)| own != known);
        self.generation.replaces(known.generation) || corrects
    }

    /// The same without its voucher if that is of another digest than the content's: control may be of another version, and say what
    /// this one does not read.
    #[must_use]
    pub fn checked(mut self) -> Self {
        self.voucher = self.voucher.filter(|voucher| voucher.digest == Digest::of(&self.content));
        self
    }
}

impl Deref for NetworkSnapshot {
    type Target = NetworkContent;

    fn deref(&self) -> &NetworkContent {
        &self.content
    }
}

impl DerefMut for NetworkSnapshot {
    fn deref_mut(&mut self) -> &mut NetworkContent {
        &mut self.content
    }
}

impl From<Network> for NetworkContent {
    /// The network with nothing in it.
    fn from(network: Network) -> Self {
        Self {
            network,
            nodes: vec![],
            blocks: vec![],
            services: SharedList::default(),
            workloads: SharedList::default(),
            revoked: vec![],
            drained: vec![],
            reported: None,
            mute: None,
            placed: None,
            routes: SharedList::default(),
        }
    }
}

impl NetworkContent {
    /// Returns the callers that a workload's ports accept unless they say otherwise: as its service says, or its
    /// network.
    #[must_use]
    pub fn mtls_of(&self, workload: &Workload) -> Mtls {
        self.service_of(workload).map_or(self.network.mtls(), |service| service.mtls_in(&self.network))
    }

    /// The ports that a workload offers, each with the mode that is in effect there.
    pub fn offered<'a>(&'a self, workload: &'a Workload) -> impl Iterator<Item = ServicePort> + 'a {
        let service = self.service_of(workload);
        let mode = move |port: &ServicePort| match service {
            Some(service) => service.port_mtls_in(&self.network, port.key()),
            None => self.network.mtls(),
        };
        workload.ports.iter().map(move |port| ServicePort { mtls: Some(mode(port)), ..port.clone() })
    }

    /// The blocks of a host, sorted.
    pub fn own_blocks<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = Ipv4Net> + 'a {
        self.blocks.iter().filter(move |block| block.node.as_ref() == Some(node)).map(|block| block.range)
    }

    /// Returns true if no more than a quarter of the network's addresses is in nobody's blocks.
    #[must_use]
    pub fn is_short(&self) -> bool {
        let size = |range: Ipv4Net| 1_u64 << (32 - range.prefix_len());
        let all = size(self.network.subnet.to_net());
        let held: u64 = self.blocks.iter().map(|block| size(block.range)).sum();
        all.saturating_sub(held) <= all / 4
    }

    /// Returns true if a host may start the workload without asking control: it is no instance of a service, or of one that is known
    /// and may run there.
    #[must_use]
    pub fn may_start(&self, workload: &Workload, node: &NodeName) -> bool {
        workload.service.is_none()
            || self.service_of(workload).is_some_and(|service| service.hosts.admit(node))
    }

    /// Lets the workloads share the names of their network, hosts and services: read from a message, each has its own.
    fn share_names(&mut self) {
        let Self { network, nodes, services, workloads, .. } = self;
        for workload in workloads.iter_mut() {
            if workload.network == network.name {
                workload.network.clone_from(&network.name);
            }
            if let Ok(at) = nodes.binary_search_by(|node| node.name.cmp(&workload.node)) {
                workload.node.clone_from(&nodes[at].name);
            }
            if let Some(name) = &mut workload.service
                && let Some(service) = services.find_by(|service| service.name.cmp(name))
            {
                name.clone_from(&service.name);
            }
        }
    }

    /// The service that a workload is an instance of.
    #[must_use]
    pub fn service_of(&self, workload: &Workload) -> Option<&Service> {
        let name = workload.service.as_ref()?;
        self.services.find_by(|service| service.name.cmp(name))
    }
}

pub(super) fn serial(at: &Fields, octets: &[u8]) -> Result<SerialPrefix, WireError> {
    octets.try_into().map_err(|error: SerialPrefixError| at.invalid("revoked_serials", &error))
}

/// Reads ages of words. What nobody can have said, an older version has taken: it is no word that others are older than.
pub(super) fn editions(told: Vec<v1::OwnerEdition>) -> Result<BTreeMap<NodeName, Edition>, WireError> {
    let possible = |told: &Result<(NodeName, Edition), WireError>| {
        told.as_ref().map_or(true, |(_, edition)| edition.is_possible())
    };
    told.into_iter().map(TryInto::try_into).filter(possible).collect()
}

impl TryFrom<v1::NetworkState> for NetworkSnapshot {
    type Error = WireError;
    fn try_from(message: v1::NetworkState) -> Result<Self, WireError> {
        let at = Fields("NetworkState");
        let serials = message.revoked_serials.iter().map(|octets| serial(&at, octets));
        let (reported, placed) = (editions(message.reported), editions(message.placed));
        let (mut services, mut workloads): (Vec<Service>, Vec<Workload>) =
            (all(message.services)?, all(message.workloads)?);
        let mut routes: Vec<Route> = all(message.routes)?;
        routes.sort_by(|one, other| one.id.cmp(&other.id));
        services.sort_by(|one, other| one.name.cmp(&other.name));
        workloads.sort_by(|one, other| one.name.cmp(&other.name));
        let mut snapshot = Self {
            generation: at.required("generation", message.generation)?.into(),
            content: NetworkContent {
                network: at.required("network", message.network)?.try_into()?,
                nodes: all(message.nodes)?,
                blocks: all(message.blocks)?,
                services: services.into(),
                workloads: workloads.into(),
                revoked: serials.collect::<Result<_, _>>()?,
                drained: at.names("drained", &message.drained)?,
                reported: message.tells_reported.then_some(reported).transpose()?,
                mute: message.tells_mute.then(|| at.names("mute", &message.mute)).transpose()?,
                placed: message.tells_placed.then_some(placed).transpose()?,
                routes: routes.into(),
            },
            voucher: message.voucher.map(TryInto::try_into).transpose()?,
        };
        snapshot.content.share_names();
        Ok(snapshot)
    }
}

impl From<&NetworkSnapshot> for v1::NetworkState {
    fn from(NetworkSnapshot { generation, content, voucher }: &NetworkSnapshot) -> Self {
        let NetworkContent { network, nodes, blocks, services, workloads, .. } = content;
        let NetworkContent { revoked, drained, reported, mute, placed, routes, .. } = content;
        Self {
            generation: Some((*generation).into()),
            network: Some(network.into()),
            nodes: each(nodes),
            blocks: each(blocks),
            services: each(services),
            workloads: each(workloads),
            revoked_serials: revoked.iter().map(|serial| serial.to_bytes().to_vec()).collect(),
            drained: texts(drained),
            reported: reported.iter().flatten().map(Into::into).collect(),
            tells_reported: reported.is_some(),
            mute: texts(mute.iter().flatten()),
            tells_mute: mute.is_some(),
            placed: placed.iter().flatten().map(Into::into).collect(),
            tells_placed: placed.is_some(),
            voucher: voucher.map(Into::into),
            routes: each(routes),
        }
    }
}
