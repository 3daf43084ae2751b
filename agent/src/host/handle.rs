//! The way to the task that owns what this host knows: questions, answers and news.

use std::collections::BTreeSet;

use sealane_proto::resource::{HostPlaces, OwnerFacts, Whereabouts};
use sealane_proto::types::{Aliases, NetworkName, NodeName, OverlayIp, Weight};
use tokio::sync::{mpsc, oneshot};

use super::mesh::DataPlane;
use super::standing::Standing;
use super::{Acknowledged, HostViews, Outside, RequestError};
use crate::attachment::{Attachment, AttachmentId, AttachmentSpec, Claim, Hold, Reservation, WeightChange};
use crate::disk::{DiskError, StoredAnchor};

/// For whoever asks or tells the host something.
#[derive(Clone, Debug)]
pub(crate) struct HostHandle {
    pub(super) requests: mpsc::Sender<HostCommand>,
    /// Views of the host.
    pub(crate) views: HostViews,
}

/// Requests and news for the host's task.
#[derive(Debug)]
pub(super) enum HostCommand {
    Admit(Vec<AttachmentSpec>, StoredAnchor, oneshot::Sender<Result<Vec<Attachment>, RequestError>>),
    Ready(AttachmentId, Standing, oneshot::Sender<u64>),
    Name(AttachmentId, Aliases, oneshot::Sender<Result<bool, RequestError>>),
    Weigh {
        first: AttachmentId,
        ids: Vec<AttachmentId>,
        change: WeightChange,
        answer: oneshot::Sender<Result<Reweighed, RequestError>>,
    },
    End(AttachmentId, oneshot::Sender<u64>),
    Detach(AttachmentId, oneshot::Sender<()>),
    Remove(AttachmentId, oneshot::Sender<u64>),
    Applied(AttachmentId, DataPlane, Option<u64>),
    Reserve(Claim, oneshot::Sender<Result<Reservation, RequestError>>),
    Release(Hold, oneshot::Sender<Result<(), DiskError>>),
    Reserved(NetworkName, OverlayIp, oneshot::Sender<Option<Reservation>>),
    Down(BTreeSet<Outside>),
    Owns(AttachmentId, oneshot::Sender<bool>),
    Heard(NodeName, OwnerFacts),
    Silent(NodeName),
    Placed(NodeName, Whereabouts),
    Found(HostPlaces),
    Acknowledged(NodeName, Acknowledged),
    Unreachable(BTreeSet<NodeName>),
}

/// The report that tells of other weights, and the weights.
pub(crate) type Reweighed = (u64, Vec<(AttachmentId, Weight)>);

impl HostHandle {
    /// Takes in a new workload, in all its networks or none, and writes it down; `None` while the agent ends.
    ///
    /// # Errors
    /// When name or address are taken, or the disk is full; nobody hears of the workload then.
    pub(crate) async fn admit(
        &self,
        specs: Vec<AttachmentSpec>,
        anchor: StoredAnchor,
    ) -> Option<Result<Vec<Attachment>, RequestError>> {
        self.ask(|answer| HostCommand::Admit(specs, anchor, answer)).await
    }

    /// Says at which of its addresses calls may be sent to a workload; returns the report that says so.
    pub(crate) async fn set_ready(&self, id: AttachmentId, standing: impl Into<Standing>) -> Option<u64> {
        let standing = standing.into();
        self.ask(|answer| HostCommand::Ready(id, standing, answer)).await
    }

    /// Gives a workload further names in place of those it has, on disk as well; whether that was news. `None` while the agent ends.
    ///
    /// # Errors
    /// When they cannot be written down; it has them until the agent ends.
    pub(crate) async fn name_anew(
        &self,
        id: AttachmentId,
        aliases: Aliases,
    ) -> Option<Result<bool, RequestError>> {
        self.ask(|answer| HostCommand::Name(id, aliases, answer)).await
    }

    /// Gives the attachments `ids` of a workload other weights, on disk as well; `first` is the attachment that its record is named
    /// after. Those that are ending are left out of the answer. `None` while the agent ends.
    ///
    /// # Errors
    /// When they cannot be written down; nothing is changed then.
    pub(crate) async fn weigh(
        &self,
        first: AttachmentId,
        ids: Vec<AttachmentId>,
        change: WeightChange,
    ) -> Option<Result<Reweighed, RequestError>> {
        self.ask(|answer| HostCommand::Weigh { first, ids, change, answer }).await
    }

    /// Takes a workload out of names and balancing; returns the report that says so.
    pub(crate) async fn end(&self, id: AttachmentId) -> Option<u64> {
        self.ask(|answer| HostCommand::End(id, answer)).await
    }

    /// Gives the workload's port up: from now on no pass makes it again, and none that would is under way.
    pub(crate) async fn detach(&self, id: AttachmentId) -> Option<()> {
        self.ask(|answer| HostCommand::Detach(id, answer)).await
    }

    /// Forgets a workload; returns the report that says so.
    pub(crate) async fn remove(&self, id: AttachmentId) -> Option<u64> {
        self.ask(|answer| HostCommand::Remove(id, answer)).await
    }

    /// Says by what sequence a data plane of a workload works.
    pub(crate) async fn applied(&self, id: AttachmentId, plane: DataPlane, sequence: Option<u64>) {
        // While the agent ends, nobody needs to know.
        let _ = self.requests.send(HostCommand::Applied(id, plane, sequence)).await;
    }

    /// Keeps an address for somebody, on disk before this answers; `None` while the agent ends.
    ///
    /// # Errors
    /// When the address is taken, none is left, or the disk is full.
    pub(crate) async fn reserve(&self, claim: Claim) -> Option<Result<Reservation, RequestError>> {
        self.ask(|answer| HostCommand::Reserve(claim, answer)).await
    }

    /// Keeps the address for nobody any more; one that was not kept is no error.
    ///
    /// # Errors
    /// When that cannot be written down; it is kept then.
    pub(crate) async fn release(&self, hold: Hold) -> Option<Result<(), DiskError>> {
        self.ask(|answer| HostCommand::Release(hold, answer)).await
    }

    /// The reservation of an address.
    pub(crate) async fn reserved(&self, network: NetworkName, address: OverlayIp) -> Option<Reservation> {
        self.ask(|answer| HostCommand::Reserved(network, address, answer)).await?
    }

    /// Says which instances outside every network do not work.
    pub(crate) async fn set_down(&self, down: BTreeSet<Outside>) {
        // While the agent ends, nobody needs to know.
        let _ = self.requests.send(HostCommand::Down(down)).await;
    }

    /// Returns true if nobody else can have the address of a workload of this host, whatever control says of it later.
    pub(crate) async fn owns_address(&self, id: AttachmentId) -> Option<bool> {
        self.ask(|answer| HostCommand::Owns(id, answer)).await
    }

    /// Says what another host says of its own workloads in one network, by a channel that proves who it is. Older words of it than
    /// the newest change nothing.
    pub(crate) async fn heard(&self, owner: NodeName, facts: OwnerFacts) {
        // While the agent ends, nobody needs to know.
        let _ = self.requests.send(HostCommand::Heard(owner, facts)).await;
    }

    /// Says that another host is not heard any more: the last channel to it has ended. It goes on by what it has said.
    pub(crate) async fn silent(&self, owner: NodeName) {
        // While the agent ends, nobody needs to know.
        let _ = self.requests.send(HostCommand::Silent(owner)).await;
    }

    /// Says where another host is by its own word, which is proven.
    pub(crate) async fn placed(&self, owner: NodeName, place: Whereabouts) {
        // While the agent ends, nobody needs to know.
        let _ = self.requests.send(HostCommand::Placed(owner, place)).await;
    }

    /// Says where another host has found others.
    pub(crate) async fn found(&self, places: HostPlaces) {
        // While the agent ends, nobody needs to know.
        let _ = self.requests.send(HostCommand::Found(places)).await;
    }

    /// Says that another host has acknowledged this of this host's words.
    pub(crate) async fn acknowledged(&self, peer: NodeName, acknowledged: Acknowledged) {
        // While the agent ends, nobody needs to know.
        let _ = self.requests.send(HostCommand::Acknowledged(peer, acknowledged)).await;
    }

    /// Says which hosts cannot be reached.
    pub(crate) async fn set_unreachable(&self, hosts: BTreeSet<NodeName>) {
        // While the agent ends, nobody needs to know.
        let _ = self.requests.send(HostCommand::Unreachable(hosts)).await;
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> HostCommand) -> Option<T> {
        let (answer, wait) = oneshot::channel();
        self.requests.send(request(answer)).await.ok()?;
        wait.await.ok()
    }
}
