//! Nodes and services that leave.

use sealane_proto::types::{NetworkName, NodeName, ServiceName};
use sealane_proto::wire::v1;
use tonic::Status;

use super::admin::AdminApi;
use crate::core::{Actor, DrainNode, NodeRemoved, RemoveNode, RemoveService};
use crate::fellows::RemovalError;
use crate::status::{invalid, status_of};

impl AdminApi {
    pub(super) async fn remove(
        &self,
        actor: Actor,
        request: v1::RemoveNodeRequest,
    ) -> Result<v1::RemoveNodeResponse, Status> {
        let name: NodeName = request.name.parse().map_err(invalid)?;
        let connected = self.registry.seen().get(&name).is_some_and(|seen| seen.connected);
        let command = RemoveNode { name: name.clone(), connected, force: request.force };
        let NodeRemoved { serials, token } = self.writer.submit(actor, command).await.map_err(status_of)?;
        if let Some(token) = &token {
            self.metrics.revocations.with_label_values(&["token"]).inc();
            tracing::info!(node = %name, token, "the token that the node came by is revoked");
        }
        if let Some(serials) = &serials {
            self.metrics.revocations.with_label_values(&["node"]).inc();
            tracing::info!(node = %name, %serials, "node removed, its certificates revoked");
        } else {
            tracing::info!(node = %name, "node removed; its certificates are revoked when it comes");
        }
        Ok(v1::RemoveNodeResponse { key_unknown: serials.is_none(), token: token.unwrap_or_default() })
    }

    pub(super) async fn forget(
        &self,
        v1::RemoveControlRequest { address }: v1::RemoveControlRequest,
    ) -> Result<(), Status> {
        let alone = || Status::failed_precondition("this control plane has its store alone");
        let fellows = self.fellows.as_ref().ok_or_else(alone)?;
        fellows.remove(&address).await.map_err(|error| match error {
            RemovalError::Unknown(_) => Status::not_found(error.to_string()),
            RemovalError::Runs(_) => Status::failed_precondition(error.to_string()),
            RemovalError::Failed(_) => Status::unavailable(error.to_string()),
        })?;
        tracing::info!(control = address, "control plane taken from the roll");
        Ok(())
    }

    pub(super) async fn drain(&self, actor: Actor, request: v1::DrainNodeRequest) -> Result<(), Status> {
        let v1::DrainNodeRequest { name, drained } = request;
        let name: NodeName = name.parse().map_err(invalid)?;
        self.writer.submit(actor, DrainNode { name: name.clone(), drained }).await.map_err(status_of)?;
        tracing::info!(node = %name, drained, "node drained or taken back");
        Ok(())
    }

    pub(super) async fn end_service(
        &self,
        actor: Actor,
        request: v1::RemoveServiceRequest,
    ) -> Result<(), Status> {
        let network: NetworkName = request.network.parse().map_err(invalid)?;
        let name: ServiceName = request.name.parse().map_err(invalid)?;
        let command = RemoveService { network: network.clone(), name: name.clone() };
        self.writer.submit(actor, command).await.map_err(status_of)?;
        tracing::info!(%network, service = %name, "service removed");
        Ok(())
    }
}
