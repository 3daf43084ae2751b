//! Views of the control planes that share a store, for people and for each other.

use sealane_proto::wire::v1;
use tonic::{Request, Response, Status};

use super::read::{ReadApi, own_view};

/// Serves views of control planes.
#[derive(Clone)]
pub(crate) struct ControlsApi {
    read: ReadApi,
    /// Address of this one, where it has the store alone.
    listens: String,
}

impl ControlsApi {
    pub(crate) fn new(read: ReadApi, listens: String) -> Self {
        Self { read, listens }
    }
}

#[tonic::async_trait]
impl v1::fellows_server::Fellows for ControlsApi {
    async fn list(
        &self,
        _request: Request<v1::ListControlsRequest>,
    ) -> Result<Response<v1::ListControlsResponse>, Status> {
        let own = own_view(&self.read);
        let controls = match &self.read.fellows {
            Some(fellows) => fellows.views(own),
            None => vec![v1::ControlView { address: self.listens.clone(), asked: true, ..own }],
        };
        Ok(Response::new(v1::ListControlsResponse { controls }))
    }

    async fn standing(
        &self,
        _request: Request<v1::StandingRequest>,
    ) -> Result<Response<v1::ControlView>, Status> {
        Ok(Response::new(own_view(&self.read)))
    }
}
