//! `identity`: which certificate a workload shows, and how long it lasts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sealane_proto::resource::{NetworkSnapshot, Workload};
use sealane_proto::types::{NetworkName, WorkloadRef};
use sealane_proto::wire::v1;
use tokio::sync::watch;
use tonic::Status;

use crate::certs::describe;
use crate::host::HostNetwork;
use crate::workload::{Workloads, instances};

/// The certificate of a workload on this host.
///
/// # Errors
/// When there is no such workload, several, or one without a certificate.
pub(super) fn identity(
    workloads: &Workloads,
    request: &v1::IdentityRequest,
) -> Result<v1::IdentityView, Status> {
    let (workload, snapshot) = find(workloads, request)?;
    if !workload.sidecar {
        return Err(Status::failed_precondition(format!(
            "workload {} has no sidecar, so it has no certificate; start it without --no-sidecar",
            workload.shown()
        )));
    }
    let principal = workload.principal();
    let known =
        workloads.identities().known(&principal).map_err(|error| Status::internal(error.to_string()))?;
    let known = known.ok_or_else(|| {
        Status::failed_precondition(format!(
            "workload {} waits for its certificate; see `sealane status`",
            workload.shown()
        ))
    })?;
    let identity = known.borrow().clone();
    // The roots are what it trusts; the chain ends in one of them, and says which only when it brings it along.
    let chain: Result<Vec<_>, _> = identity.chain.iter().map(describe).collect();
    let chain = chain.map_err(|error| Status::internal(error.to_string()))?;
    Ok(v1::IdentityView {
        workload: workload.shown().to_string(),
        network: workload.network.to_string(),
        spiffe_id: identity.spiffe_id.to_string(),
        chain,
        renew_unix_seconds: unix(identity.validity.due()),
        control_connected: workloads.host().views.control.borrow().is_some(),
        mtls: snapshot.mtls_of(&workload).to_string(),
        ports: snapshot.offered(&workload).map(|port| (&port).into()).collect(),
    })
}

fn find(
    workloads: &Workloads,
    request: &v1::IdentityRequest,
) -> Result<(Workload, Arc<NetworkSnapshot>), Status> {
    let networks = workloads.host().views.networks.borrow();
    let mut found: Vec<(Workload, Arc<NetworkSnapshot>)> = networks
        .iter()
        .filter(|(name, _)| request.network.is_empty() || name.as_str() == request.network)
        .flat_map(|(_, host_network)| {
            let snapshot = host_network.borrow().snapshot.clone();
            let own = |known: &&Workload| {
                known.node == *workloads.node() && known.shown().as_str() == request.workload
            };
            let own = snapshot.workloads.iter().find(own).cloned();
            own.map(|workload| (workload, snapshot))
        })
        .collect();
    match (found.pop(), found.first()) {
        (None, _) => Err(Status::not_found(missing(workloads, request, &networks))),
        (Some(only), None) => Ok(only),
        (Some((one, _)), Some((other, _))) => Err(Status::invalid_argument(format!(
            "there are several workloads {} on host {}; hint: say which, {}.{} or {}.{}",
            one.shown(),
            workloads.node(),
            other.shown(),
            other.network,
            one.shown(),
            one.network
        ))),
    }
}

/// Tells why there is no such workload here: no such network, on another host, or not at all.
fn missing(
    workloads: &Workloads,
    request: &v1::IdentityRequest,
    networks: &BTreeMap<NetworkName, watch::Receiver<Arc<HostNetwork>>>,
) -> String {
    let (host, v1::IdentityRequest { workload, network }) = (workloads.node(), request);
    let mut wanted = networks
        .iter()
        .filter(|(name, _)| network.is_empty() || name.as_str() == network)
        .map(|(_, host_network)| host_network.borrow().snapshot.clone())
        .peekable();
    if wanted.peek().is_none() && !network.is_empty() {
        return format!("host {host} is in no network {network}; see `sealane network ls`");
    }
    let elsewhere = wanted.find_map(|snapshot| {
        let known = snapshot.workloads.iter().find(|known| known.shown().as_str() == workload)?;
        Some(known.node.clone())
    });
    let within = if network.is_empty() { String::new() } else { format!(" in network {network}") };
    match elsewhere {
        Some(there) => format!(
            "workload {workload}{within} is on host {there}; hint: ask there, certificates are known on the workload's own host"
        ),
        None => {
            let hint = wanted_instances(workloads, request, networks);
            let hint = hint.unwrap_or_else(|| "see `sealane workload ls`".to_owned());
            format!("there is no workload {workload}{within} on host {host}; hint: {hint}")
        }
    }
}

/// The names of the instances on this host, when a service was named.
fn wanted_instances(
    workloads: &Workloads,
    request: &v1::IdentityRequest,
    networks: &BTreeMap<NetworkName, watch::Receiver<Arc<HostNetwork>>>,
) -> Option<String> {
    let wanted = WorkloadRef { name: request.workload.parse().ok()?, network: request.network.parse().ok() };
    let snapshots: Vec<_> = networks.values().map(|known| known.borrow().snapshot.clone()).collect();
    let all = snapshots.iter().flat_map(|snapshot| &snapshot.workloads);
    instances(&wanted, all.filter(|known| known.node == *workloads.node()))
}

fn unix(instant: SystemTime) -> u64 {
    instant.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
