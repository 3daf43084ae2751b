//! Words of a peer about its workloads, kept from one connection to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr as _;

use prost::Message;
use sealane_proto::peer::{FactsPart, FrameError, HeldFacts, row_digest};
use sealane_proto::resource::{Edition, OwnerFacts, Workload};
use sealane_proto::types::{NetworkName, NodeName, WorkloadName};
use sealane_proto::wire::v1;

use super::Fault;

/// Octets of what one host says that are kept, those of an edition under way included: some 20,000 workloads.
const MOST_OCTETS: usize = 16 << 20;
/// Octets that a row takes beside what is said.
const ROW: usize = 512;
/// Networks of one host that are kept.
pub(super) const MOST_NETWORKS: usize = 4_096;
/// Networks of one host that are kept though this host knows of none of them that both carry it: control tells one of two hosts first.
const MOST_AHEAD: usize = 256;

/// The owner's word, as this host has heard it.
#[derive(Debug)]
pub(crate) struct Heard {
    owner: NodeName,
    networks: BTreeMap<NetworkName, HeardNetwork>,
    /// Networks that both hosts carry: what is said of others is kept for when they do.
    shared: BTreeSet<NetworkName>,
    /// Networks of which there is a newer word than was taken.
    news: BTreeSet<NetworkName>,
    /// Octets in all networks, and in parts under way.
    octets: usize,
    refused: u64,
}

#[derive(Debug, Default)]
struct HeardNetwork {
    edition: Edition,
    digest: u64,
    rows: BTreeMap<String, Row>,
    /// Octets of the rows.
    octets: usize,
    /// Parts of the next edition.
    coming: Option<Coming>,
}

#[derive(Debug)]
struct Row {
    digest: u64,
    /// Octets that it takes.
    octets: usize,
    /// None of a workload that was not accepted.
    workload: Option<Workload>,
}

#[derive(Debug)]
struct Coming {
    edition: Edition,
    base: Option<u64>,
    rows: BTreeMap<String, Row>,
    gone: BTreeSet<String>,
    /// Octets of both.
    octets: usize,
}

impl Coming {
    fn add(&mut self, rows: Vec<(String, Row)>, gone: Vec<String>) {
        for (name, row) in rows {
            self.octets += row.octets;
            let replaced = self.rows.insert(name, row);
            self.octets -= replaced.map_or(0, |row| row.octets);
        }
        for name in gone {
            let octets = ROW + name.len();
            self.octets += if self.gone.insert(name) { octets } else { 0 };
        }
    }
}

impl Heard {
    /// Nothing yet.
    pub(crate) fn of(owner: NodeName) -> Self {
        let (networks, shared, news) = Default::default();
        Self { owner, networks, shared, news, octets: 0, refused: 0 }
    }

    /// A new connection begins: what the last one left half said is forgotten, and what is of no use.
    pub(super) fn begin(&mut self) {
        self.networks.retain(|network, _| self.shared.contains(network));
        self.networks.values_mut().for_each(|network| network.coming = None);
        // Of a network whose first word was under way there is nothing.
        self.networks.retain(|_, network| network.edition != Edition::default());
        self.octets = self.networks.values().map(|network| network.octets).sum();
    }

    /// The owner speaks again: what it said before is its word until it says another.
    pub(super) fn renew(&mut self) {
        self.news.extend(self.networks.keys().cloned());
    }

    pub(super) fn handle_shared(&mut self, shared: &BTreeSet<NetworkName>) {
        if self.shared != *shared {
            let new = shared.difference(&self.shared).filter(|network| self.networks.contains_key(*network));
            self.news.extend(new.cloned());
            self.shared = shared.clone();
        }
    }

    pub(super) fn handle_part(&mut self, part: FactsPart) -> Result<(), Fault> {
        let is_shared = self.shared.contains(&part.network);
        let most = if is_shared { MOST_NETWORKS } else { MOST_AHEAD };
        let of_its_kind = |network: &&NetworkName| self.shared.contains(*network) == is_shared;
        if !self.networks.contains_key(&part.network)
            && self.networks.keys().filter(of_its_kind).count() >= most
        {
            return Err(Fault::TooMuch);
        }
        let rows =
            part.workloads.iter().map(|row| self.read(&part.network, row)).collect::<Result<Vec<_>, _>>()?;
        let network = self.networks.entry(part.network.clone()).or_default();
        let fits = |coming: &Coming| coming.edition == part.edition && coming.base == part.base;
        if let Some(left) = network.coming.take_if(|coming| !fits(coming)) {
            self.octets = self.octets.saturating_sub(left.octets);
        }
        let begin = || Coming {
            edition: part.edition,
            base: part.base,
            rows: BTreeMap::new(),
            gone: BTreeSet::new(),
            octets: 0,
        };
        let coming = network.coming.get_or_insert_with(begin);
        let before = coming.octets;
        self.refused += rows.iter().filter(|(_, row)| row.workload.is_none()).count() as u64;
        coming.add(rows, part.gone);
        self.octets = (self.octets + coming.octets).saturating_sub(before);
        if self.octets > MOST_OCTETS {
            return Err(Fault::TooMuch);
        }
        if let Some(coming) = network.coming.take_if(|_| part.last) {
            self.octets = self.octets.saturating_sub(coming.octets + network.octets);
            if network.take_over(coming) {
                self.news.insert(part.network);
            }
            self.octets += network.octets;
        }
        Ok(())
    }

    /// Reads the message of a workload, and refuses one that is not the sender's own in this network. What has no name that a
    /// workload can have comes from no agent.
    fn read(&self, network: &NetworkName, encoded: &[u8]) -> Result<(String, Row), Fault> {
        let message = v1::Workload::decode(encoded).map_err(|_| FrameError::Malformed)?;
        let name = WorkloadName::from_str(&message.name).map_err(|_| FrameError::Malformed)?.to_string();
        let own = |workload: &Workload| workload.node == self.owner && workload.network == *network;
        let workload = Workload::try_from(message).ok().filter(own);
        let kept = if workload.is_some() { encoded.len() } else { name.len() };
        Ok((name, Row { digest: row_digest(encoded), octets: ROW + kept, workload }))
    }

    /// Answer to the peer about a network.
    pub(super) fn held(&self, network: &NetworkName) -> HeldFacts {
        let (edition, digest) =
            self.networks.get(network).map(|known| (known.edition, known.digest)).unwrap_or_default();
        HeldFacts { network: network.clone(), edition, digest }
    }

    pub(super) fn all_held(&self) -> Vec<HeldFacts> {
        let held = self.networks.keys().map(|network| self.held(network));
        held.filter(|held| held.edition != Edition::default()).collect()
    }

    fn next_news(&self) -> Option<&NetworkName> {
        self.news.iter().find(|network| self.shared.contains(*network))
    }

    pub(super) fn has_news(&self) -> bool {
        self.next_news().is_some()
    }

    pub(super) fn poll_news(&mut self) -> Option<OwnerFacts> {
        let network = self.next_news()?.clone();
        self.news.remove(&network);
        let heard = self.networks.get(&network)?;
        Some(OwnerFacts {
            network,
            incarnation: heard.edition.incarnation,
            revision: heard.edition.revision,
            workloads: heard.rows.values().filter_map(|row| row.workload.clone()).collect(),
        })
    }

    pub(super) fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }
}

impl HeardNetwork {
    /// Takes over an edition that is all there; false if it changes another one than this.
    fn take_over(&mut self, coming: Coming) -> bool {
        let Coming { edition, base, rows, gone, octets: _ } = coming;
        match base {
            None => self.rows = rows,
            Some(revision) if self.edition == (Edition { revision, ..edition }) => {
                self.rows.retain(|name, _| !gone.contains(name));
                self.rows.extend(rows);
            }
            Some(_) => return false,
        }
        self.edition = edition;
        self.octets = self.rows.values().map(|row| row.octets).sum();
        self.digest = self.rows.values().fold(0, |sum, row| sum.wrapping_add(row.digest));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_count_by_their_octets_and_have_names_of_workloads() {
        let say = |name: String, ports: usize| {
            let port = v1::ServicePort { port: 80, ..v1::ServicePort::default() };
            let message = v1::Workload { name, ports: vec![port; ports], ..v1::Workload::default() };
            FactsPart {
                network: "shop".parse().unwrap(),
                edition: Edition { incarnation: 1, revision: 1 },
                base: None,
                workloads: vec![message.encode_to_vec().into()],
                gone: vec![],
                last: true,
            }
        };
        let hear = |part: FactsPart| {
            let mut heard = Heard::of("a".parse().unwrap());
            heard
                .handle_part(part)
                .map(|()| heard.networks.values().map(|network| network.octets).sum::<usize>())
        };
        let refused = hear(say("w".repeat(63), 100_000)).unwrap();
        assert!(refused < 1_000, "{refused}");
        for name in [String::new(), "w".repeat(60_000), "a b".to_owned()] {
            assert_eq!(hear(say(name, 0)), Err(Fault::Malformed(FrameError::Malformed)));
        }
    }
    #[test]
    fn words_about_networks_that_only_one_of_both_carries_are_few_and_end_with_their_connection() {
        let mut heard = Heard::of("a".parse().unwrap());
        heard.handle_shared(&BTreeSet::from(["shop".parse().unwrap()]));
        let mut say = |network: String| {
            heard.handle_part(FactsPart {
                network: network.parse().unwrap(),
                edition: Edition { incarnation: 1, revision: 1 },
                base: None,
                workloads: vec![],
                gone: vec![],
                last: true,
            })
        };
        for number in 0..MOST_AHEAD {
            say(format!("n{number}")).unwrap();
        }
        assert_eq!(say("more".to_owned()), Err(Fault::TooMuch));
        assert_eq!((say("n3".to_owned()), say("shop".to_owned())), (Ok(()), Ok(())));
        heard.begin();
        assert_eq!(
            heard.all_held().into_iter().map(|held| held.network.to_string()).collect::<Vec<_>>(),
            ["shop"]
        );
    }
}
