//! Deltas: the way from one generation of a network to a later one, as long as what has changed on it. Pure.
//!
//! A delta says of everything that has changed how it is at the later generation. So one that leads from 3 to 9 leads from
//! 5 to 9 as well, and of two that follow each other the second one's words stand.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use sealane_base::shared_list::SharedList;

use super::change::difference;
use super::snapshot::{editions, serial};
use super::{
    Block, Digest, Edition, Network, NetworkContent, NetworkSnapshot, Node, Route, RouteId, Row, Rows,
    Service, Voucher, Workload,
};
use crate::identity::SerialPrefix;
use crate::types::{Generation, NetworkName, NodeName, ServiceName, WorkloadName};
use crate::wire::{Fields, WireError, all, texts, v1};

/// The way of a network from one generation to a later one of the same epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkDelta {
    /// The network.
    pub name: NetworkName,
    /// The revision that it leads from; it leads from those between as well.
    pub from: u64,
    /// The generation that it leads to.
    pub to: Generation,
    /// The network's own record, if that has changed.
    pub network: Option<Network>,
    /// Changed hosts.
    pub nodes: Difference<NodeName, Node>,
    /// Changed blocks.
    pub blocks: Difference<Ipv4Net, Block>,
    /// Changed services.
    pub services: Difference<ServiceName, Service>,
    /// Changed workloads.
    pub workloads: Difference<WorkloadName, Workload>,
    /// Certificates that are accepted no more, or again.
    pub revoked: Difference<SerialPrefix, SerialPrefix>,
    /// Hosts that are drained, or not any more.
    pub drained: Difference<NodeName, NodeName>,
    /// Newer words of hosts that control has heard.
    pub reported: Difference<NodeName, Edition>,
    /// Hosts that answer no echoes, or do now.
    pub mute: Difference<NodeName, NodeName>,
    /// Newer words of hosts about their underlay addresses.
    pub placed: Difference<NodeName, Edition>,
    /// Changed routes.
    pub routes: Difference<RouteId, Route>,
    /// Sizes of the state that it leads to.
    pub totals: Totals,
    /// Control's word for the state that it leads to; `None` from a control plane that gives none.
    pub voucher: Option<Voucher>,
}

/// Numbers of what is in a state: who has come to another one has lost its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Number of hosts.
    pub nodes: usize,
    /// Number of blocks.
    pub blocks: usize,
    /// Number of services.
    pub services: usize,
    /// Number of workloads.
    pub workloads: usize,
}

/// Items of one kind that are new or other than they were, and the names of those that are no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference<N, T>(BTreeMap<N, Option<T>>);

/// A delta that does not lead from a state: it begins later, or ends where it should not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what control tells of the network does not follow from what this host knows")]
pub struct Astray;

impl<N, T> Default for Difference<N, T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<N: Ord + Clone, T: Clone> Difference<N, T> {
    /// Sets what is under a name: the item, or nothing.
    pub fn set(&mut self, name: N, item: Option<T>) {
        self.0.insert(name, item);
    }

    /// The difference of two lists that are sorted by name.
    pub fn between(before: &[T], after: &[T], name: impl Fn(&T) -> &N) -> Self
    where
        T: PartialEq,
    {
        let (news, gone) = difference(before, after, &name);
        let news = news.into_iter().map(|item| (name(&item).clone(), Some(item)));
        Self(news.chain(gone.into_iter().map(|name| (name, None))).collect())
    }

    /// The difference of two maps.
    #[must_use]
    pub fn of_maps(before: &BTreeMap<N, T>, after: &BTreeMap<N, T>) -> Self
    where
        T: PartialEq,
    {
        let news = after.iter().filter(|&(name, item)| before.get(name) != Some(item));
        let news = news.map(|(name, item)| (name.clone(), Some(item.clone())));
        let gone = before.keys().filter(|name| !after.contains_key(*name));
        Self(news.chain(gone.map(|name| (name.clone(), None))).collect())
    }

    /// Adds a later difference, whose words stand.
    pub fn extend(&mut self, later: &Self) {
        self.0.extend(later.0.iter().map(|(name, item)| (name.clone(), item.clone())));
    }

    /// Returns the number of names in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns true if nothing has changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The items that are new or other than they were.
    pub fn news(&self) -> impl Iterator<Item = &T> {
        self.0.values().flatten()
    }

    /// The names of what is no more.
    pub fn gone(&self) -> impl Iterator<Item = &N> {
        self.0.iter().filter(|(_, item)| item.is_none()).map(|(name, _)| name)
    }

    /// Makes the change in a list that is sorted by name.
    pub fn apply(&self, list: &mut Vec<T>, name: impl Fn(&T) -> &N) {
        let mut moved = BTreeMap::new();
        for (at, item) in &self.0 {
            match (list.binary_search_by(|known| name(known).cmp(at)), item) {
                (Ok(place), Some(item)) => list[place] = item.clone(),
                (Err(_), None) => {}
                (Ok(_), None) | (Err(_), Some(_)) => drop(moved.insert(at, item)),
            }
        }
        if moved.is_empty() {
            return;
        }
        list.retain(|known| !moved.contains_key(name(known)));
        let mut news = moved.into_values().flatten().peekable();
        let mut merged = Vec::with_capacity(list.len() + news.size_hint().1.unwrap_or_default());
        for known in list.drain(..) {
            while let Some(first) = news.next_if(|item| name(item) < name(&known)) {
                merged.push(first.clone());
            }
            merged.push(known);
        }
        merged.extend(news.cloned());
        *list = merged;
    }

    /// Makes the change in a list that is sorted by name and shares with its copies: what is not touched stays shared.
    pub fn apply_to_list(&self, list: &mut SharedList<T>, name: impl Fn(&T) -> &N) {
        for (at, item) in &self.0 {
            list.set_by(|known| name(known).cmp(at), item.clone());
        }
    }

    /// Makes the change in a map.
    pub fn apply_to_map(&self, map: &mut BTreeMap<N, T>) {
        for (name, item) in &self.0 {
            match item {
                Some(item) => map.insert(name.clone(), item.clone()),
                None => map.remove(name),
            };
        }
    }
}

impl NetworkDelta {
    /// A way on which nothing changes.
    #[must_use]
    pub fn new(name: NetworkName, from: u64, to: Generation, totals: Totals) -> Self {
        Self {
            name,
            from,
            to,
            network: None,
            nodes: Difference::default(),
            blocks: Difference::default(),
            services: Difference::default(),
            workloads: Difference::default(),
            revoked: Difference::default(),
            drained: Difference::default(),
            reported: Difference::default(),
            mute: Difference::default(),
            placed: Difference::default(),
            routes: Difference::default(),
            totals,
            voucher: None,
        }
    }

    /// Adds the delta that follows.
    pub fn extend(&mut self, later: &Self) {
        (self.to, self.totals, self.voucher) = (later.to, later.totals, later.voucher);
        if let Some(network) = &later.network {
            self.network = Some(network.clone());
        }
        self.nodes.extend(&later.nodes);
        self.blocks.extend(&later.blocks);
        self.services.extend(&later.services);
        self.workloads.extend(&later.workloads);
        self.revoked.extend(&later.revoked);
        self.drained.extend(&later.drained);
        self.reported.extend(&later.reported);
        self.mute.extend(&later.mute);
        self.placed.extend(&later.placed);
        self.routes.extend(&later.routes);
    }

    /// Returns the number of changes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is asked how long it is")]
    pub fn len(&self) -> usize {
        let own = usize::from(self.network.is_some());
        let hosts = self.nodes.len() + self.blocks.len() + self.revoked.len() + self.drained.len();
        let words = self.reported.len() + self.mute.len() + self.placed.len();
        own + hosts + words + self.services.len() + self.workloads.len() + self.routes.len()
    }

    /// Returns true if it leads on from a generation.
    #[must_use]
    pub fn leads_from(&self, known: Generation) -> bool {
        known.epoch == self.to.epoch && (self.from..=self.to.revision).contains(&known.revision)
    }

    /// Returns the state that it leads to.
    ///
    /// # Errors
    /// When it does not lead on from `before`, or to something else.
    pub fn applied(&self, before: &NetworkSnapshot) -> Result<NetworkSnapshot, Astray> {
        let tells = before.reported.is_some() && before.mute.is_some() && before.placed.is_some();
        if !tells || before.network.name != self.name || !self.leads_from(before.generation) {
            return Err(Astray);
        }
        let known = before.voucher.filter(|_| self.voucher.is_some());
        let digest = known.map(|known| self.turned(known.digest, &before.content));
        if digest.is_some() && digest != self.voucher.map(|voucher| voucher.digest) {
            return Err(Astray);
        }
        let mut after = before.clone();
        (after.generation, after.voucher) = (self.to, self.voucher.filter(|_| digest.is_some()));
        self.change(&mut after.content);
        if Totals::of(&after.content) == self.totals { Ok(after) } else { Err(Astray) }
    }

    /// The digest of the state that it leads to, from that of the one before.
    #[must_use]
    pub fn turned(&self, mut digest: Digest, before: &impl Rows) -> Digest {
        if let Some(network) = &self.network {
            digest.exchange(Some(Row::Network(before.network())), Some(Row::Network(network)));
        }
        let mut turn = |before: Option<Row<'_>>, after: Option<Row<'_>>| digest.exchange(before, after);
        for (name, node) in &self.nodes.0 {
            turn(before.node(name).map(Row::Node), node.as_ref().map(Row::Node));
        }
        for (range, block) in &self.blocks.0 {
            turn(before.block(range).map(Row::Block), block.as_ref().map(Row::Block));
        }
        for (name, service) in &self.services.0 {
            turn(before.service(name).map(Row::Service), service.as_ref().map(Row::Service));
        }
        for (name, workload) in &self.workloads.0 {
            turn(before.workload(name).map(Row::Workload), workload.as_ref().map(Row::Workload));
        }
        for (serial, revoked) in &self.revoked.0 {
            turn(before.revoked(serial).map(Row::Revoked), revoked.as_ref().map(Row::Revoked));
        }
        for (name, drained) in &self.drained.0 {
            turn(before.drained(name).map(Row::Drained), drained.as_ref().map(Row::Drained));
        }
        for (name, mute) in &self.mute.0 {
            turn(before.mute(name).map(Row::Mute), mute.as_ref().map(Row::Mute));
        }
        for (node, word) in &self.reported.0 {
            let row = |word| Row::Reported(node, word);
            turn(before.reported(node).map(row), word.as_ref().map(row));
        }
        for (node, word) in &self.placed.0 {
            let row = |word| Row::Placed(node, word);
            turn(before.placed(node).map(row), word.as_ref().map(row));
        }
        for (id, route) in &self.routes.0 {
            turn(before.route(id).map(Row::Route), route.as_ref().map(Row::Route));
        }
        digest
    }

    fn change(&self, content: &mut NetworkContent) {
        if let Some(network) = &self.network {
            content.network = network.clone();
        }
        self.nodes.apply(&mut content.nodes, |node| &node.name);
        self.blocks.apply(&mut content.blocks, |block| &block.range);
        self.services.apply_to_list(&mut content.services, |service| &service.name);
        self.workloads.apply_to_list(&mut content.workloads, |workload| &workload.name);
        self.revoked.apply(&mut content.revoked, |serial| serial);
        self.drained.apply(&mut content.drained, |node| node);
        self.routes.apply_to_list(&mut content.routes, |route| &route.id);
        if let Some(reported) = &mut content.reported {
            self.reported.apply_to_map(reported);
        }
        if let Some(mute) = &mut content.mute {
            self.mute.apply(mute, |node| node);
        }
        if let Some(placed) = &mut content.placed {
            self.placed.apply_to_map(placed);
        }
    }
}

impl Totals {
    /// Counts what is in a state.
    #[must_use]
    pub fn of(content: &NetworkContent) -> Self {
        let NetworkContent { nodes, blocks, services, workloads, .. } = content;
        Self {
            nodes: nodes.len(),
            blocks: blocks.len(),
            services: services.len(),
            workloads: workloads.len(),
        }
    }
}

/// Joins what is new with the names of what is gone.
fn joined<N: Ord + Clone, T>(news: Vec<T>, gone: Vec<N>, name: impl Fn(&T) -> N) -> Difference<N, T> {
    let gone = gone.into_iter().map(|name| (name, None));
    Difference(gone.chain(news.into_iter().map(|item| (name(&item), Some(item)))).collect())
}

fn serials(at: &Fields, octets: &[Vec<u8>]) -> Result<Vec<SerialPrefix>, WireError> {
    octets.iter().map(|octets| serial(at, octets)).collect()
}

impl TryFrom<v1::NetworkDelta> for NetworkDelta {
    type Error = WireError;
    fn try_from(message: v1::NetworkDelta) -> Result<Self, WireError> {
        let at = Fields("NetworkDelta");
        let news = at.required("news", message.news)?;
        let words = |told, gone: &[String]| -> Result<Difference<NodeName, Edition>, WireError> {
            let mut words = Difference::default();
            editions(told)?.into_iter().for_each(|(node, edition)| words.set(node, Some(edition)));
            at.names::<NodeName, Vec<_>>("words_gone", gone)?
                .into_iter()
                .for_each(|node| words.set(node, None));
            Ok(words)
        };
        let drained = at.names("drained", &news.drained)?;
        let mute = at.names("mute", &news.mute)?;
        Ok(Self {
            name: at.parse("network", &message.network)?,
            from: message.from,
            to: at.required("news.generation", news.generation)?.into(),
            network: news.network.map(TryInto::try_into).transpose()?,
            nodes: joined(all(news.nodes)?, at.names("nodes_gone", &message.nodes_gone)?, |node: &Node| {
                node.name.clone()
            }),
            blocks: joined(
                all(news.blocks)?,
                at.names("blocks_gone", &message.blocks_gone)?,
                |block: &Block| block.range,
            ),
            services: joined(
                all(news.services)?,
                at.names("services_gone", &message.services_gone)?,
                |service: &Service| service.name.clone(),
            ),
            workloads: joined(
                all(news.workloads)?,
                at.names("workloads_gone", &message.workloads_gone)?,
                |workload: &Workload| workload.name.clone(),
            ),
            revoked: joined(
                serials(&at, &news.revoked_serials)?,
                serials(&at, &message.revoked_serials_gone)?,
                |serial| *serial,
            ),
            drained: joined(drained, at.names("drained_gone", &message.drained_gone)?, NodeName::clone),
            reported: words(news.reported, &message.reported_gone)?,
            mute: joined(mute, at.names("mute_gone", &message.mute_gone)?, NodeName::clone),
            placed: words(news.placed, &message.placed_gone)?,
            routes: joined(
                all(news.routes)?,
                at.names("routes_gone", &message.routes_gone)?,
                |route: &Route| route.id.clone(),
            ),
            totals: message.totals.unwrap_or_default().into(),
            voucher: news.voucher.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<&NetworkDelta> for v1::NetworkDelta {
    fn from(delta: &NetworkDelta) -> Self {
        let news = v1::NetworkState {
            generation: Some(delta.to.into()),
            network: delta.network.as_ref().map(Into::into),
            nodes: delta.nodes.news().map(Into::into).collect(),
            blocks: delta.blocks.news().map(Into::into).collect(),
            services: delta.services.news().map(Into::into).collect(),
            workloads: delta.workloads.news().map(Into::into).collect(),
            revoked_serials: delta.revoked.news().map(|serial| serial.to_bytes().to_vec()).collect(),
            drained: texts(delta.drained.news()),
            reported: words(&delta.reported),
            tells_reported: true,
            mute: texts(delta.mute.news()),
            tells_mute: true,
            placed: words(&delta.placed),
            tells_placed: true,
            voucher: delta.voucher.map(Into::into),
            routes: delta.routes.news().map(Into::into).collect(),
        };
        Self {
            network: delta.name.to_string(),
            from: delta.from,
            news: Some(news),
            nodes_gone: texts(delta.nodes.gone()),
            blocks_gone: texts(delta.blocks.gone()),
            services_gone: texts(delta.services.gone()),
            workloads_gone: texts(delta.workloads.gone()),
            revoked_serials_gone: delta.revoked.gone().map(|serial| serial.to_bytes().to_vec()).collect(),
            drained_gone: texts(delta.drained.gone()),
            reported_gone: texts(delta.reported.gone()),
            mute_gone: texts(delta.mute.gone()),
            placed_gone: texts(delta.placed.gone()),
            totals: Some(delta.totals.into()),
            routes_gone: texts(delta.routes.gone()),
        }
    }
}

fn words(words: &Difference<NodeName, Edition>) -> Vec<v1::OwnerEdition> {
    words.0.iter().filter_map(|(node, edition)| Some((node, edition.as_ref()?).into())).collect()
}

impl From<v1::Totals> for Totals {
    fn from(totals: v1::Totals) -> Self {
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Self {
            nodes: count(totals.nodes),
            blocks: count(totals.blocks),
            services: count(totals.services),
            workloads: count(totals.workloads),
        }
    }
}

impl From<Totals> for v1::Totals {
    fn from(totals: Totals) -> Self {
        let count = |number: usize| number as u64;
        Self {
            nodes: count(totals.nodes),
            blocks: count(totals.blocks),
            services: count(totals.services),
            workloads: count(totals.workloads),
        }
    }
}
