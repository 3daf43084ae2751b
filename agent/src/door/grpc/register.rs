//! `service register` and `deregister` of this host.

use sealane_proto::document::{Document, DocumentId};
use sealane_proto::wire::v1;
use tonic::{Code, Status};

use crate::registrar::{RegisterError, RegistrarHandle, Waits};

/// Registers the service that a document is about.
pub(super) async fn register(
    registrar: &RegistrarHandle,
    request: &v1::RegisterServiceRequest,
) -> Result<v1::RegisterServiceResponse, Status> {
    let document = Document::from_json(&request.document);
    let document = document.map_err(|error| Status::invalid_argument(error.to_string()))?;
    let kind = document.id().kind();
    let Document::Service(service) = document else {
        return Err(Status::invalid_argument(format!("a host registers services, not {}", kind.plural())));
    };
    registrar.register(service).await.map(said).map_err(|error| status(&error))
}

/// Ends what [`register`] began.
pub(super) async fn dismiss(
    registrar: &RegistrarHandle,
    request: &v1::DeregisterServiceRequest,
) -> Result<v1::RegisterServiceResponse, Status> {
    let invalid = |error: &dyn std::fmt::Display| Status::invalid_argument(error.to_string());
    let network = request.network.parse().map_err(|error| invalid(&error))?;
    let name = request.name.parse().map_err(|error| invalid(&error))?;
    let dismissed = registrar.dismiss(DocumentId::Service(network, name)).await;
    dismissed.map(said).map_err(|error| status(&error))
}

fn said(waits: Waits) -> v1::RegisterServiceResponse {
    v1::RegisterServiceResponse { waits: waits.unwrap_or_default() }
}

fn status(error: &RegisterError) -> Status {
    let code = match error {
        RegisterError::Refused(_) => Code::InvalidArgument,
        RegisterError::Elsewhere { .. } => Code::AlreadyExists,
        RegisterError::Missing(_) => Code::NotFound,
        RegisterError::Disk { .. } => Code::ResourceExhausted,
        RegisterError::Ending => Code::Unavailable,
    };
    Status::new(code, error.to_string())
}
