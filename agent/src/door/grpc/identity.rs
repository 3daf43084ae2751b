//! `identity`: which certificate a workload shows, and how long it lasts.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sealane_proto::identity::Principal;
use sealane_proto::resource::{NetworkSnapshot, Workload};
use sealane_proto::wire::v1;
use tonic::Status;

use crate::certs::describe;
use crate::workload::Context;

/// The certificate of a workload on this host.
///
/// # Errors
/// When there is no such workload, several, or one without a certificate.
pub(super) fn identity(context: &Context, request: &v1::IdentityRequest) -> Result<v1::IdentityView, Status> {
    let (workload, snapshot) = find(context, request)?;
    if !workload.sidecar {
        return Err(Status::failed_precondition(format!(
            "workload {} has no sidecar, so it has no certificate; start it without --no-sidecar",
            workload.name
        )));
    }
    let network = workload.network.clone();
    let principal = match &workload.service {
        Some(service) => Principal::Service(network, service.clone()),
        None => Principal::Workload(network, workload.name.clone()),
    };
    let known = context.certs.known(&principal).map_err(|error| Status::internal(error.to_string()))?;
    let known = known.ok_or_else(|| {
        Status::failed_precondition(format!(
            "workload {} waits for its certificate; see `sealane status`",
            workload.name
        ))
    })?;
    let identity = known.borrow().clone();
    // The roots are what it trusts; the chain ends in one of them, and says which only when it brings it along.
    let chain: Result<Vec<_>, _> = identity.chain.iter().map(describe).collect();
    let chain = chain.map_err(|error| Status::internal(error.to_string()))?;
    Ok(v1::IdentityView {
        workload: workload.name.to_string(),
        network: workload.network.to_string(),
        spiffe_id: identity.spiffe_id.to_string(),
        chain,
        renew_unix_seconds: unix(identity.validity.due()),
        control_connected: context.host.views.control.borrow().is_some(),
        mtls: snapshot.mtls_of(&workload).to_string(),
        ports: snapshot.offered(&workload).map(|port| (&port).into()).collect(),
    })
}

fn find(
    context: &Context,
    request: &v1::IdentityRequest,
) -> Result<(Workload, Arc<NetworkSnapshot>), Status> {
    let networks = context.host.views.networks.borrow();
    let mut found: Vec<(Workload, Arc<NetworkSnapshot>)> = networks
        .iter()
        .filter(|(name, _)| request.network.is_empty() || name.as_str() == request.network)
        .flat_map(|(_, effective)| {
            let snapshot = effective.borrow().snapshot.clone();
            let own =
                |known: &&Workload| known.node == context.node && known.name.as_str() == request.workload;
            let own = snapshot.workloads.iter().find(own).cloned();
            own.map(|workload| (workload, snapshot))
        })
        .collect();
    match (found.pop(), found.first()) {
        (None, _) => Err(Status::not_found(format!(
            "there is no workload {} on host {}; see `sealane workload ls`",
            request.workload, context.node
        ))),
        (Some(only), None) => Ok(only),
        (Some((one, _)), Some((other, _))) => Err(Status::invalid_argument(format!(
            "there are several workloads {} on host {}; hint: say which, {}.{} or {}.{}",
            one.name, context.node, other.name, other.network, one.name, one.network
        ))),
    }
}

fn unix(instant: SystemTime) -> u64 {
    instant.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
