//! The service for people and scripts, on control.sock alone.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use data_encoding::BASE32_NOPAD;
use sealane_base::drain::Draining;
use sealane_proto::resource::Egress;
use sealane_proto::token::{JoinToken, TokenSecret};
use sealane_proto::types::{Hosts, Mtls, Mtu, NetworkName, NodeName, Subnet, Subnet6};
use sealane_proto::wire::v1;
use tonic::{Request, Response, Status};

use super::{ControlApi, documents, history};
use crate::ca::Authority;
use crate::core::{
    Actor, CreateNetwork, CreateToken, CreateTokenRefusal, GrowNetwork, RemoveNetwork, RevokeToken,
    Timestamp, TokenRecord,
};
use crate::fellows::Fellows;
use crate::metrics::Metrics;
use crate::operator::operator;
use crate::registry::Registry;
use crate::status::{invalid, status_of};
use crate::store::{SubmitError, Writer, encode};

/// Size of a backup's piece in one message, in bytes.
const PIECE: usize = 1 << 20;

/// Serves whoever may open the socket: root on this host.
#[derive(Clone)]
pub(crate) struct AdminApi {
    pub(crate) writer: Writer,
    pub(crate) registry: Arc<Registry>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) metrics: Metrics,
    pub(crate) draining: Draining,
    /// Address at which hosts join.
    pub(crate) listens: SocketAddr,
    /// The other control planes, if the store may be shared.
    pub(crate) fellows: Option<Fellows>,
}

impl AdminApi {
    /// By the same state as the service for hosts, which is at `listens`.
    pub(crate) fn beside(hosts: &ControlApi, listens: SocketAddr, fellows: Option<Fellows>) -> Self {
        Self {
            writer: hosts.context.writer.clone(),
            registry: hosts.context.registry.clone(),
            authority: hosts.authority.clone(),
            metrics: hosts.context.metrics.clone(),
            draining: hosts.context.draining.clone(),
            listens,
            fellows,
        }
    }
}

/// Wishes for a new token.
#[derive(Clone, Debug)]
pub(crate) struct TokenSpec {
    /// Time for which it admits hosts.
    pub(crate) ttl: Duration,
    /// Number of hosts; `None`: any number.
    pub(crate) uses: Option<u32>,
    /// The one that may join by it; `None`: any.
    pub(crate) node: Option<NodeName>,
    /// The networks that hosts which join by it may carry; none: any.
    pub(crate) networks: BTreeSet<NetworkName>,
}

/// Makes a token; its secret exists in the result alone.
pub(crate) async fn create_token(
    writer: &Writer,
    actor: Actor,
    authority: &Authority,
    wanted: TokenSpec,
) -> Result<(JoinToken, TokenRecord), SubmitError<CreateTokenRefusal>> {
    let secret = TokenSecret::new(rand::random());
    let id = BASE32_NOPAD.encode(&rand::random::<[u8; 5]>()).to_ascii_lowercase();
    let TokenSpec { ttl, uses, node, networks } = wanted;
    let command = CreateToken { id: id.clone(), hash: secret.hash(), ttl, uses, node, networks };
    let record = writer.submit(actor, command).await?;
    Ok((JoinToken { id, secret, pin: authority.pin() }, record))
}

/// The pieces of a backup.
type Pieces = tokio_stream::Iter<std::vec::IntoIter<Result<v1::BackupResponse, Status>>>;

/// Cuts a backup into messages.
pub(crate) fn pieces(bytes: &[u8]) -> Pieces {
    let pieces = bytes.chunks(PIECE).map(|piece| Ok(v1::BackupResponse { data: piece.to_vec() }));
    tokio_stream::iter(pieces.collect::<Vec<_>>())
}

#[tonic::async_trait]
impl v1::admin_server::Admin for AdminApi {
    async fn create_network(
        &self,
        request: Request<v1::CreateNetworkRequest>,
    ) -> Result<Response<v1::Network>, Status> {
        let actor = operator(&request, "network create");
        let v1::CreateNetworkRequest { name, subnet, mtu, deny_egress, subnet6, hosts, mtls } =
            request.into_inner();
        let name: NetworkName = name.parse().map_err(invalid)?;
        let subnet: Subnet = subnet.parse().map_err(invalid)?;
        let subnet6 = Some(subnet6).filter(|text| !text.is_empty()).map(|text| text.parse());
        let subnet6: Option<Subnet6> = subnet6.transpose().map_err(invalid)?;
        let mtls = Some(mtls).filter(|text| !text.is_empty()).map(|text| text.parse());
        let mtls: Option<Mtls> = mtls.transpose().map_err(invalid)?;
        let mtu = Some(mtu).filter(|&mtu| mtu != 0).map(Mtu::try_from).transpose().map_err(invalid)?;
        let egress = Egress::from_denied(deny_egress);
        let hosts = hosts.iter().map(|name| name.parse()).collect::<Result<Hosts, _>>().map_err(invalid)?;
        let command = CreateNetwork { name, hosts, subnet, mtu, egress, subnet6, mtls };
        let network = self.writer.submit(actor, command).await.map_err(status_of)?;
        tracing::info!(network = %network.name, subnet = %network.subnet, vni = %network.vni, "network created");
        Ok(Response::new((&network).into()))
    }

    async fn grow_network(
        &self,
        request: Request<v1::GrowNetworkRequest>,
    ) -> Result<Response<v1::Network>, Status> {
        let actor = operator(&request, "network grow");
        let v1::GrowNetworkRequest { name, subnet } = request.into_inner();
        let name: NetworkName = name.parse().map_err(invalid)?;
        let subnet: Subnet = subnet.parse().map_err(invalid)?;
        let network = self.writer.submit(actor, GrowNetwork { name, subnet }).await.map_err(status_of)?;
        tracing::info!(network = %network.name, subnet = %network.subnet, "network has this subnet from now on");
        Ok(Response::new((&network).into()))
    }

    async fn remove_network(
        &self,
        request: Request<v1::RemoveNetworkRequest>,
    ) -> Result<Response<v1::RemoveNetworkResponse>, Status> {
        let actor = operator(&request, "network rm");
        let name: NetworkName = request.into_inner().name.parse().map_err(invalid)?;
        self.writer.submit(actor, RemoveNetwork(name.clone())).await.map_err(status_of)?;
        tracing::info!(network = %name, "network removed");
        Ok(Response::new(v1::RemoveNetworkResponse {}))
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let actor = operator(&request, "token create");
        let v1::CreateTokenRequest { ttl_seconds, uses, node, networks } = request.into_inner();
        let node = match node.as_str() {
            "" => None,
            name => Some(name.parse().map_err(invalid)?),
        };
        let ttl = Duration::from_secs(ttl_seconds);
        let networks = networks.iter().map(|name| name.parse()).collect::<Result<_, _>>().map_err(invalid)?;
        let wanted = TokenSpec { ttl, uses: Some(uses).filter(|&uses| uses != 0), node, networks };
        let (token, record) =
            create_token(&self.writer, actor, &self.authority, wanted).await.map_err(status_of)?;
        tracing::info!(token = token.id, "token created");
        Ok(Response::new(v1::CreateTokenResponse {
            token: token.to_string(),
            expires_unix_seconds: record.expires.unix(),
            listens: self.listens.to_string(),
        }))
    }

    async fn list_tokens(
        &self,
        _request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        let (directory, now) = (self.registry.directory(), SystemTime::now().into());
        let tokens = directory.tokens.values().map(|token| v1::Token {
            id: token.id.clone(),
            created_unix_seconds: token.created.unix(),
            expires_unix_seconds: token.expires.unix(),
            uses: token.uses.unwrap_or_default(),
            used: token.used,
            node: token.node.as_ref().map(ToString::to_string).unwrap_or_default(),
            state: token.standing(now).to_string(),
            networks: token.networks.iter().map(ToString::to_string).collect(),
        });
        Ok(Response::new(v1::ListTokensResponse { tokens: tokens.collect() }))
    }

    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Result<Response<v1::ApplyResponse>, Status> {
        let actor = operator(&request, "apply");
        documents::apply(&self.writer, actor, request.into_inner()).await.map(Response::new)
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        let actor = operator(&request, "delete");
        documents::delete(&self.writer, actor, request.into_inner()).await.map(Response::new)
    }

    async fn await_applied(
        &self,
        request: Request<v1::AwaitAppliedRequest>,
    ) -> Result<Response<v1::AwaitAppliedResponse>, Status> {
        let (draining, request) = (self.draining.clone(), request.into_inner());
        documents::await_applied(&self.registry, draining, request).await.map(Response::new)
    }

    type BackupStream = Pieces;

    async fn backup(
        &self,
        _request: Request<v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let taken = Timestamp::from(SystemTime::now());
        let rows = self.writer.rows().await.map_err(unavailable)?;
        let bytes = encode(rows, taken);
        tracing::info!(bytes = bytes.len(), "backup taken");
        Ok(Response::new(pieces(&bytes)))
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        let actor = operator(&request, "token revoke");
        let id = request.into_inner().id;
        self.writer.submit(actor, RevokeToken(id.clone())).await.map_err(status_of)?;
        self.metrics.revocations.with_label_values(&["token"]).inc();
        tracing::info!(token = id, "token revoked");
        Ok(Response::new(v1::RevokeTokenResponse {}))
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        let actor = operator(&request, "node rm");
        self.remove(actor, request.into_inner()).await.map(Response::new)
    }

    async fn drain_node(
        &self,
        request: Request<v1::DrainNodeRequest>,
    ) -> Result<Response<v1::DrainNodeResponse>, Status> {
        let verb = if request.get_ref().drained { "node drain" } else { "node undrain" };
        self.drain(operator(&request, verb), request.into_inner()).await?;
        Ok(Response::new(v1::DrainNodeResponse {}))
    }

    async fn remove_service(
        &self,
        request: Request<v1::RemoveServiceRequest>,
    ) -> Result<Response<v1::RemoveServiceResponse>, Status> {
        self.end_service(operator(&request, "service rm"), request.into_inner()).await?;
        Ok(Response::new(v1::RemoveServiceResponse {}))
    }

    async fn history(
        &self,
        request: Request<v1::HistoryRequest>,
    ) -> Result<Response<v1::HistoryResponse>, Status> {
        history::page(&self.writer, request.into_inner()).await.map(Response::new)
    }

    async fn documents_at(
        &self,
        request: Request<v1::DocumentsAtRequest>,
    ) -> Result<Response<v1::DocumentsAtResponse>, Status> {
        let parts = (&self.writer, self.registry.as_ref());
        history::documents_at(parts, request.into_inner()).await.map(Response::new)
    }

    async fn remove_control(
        &self,
        request: Request<v1::RemoveControlRequest>,
    ) -> Result<Response<v1::RemoveControlResponse>, Status> {
        self.forget(request.into_inner()).await?;
        Ok(Response::new(v1::RemoveControlResponse {}))
    }

    async fn rollback(
        &self,
        request: Request<v1::RollbackRequest>,
    ) -> Result<Response<v1::RollbackResponse>, Status> {
        let actor = operator(&request, format!("rollback --to {}", request.get_ref().revision));
        let parts = (&self.writer, self.registry.as_ref());
        history::roll_back(parts, actor, request.into_inner()).await.map(Response::new)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
fn unavailable(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}
