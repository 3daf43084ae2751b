//! Admission of a new workload, which gives it a name and an address: waited for where that helps, written down before
//! anything is made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealane_fabric::seat::{Owner, Seat};
use sealane_proto::resource::NetworkSnapshot;
use sealane_proto::types::{NetworkName, NodeName};
use sealane_proto::wire::v1;
use tokio::sync::watch;
use tonic::transport::Channel;

use super::plumbing::netns_path;
use super::sandbox::SandboxRequest;
use super::survey::Survey;
use super::{AttachError, WorkloadContext};
use crate::attachment::{Attachment, AttachmentId, AttachmentSpec, Progress};
use crate::certs::{is_passing, words};
use crate::host::{AdmitError, HostNetwork, RequestError};
use crate::ipam::IpamError;

/// Pause before a call to control that failed is tried again.
pub(super) const RETRY: Duration = Duration::from_millis(500);
/// Time within which this host may not have heard yet that a workload of another host has ended.
const HEARSAY: Duration = Duration::from_secs(1);
/// Time for which one that is not ready on another host is taken for one that ends: a bit more than its host waits for all
/// others.
const MOVING: Duration = Duration::from_secs(15);
/// Time that a network's state may follow its lease before the lease is asked for again.
const STATE: Duration = Duration::from_secs(5);

/// A workload that the host has taken in and written down.
pub(super) struct Admitted {
    /// In the order of its networks.
    pub(super) attachments: Vec<(Attachment, watch::Receiver<Arc<HostNetwork>>)>,
    /// True once somebody asked for its end.
    pub(super) dismissed: watch::Receiver<bool>,
}

/// Reasons for which a workload was not taken in at the last try, and the way to overcome each.
enum Obstacle {
    /// This host has no more than so many blocks of the network's addresses.
    Blocks(NetworkName, usize),
    /// This host cannot set the network up.
    Hindered(NetworkName, watch::Receiver<Arc<HostNetwork>>),
    /// A workload of that name or address is still ending.
    Ending(AttachmentId, watch::Receiver<Arc<HostNetwork>>),
    /// A workload of another host has that name or address, and may be about to let go of it.
    Elsewhere(Holder, watch::Receiver<Arc<HostNetwork>>, AdmitError),
    /// The made name was taken: make another.
    Name,
}

/// Holder of a name or address that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    id: AttachmentId,
    node: NodeName,
    ready: bool,
}

impl Holder {
    /// The workload of another host with the name or address of `spec`.
    fn of(spec: &AttachmentSpec, snapshot: &NetworkSnapshot, own: &NodeName) -> Option<Self> {
        let mut others = snapshot.workloads.iter().filter(|known| known.node != *own);
        let holder = others.find(|known| known.name == spec.name || spec.address == Some(known.address))?;
        Some(Self { id: AttachmentId::of(holder), node: holder.node.clone(), ready: holder.ready })
    }

    /// Returns the time for which its end is waited for. One that ends is not ready any more, as this host hears in a
    /// moment.
    fn patience(&self) -> Duration {
        if self.ready { HEARSAY } else { MOVING }
    }
}

/// Takes in the workload that `request` asks for; `None` when it ended, or nobody waits for it any more.
pub(super) async fn admit(
    context: &WorkloadContext,
    request: &SandboxRequest,
    progress: &Progress,
) -> Result<Option<Admitted>, AttachError> {
    let (mut obstacle, mut elsewhere, mut made) = (Obstacle::Name, None, None);
    loop {
        if let Obstacle::Elsewhere(holder, _, error) = &obstacle {
            let since: &mut Instant = elsewhere.get_or_insert_with(Instant::now);
            if since.elapsed() >= holder.patience() {
                return Err(error.clone().into());
            }
        }
        tokio::select! {
            overcome = obstacle.overcome(context, progress) => overcome?,
            refusal = refused(context) => return Err(refusal),
            () = request.anchor.gone() => return Ok(None),
            () = progress.closed() => return Ok(None),
        }
        // Short, and never left halfway: what the host took in would stay without a task of its own.
        match take_in(context, request, made).await? {
            Ok(admitted) => return Ok(Some(admitted)),
            Err(next) => obstacle = next,
        }
        if matches!(obstacle, Obstacle::Name) {
            made = Some(rand::random());
        }
    }
}

async fn take_in(
    context: &WorkloadContext,
    request: &SandboxRequest,
    made: Option<u32>,
) -> Result<Result<Admitted, Obstacle>, AttachError> {
    let mut networks = Vec::new();
    for network in request.spec.networks() {
        let Some(mut host_network) = context.host.views.networks.borrow().get(network).cloned() else {
            return Ok(Err(Obstacle::Blocks(network.clone(), 0)));
        };
        // What changes from here on counts as a change.
        host_network.mark_unchanged();
        if host_network.borrow().hindrance.is_some() {
            return Ok(Err(Obstacle::Hindered(network.clone(), host_network)));
        }
        networks.push(host_network);
    }
    // Seats in a namespace are given one after another.
    let order = context.roster.admitting.lock().await;
    check_hold(context, request)?;
    let seats = seats(context, request, &networks)?;
    let specs = request.spec.specs(made, &seats).ok_or_else(|| {
        AttachError::Namespace("the namespace has no room for another attachment".to_owned())
    })?;
    let anchor = request.anchor.stored(&context.boot);
    let admitted = context.host.admit(specs.clone(), anchor.clone()).await.ok_or(AttachError::Ending)?;
    let known = |network: &NetworkName| {
        networks.iter().find(|host_network| host_network.borrow().snapshot.network.name == *network).cloned()
    };
    let admitted = match admitted {
        Ok(admitted) => admitted,
        // It went between the two looks; there may be a new one of its name.
        Err(RequestError::Admit(AdmitError::UnknownNetwork(network))) => {
            return Ok(Err(Obstacle::Blocks(network, 0)));
        }
        Err(RequestError::Admit(AdmitError::NameInUse { .. })) if !request.spec.is_named() => {
            return Ok(Err(Obstacle::Name));
        }
        Err(RequestError::Admit(AdmitError::Ending(id))) => {
            let host_network = known(&id.network).ok_or(AttachError::Ending)?;
            return Ok(Err(Obstacle::Ending(id, host_network)));
        }
        Err(RequestError::Admit(
            error @ (AdmitError::NameInUse { .. } | AdmitError::AddressInUse { .. }),
        )) => {
            return in_use(context, &specs, &networks, error).map(Err);
        }
        Err(RequestError::Admit(AdmitError::Address { network, source: IpamError::Exhausted { .. } })) => {
            let held = known(&network).map_or(0, |host_network| own_blocks(context, &host_network.borrow()));
            return Ok(Err(Obstacle::Blocks(network, held)));
        }
        Err(error) => return Err(error.into()),
    };
    if let (Some(given), Some(first)) = (&request.given, admitted.first()) {
        // Others in the namespace see it by this. If it cannot be bound, setting up says so.
        let _ = given.bind_at(netns_path(&context.kernel.run_dir, &AttachmentId::of(&first.workload)));
    }
    let (dismissed, mut attachments) = (context.roster.enter(admitted.clone(), &anchor), Vec::new());
    drop(order);
    for (attachment, host_network) in admitted.into_iter().zip(networks) {
        // A network that was made again meanwhile is published anew.
        let current = match host_network.has_changed() {
            Ok(_) => Some(host_network),
            Err(_) => network(context, &attachment.workload.network).await,
        };
        attachments.push((attachment, current.ok_or(AttachError::Ending)?));
    }
    Ok(Ok(Admitted { attachments, dismissed }))
}

/// Decides on a name or address that is in use: where a workload of another host has it, that may be ending.
fn in_use(
    context: &WorkloadContext,
    specs: &[AttachmentSpec],
    networks: &[watch::Receiver<Arc<HostNetwork>>],
    error: AdmitError,
) -> Result<Obstacle, AttachError> {
    let held = specs.iter().zip(networks).find_map(|(spec, host_network)| {
        let holder = Holder::of(spec, &host_network.borrow().snapshot, &context.node)?;
        Some((holder, host_network.clone()))
    });
    match held {
        Some((holder, host_network)) => Ok(Obstacle::Elsewhere(holder, host_network, error)),
        None => Err(error.into()),
    }
}

/// A name holds one workload.
fn check_hold(context: &WorkloadContext, request: &SandboxRequest) -> Result<(), AttachError> {
    let Some(hold) = request.anchor.hold() else { return Ok(()) };
    context.roster.attachment_of(hold).map_or(Ok(()), |id| Err(AttachError::Held(hold.clone(), id)))
}

/// Plans the seats of the attachments.
fn seats(
    context: &WorkloadContext,
    request: &SandboxRequest,
    networks: &[watch::Receiver<Arc<HostNetwork>>],
) -> Result<Vec<Seat>, AttachError> {
    let count = networks.len();
    let Some(given) = &request.given else { return Ok(Seat::all(Owner::Agent).take(count).collect()) };
    let survey = Survey::of(&context.kernel.hopper, given);
    let survey = survey.map_err(|error| AttachError::Namespace(error.to_string()))?;
    let sharing = context.roster.sharing(given, &context.kernel.run_dir);
    for (host_network, wanted) in networks.iter().zip(&request.spec.wanted().seats) {
        let network = host_network.borrow().snapshot.network.clone();
        survey.check(&network, &sharing, wanted.interface)?;
    }
    Ok(survey.seats(&sharing, count))
}

/// Words for a network that is waited for because this host cannot set it up.
pub(super) fn hindered(network: &NetworkName, why: &str) -> String {
    format!("network {network}, which this host cannot set up now: {why}")
}

impl Obstacle {
    /// Returns when another try is worth it. Cancel safe.
    async fn overcome(&mut self, context: &WorkloadContext, progress: &Progress) -> Result<(), AttachError> {
        match self {
            Self::Name => Ok(()),
            Self::Blocks(network, held) => carry(context, network, *held, progress).await,
            Self::Hindered(network, host_network) => {
                let hindrance = host_network.borrow().hindrance.clone().unwrap_or_default();
                progress.waiting(hindered(network, &hindrance)).await;
                // One that goes meanwhile is asked for again.
                let _ = host_network.changed().await;
                Ok(())
            }
            Self::Ending(id, host_network) => {
                progress.waiting(format!("workload {id}, which is still ending")).await;
                // The network changes when it is gone.
                host_network.changed().await.map_err(|_| AttachError::Ending)
            }
            Self::Elsewhere(holder, host_network, _) => {
                if !holder.ready {
                    let Holder { id, node, .. } = holder;
                    let seconds = MOVING.as_secs();
                    let what = format!("workload {id} on {node} to end, for {seconds} s at the longest");
                    progress.waiting(what).await;
                }
                match tokio::time::timeout(holder.patience(), host_network.changed()).await {
                    Ok(Err(_)) => Err(AttachError::Ending),
                    Ok(Ok(())) | Err(_) => Ok(()),
                }
            }
        }
    }
}

/// The network's publication, once there is one.
pub(super) async fn network(
    context: &WorkloadContext,
    network: &NetworkName,
) -> Option<watch::Receiver<Arc<HostNetwork>>> {
    let mut networks = context.host.views.networks.clone();
    let networks = networks.wait_for(|networks| networks.contains_key(network)).await.ok()?;
    networks.get(network).cloned()
}

/// Returns once control wants nothing of this host any more, with its words: nothing is worth waiting for then.
pub(super) async fn refused(context: &WorkloadContext) -> AttachError {
    let mut link = context.host.views.link.clone();
    match link.wait_for(|link| link.refused).await {
        Ok(link) => AttachError::Refused(link.problem.clone()),
        Err(_) => AttachError::Ending,
    }
}

/// A channel to control, as soon as there is one.
pub(super) async fn control(
    context: &WorkloadContext,
    what_for: &str,
    progress: &Progress,
) -> Result<Channel, AttachError> {
    let mut link = context.host.views.link.clone();
    loop {
        let state = link.borrow_and_update().clone();
        if let Some(channel) = state.channel {
            return Ok(channel);
        }
        if !state.problem.is_empty() {
            progress.waiting(format!("control, for {what_for}: {}", state.problem)).await;
        }
        link.changed().await.map_err(|_| AttachError::Ending)?;
    }
}

pub(super) fn own_blocks(context: &WorkloadContext, host_network: &HostNetwork) -> usize {
    let own = host_network.snapshot.blocks.iter().filter(|block| block.node.as_ref() == Some(&context.node));
    own.count()
}

/// Returns when this host carries the network with more than `held` blocks of addresses, or may have a free one of these.
pub(super) async fn carry(
    context: &WorkloadContext,
    network: &NetworkName,
    held: usize,
    progress: &Progress,
) -> Result<(), AttachError> {
    let mut networks = context.host.views.networks.clone();
    let enough = |networks: &BTreeMap<NetworkName, watch::Receiver<Arc<HostNetwork>>>| {
        networks.get(network).is_some_and(|known| own_blocks(context, &known.borrow()) > held)
    };
    loop {
        if enough(&networks.borrow_and_update()) {
            return Ok(());
        }
        let what_for = format!("network {network}, which this host does not carry yet");
        let channel = control(context, &what_for, progress).await?;
        let blocks_held = u32::try_from(held).unwrap_or(u32::MAX);
        let request = v1::CarryRequest { network: network.to_string(), blocks_held };
        let mut client = v1::control_client::ControlClient::new(channel);
        let silent = || format!("control, for {what_for}: it has not answered so far");
        match progress.meanwhile(silent, client.carry(request)).await {
            Ok(_) => {}
            Err(status) if is_passing(status.code()) => {
                progress.waiting(format!("control, for {what_for}: {}", words(&status))).await;
                tokio::time::sleep(RETRY).await;
                if held > 0 {
                    // An address of its own blocks may be free by now.
                    return Ok(());
                }
                continue;
            }
            Err(status) => return Err(AttachError::of_control(&status)),
        }
        // The state follows the lease on the stream: for a new network among the networks, for a further block
        // within the network's own publication.
        let publication = networks.borrow().get(network).cloned();
        let arrived = async {
            match publication {
                Some(mut known) => known.wait_for(|known| own_blocks(context, known) > held).await.map(drop),
                None => networks.wait_for(enough).await.map(drop),
            }
        };
        let missing = || format!("control, which has not told this host of network {network} so far");
        if let Ok(Err(_)) = progress.meanwhile(missing, tokio::time::timeout(STATE, arrived)).await {
            return Err(AttachError::Ending);
        }
    }
}
