//! `run` and `exec`.

use std::sync::Arc;

use sealane_proto::types::WorkloadName;
use sealane_proto::wire::v1;
use sealane_proto::wire::v1::agent_server::Agent;
use sealane_sys::Process;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status};

use super::identity::identity;
use crate::certs::CertError;
use crate::host::AdmitError;
use crate::workload::{AttachError, Progress, RunSpec, Workloads};

/// The service.
#[derive(Debug)]
pub(crate) struct RunApi {
    workloads: Arc<Workloads>,
}

impl RunApi {
    /// The service over these workloads.
    #[must_use]
    pub(crate) fn new(workloads: Arc<Workloads>) -> Self {
        Self { workloads }
    }
}

/// The events of one `run`.
type Events = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::RunEvent, Status>> + Send>>;

#[tonic::async_trait]
impl Agent for RunApi {
    type RunStream = Events;

    async fn run(&self, request: Request<v1::RunRequest>) -> Result<Response<Events>, Status> {
        let process = caller(&request)?;
        let ports = self.workloads.context().ports;
        let spec = RunSpec::parse(request.into_inner(), ports);
        let spec = spec.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let (progress, events) = mpsc::channel(16);
        self.workloads.attach(spec, process, Progress(progress));
        let events = ReceiverStream::new(events).map(|event| event.map_err(|error| status(&error)));
        Ok(Response::new(Box::pin(events)))
    }

    async fn locate(&self, request: Request<v1::LocateRequest>) -> Result<Response<v1::Location>, Status> {
        let name: WorkloadName =
            request.into_inner().workload.parse().map_err(|error: sealane_proto::types::NameError| {
                Status::invalid_argument(error.to_string())
            })?;
        self.workloads.locate(&name).await.map(Response::new).map_err(Status::not_found)
    }

    async fn identity(
        &self,
        request: Request<v1::IdentityRequest>,
    ) -> Result<Response<v1::IdentityView>, Status> {
        identity(self.workloads.context(), &request.into_inner()).map(Response::new)
    }
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

fn status(error: &AttachError) -> Status {
    let text = error.to_string();
    match error {
        AttachError::Admit(AdmitError::UnknownNetwork(_)) | AttachError::NoNetwork(_) => {
            Status::not_found(text)
        }
        AttachError::Admit(AdmitError::Address { .. } | AdmitError::ForeignBlock { .. }) => {
            Status::invalid_argument(text)
        }
        AttachError::Admit(
            AdmitError::NameInUse { .. } | AdmitError::Ending(_) | AdmitError::MacInUse { .. },
        )
        | AttachError::Refused(_) => Status::already_exists(text),
        AttachError::Cert(CertError::Refused { .. }) => Status::permission_denied(text),
        AttachError::Cert(_) | AttachError::Setup { .. } | AttachError::Process(_) => Status::internal(text),
        AttachError::Disk(_) => Status::resource_exhausted(text),
        AttachError::Ending => Status::unavailable(text),
    }
}
