//! Telling a peer what this host owns: one edition of each network under way at a time, then the newest.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use sealane_proto::peer::{FactsPart, HeldFacts};
use sealane_proto::resource::Edition;
use sealane_proto::types::NetworkName;

use super::heard::MOST_NETWORKS;
use super::{Fault, Said, SaidFacts};
use crate::host::{Acknowledged, Acknowledgement};

/// Times that everything may be told in vain: the answer may have been to an earlier word.
const MISHEARD: u8 = 3;

/// Octets of rows in one part; a row may be as large again.
const PART: usize = 24 << 10;

/// Everything that the peer is told.
#[derive(Debug, Default)]
pub(super) struct Saying {
    /// True once the peer has said what it has heard before.
    begun: bool,
    networks: BTreeMap<NetworkName, Telling>,
    disagreements: u64,
    /// Editions by which the peer works; `None`: its version does not say so, and what it has heard counts.
    works: Option<BTreeMap<NetworkName, Edition>>,
    /// True while the peer has acknowledged nothing else than somebody has taken.
    taken: bool,
}

/// One network on its way.
#[derive(Debug)]
struct Telling {
    newest: Arc<SaidFacts>,
    /// State that the peer has, as it said.
    acknowledged: Option<Arc<SaidFacts>>,
    under_way: Option<Transfer>,
    /// Times in a row that all was told and something else was heard.
    misheard: u8,
}

/// An edition under way: parts that are still to be sent, then the answer.
#[derive(Debug)]
struct Transfer {
    to: Arc<SaidFacts>,
    whole: bool,
    parts: VecDeque<FactsPart>,
}

impl Saying {
    pub(super) fn handle_facts(&mut self, facts: Said, shared: &BTreeSet<NetworkName>) {
        let known = |network: &NetworkName| shared.contains(network) && facts.contains_key(network);
        let before = self.networks.len();
        self.networks.retain(|network, _| known(network));
        self.taken &= self.networks.len() == before;
        for (network, newest) in facts.iter().filter(|(network, _)| shared.contains(*network)) {
            match self.networks.get_mut(network) {
                Some(telling) => telling.newest = newest.clone(),
                None => {
                    let telling = Telling::of(newest.clone());
                    self.networks.insert(network.clone(), telling);
                }
            }
        }
    }

    /// The peer has said what it has of one network: that answers what is under way.
    pub(super) fn handle_held(&mut self, held: &HeldFacts) -> Result<(), Fault> {
        let Some(telling) = self.networks.get_mut(&held.network) else { return Ok(()) };
        let Some(transfer) = telling.under_way.take_if(|transfer| transfer.parts.is_empty()) else {
            return Ok(());
        };
        self.taken = false;
        if transfer.to.held == *held {
            (telling.acknowledged, telling.misheard) = (Some(transfer.to), 0);
            return Ok(());
        }
        // It has not what the difference was to: the next one is whole.
        telling.acknowledged = None;
        telling.misheard += u8::from(transfer.whole);
        self.disagreements += 1;
        if telling.misheard < MISHEARD { Ok(()) } else { Err(Fault::Disagrees) }
    }

    /// The peer has spoken, and says by what it works or not.
    pub(super) fn handle_hello(&mut self, tells_works: bool) {
        self.works = tells_works.then(BTreeMap::new);
    }

    /// The peer works by this edition.
    pub(super) fn handle_works(&mut self, network: NetworkName, edition: Edition) -> Result<(), Fault> {
        let works = self.works.get_or_insert_default();
        works.insert(network, edition);
        self.taken = false;
        if works.len() > MOST_NETWORKS { Err(Fault::TooMuch) } else { Ok(()) }
    }

    /// The peer has said all that it has.
    pub(super) fn handle_digest(&mut self, held: &BTreeMap<NetworkName, HeldFacts>) {
        for (network, telling) in &mut self.networks {
            let has = |said: &Arc<SaidFacts>| held.get(network) == Some(&said.held);
            if !self.begun && has(&telling.newest) {
                telling.acknowledged = Some(telling.newest.clone());
                self.taken = false;
            } else if telling.under_way.is_none()
                && telling.acknowledged.as_ref().is_some_and(|said| !has(said))
            {
                telling.acknowledged = None;
                self.taken = false;
                self.disagreements += 1;
            }
        }
        self.begun = true;
    }

    /// The next part to send.
    pub(super) fn poll_part(&mut self) -> Option<FactsPart> {
        if !self.begun {
            return None;
        }
        self.networks.values_mut().find_map(Telling::poll_part)
    }

    /// Returns the editions that the peer has heard and works by, when they may be others than at the last call.
    pub(super) fn take_acknowledged(&mut self) -> Option<Acknowledged> {
        if std::mem::replace(&mut self.taken, true) {
            return None;
        }
        let of = |(network, telling): (&NetworkName, &Telling)| {
            let heard = telling.acknowledged.as_ref()?.held.edition;
            let works_by = match &self.works {
                Some(works) => works.get(network).copied().unwrap_or_default(),
                None => heard,
            };
            Some((network.clone(), Acknowledgement { heard, works_by }))
        };
        Some(self.networks.iter().filter_map(of).collect())
    }

    pub(super) fn take_disagreements(&mut self) -> u64 {
        std::mem::take(&mut self.disagreements)
    }
}

impl Telling {
    fn of(newest: Arc<SaidFacts>) -> Self {
        Self { newest, acknowledged: None, under_way: None, misheard: 0 }
    }

    fn poll_part(&mut self) -> Option<FactsPart> {
        if self.under_way.is_none()
            && self.acknowledged.as_ref().is_none_or(|known| known.held != self.newest.held)
        {
            self.under_way = Some(Transfer::new(self.acknowledged.as_deref(), self.newest.clone()));
        }
        self.under_way.as_mut()?.parts.pop_front()
    }
}

impl Transfer {
    /// The way from what the peer has to this edition.
    fn new(from: Option<&SaidFacts>, to: Arc<SaidFacts>) -> Self {
        let from = from.filter(|from| from.held.edition.incarnation == to.held.edition.incarnation);
        let changed =
            to.rows.iter().filter(|(name, row)| from.and_then(|from| from.rows.get(*name)) != Some(*row));
        let mut rows: VecDeque<Bytes> = changed.map(|(_, row)| row.clone()).collect();
        let before = from.into_iter().flat_map(|from| from.rows.keys());
        let mut gone: VecDeque<String> =
            before.filter(|name| !to.rows.contains_key(*name)).map(ToString::to_string).collect();
        let (base, mut parts) = (from.map(|from| from.held.edition.revision), VecDeque::new());
        loop {
            let mut room = PART;
            let workloads = take_within(&mut rows, &mut room, Bytes::len);
            let names = take_within(&mut gone, &mut room, String::len);
            let last = rows.is_empty() && gone.is_empty();
            let (network, edition) = (to.held.network.clone(), to.held.edition);
            parts.push_back(FactsPart { network, edition, base, workloads, gone: names, last });
            if last {
                return Self { to, whole: base.is_none(), parts };
            }
        }
    }
}

/// Takes from the front until the room is used up, with so much for each entry itself.
fn take_within<T>(from: &mut VecDeque<T>, room: &mut usize, size: impl Fn(&T) -> usize) -> Vec<T> {
    const ENTRY: usize = 8;
    let mut taken = Vec::new();
    while *room > 0
        && let Some(next) = from.pop_front()
    {
        *room = room.saturating_sub(size(&next) + ENTRY);
        taken.push(next);
    }
    taken
}
