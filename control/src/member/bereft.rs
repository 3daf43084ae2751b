//! Service for people of a control plane whose mesh is not in the store any more: it changes nothing, and hands out what it knows.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use sealane_proto::wire::v1;
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use v1::admin_server::AdminServer;

use crate::api::{AdminApi, pieces};
use crate::roster::Roster;
use crate::start::clock;
use crate::store::LastKnown;

/// Answers calls that would change something.
#[derive(Clone)]
pub(super) struct Bereft {
    pub(super) last: LastKnown,
    pub(super) roster: watch::Receiver<Roster>,
}

/// Takes a backup of what is known.
struct Taking(LastKnown);

impl Service<http::Request<Body>> for Bereft {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path().ends_with("/Backup") {
            let taking = Taking(self.last.clone());
            return Box::pin(async move {
                let mut grpc = Grpc::new(ProstCodec::<v1::BackupResponse, v1::BackupRequest>::default());
                Ok(grpc.server_streaming(taking, request).await)
            });
        }
        let lost = self.roster.borrow().mesh_lost.clone().unwrap_or_default();
        Box::pin(ready(Ok(Status::unavailable(lost).into_http())))
    }
}

impl NamedService for Bereft {
    const NAME: &'static str = <AdminServer<AdminApi> as NamedService>::NAME;
}

impl ServerStreamingService<v1::BackupRequest> for Taking {
    type Response = v1::BackupResponse;
    type ResponseStream = tokio_stream::Iter<std::vec::IntoIter<Result<v1::BackupResponse, Status>>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, _request: Request<v1::BackupRequest>) -> Self::Future {
        let nothing = || {
            Status::unavailable(
                "this control plane knows nothing of the mesh but its name: it has not followed the store since it started; see whether \
                 `sealane backup` on another control host still has it",
            )
        };
        let backup = self.0.backup(clock()).ok_or_else(nothing);
        ready(backup.map(|bytes| Response::new(pieces(&bytes))))
    }
}
