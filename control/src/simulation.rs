//! Control without threads, sockets and a clock of its own, for simulations: the store is in memory, and whoever runs it says what
//! time it is and when a message passes.
//!
//! Everything that decides is what a real control plane runs: the core, the commits to a store, the registry, the conversations with
//! agents and the upkeep. Main type: [`SimulatedControl`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use prometheus::IntGauge;
use sealane_proto::identity::Principal;
use sealane_proto::resource::NetworkSnapshot;
use sealane_proto::types::{Generation, NetworkName, NodeName};
use sealane_proto::wire::v1;
use tokio::time::Instant;
use tonic::Status;

use crate::address_rest::{Due, Looks};
use crate::ca::{AuthorityRecord, Notary};
use crate::core::{Affected, Command, Readmitted, State, TellEchoes, TellMtu, Timestamp};
use crate::kv::{Memory, Range, Row};
use crate::metrics::CommitMetrics;
use crate::registry::{Arrival, Claimant, Directory, Registry};
use crate::serve::{CertifiedHost, Proof};
use crate::session::{Conversation, Placement, Told, Work, placement, read_hello};
use crate::status::{not_a_node, status_of};
use crate::store::simulation::{new_rows, restored};
use crate::store::{Backup, Engine, Meta, Publish, Rows, Store, SubmitError, encode};

/// A moment by every clock that control looks at.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Time of day.
    pub clock: SystemTime,
    /// Time that only passes.
    pub instant: std::time::Instant,
}

impl Moment {
    fn timestamp(self) -> Timestamp {
        self.clock.into()
    }
}

/// Facts about a caller that its certificate proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallingHost {
    /// Name by the certificate.
    pub node: NodeName,
    /// SHA-256 of its public key.
    pub key: [u8; 32],
    /// Time at which the certificate was issued.
    pub issued: Timestamp,
    /// Address that it connects from.
    pub addr: SocketAddr,
}

/// A reason for which a stream does not open, or ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Ended {
    /// Words of control.
    pub reason: String,
    /// True if control wants nothing of this host.
    pub refused: bool,
}

impl From<Status> for Ended {
    fn from(status: Status) -> Self {
        let refused = status.code() == tonic::Code::PermissionDenied;
        Self { reason: status.message().to_owned(), refused }
    }
}

/// A copy of a store as it was.
#[derive(Clone)]
pub struct StoreCopy(Rows);

impl std::fmt::Debug for StoreCopy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreCopy").finish_non_exhaustive()
    }
}

/// A control plane.
pub struct SimulatedControl {
    engine: Engine,
    registry: Arc<Registry>,
    conversations: BTreeMap<NodeName, Conversation>,
    looks: Looks,
}

impl std::fmt::Debug for SimulatedControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimulatedControl").field("state", self.state()).finish_non_exhaustive()
    }
}

impl SimulatedControl {
    /// A control plane with a new store of this lifetime.
    ///
    /// # Panics
    /// When the store cannot be read.
    #[must_use]
    pub fn new(epoch: u64, now: Moment) -> Self {
        let authority = AuthorityRecord { key: vec![1], certificate: vec![1] };
        Self::open(new_rows(epoch, &authority), now)
    }

    /// The control plane after kill -9: of what it knew, the store is left.
    ///
    /// # Panics
    /// When the store cannot be read.
    #[must_use]
    pub fn restarted(mut self, now: Moment) -> Self {
        Self::open(self.rows(), now)
    }

    /// Writes the store as the bytes of a backup.
    ///
    /// # Panics
    /// When the store cannot be read.
    #[must_use]
    pub fn backup(&mut self, now: Moment) -> Vec<u8> {
        encode(self.rows(), now.timestamp())
    }

    /// The control plane of a store that a backup took the place of, as a lifetime of its own.
    ///
    /// # Panics
    /// When the bytes are no backup.
    #[must_use]
    pub fn restored(mut self, backup: &[u8], epoch: u64, now: Moment) -> Self {
        let backup = Backup::from_bytes(backup).unwrap_or_else(|error| panic!("the backup: {error}"));
        Self::open(restored(&backup, &self.rows(), epoch, now.timestamp()), now)
    }

    /// Copies the store's file.
    ///
    /// # Panics
    /// When the store cannot be read.
    #[must_use]
    pub fn copy(&mut self) -> StoreCopy {
        StoreCopy(self.rows())
    }

    /// The control plane that starts with a copy of the store in its place.
    ///
    /// # Panics
    /// When the copy is no store.
    #[must_use]
    pub fn put_back(self, copy: &StoreCopy, now: Moment) -> Self {
        Self::open(copy.0.clone(), now)
    }

    fn rows(&mut self) -> Rows {
        self.engine.store().rows().unwrap_or_else(|error| panic!("the store: {error}"))
    }

    fn open(rows: Rows, now: Moment) -> Self {
        let row = |value| Row { value, created: 1, modified: 1, version: 1 };
        let rows = rows.into_iter().map(|(key, value)| (key, row(value))).collect();
        let mut store = Store::new(Box::new(Memory::from(Range { revision: 1, rows })));
        let image = store.load().unwrap_or_else(|error| panic!("the store: {error}"));
        let generation = |meta: &Meta| Generation { epoch: meta.epoch, revision: meta.revision };
        let directory = Directory::first(
            &image.state,
            generation(&image.meta),
            &Arc::new(Notary::of(&image.authority.key)),
        );
        let series = prometheus::Registry::new();
        let (Ok(connected), Ok(metrics)) =
            (IntGauge::new("connected", "Connected agents."), CommitMetrics::new(&series))
        else {
            panic!("a new registry takes any series");
        };
        let registry = Registry::new(directory, connected, now.timestamp());
        let shown = registry.clone();
        let publish: Publish = Box::new(move |state: &State, meta: &Meta, affected: &Affected| {
            let next = shown.directory().next(state, generation(meta), affected);
            shown.publish(next);
        });
        let engine = Engine::new(store, image.state, image.meta, publish, metrics);
        let looks = Looks::new(now.instant.into());
        Self { engine, registry, conversations: BTreeMap::new(), looks }
    }

    /// Everything that is desired.
    #[must_use]
    pub fn state(&self) -> &State {
        self.engine.state()
    }

    /// The newest durable generation.
    #[must_use]
    pub fn generation(&self) -> Generation {
        let meta = self.engine.meta();
        Generation { epoch: meta.epoch, revision: meta.revision }
    }

    /// Lets a command be decided, as somebody who administers the mesh or a host's call does.
    ///
    /// # Errors
    /// When the state does not allow it.
    pub fn submit<C: Command>(&mut self, command: C, now: Moment) -> Result<C::Outcome, C::Refusal> {
        self.engine.submit(command, now.timestamp()).map_err(|error| match error {
            SubmitError::Refused(refusal) => refusal,
            other @ (SubmitError::Commit(_) | SubmitError::Busy | SubmitError::Stopped) => {
                panic!("a store in memory takes everything: {other}")
            }
        })
    }

    /// The network as hosts that carry it are told.
    #[must_use]
    pub fn snapshot(&self, network: &NetworkName) -> Option<Arc<NetworkSnapshot>> {
        self.registry.directory().networks.get(network).map(|published| Arc::new(published.snapshot()))
    }

    /// The networks that a host is told of.
    #[must_use]
    pub fn carried_by(&self, node: &NodeName) -> BTreeMap<NetworkName, Arc<NetworkSnapshot>> {
        let carried = self.registry.directory().carried_by(node);
        carried.into_iter().map(|(name, published)| (name, Arc::new(published.snapshot()))).collect()
    }

    /// Returns true if a host gets a certificate for this identity when it asks.
    #[must_use]
    pub fn signs_for(&self, node: &NodeName, principal: &Principal) -> bool {
        self.registry.directory().runs(node, principal)
    }

    /// The host that yields its underlay address to who comes with it.
    #[must_use]
    pub fn gone_from(&self, underlay: sealane_proto::types::UnderlayAddrs, now: Moment) -> Option<NodeName> {
        self.registry.gone_from(underlay, None, now.timestamp())
    }

    /// Returns true if a host has a stream.
    #[must_use]
    pub fn is_connected(&self, node: &NodeName) -> bool {
        self.conversations.contains_key(node)
    }

    /// The networks whose newest state each connected agent has not acknowledged.
    #[must_use]
    pub fn behind(&self) -> BTreeMap<NodeName, Vec<NetworkName>> {
        self.registry.behind()
    }

    /// Opens the stream of an agent that says hello. Another stream of the same node ends.
    ///
    /// # Errors
    /// When the host is no part of the mesh, or cannot be where it says.
    pub fn open_stream(&mut self, caller: &CallingHost, hello: v1::Hello, now: Moment) -> Result<(), Ended> {
        let CallingHost { node, key, issued, addr } = caller.clone();
        let proof = Proof { key, issued };
        let opener = CertifiedHost::known(&node, addr, proof, &self.registry.directory())?;
        let (greeting, underlay, mtu) = read_hello(hello)?;
        if let Some(outdone) = self.registry.outdone(&node, &greeting.held) {
            // As random as can be here: another one each time.
            let Generation { epoch, revision } = self.generation();
            let epoch = epoch.wrapping_mul(1_000_003).wrapping_add(revision).max(1);
            if let Err(error) = self.engine.begin_lifetime(&outdone, epoch, now.timestamp()) {
                panic!("a store in memory takes everything: {error}");
            }
        }
        match placement(&self.registry, opener, &underlay, now.timestamp())? {
            Placement::Stay => {}
            Placement::Readmit(command) => {
                if self.engine.submit(command, now.timestamp()).map_err(status_of)? == Readmitted::Revoked {
                    return Err(not_a_node(&self.registry.directory(), &node, Some(key)).into());
                }
            }
            Placement::Relocate(command) => {
                self.engine.submit(command, now.timestamp()).map_err(status_of)?;
            }
        }
        let told = TellEchoes { node: node.clone(), echoes: greeting.echoes };
        self.engine.submit(told, now.timestamp()).map_err(status_of)?;
        if let Some(mtu) = mtu
            && self.registry.takes_mtu(&node, mtu, now.instant.into())
        {
            self.engine.submit(TellMtu { node: node.clone(), mtu }, now.timestamp()).map_err(status_of)?;
        }
        let claimant = Claimant { peer: addr, instance: greeting.instance };
        let arrival = Arrival { version: greeting.version.clone(), claimant, now: now.timestamp() };
        let stream = self.registry.open(node.clone(), arrival, &greeting.applied);
        let told = (self.registry.clone(), Told { roots: vec![vec![1]], ..Told::default() });
        let conversation = Conversation::new(told, (node.clone(), key), stream, greeting);
        self.conversations.insert(node, conversation);
        Ok(())
    }

    /// Reads a message of a host's stream; one that comes on a stream that has ended is lost.
    ///
    /// # Errors
    /// When the stream ends by it.
    pub fn receive(&mut self, node: &NodeName, message: v1::AgentMessage, now: Moment) -> Result<(), Ended> {
        let Some(conversation) = self.conversations.get_mut(node) else { return Ok(()) };
        let handled = conversation.handle_message(message, (now.clock, Instant::from(now.instant)));
        let done = handled.and_then(|work| work.map_or(Ok(()), |work| self.perform(node, work, now)));
        done.map_err(|status| {
            self.close(node);
            status.into()
        })
    }

    fn perform(&mut self, node: &NodeName, work: Work, now: Moment) -> Result<(), Status> {
        let now = now.timestamp();
        match work {
            Work::Report { sequence, report, unreadable } => {
                let reported = self.engine.submit(report, now).map_err(status_of)?;
                if let Some(conversation) = self.conversations.get_mut(node) {
                    conversation.handle_reported(sequence, reported, unreadable);
                }
            }
            Work::Recall { mut recall, last } => {
                if !recall.networks.is_empty() {
                    self.registry.doubt(&mut recall);
                    self.engine.submit(recall, now).map_err(status_of)?;
                }
                if let Some(conversation) = self.conversations.get_mut(node) {
                    conversation.handle_recalled(last);
                }
            }
            Work::Resize(resize) => self.engine.submit(resize, now).map_err(status_of)?,
        }
        Ok(())
    }

    /// The next message to a host, if it has a stream and there is one.
    ///
    /// # Errors
    /// When the stream ends: control has nothing more to say to that host.
    pub fn send(&mut self, node: &NodeName, now: Moment) -> Result<Option<v1::ControlMessage>, Ended> {
        let Some(conversation) = self.conversations.get_mut(node) else { return Ok(None) };
        let desired = conversation.desired();
        if let Some(dismissed) = conversation.dismissed(&desired) {
            self.close(node);
            return Err(dismissed.into());
        }
        let message = conversation.next(&desired, (now.timestamp(), now.instant.into()));
        Ok(message.map(|message| v1::ControlMessage { message: Some(message) }))
    }

    /// Says to every host that control is there, as it does every few seconds.
    pub fn tick(&mut self) {
        self.conversations.values_mut().for_each(Conversation::handle_tick);
    }

    /// Notices that a host's stream has ended.
    pub fn close(&mut self, node: &NodeName) {
        self.conversations.remove(node);
    }

    /// Looks for what is due: addresses that have rested, hosts that nobody waits for any longer.
    ///
    /// # Panics
    /// When the store refuses.
    pub fn tend(&mut self, now: Moment) {
        let Due { forget, purge, end } =
            self.looks.look(&self.registry, (now.instant.into(), now.timestamp()));
        let Ok(()) = forget.map_or(Ok(()), |forget| self.submit(forget, now));
        let Ok(()) = purge.map_or(Ok(()), |purge| self.submit(purge, now));
        let Ok(()) = end.map_or(Ok(()), |end| self.submit(end, now));
    }
}
