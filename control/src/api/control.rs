//! The service for hosts. Who asks is known by the certificate; what the request says about that is not used.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sealane_base::task;
use sealane_proto::client::ClockPair;
use sealane_proto::identity::{Principal, SerialPrefix};
use sealane_proto::resource::Node;
use sealane_proto::token::{ParseTokenError, is_id};
use sealane_proto::types::{NetworkName, NodeName, ServiceName, WorkloadName};
use sealane_proto::wire::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::documents;
use crate::ca::{Authority, CLOCK_SKEW, ProvenKey, Signed};
use crate::core::{Actor, CarryNetwork, JoinNode, JoinRefusal, Joined, LeaseAhead, MayCarry, Timestamp};
use crate::serve::Peer;
use crate::session::{self, Context};
use crate::status::{invalid, not_a_node, status_of};
use crate::store::SubmitError;

/// Time by which a host's clock may be ahead: certificates would soon look expired to it.
const CLOCK_AHEAD: Duration = Duration::from_secs(3_600);
/// Number of messages in a stream's channel: a newer one replaces one that waits elsewhere.
const CHANNEL: usize = 4;

/// Serves hosts.
#[derive(Clone)]
pub(crate) struct ControlApi {
    pub(crate) context: Context,
    pub(crate) authority: Arc<Authority>,
}

impl ControlApi {
    /// The host that asks, if it is still part of the mesh.
    fn node<T>(&self, request: &Request<T>) -> Result<NodeName, Status> {
        peer(request)?.member(&self.context.registry.directory())
    }

    /// Returns the beginning of the serial numbers of a host's certificates.
    fn serials(&self, node: &NodeName) -> Result<SerialPrefix, Status> {
        let directory = self.context.registry.directory();
        let record = directory.nodes.get(node);
        let record = record.ok_or_else(|| not_a_node(&directory, node, None))?;
        Ok(SerialPrefix::of_key(&record.key))
    }

    /// Signs for a host. Its own key says how the serial number begins.
    fn sign(
        &self,
        key: &ProvenKey,
        principal: Principal,
        host: SerialPrefix,
    ) -> Result<v1::Certificate, Status> {
        let kind = match principal {
            Principal::Control => "control",
            Principal::Node(_) => "node",
            Principal::Service(..) => "service",
            Principal::Workload(..) => "workload",
        };
        let Signed { chain, .. } = self
            .authority
            .sign(key, principal, host, SystemTime::now().into())
            .map_err(|error| Status::internal(error.to_string()))?;
        self.context.metrics.certificates_signed.with_label_values(&[kind]).inc();
        let roots = self.context.roots.clone();
        Ok(v1::Certificate { chain: chain.iter().map(|cert| cert.to_vec()).collect(), roots })
    }
}

#[tonic::async_trait]
impl v1::control_server::Control for ControlApi {
    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        let from = request.extensions().get::<Peer>().map(|peer| peer.addr);
        let request = request.into_inner();
        session::check_version(&request.version)?;
        session::check_protocol(request.oldest_protocol, request.protocol, &request.version)?;
        let now = Timestamp::from(SystemTime::now());
        check_clock(request.unix_seconds, now)
            .inspect_err(|_| self.context.metrics.joins.with_label_values(&["clock"]).inc())?;
        let (underlay, underlay_other) = (request.underlay, request.underlay_other);
        let node = v1::Node { name: request.node, underlay, underlay_other, ..v1::Node::default() };
        let node = Node::try_from(node).map_err(invalid)?;
        let key = ProvenKey::of_request(&request.csr).map_err(invalid)?;
        if !is_id(&request.token_id) {
            self.context.metrics.joins.with_label_values(&["malformed_token"]).inc();
            return Err(Status::unauthenticated(ParseTokenError.to_string()));
        }
        let secret =
            request.token_secret.parse().map_err(|error| Status::unauthenticated(format!("{error}")))?;
        let gone = self.context.registry.gone_from(node.underlay, None, now);
        let actor = Actor::Host(node.name.clone());
        let command = JoinNode { token: request.token_id, secret, node, key: key.fingerprint(), gone };
        let decided = self.context.writer.submit(actor, command).await;
        self.context.metrics.joins.with_label_values(&[result(&decided)]).inc();
        let Joined { record, displaced } = decided.map_err(|error| {
            if let Some(withheld) = self.context.refusals.pass(Instant::now()) {
                tracing::warn!(?from, %error, withheld, "join refused");
            }
            status_of(error)
        })?;
        tracing::info!(?from, node = %record.node.name, underlay = %record.node.underlay, "node joined");
        session::warn_displaced(displaced, record.node.underlay, &record.node.name);
        let certificate =
            self.sign(&key, Principal::Node(record.node.name), SerialPrefix::of_key(&record.key))?;
        Ok(Response::new(v1::JoinResponse {
            certificate: Some(certificate),
            trust_domain: self.authority.domain().to_string(),
            unix_seconds: now.unix(),
        }))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let node = self.node(&request)?;
        let key = ProvenKey::of_request(&request.into_inner().csr).map_err(invalid)?;
        // The key is how the host is known: a certificate for another one would be refused.
        let serials = self.serials(&node)?;
        if SerialPrefix::of_key(&key.fingerprint()) != serials {
            return Err(Status::invalid_argument(format!(
                "csr is signed by another key than node {node} joined with"
            )));
        }
        let certificate = self.sign(&key, Principal::Node(node), serials)?;
        Ok(Response::new(v1::RenewResponse { certificate: Some(certificate) }))
    }

    async fn carry(&self, request: Request<v1::CarryRequest>) -> Result<Response<v1::CarryResponse>, Status> {
        let node = self.node(&request)?;
        let v1::CarryRequest { network, blocks_held, ahead } = request.into_inner();
        let network: NetworkName = network.parse().map_err(invalid)?;
        let blocks_held = usize::try_from(blocks_held).unwrap_or(usize::MAX);
        let command = CarryNetwork { node: node.clone(), network: network.clone(), blocks_held };
        let actor = Actor::Host(node.clone());
        let carried = match ahead {
            true => self.context.writer.submit(actor, LeaseAhead(command)).await,
            false => self.context.writer.submit(actor, command).await,
        };
        if let Err(SubmitError::Refused(refusal)) = &carried
            && let Some(reason) = refusal.shortage().filter(|_| !ahead)
        {
            self.context.metrics.addresses_refused.with_label_values(&[reason]).inc();
            let now = SystemTime::now().into();
            let (registry, refused) = (&self.context.registry, (node.clone(), refusal.to_string()));
            registry.shortages.note(&registry.directory(), network.clone(), refused, now);
        }
        let carried = carried.map_err(status_of)?;
        self.context.registry.shortages.end(&network, &node);
        if carried.first {
            tracing::info!(%node, %network, "node carries a network that it did not carry before");
            self.context.metrics.first_carries.inc();
        }
        Ok(Response::new(v1::CarryResponse {
            network: Some((&carried.network).into()),
            blocks: carried.blocks.iter().map(Into::into).collect(),
        }))
    }

    async fn may_carry(
        &self,
        request: Request<v1::MayCarryRequest>,
    ) -> Result<Response<v1::MayCarryResponse>, Status> {
        let node = self.node(&request)?;
        let network: NetworkName = request.into_inner().network.parse().map_err(invalid)?;
        let actor = Actor::Host(node.clone());
        let network =
            self.context.writer.submit(actor, MayCarry { node, network }).await.map_err(status_of)?;
        Ok(Response::new(v1::MayCarryResponse { network: Some((&network).into()) }))
    }

    async fn sign(&self, request: Request<v1::SignRequest>) -> Result<Response<v1::SignResponse>, Status> {
        let node = self.node(&request)?;
        let v1::SignRequest { network, service, workload, csr } = request.into_inner();
        let principal = principal(&network, &service, &workload)?;
        let key = ProvenKey::of_request(&csr).map_err(invalid)?;
        if !self.context.registry.directory().runs(&node, &principal) {
            let what = if service.is_empty() { "workload" } else { "instance of service" };
            let name = if service.is_empty() { &workload } else { &service };
            return Err(Status::permission_denied(format!(
                "no {what} {name} of network {network} is registered on node {node}; \
                 the node must report it before it may have its identity"
            )));
        }
        let certificate = self.sign(&key, principal, self.serials(&node)?)?;
        Ok(Response::new(v1::SignResponse { certificate: Some(certificate) }))
    }

    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        let node = self.node(&request)?;
        let refused = documents::register(&self.context.writer, node, request.into_inner()).await?;
        Ok(Response::new(v1::RegisterResponse { refused }))
    }

    type SyncStream = ReceiverStream<Result<v1::ControlMessage, Status>>;

    async fn sync(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        // One that is not known may be one that a restored store has no record of.
        let opener = peer(&request)?.host(&self.context.registry.directory())?;
        let (down, messages) = mpsc::channel(CHANNEL);
        let session = session::serve(self.context.clone(), opener, request.into_inner(), down);
        // It ends with the stream or the drain.
        task::spawn("agent-stream", Box::pin(session)).detach();
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

/// Returns the peer that makes a call.
pub(super) fn peer<T>(request: &Request<T>) -> Result<&Peer, Status> {
    let peer = request.extensions().get::<Peer>();
    peer.ok_or_else(|| Status::internal("the connection does not say who it is from"))
}

/// Names the outcome of a join, in a word.
fn result(decided: &Result<Joined, SubmitError<JoinRefusal>>) -> &'static str {
    match decided {
        Ok(_) => "joined",
        Err(SubmitError::Refused(refusal)) => refusal.reason(),
        Err(SubmitError::Commit(_) | SubmitError::Busy | SubmitError::Stopped) => "store",
    }
}

fn principal(network: &str, service: &str, workload: &str) -> Result<Principal, Status> {
    let network = network.parse().map_err(invalid)?;
    match (service, workload) {
        ("", "") => Err(Status::invalid_argument("SignRequest names neither service nor workload")),
        ("", workload) => {
            let workload: WorkloadName = workload.parse().map_err(invalid)?;
            Ok(Principal::Workload(network, workload))
        }
        (service, "") => {
            let service: ServiceName = service.parse().map_err(invalid)?;
            Ok(Principal::Service(network, service))
        }
        (_, _) => Err(Status::invalid_argument("SignRequest names both service and workload")),
    }
}

/// A host whose clock is too far off could not use its certificate: it hears that instead.
fn check_clock(theirs: u64, now: Timestamp) -> Result<(), Status> {
    if theirs == 0 {
        return Ok(());
    }
    let theirs = Timestamp::from_unix(theirs);
    if now.since(theirs) <= CLOCK_SKEW && theirs.since(now) <= CLOCK_AHEAD {
        return Ok(());
    }
    let pair = ClockPair { clock: theirs.into(), reference: now.into() };
    Err(Status::failed_precondition(format!(
        "this host's clock {pair}, compared with the control plane's: certificates would not be valid; \
         hint: set it right (NTP) and join again"
    )))
}
