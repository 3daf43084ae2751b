//! A store that another control plane writes, followed as it is written.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sealane_proto::types::NetworkName;

use super::rows::{self, RecordError, Written};
use super::{Image, LastKnown, Meta, ReadError, Store};
use crate::ca::AuthorityRecord;
use crate::core::{Affected, State};
use crate::kv::{Event, Failure, Watch};

/// The state of a store that others write.
pub(crate) struct Follower {
    store: Store,
    authority: AuthorityRecord,
    state: State,
    meta: Meta,
    watch: Watch,
}

impl Follower {
    /// Begins with what an open store held.
    ///
    /// # Errors
    /// When more has happened since than is remembered.
    pub(crate) fn new(store: Store, Image { meta, authority, state }: Image) -> Result<Self, ReadError> {
        let watch = watch(&store)?;
        Ok(Self { store, authority, state, meta, watch })
    }

    /// The state, and facts about the store, as of the last look.
    pub(crate) fn state(&self) -> (&State, &Meta) {
        (&self.state, &self.meta)
    }

    /// Leaves the state to whoever needs it after this.
    pub(crate) fn leave_to(self, last: &LastKnown) {
        last.keep(self.authority, self.state, self.meta);
    }

    /// Waits for transactions, no longer than `patience`, and takes them in; tells what they have touched.
    ///
    /// # Errors
    /// When the store cannot be read, or says what this version does not know.
    pub(crate) fn follow(&mut self, patience: Duration) -> Result<Option<Affected>, ReadError> {
        match self.watch.next(patience) {
            Ok(events) if events.is_empty() => Ok(None),
            Ok(events) => self.take(&events).map(Some),
            Err(_) => self.read_again().map(Some),
        }
    }

    fn take(&mut self, events: &[Event]) -> Result<Affected, ReadError> {
        // Whoever removes a store removes no object of the mesh: what was known stays known.
        if events.iter().any(|event| event.key == rows::META && event.row.is_none()) {
            return Err(RecordError::Missing("meta").into());
        }
        let mut transactions: BTreeMap<u64, Vec<&Event>> = BTreeMap::new();
        for event in events {
            transactions.entry(event.revision).or_default().push(event);
        }
        let mut affected = Affected::default();
        for events in transactions.into_values() {
            let rows = events.iter().map(|event| (event.key.as_str(), event.row.as_ref()));
            let rows = rows.map(|(key, row)| (key, row.map(|row| row.value.as_slice())));
            let Written { meta, changes } = rows::written(rows)?;
            for change in &changes {
                self.state.affects(change, &mut affected);
                self.state.apply(change);
            }
            self.meta = meta.unwrap_or_else(|| self.meta.clone());
        }
        Ok(affected)
    }

    /// Reads the whole state anew: the store does not remember the changes in between.
    fn read_again(&mut self) -> Result<Affected, ReadError> {
        let Image { meta, authority, state } = self.store.load()?;
        if authority.certificate != self.authority.certificate {
            return Err(RecordError::Missing("authority").into());
        }
        self.watch = watch(&self.store)?;
        let networks: BTreeSet<NetworkName> =
            self.state.networks.keys().chain(state.networks.keys()).cloned().collect();
        (self.state, self.meta) = (state, meta);
        Ok(Affected::all(networks))
    }
}

fn watch(store: &Store) -> Result<Watch, ReadError> {
    let watched = store.kv.watch(rows::ROOT, store.read + 1);
    watched.map_err(|compacted| {
        let (place, reason) = ("the store".to_owned(), compacted.to_string());
        Failure { place, reason, full: false, lost: false }.into()
    })
}
