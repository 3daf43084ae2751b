//! Admission of a new workload, which gives it a name and an address: waited for where that helps, written down before
//! anything is made. What follows a try that failed, [`core`] decides.

mod core;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use sealane_fabric::seat::{Owner, Seat};
use sealane_proto::types::NetworkName;
use sealane_proto::wire::v1;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::transport::Channel;

use self::core::{AdmissionCore, Holder, Obstacle, Setback, Wait};
use super::plumbing::netns_path;
use super::sandbox::SandboxRequest;
use super::survey::Survey;
use super::{AttachError, WorkloadContext};
use crate::attachment::{Attachment, AttachmentId, AttachmentSpec, Progress};
use crate::certs::{is_passing, words};
use crate::host::{AdmitError, HostNetwork, RequestError};
use crate::ipam::REST;

/// Pause before a call to control that failed is tried again.
pub(super) const RETRY: Duration = Duration::from_millis(500);
/// Time that a network's state may follow its lease before the lease is asked for again.
const STATE: Duration = Duration::from_secs(5);

/// A workload that the host has taken in and written down.
pub(super) struct Admitted {
    /// In the order of its networks.
    pub(super) attachments: Vec<(Attachment, Publication)>,
    /// True once somebody asked for its end.
    pub(super) dismissed: watch::Receiver<bool>,
}

/// A network of the request as this host publishes it.
type Publication = watch::Receiver<Arc<HostNetwork>>;

/// Takes in the workload that `request` asks for; `None` when it ended, or nobody waits for it any more.
pub(super) async fn admit(
    context: &WorkloadContext,
    request: &SandboxRequest,
    progress: &Progress,
) -> Result<Option<Admitted>, AttachError> {
    let (mut core, mut made) = (AdmissionCore::default(), None);
    let (mut obstacle, mut networks) = (Obstacle::Name, Vec::new());
    loop {
        tokio::select! {
            overcome = overcome(&obstacle, &mut networks, context, progress) => overcome?,
            refusal = refused(context) => return Err(refusal),
            () = request.anchor.gone() => return Ok(None),
            () = progress.closed() => return Ok(None),
        }
        // Short, and never left halfway: what the host took in would stay without a task of its own.
        networks.clear();
        match take_in(context, request, made, &mut networks).await? {
            Ok(admitted) => {
                if let Some((first, _)) = admitted.attachments.first() {
                    context.roster.follow(&first.id(), progress.waits());
                }
                return Ok(Some(admitted));
            }
            Err(setback) => obstacle = core.handle_setback(setback, Instant::now())?,
        }
        if obstacle == Obstacle::Name {
            made = Some(rand::random());
        }
    }
}

/// Tries once; `networks` are those of the request as far as this host carries them, looked at before the try.
async fn take_in(
    context: &WorkloadContext,
    request: &SandboxRequest,
    made: Option<u32>,
    networks: &mut Vec<Publication>,
) -> Result<Result<Admitted, Setback>, AttachError> {
    for network in request.spec.networks() {
        let Some(mut host_network) = context.host.views.networks.borrow().get(network).cloned() else {
            return Ok(Err(Setback::Absent(network.clone())));
        };
        // What changes from here on counts as a change.
        host_network.mark_unchanged();
        let hindrance = host_network.borrow().hindrance.clone();
        networks.push(host_network);
        if let Some(why) = hindrance {
            return Ok(Err(Setback::Hindered(network.clone(), why)));
        }
    }
    // Seats in a namespace are given one after another.
    let order = context.roster.admitting.lock().await;
    check_hold(context, request)?;
    let seats = seats(context, request, networks)?;
    let specs = request.spec.specs(made, &seats).ok_or_else(|| {
        AttachError::Namespace("the namespace has no room for another attachment".to_owned())
    })?;
    let anchor = request.anchor.stored(&context.boot);
    let admitted = context.host.admit(specs.clone(), anchor.clone()).await.ok_or(AttachError::Ending)?;
    let admitted = match admitted {
        Ok(admitted) => admitted,
        Err(error) => {
            let named = request.spec.is_named();
            return Ok(Err(refusal(context, (&specs, networks.as_slice()), named, error)));
        }
    };
    if let (Some(given), Some(first)) = (&request.given, admitted.first()) {
        // Others in the namespace see it by this. If it cannot be bound, setting up says so.
        let _ = given.bind_at(netns_path(&context.kernel.run_dir, &AttachmentId::of(&first.workload)));
    }
    let (dismissed, mut attachments) = (context.roster.enter(admitted.clone(), &anchor), Vec::new());
    drop(order);
    for (attachment, host_network) in admitted.into_iter().zip(networks.drain(..)) {
        // A network that was made again meanwhile is published anew.
        let current = match host_network.has_changed() {
            Ok(_) => Some(host_network),
            Err(_) => network(context, &attachment.workload.network).await,
        };
        attachments.push((attachment, current.ok_or(AttachError::Ending)?));
    }
    Ok(Ok(Admitted { attachments, dismissed }))
}

/// The host's refusal with everything that decides on it.
fn refusal(
    context: &WorkloadContext,
    (specs, networks): (&[AttachmentSpec], &[Publication]),
    named: bool,
    error: RequestError,
) -> Setback {
    let mut wanted = specs.iter().zip(networks);
    let holder = wanted
        .find_map(|(spec, host_network)| Holder::of(spec, &host_network.borrow().snapshot, &context.node));
    let blocks = match &error {
        RequestError::Admit(AdmitError::Address { network, .. }) => {
            let known = networks.iter().find(|known| is_of(known, network));
            known.map(|known| own_blocks(context, &known.borrow())).unwrap_or_default()
        }
        RequestError::Admit(_) | RequestError::Disk(_) | RequestError::Record(..) => BTreeSet::new(),
    };
    Setback::Refused { error, named, holder, blocks }
}

fn is_of(publication: &Publication, network: &NetworkName) -> bool {
    publication.borrow().snapshot.network.name == *network
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
    networks: &[Publication],
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

/// Returns when another try is worth it. Cancel safe.
async fn overcome(
    obstacle: &Obstacle,
    networks: &mut [Publication],
    context: &WorkloadContext,
    progress: &Progress,
) -> Result<(), AttachError> {
    if let Some(words) = obstacle.words() {
        progress.waiting(words).await;
    }
    match obstacle.wait() {
        Wait::Nothing => Ok(()),
        Wait::Carry(network, held) => carry(context, &network, &held, progress).await,
        Wait::Change(network, limit) => {
            let known = networks.iter_mut().find(|known| is_of(known, &network));
            let known = known.ok_or(AttachError::Ending)?;
            // A network that goes meanwhile is asked for again.
            let _ = match limit {
                Some(limit) => timeout(limit, known.changed()).await.unwrap_or(Ok(())),
                None => known.changed().await,
            };
            Ok(())
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

/// Words for what only control can give.
fn what_for(network: &NetworkName, held: &BTreeSet<Ipv4Net>) -> String {
    if held.is_empty() {
        return format!("network {network}, which this host does not carry yet");
    }
    let (blocks, seconds) =
        (held.iter().map(Ipv4Net::to_string).collect::<Vec<_>>().join(", "), REST.as_secs());
    format!(
        "further addresses of network {network}: those of this host, {blocks}, are in use, or rest for {seconds} s after workloads \
         of other names and services"
    )
}

/// The blocks of this host.
pub(super) fn own_blocks(context: &WorkloadContext, host_network: &HostNetwork) -> BTreeSet<Ipv4Net> {
    host_network.snapshot.own_blocks(&context.node).collect()
}

/// Returns when this host carries the network, with another block than those that it `held`, or when one of these may have a
/// free address.
pub(super) async fn carry(
    context: &WorkloadContext,
    network: &NetworkName,
    held: &BTreeSet<Ipv4Net>,
    progress: &Progress,
) -> Result<(), AttachError> {
    let mut networks = context.host.views.networks.clone();
    let enough = |networks: &BTreeMap<NetworkName, watch::Receiver<Arc<HostNetwork>>>| {
        networks.get(network).is_some_and(|known| !own_blocks(context, &known.borrow()).is_subset(held))
    };
    let mut begun = context.host.views.begun.clone();
    let setting_up = || format!("network {network}, which this host may know and is setting up");
    tokio::select! {
        // An agent that ends tells of that itself.
        () = progress.meanwhile(setting_up, async { drop(begun.wait_for(|begun| *begun).await) }) => {}
        found = networks.wait_for(&enough) => return found.map(drop).map_err(|_| AttachError::Ending),
    }
    loop {
        if enough(&networks.borrow_and_update()) {
            return Ok(());
        }
        let what_for = what_for(network, held);
        let channel = tokio::select! {
            channel = control(context, &what_for, progress) => channel?,
            // Another one may have asked for it, or an earlier state been read from disk.
            found = networks.wait_for(enough) => return found.map(drop).map_err(|_| AttachError::Ending),
            () = tokio::time::sleep(RETRY), if !held.is_empty() => return Ok(()),
        };
        let blocks_held = u32::try_from(held.len()).unwrap_or(u32::MAX);
        let request = v1::CarryRequest { network: network.to_string(), blocks_held, ahead: false };
        let mut client = v1::control_client::ControlClient::new(channel);
        let silent = || format!("control, for {what_for}: it has not answered so far");
        match progress.meanwhile(silent, client.carry(request)).await {
            Ok(_) => {}
            Err(status) if is_passing(status.code()) => {
                progress.waiting(format!("control, for {what_for}: {}", words(&status))).await;
                tokio::time::sleep(RETRY).await;
                if !held.is_empty() {
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
                Some(mut known) => {
                    known.wait_for(|known| !own_blocks(context, known).is_subset(held)).await.map(drop)
                }
                None => networks.wait_for(enough).await.map(drop),
            }
        };
        let missing = || format!("control, which has not told this host of network {network} so far");
        if let Ok(Err(_)) = progress.meanwhile(missing, timeout(STATE, arrived)).await {
            return Err(AttachError::Ending);
        }
    }
}
