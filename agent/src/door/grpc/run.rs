//! `run`, `attach`, `detach` and `exec`.

use std::sync::Arc;
use std::time::Duration;

use sealane_proto::types::{NameError, WorkloadRef};
use sealane_proto::wire::v1;
use sealane_proto::wire::v1::agent_server::Agent;
use sealane_sys::Process;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status};

use super::identity::identity;
use super::words::{check_machine, hold, status, target, weight_change, wrong};
use super::{peers, register};
use crate::attachment::{AttachRequest, AttachSpec, Event, Progress, RequestFailure};
use crate::matrix::Matrix;
use crate::registrar::RegistrarHandle;
use crate::workload::{AttachError, Workloads};

/// The service.
#[derive(Debug)]
pub(crate) struct RunApi {
    workloads: Arc<Workloads>,
    registrar: RegistrarHandle,
    matrix: Arc<Matrix>,
}

impl RunApi {
    /// The service over these workloads, registrations and ways between hosts.
    #[must_use]
    pub(crate) fn new(workloads: Arc<Workloads>, registrar: RegistrarHandle, matrix: Arc<Matrix>) -> Self {
        Self { workloads, registrar, matrix }
    }

    fn spec(&self, request: v1::RunRequest) -> Result<AttachSpec, Status> {
        // What was begun at another agent may have a name from before some were refused.
        let again = request.again;
        let wanted = AttachRequest::try_from(request);
        let wanted =
            wanted.and_then(|wanted| if again { Ok(()) } else { wanted.check_names() }.map(|()| wanted));
        let spec = wanted.and_then(|wanted| AttachSpec::new(wanted, self.workloads.ports()));
        spec.map_err(|error| wrong(&error))
    }
}

/// The sidecars that were replaced, or not.
type Restarts =
    std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::SidecarRestarted, Status>> + Send>>;
/// The events of one `run`.
type Events = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::RunEvent, Status>> + Send>>;

#[tonic::async_trait]
impl Agent for RunApi {
    type RunStream = Events;
    type AttachStream = Events;
    type RestartSidecarsStream = Restarts;

    async fn peers(
        &self,
        _request: Request<v1::PeersRequest>,
    ) -> Result<Response<v1::PeersResponse>, Status> {
        Ok(Response::new(peers::seen(&self.matrix).await))
    }

    async fn run(&self, request: Request<v1::RunRequest>) -> Result<Response<Events>, Status> {
        let process = caller(&request)?;
        let request = request.into_inner();
        let again = request.again;
        let spec = self.spec(request)?;
        let (progress, events) = Progress::channel(16);
        self.workloads.run(spec, process, again, progress).map_err(refused)?;
        Ok(stream(events))
    }

    async fn attach(&self, request: Request<v1::AttachRequest>) -> Result<Response<Events>, Status> {
        let request = request.into_inner();
        let target = target(&request)?;
        let mut workload = request.workload.unwrap_or_default();
        if !request.tap.is_empty() {
            check_machine(&workload)?;
            workload.no_sidecar = true;
        }
        let spec = self.spec(workload)?;
        let (progress, events) = Progress::channel(16);
        self.workloads.attach(spec, target, progress).map_err(refused)?;
        Ok(stream(events))
    }

    async fn register_service(
        &self,
        request: Request<v1::RegisterServiceRequest>,
    ) -> Result<Response<v1::RegisterServiceResponse>, Status> {
        register::register(&self.registrar, request.get_ref()).await.map(Response::new)
    }

    async fn deregister_service(
        &self,
        request: Request<v1::DeregisterServiceRequest>,
    ) -> Result<Response<v1::RegisterServiceResponse>, Status> {
        register::dismiss(&self.registrar, request.get_ref()).await.map(Response::new)
    }

    async fn detach(
        &self,
        request: Request<v1::DetachRequest>,
    ) -> Result<Response<v1::DetachResponse>, Status> {
        let request = request.into_inner();
        let drain = Some(request.drain_milliseconds).filter(|drain| *drain > 0).map(Duration::from_millis);
        let gone = match hold(&request.holder)? {
            Some(hold) => {
                let gone = self.workloads.dismiss_after(&hold, drain).await;
                self.workloads.release(&hold).await.map_err(status)?;
                gone
            }
            None => {
                let name = reference(&request.workload)?;
                self.workloads.detach(&name, drain).await.map_err(Status::not_found)?
            }
        };
        Ok(Response::new(v1::DetachResponse { ending: !gone }))
    }

    async fn weigh(&self, request: Request<v1::WeighRequest>) -> Result<Response<v1::WeighResponse>, Status> {
        let request = request.into_inner();
        let name = reference(&request.workload)?;
        let change = weight_change(&request)?;
        let patience = Some(request.wait_milliseconds).filter(|wait| *wait > 0).map(Duration::from_millis);
        let weighed = self.workloads.weigh(&name, change, patience).await.map_err(status)?;
        Ok(Response::new(weighed.into()))
    }

    async fn restart_sidecars(
        &self,
        request: Request<v1::RestartSidecarsRequest>,
    ) -> Result<Response<Self::RestartSidecarsStream>, Status> {
        let wanted = request.into_inner().workload;
        let wanted = if wanted.is_empty() { None } else { Some(reference(&wanted)?) };
        let told = self.workloads.restart_sidecars(wanted.as_ref()).map_err(Status::not_found)?;
        Ok(Response::new(Box::pin(ReceiverStream::new(told).map(|restarted| Ok(restarted.into())))))
    }

    async fn locate(&self, request: Request<v1::LocateRequest>) -> Result<Response<v1::Location>, Status> {
        let request = request.into_inner();
        let located = match hold(&request.holder)? {
            Some(hold) => self.workloads.held_by(&hold).await,
            None => self.workloads.locate(&reference(&request.workload)?).await,
        };
        let located = located.map_err(Status::not_found)?;
        Ok(Response::new(located.into()))
    }

    async fn held(&self, request: Request<v1::HeldRequest>) -> Result<Response<v1::HeldResponse>, Status> {
        let prefix = request.into_inner().prefix;
        let held = self.workloads.held().into_iter().filter(|held| held.hold.as_str().starts_with(&prefix));
        Ok(Response::new(v1::HeldResponse { held: held.map(Into::into).collect() }))
    }

    async fn available(
        &self,
        request: Request<v1::AvailableRequest>,
    ) -> Result<Response<v1::AvailableResponse>, Status> {
        let network = request.into_inner().network;
        let network =
            network.parse().map_err(|error: NameError| Status::invalid_argument(error.to_string()))?;
        let network = self.workloads.available(&network).await.map_err(status)?;
        Ok(Response::new(v1::AvailableResponse { network: Some((&network).into()) }))
    }

    async fn identity(
        &self,
        request: Request<v1::IdentityRequest>,
    ) -> Result<Response<v1::IdentityView>, Status> {
        identity(&self.workloads, &request.into_inner()).map(Response::new)
    }
}

fn reference(text: &str) -> Result<WorkloadRef, Status> {
    text.parse().map_err(|error: NameError| Status::invalid_argument(error.to_string()))
}

fn stream(events: mpsc::Receiver<Result<Event, RequestFailure>>) -> Response<Events> {
    Response::new(Box::pin(ReceiverStream::new(events).map(|event| event.map(Into::into).map_err(status))))
}

fn refused(error: AttachError) -> Status {
    status(error.into())
}

/// The process at the other end of the socket.
fn caller(request: &Request<v1::RunRequest>) -> Result<Process, Status> {
    let peer = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
    let pid = peer.and_then(|peer| peer.pid()).and_then(|pid| u32::try_from(pid).ok());
    let pid = pid.ok_or_else(|| {
        Status::failed_precondition(
            "the agent cannot see the calling process: run it in the agent's pid namespace, or one below",
        )
    })?;
    Process::open(pid).map_err(|error| Status::failed_precondition(error.to_string()))
}
