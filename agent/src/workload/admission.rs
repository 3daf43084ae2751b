//! How a new workload gets a name and an address: waited for where that helps, written down before anything is made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sealane_proto::resource::Workload;
use sealane_proto::types::NetworkName;
use sealane_proto::wire::v1;
use sealane_sys::Process;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tonic::transport::Channel;

use super::life::Progress;
use super::{AttachError, Context, RunSpec};
use crate::certs::is_passing;
use crate::disk::StoredProcess;
use crate::host::{AdmitError, Effective};
use crate::ipam::IpamError;
use crate::sidecar::Key;

/// When a call to control that failed is tried again.
pub(super) const RETRY: Duration = Duration::from_millis(500);
/// How long a network's state may follow its lease before the lease is asked for again.
const STATE: Duration = Duration::from_secs(5);

/// A workload that the host has taken in and written down.
pub(super) struct Admitted {
    pub(super) workload: Workload,
    pub(super) effective: watch::Receiver<Arc<Effective>>,
}

/// Why a workload was not taken in at the last try, and what can be done about it.
enum Obstacle {
    /// This host has no more than so many blocks of the network's addresses.
    Blocks(usize),
    /// A workload of that name or address is still ending.
    Ending(Key, watch::Receiver<Arc<Effective>>),
    /// The made name was taken: make another.
    Name,
}

/// Takes in the workload that `request` asks for; `None` when `process` ended before.
pub(super) async fn admit(
    context: &Context,
    request: &RunSpec,
    process: &AsyncFd<Process>,
    progress: &Progress,
) -> Result<Option<Admitted>, AttachError> {
    let (pid, started) = (process.get_ref().pid(), process.get_ref().started());
    let stored = StoredProcess { pid, started, boot: context.boot.clone() };
    let mut obstacle = Obstacle::Blocks(0);
    loop {
        tokio::select! {
            overcome = obstacle.overcome(context, request.network(), progress) => overcome?,
            _ = process.readable() => return Ok(None),
        }
        // Short, and never left halfway: what the host took in would stay without a task of its own.
        match take_in(context, request, &stored).await? {
            Ok(admitted) => return Ok(Some(admitted)),
            Err(next) => obstacle = next,
        }
    }
}

async fn take_in(
    context: &Context,
    request: &RunSpec,
    process: &StoredProcess,
) -> Result<Result<Admitted, Obstacle>, AttachError> {
    let spec = request.spec(rand::random()).ok_or(AttachError::Ending)?;
    let Some(mut effective) = context.host.views.networks.borrow().get(&spec.network).cloned() else {
        return Ok(Err(Obstacle::Blocks(0)));
    };
    // What changes from here on counts as a change.
    effective.mark_unchanged();
    let admitted = context.host.admit(spec, process.clone()).await.ok_or(AttachError::Ending)?;
    let workload = match admitted {
        Ok(workload) => workload,
        Err(AttachError::Admit(AdmitError::NameInUse { .. })) if !request.is_named() => {
            return Ok(Err(Obstacle::Name));
        }
        Err(AttachError::Admit(AdmitError::Ending(key))) => return Ok(Err(Obstacle::Ending(key, effective))),
        Err(AttachError::Admit(AdmitError::Address { source: IpamError::Exhausted { .. }, .. })) => {
            let held = own_blocks(context, &effective.borrow());
            return Ok(Err(Obstacle::Blocks(held)));
        }
        Err(error) => return Err(error),
    };
    Ok(Ok(Admitted { workload, effective }))
}

impl Obstacle {
    /// Returns when another try is worth it. Cancel safe.
    async fn overcome(
        &mut self,
        context: &Context,
        network: &NetworkName,
        progress: &Progress,
    ) -> Result<(), AttachError> {
        match self {
            Self::Name => Ok(()),
            Self::Blocks(held) => carry(context, network, *held, progress).await,
            Self::Ending(key, effective) => {
                progress.waiting(format!("workload {key}, which is still ending")).await;
                // The network changes when it is gone.
                effective.changed().await.map_err(|_| AttachError::Ending)
            }
        }
    }
}

/// The network's publication, once there is one.
pub(super) async fn network(
    context: &Context,
    network: &NetworkName,
) -> Option<watch::Receiver<Arc<Effective>>> {
    let mut networks = context.host.views.networks.clone();
    let networks = networks.wait_for(|networks| networks.contains_key(network)).await.ok()?;
    networks.get(network).cloned()
}

/// A channel to control, as soon as there is one.
pub(super) async fn control(
    context: &Context,
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

fn own_blocks(context: &Context, effective: &Effective) -> usize {
    let own = effective.snapshot.blocks.iter().filter(|block| block.node.as_ref() == Some(&context.node));
    own.count()
}

/// Returns when this host carries the network with more than `held` blocks of addresses.
async fn carry(
    context: &Context,
    network: &NetworkName,
    held: usize,
    progress: &Progress,
) -> Result<(), AttachError> {
    let mut networks = context.host.views.networks.clone();
    let enough = |networks: &BTreeMap<NetworkName, watch::Receiver<Arc<Effective>>>| {
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
        match v1::control_client::ControlClient::new(channel).carry(request).await {
            Ok(_) => {}
            Err(status) if status.code() == tonic::Code::NotFound => {
                return Err(AttachError::NoNetwork(status.message().to_owned()));
            }
            Err(status) if is_passing(status.code()) => {
                progress.waiting(format!("control: {}", status.message())).await;
                tokio::time::sleep(RETRY).await;
                continue;
            }
            Err(status) => return Err(AttachError::Refused(status.message().to_owned())),
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
        if let Ok(Err(_)) = tokio::time::timeout(STATE, arrived).await {
            return Err(AttachError::Ending);
        }
    }
}
