//! Parts of an attachment in its namespace: interface, sockets for its sidecar, rules. Safe to repeat.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use sealane_fabric::nft;
use sealane_fabric::overlay::OverlayError;
use sealane_fabric::seat::{Owner, Seat};
use sealane_fabric::services::{ServiceRules, ServiceTable};
use sealane_proto::resource::Network;
use sealane_proto::sidecar::SidecarPorts;
use sealane_proto::types::OverlayIp;
use sealane_sys::{NetNs, RunDir};
use socket2::{Domain, Protocol, Socket, Type};

use super::{AttachError, WorkloadContext};
use crate::attachment::{Attachment, AttachmentId};
use crate::kernel::KernelHandle;
use crate::sidecar;

/// Number of calls that may wait to be accepted by a sidecar.
const BACKLOG: i32 = 1024;

/// Parts that stand.
#[derive(Debug)]
pub(super) struct Fixtures {
    pub(super) netns: NetNs,
    /// The sidecar's listeners, if it has one.
    pub(super) listeners: Vec<OwnedFd>,
    /// Rules that lead to services' endpoints.
    pub(super) services: ServiceRules,
}

pub(super) fn netns_path(run_dir: &RunDir, id: &AttachmentId) -> PathBuf {
    run_dir.workload_namespace(&id.record_name())
}

pub(super) fn resolv_path(run_dir: &RunDir, id: &AttachmentId) -> PathBuf {
    run_dir.resolv_conf(&id.record_name())
}

fn listeners_key(id: &AttachmentId) -> String {
    format!("sidecar/{id}")
}

/// Makes everything that stands before the interface, or finds it.
pub(super) async fn plumb(
    context: &WorkloadContext,
    network: &Network,
    attachment: &Attachment,
    table: &Arc<ServiceTable>,
    netns: &NetNs,
) -> Result<Fixtures, AttachError> {
    let Attachment { workload, seat, .. } = attachment;
    let (seat, address, ports) = (*seat, workload.address, context.sidecars.ports);
    let id = AttachmentId::of(workload);
    let fail = |error: &dyn std::fmt::Display| AttachError::setup(&id, error);
    let mut listeners = Vec::new();
    if workload.sidecar {
        let own6 = network.twin(address).map(IpAddr::from);
        let places = places(address, own6, seat, ports);
        listeners = listen(&context.kernel, netns, &id, &places).await.map_err(|error| fail(&error))?;
        // The listeners stand before the rules, and these before the interface, whoever runs in the namespace already:
        // nothing is refused, nothing passes by.
        let redirects = redirects(network, attachment, ports);
        let rules = nft::ensure_sidecar_rules(&context.kernel.hopper, netns, redirects).await;
        rules.map_err(|error| fail(&error))?;
    }
    let services = ServiceRules::new(context.kernel.hopper.clone(), network.name.clone());
    let mut services = services.counted(context.service_metrics.clone());
    services.ensure(netns, table).await.map_err(|error| fail(&error))?;
    let netns = netns.try_clone().map_err(|error| fail(&error))?;
    Ok(Fixtures { netns, listeners, services })
}

/// Makes the interface, or finds it: the last thing, by which the workload is reached. Answers why the network cannot be set up
/// now, if it cannot.
pub(super) async fn connect(
    kernel: &KernelHandle,
    network: &Network,
    attachment: &Attachment,
    netns: &NetNs,
) -> Result<Option<String>, AttachError> {
    match kernel.overlay.ensure_workload(network, attachment, netns).await {
        Ok(_) => Ok(None),
        Err(
            error @ (OverlayError::Underlay(_)
            | OverlayError::VniTaken { .. }
            | OverlayError::PortTaken { .. }),
        ) => Ok(Some(error.to_string())),
        Err(error @ OverlayError::InterfaceTaken { .. }) => Err(AttachError::Namespace(error.to_string())),
        Err(error) => Err(AttachError::setup(&attachment.id(), error)),
    }
}

/// Removes everything: the link first, then rules and sockets. What is gone already is no error.
pub(super) async fn unplumb(kernel: &KernelHandle, attachment: &Attachment, fixtures: Option<Fixtures>) {
    let id = attachment.id();
    let complain = |what: &str, error: &dyn std::fmt::Display| {
        tracing::error!(%error, workload = %id, "cannot remove {what} of a workload that ended");
    };
    if let Err(error) = kernel.overlay.remove_workload(&id.network, &id.workload).await {
        complain("the interface", &error);
    }
    if let Some(mut fixtures) = fixtures
        && let Err(error) = fixtures.services.remove(&fixtures.netns).await
    {
        complain("the rules of service addresses", &error);
    }
    // A namespace of the workload's own goes with all its rules.
    let given = (attachment.seat.owner() == Owner::Other).then(|| netns_path(&kernel.run_dir, &id));
    if let Some(netns) = given.and_then(|path| NetNs::open(path).ok()) {
        // Also of an earlier agent, which this one did not take up.
        let mut services = ServiceRules::new(kernel.hopper.clone(), id.network.clone());
        if let Err(error) = services.remove(&netns).await {
            complain("the rules of service addresses", &error);
        }
        if let Err(error) = nft::remove_sidecar_rules(&kernel.hopper, &netns, attachment.seat).await {
            complain("the rules", &error);
        }
    }
    if let Err(error) = kernel.keeper.remove(&listeners_key(&id)) {
        complain("the sockets", &error);
    }
}

/// The sidecar's listeners: kept, or bound anew. When everybody who held them was killed but the sidecar itself, which
/// listens on, they are taken from it; where that is not possible, it is ended first.
async fn listen(
    kernel: &KernelHandle,
    netns: &NetNs,
    id: &AttachmentId,
    places: &[SocketAddr],
) -> io::Result<Vec<OwnedFd>> {
    let bind = || {
        let places = places.to_vec();
        kernel.kept(netns, &listeners_key(id), move || places.into_iter().map(listener).collect())
    };
    match bind() {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        bound => return bound,
    }
    let Some(found) = sidecar::listeners_of(&kernel.run_dir, id, places) else {
        sidecar::end(&kernel.run_dir, id).await?;
        return bind();
    };
    tracing::info!(workload = %id, "taking back the sockets of a sidecar that outlived all who held them");
    kernel.keeper.put(&listeners_key(id), found).map_err(io::Error::other)?;
    bind()
}

/// The sidecar's listeners with those made anew that somebody in the namespace has closed (`ss -K`), held from now on.
pub(super) fn listen_again(
    kernel: &KernelHandle,
    network: &Network,
    (attachment, ports): (&Attachment, SidecarPorts),
    netns: &NetNs,
) -> io::Result<Vec<OwnedFd>> {
    let key = listeners_key(&attachment.id());
    let address = attachment.workload.address;
    let own6 = network.twin(address).map(IpAddr::from);
    let places = places(address, own6, attachment.seat, ports);
    let held = kernel.keeper.copies(&key).unwrap_or_default();
    kernel.keep(netns, &key, move || {
        let mut held = held.into_iter();
        let kept = |place| held.next().filter(sidecar::listens).map_or_else(|| listener(place), Ok);
        places.into_iter().map(kept).collect()
    })
}

/// The calls of a workload that go through its sidecar, by the families of its network.
pub(super) fn redirects(
    network: &Network,
    attachment: &Attachment,
    ports: SidecarPorts,
) -> impl Iterator<Item = nft::Redirect> + use<> {
    let (subnet, address, seat) = (network.subnet, attachment.workload.address, attachment.seat);
    let v6 = network.subnet6.map(|subnet6| nft::Redirect::v6(subnet6, subnet, address, seat, ports));
    [Some(nft::Redirect::v4(subnet, address, seat, ports)), v6].into_iter().flatten()
}

/// Each attachment's sidecar has listeners of its own addresses, so that several fit into a namespace. Tunnels are
/// between IPv4 addresses; only what is redirected comes over IPv6.
fn places(own: OverlayIp, own6: Option<IpAddr>, seat: Seat, ports: SidecarPorts) -> Vec<SocketAddr> {
    let (loopback, own) = (IpAddr::V4(seat.loopback()), IpAddr::V4(own.to_ipv4()));
    let ipv4 = [(loopback, ports.outbound), (own, ports.inbound), (own, ports.tunnel)];
    let ipv6 = own6.into_iter().flat_map(|own6| [(own6, ports.outbound), (own6, ports.inbound)]);
    ipv4.into_iter().chain(ipv6).map(SocketAddr::from).collect()
}

fn listener(place: SocketAddr) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(place), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // The address comes with the interface, after the sockets.
    if place.is_ipv4() {
        socket.set_freebind_v4(true)?;
    } else {
        socket.set_freebind_v6(true)?;
    }
    socket.bind(&place.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
