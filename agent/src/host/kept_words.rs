//! The words of hosts, this one among them, that are to outlive this agent: while control is away, the next one starts by them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sealane_proto::resource::{Edition, OwnerFacts};
use sealane_proto::types::{NetworkName, NodeName};

use super::mesh::Mesh;

/// The words that one network's record has, by their owners.
pub(crate) type NetworkWords = BTreeMap<NodeName, Arc<OwnerFacts>>;

/// Comparison of what is on disk with what should be.
#[derive(Debug, Default)]
pub(super) struct KeptWords {
    /// Networks that something was said of since the last look.
    touched: BTreeSet<NetworkName>,
    /// The ages of the words on disk.
    kept: BTreeMap<NetworkName, BTreeMap<NodeName, Edition>>,
}

fn editions(words: &NetworkWords) -> BTreeMap<NodeName, Edition> {
    words.iter().map(|(owner, facts)| (owner.clone(), facts.edition())).collect()
}

impl KeptWords {
    /// The records from which a host begins.
    pub(super) fn of(mesh: &Mesh) -> Self {
        let kept = mesh.networks().into_iter().map(|network| {
            let words = editions(&mesh.newer_words(&network));
            (network, words)
        });
        Self { touched: BTreeSet::new(), kept: kept.filter(|(_, words)| !words.is_empty()).collect() }
    }

    /// Something was said of the network, by control or by an owner.
    pub(super) fn touch(&mut self, network: &NetworkName) {
        self.touched.insert(network.clone());
    }

    /// Returns true if a record may be another than it should be.
    pub(super) fn is_due(&self) -> bool {
        !self.touched.is_empty()
    }

    /// The records that are to be written, each whole; one that is empty is to be removed.
    pub(super) fn poll(&mut self, mesh: &Mesh) -> Vec<(NetworkName, NetworkWords)> {
        let touched = std::mem::take(&mut self.touched).into_iter();
        let now = touched.map(|network| {
            let words = mesh.newer_words(&network);
            (network, words)
        });
        let kept = &self.kept;
        now.filter(|(network, words)| kept.get(network).cloned().unwrap_or_default() != editions(words))
            .collect()
    }

    /// A record is on disk, or is to be written again.
    pub(super) fn handle_kept(&mut self, network: NetworkName, words: &NetworkWords, kept: bool) {
        if !kept {
            self.touched.insert(network);
        } else if words.is_empty() {
            self.kept.remove(&network);
        } else {
            self.kept.insert(network, editions(words));
        }
    }
}
